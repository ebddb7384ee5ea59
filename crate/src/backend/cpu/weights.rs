//! A weight: planes while they arrive, packed when they are whole.

use super::pack::{Packed, zeros};
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

enum Rows {
    Arriving { segment: Segment, planes: [Vec<u8>; 2], missing: usize },
    Whole(Packed),
}

impl Matrix {
    /// Without bytes.
    pub fn new(cols: usize, segments: &[Segment]) -> Result<Matrix> {
        let arriving = |segment: &Segment| -> Result<Rows> {
            let room = |plane| zeros(segment.rows.checked_mul(segment.format.row_bytes(plane, cols)));
            let planes: [Vec<u8>; 2] = [room(Plane::Values)?, room(Plane::Scales)?];
            let missing = planes.iter().map(Vec::len).sum();
            Ok(Rows::Arriving { segment: *segment, planes, missing })
        };
        Ok(Matrix { cols, segments: segments.iter().map(arriving).collect::<Result<_>>()?, vector: Vec::new() })
    }

    /// Bytes of a segment's plane; the segment is packed when all are there.
    pub fn write(&mut self, index: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()> {
        let refused =
            |what: &str| Error::InvalidInput(format!("{} bytes at {offset} of segment {index}, plane {plane:?}: {what}", bytes.len()));
        let rows = self.segments.get_mut(index).ok_or_else(|| refused("no such segment"))?;
        let Rows::Arriving { segment, planes, missing } = rows else { return Err(refused("it was whole already")) };
        let target = &mut planes[usize::from(plane == Plane::Scales)];
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= target.len() && bytes.len() <= *missing);
        let end = end.ok_or_else(|| refused("more than it holds"))?;
        target[offset..end].copy_from_slice(bytes);
        *missing -= bytes.len();
        if *missing == 0 {
            let [values, scales] = std::mem::take(planes);
            let packed = Packed::new(segment.format, segment.rows, self.cols, &values, &scales)?;
            *rows = Rows::Whole(packed);
            if self.rows() == 1 {
                let mut vector = vec![0.0; self.cols];
                self.unpack_row(0, &mut vector);
                self.vector = vector;
            }
        }
        Ok(())
    }

    /// Rows of all segments.
    pub fn rows(&self) -> usize {
        let of = |rows: &Rows| match rows {
            Rows::Arriving { segment, .. } => segment.rows,
            Rows::Whole(packed) => packed.rows,
        };
        self.segments.iter().map(of).sum()
    }

    /// The numbers of a matrix of one row.
    pub fn vector(&self) -> &[f32] {
        assert!(!self.vector.is_empty(), "a matrix where a vector is expected, or one that was not written");
        &self.vector
    }

    /// The segments.
    pub fn packed(&self) -> impl Iterator<Item = &Packed> {
        self.segments.iter().map(|rows| match rows {
            Rows::Whole(packed) => packed,
            Rows::Arriving { .. } => panic!("a weight is used before all its bytes were written"),
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
