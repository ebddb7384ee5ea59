//! A weight, row by row.

use crate::{
    backend::Segment,
    error::{Error, Result},
    quant::{Format, Plane},
};

/// A weight as it was written: rows in segments, packed.
#[derive(Default)]
pub struct Matrix {
    pub cols: usize,
    segments: Vec<PackedRows>,
}

struct PackedRows {
    format: Format,
    rows: usize,
    values: Vec<u8>,
    scales: Vec<u8>,
}

impl PackedRows {
    fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let cols = out.len();
        let plane = |bytes: &[u8], plane| {
            let len = self.format.row_bytes(plane, cols);
            row * len..(row * len + len).min(bytes.len())
        };
        let values = &self.values[plane(&self.values, Plane::Values)];
        let scales = &self.scales[plane(&self.scales, Plane::Scales)];
        self.format.unpack_row(values, scales, out);
    }
}

impl Matrix {
    /// Room for `segments`, all zero.
    pub fn new(cols: usize, segments: &[Segment]) -> Result<Matrix> {
        let room = |s: &Segment, plane| zeros(s.rows.checked_mul(s.format.row_bytes(plane, cols)));
        let packed = |s: &Segment| -> Result<PackedRows> {
            Ok(PackedRows { format: s.format, rows: s.rows, values: room(s, Plane::Values)?, scales: room(s, Plane::Scales)? })
        };
        Ok(Matrix { cols, segments: segments.iter().map(packed).collect::<Result<_>>()? })
    }

    /// Writes `bytes` at byte `offset` of a segment's plane.
    pub fn write(&mut self, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) {
        let segment = &mut self.segments[segment];
        let target = match plane {
            Plane::Values => &mut segment.values,
            Plane::Scales => &mut segment.scales,
        };
        target[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub fn rows(&self) -> usize {
        self.segments.iter().map(|s| s.rows).sum()
    }

    pub fn unpack_row(&self, mut row: usize, out: &mut [f32]) {
        for segment in &self.segments {
            if row < segment.rows {
                return segment.unpack_row(row, out);
            }
            row -= segment.rows;
        }
        panic!("row {row} past the end of a weight");
    }

    pub fn vector(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.cols];
        self.unpack_row(0, &mut out);
        out
    }
}

/// So many zero bytes, or an error rather than the end of the process.
fn zeros(bytes: Option<usize>) -> Result<Vec<u8>> {
    let mut plane = Vec::new();
    let bytes = bytes.filter(|&n| plane.try_reserve_exact(n).is_ok());
    let bytes = bytes.ok_or_else(|| Error::OutOfMemory("the weights do not fit this process's memory".into()))?;
    plane.resize(bytes, 0);
    Ok(plane)
}
