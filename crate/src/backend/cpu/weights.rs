//! A weight: rows are packed while their planes arrive.

use super::{pack::Packed, pool::Pool};
use crate::{
    backend::Segment,
    error::{Error, Result},
    quant::Plane,
};

/// Rows in segments.
#[derive(Default)]
pub struct Matrix {
    pub cols: usize,
    segments: Vec<Rows>,
    /// The first row of a matrix of one row: a norm's or a bias's numbers.
    vector: Vec<f32>,
}

struct Rows {
    packed: Packed,
    planes: [Arriving; 2],
}

/// A plane on its way: rows are packed as they arrive.
struct Arriving {
    row_bytes: usize,
    /// Rows that are packed.
    rows: usize,
    /// The beginning of the next row.
    begun: Vec<u8>,
}

impl Matrix {
    /// Without bytes.
    pub fn new(cols: usize, segments: &[Segment]) -> Result<Matrix> {
        let room = |segment: &Segment| -> Result<Rows> {
            let arriving = |plane| Arriving { row_bytes: segment.format.row_bytes(plane, cols), rows: 0, begun: Vec::new() };
            let planes = [arriving(Plane::Values), arriving(Plane::Scales)];
            Ok(Rows { packed: Packed::new(segment.format, segment.rows, cols)?, planes })
        };
        Ok(Matrix { cols, segments: segments.iter().map(room).collect::<Result<_>>()?, vector: Vec::new() })
    }

    /// Bytes of a segment's plane, which come in order.
    pub fn write(&mut self, index: usize, plane: Plane, offset: usize, mut bytes: &[u8], pool: &Pool) -> Result<()> {
        let refused =
            |what: &str| Error::InvalidInput(format!("{} bytes at {offset} of segment {index}, plane {plane:?}: {what}", bytes.len()));
        let Rows { packed, planes } = self.segments.get_mut(index).ok_or_else(|| refused("no such segment"))?;
        let Arriving { row_bytes, rows, begun } = &mut planes[usize::from(plane == Plane::Scales)];
        if offset != *rows * *row_bytes + begun.len() {
            return Err(refused("not where the bytes before it end"));
        }
        if offset.checked_add(bytes.len()).is_none_or(|end| end > packed.rows * *row_bytes) {
            return Err(refused("more than it holds"));
        }
        if !begun.is_empty() {
            let (rest, after) = bytes.split_at(bytes.len().min(*row_bytes - begun.len()));
            begun.extend(rest);
            bytes = after;
            if begun.len() < *row_bytes {
                return Ok(());
            }
            packed.write(plane, *rows, *row_bytes, begun, pool);
            *rows += 1;
            begun.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % (*row_bytes).max(1));
        if !whole.is_empty() {
            packed.write(plane, *rows, *row_bytes, whole, pool);
            *rows += whole.len() / *row_bytes;
        }
        begun.extend(rest);
        if self.rows() == 1 && self.segments[0].is_whole() {
            let mut vector = vec![0.0; self.cols];
            self.unpack_row(0, &mut vector);
            self.vector = vector;
        }
        Ok(())
    }

    /// Rows of all segments.
    pub fn rows(&self) -> usize {
        self.segments.iter().map(|rows| rows.packed.rows).sum()
    }

    /// The numbers of a matrix of one row.
    pub fn vector(&self) -> &[f32] {
        assert!(!self.vector.is_empty(), "a matrix where a vector is expected, or one that was not written");
        &self.vector
    }

    /// Whether some of its rows are quantised, written or not.
    pub fn is_quantised(&self) -> bool {
        self.segments.iter().any(|rows| rows.packed.group > 1)
    }

    /// The segments.
    pub fn packed(&self) -> impl Iterator<Item = &Packed> {
        self.segments.iter().map(|rows| {
            assert!(rows.is_whole(), "a weight is used before all its bytes were written");
            &rows.packed
        })
    }

    /// Row `row` in f32.
    pub fn unpack_row(&self, mut row: usize, out: &mut [f32]) {
        for packed in self.packed() {
            if row < packed.rows {
                return packed.unpack_row(row, out);
            }
            row -= packed.rows;
        }
        panic!("row {row} past the end of a weight");
    }
}

impl Rows {
    fn is_whole(&self) -> bool {
        self.planes.iter().all(|plane| plane.row_bytes == 0 || plane.rows == self.packed.rows)
    }
}
