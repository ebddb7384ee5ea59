//! How the rows of a weight are cut into segments.

use super::Source;
use crate::{backend::Segment, quant::Plane};

/// Cuts tensors into segments: neighbours of one format share a segment while each write stays word-aligned; no plane of a
/// segment is larger than `max_plane_bytes`. A segment that is full holds a multiple of `unit` rows if that many fit.
pub fn segments<'t>(rows_of: &[Source<'t>], cols: usize, max_plane_bytes: usize, unit: usize) -> (Vec<Segment>, Vec<Vec<Source<'t>>>) {
    let mut segments: Vec<Segment> = Vec::new();
    let mut sources: Vec<Vec<Source<'t>>> = Vec::new();
    for Source { tensor, rows } in rows_of {
        let format = tensor.format;
        let aligned = |rows: usize| (rows * format.row_bytes(Plane::Scales, cols)).is_multiple_of(4);
        // A multiple of four rows keeps the scales of the next segment word-aligned in their file as well.
        let most = (max_plane_bytes / format.row_bytes(Plane::Values, cols)).max(4) & !3;
        let unit = [unit, 2 * unit, 4 * unit].into_iter().find(|rows| rows.is_multiple_of(4)).unwrap_or(4);
        let most = if most >= unit { most / unit * unit } else { most };
        let mut from = rows.start;
        while from < rows.end {
            let room = match segments.last() {
                Some(last) if last.format == format && aligned(last.rows) => most.saturating_sub(last.rows),
                _ => 0,
            };
            let (fits, extend) = if room > 0 { (room, true) } else { (most, false) };
            let to = rows.end.min(from + fits);
            let source = Source { tensor, rows: from..to };
            if extend {
                segments.last_mut().expect("room in it").rows += to - from;
                sources.last_mut().expect("room in it").push(source);
            } else {
                segments.push(Segment { format, rows: to - from });
                sources.push(vec![source]);
            }
            from = to;
        }
    }
    (segments, sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quant::Format, weights::TensorInfo};

    fn tensor(format: Format, rows: usize, cols: usize) -> TensorInfo {
        TensorInfo { format, shape: vec![rows, cols], values: vec![], scales: vec![] }
    }

    fn rows_of(tensors: &[&TensorInfo], cols: usize, max: usize) -> Vec<(Format, usize)> {
        units_of(tensors, cols, max, 1)
    }

    fn units_of(tensors: &[&TensorInfo], cols: usize, max: usize, unit: usize) -> Vec<(Format, usize)> {
        let whole: Vec<_> = tensors.iter().map(|tensor| Source { tensor, rows: 0..tensor.rows() }).collect();
        let (segments, sources) = segments(&whole, cols, max, unit);
        for (segment, sources) in segments.iter().zip(&sources) {
            assert_eq!(segment.rows, sources.iter().map(|s| s.rows.len()).sum::<usize>());
        }
        segments.iter().map(|s| (s.format, s.rows)).collect()
    }

    #[test]
    fn neighbours_of_one_format_share_a_segment() {
        let (q, k, v) = (tensor(Format::Q4_1, 64, 64), tensor(Format::Q4_1, 32, 64), tensor(Format::Q8_0, 32, 64));
        assert_eq!(rows_of(&[&q, &k, &v], 64, 1 << 20), [(Format::Q4_1, 96), (Format::Q8_0, 32)]);
    }

    #[test]
    fn an_odd_number_of_half_word_scales_ends_a_segment() {
        // 32 columns of q8_0 have 2 bytes of scales: after 3 rows the next write would start inside a word.
        let (a, b) = (tensor(Format::Q8_0, 3, 32), tensor(Format::Q8_0, 4, 32));
        assert_eq!(rows_of(&[&a, &b], 32, 1 << 20), [(Format::Q8_0, 3), (Format::Q8_0, 4)]);
    }

    #[test]
    fn a_large_tensor_is_split_by_rows() {
        // 1,000 bytes hold 7 rows of 128 bytes; a multiple of four: 4.
        let a = tensor(Format::F32, 20, 32);
        assert_eq!(rows_of(&[&a], 32, 1000), [(Format::F32, 4); 5]);
    }

    #[test]
    fn a_large_stack_is_split_between_experts() {
        // 2,000 bytes hold 15 rows of 128 bytes; a multiple of 4: 12. That is two experts of 6 rows, one of 8 and no whole one of 14.
        let a = tensor(Format::F32, 28, 32);
        assert_eq!(units_of(&[&a, &a], 32, 2000, 8), [(Format::F32, 8); 7]);
        assert_eq!(units_of(&[&a], 32, 2000, 6), [(Format::F32, 12), (Format::F32, 12), (Format::F32, 4)]);
        assert_eq!(units_of(&[&a], 32, 2000, 14), [(Format::F32, 12), (Format::F32, 12), (Format::F32, 4)]);
    }
}
