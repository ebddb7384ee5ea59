//! 4 bits with a minimum, groups of 32: `w = scale * q + minimum`, as GGUF's Q4_1.

use half::f16;

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, interleave_nibbles, put_fields, scale_minimum},
};
use crate::error::Result;

/// `values` as in `q4_0`; `scales`: scale and minimum, two f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q4_1",
    planes: Format::Q4_1,
    bits: 4,
    group: 32,
    scales: Scales::ScaleMinimum,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 15,
        signed: false,
        offset: 0,
        minima: true,
        codes: |values, out| codes(values, 16, out, 32, |bytes, i| field(bytes, 4, i) as i8),
        scale: scale_minimum,
    }),
    pack: Some(pack),
    ggml: Ggml { id: 3, elements: 32, bytes: 20, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("nibbles.wgsl"), include_str!("scale_minimum.wgsl"), include_str!("q4_1.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, nibbles)) in out.chunks_mut(32).zip(values.chunks(16)).enumerate() {
        let (scale, minimum) = (f16_at(scales, 2 * g), f16_at(scales, 2 * g + 1));
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * f32::from(field(nibbles, 4, i)) + minimum;
        }
    }
}

/// Rounds to nearest with the scale and minimum that lose least.
fn pack(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for group in row.chunks(32) {
        // A short last group is fitted as if it went on with its last element.
        let elements: [f32; 32] = std::array::from_fn(|i| group[i.min(group.len() - 1)]);
        let (scale, minimum) = fit(&elements);
        let q = levels(&elements, scale.to_f32(), minimum.to_f32()).map(|q| q as u8);
        put_fields(&q, 0, 4, values);
        scales.extend(scale.to_le_bytes());
        scales.extend(minimum.to_le_bytes());
    }
}

/// In how many steps a group's range is cut for a try. There are 15: with fewer the ends move inwards, with more they are cut off.
const STEPS: [f32; 9] = [14.0, 14.25, 14.5, 14.75, 15.0, 15.25, 15.5, 15.75, 16.0];

/// Scale and minimum with the least squared error among: those that reach from the smallest to the largest element, and for each of
/// [`STEPS`] the least-squares line through the elements that are rounded with so many. On weights that leaves three quarters of
/// the squared error of the first alone.
fn fit(x: &[f32; 32]) -> (f16, f16) {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let mut best = (f16::from_f32((high - low) / 15.0), f16::from_f32(low));
    let mut least = squared_error(x, best);
    for steps in STEPS {
        let (scale, minimum) = line(x, &levels(x, (high - low) / steps, low), low);
        let tried = (f16::from_f32(scale), f16::from_f32(minimum));
        let error = squared_error(x, tried);
        // Not so where a line through equal elements, or one that leaves f16's range, is no number.
        if error < least {
            (best, least) = (tried, error);
        }
    }
    best
}

/// `round((x - minimum) / scale)`, from 0 to 15. Adding and subtracting 1.5 * 2^23 rounds a small float, faster than `round`.
fn levels(x: &[f32; 32], scale: f32, minimum: f32) -> [f32; 32] {
    const ROUND: f32 = 12_582_912.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    x.map(|v| (((v - minimum) * inverse).clamp(0.0, 15.0) + ROUND) - ROUND)
}

/// The `(scale, minimum)` with least `sum((scale * q + minimum - x)^2)`; sums are of `x - low`, which keeps them exact where elements are
/// large and close together.
fn line(x: &[f32; 32], q: &[f32; 32], low: f32) -> (f32, f32) {
    let (n, sum_q, sum_qq) = (32.0, sum(|i| q[i]), sum(|i| q[i] * q[i]));
    let (sum_x, sum_qx) = (sum(|i| x[i] - low), sum(|i| q[i] * (x[i] - low)));
    let scale = (n * sum_qx - sum_q * sum_x) / (n * sum_qq - sum_q * sum_q);
    (scale, low + (sum_x - scale * sum_q) / n)
}

fn squared_error(x: &[f32; 32], (scale, minimum): (f16, f16)) -> f32 {
    let (scale, minimum) = (scale.to_f32(), minimum.to_f32());
    let q = levels(x, scale, minimum);
    sum(|i| (scale * q[i] + minimum - x[i]).powi(2))
}

/// The sum of a group's terms, in eight lanes, which is how a vector unit adds.
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for i in 0..32 {
        lanes[i % 8] += term(i);
    }
    lanes.iter().sum()
}

/// ggml's block: scale f16, minimum f16, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(20) {
        scales.extend(&block[..4]);
        interleave_nibbles(&block[4..], values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Squared errors of a row as it is packed, and with each group's range cut in 15.
    fn errors(row: &[f32]) -> (f32, f32) {
        let (mut values, mut scales, mut out) = (Vec::new(), Vec::new(), vec![0.0; row.len()]);
        pack(row, &mut values, &mut scales);
        unpack(&values, &scales, &mut out);
        let range = |x: &[f32; 32]| {
            let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
            squared_error(x, (f16::from_f32((high - low) / 15.0), f16::from_f32(low)))
        };
        (row.iter().zip(&out).map(|(a, b)| (a - b).powi(2)).sum(), row.as_chunks().0.iter().map(range).sum())
    }

    #[test]
    fn the_fit_pays_on_a_bell_curve() {
        // Sums of four hashes.
        let hash = |i: u32| (i.wrapping_mul(0x9E37_79B9) ^ 0x5bd1_e995).wrapping_mul(0x85EB_CA6B) >> 8;
        let row: Vec<f32> = (0..32_768).map(|i| (0..4).map(|j| hash(4 * i + j) as f32 / (1 << 24) as f32 - 0.5).sum()).collect();
        let (fitted, ends) = errors(&row);
        assert!(fitted < 0.82 * ends, "{fitted} of {ends}");
    }

    #[test]
    fn odd_groups_are_no_worse_for_it() {
        let group = |f: &dyn Fn(i32) -> f32| (0..32).map(f).collect::<Vec<f32>>();
        for row in [
            group(&|_| 0.0),
            group(&|_| -3.7),
            group(&|i| if i == 5 { 1.0 } else { 0.0 }),
            group(&|i| if i == 5 { 65504.0 } else { -65504.0 }),
            group(&|i| 1000.0 + i as f32 * 1e-3),
            group(&|i| i as f32 * 1e-9),
            group(&|i| i as f32 * 1e-42),
            group(&|i| (i % 16) as f32 * 0.25 - 1.0),
        ] {
            let (fitted, ends) = errors(&row);
            assert!(fitted.is_finite() && fitted <= ends, "{row:?}: {fitted} of {ends}");
        }
    }
}
