//! Weights in GPU buffers: a pair of planes per segment.

use super::memory::{Buffer, Memory};
use crate::{
    backend::Segment,
    error::{Error, Result},
    quant::{Format, Plane},
};

/// A weight.
#[derive(Default)]
pub struct Matrix {
    pub cols: usize,
    pub rows: usize,
    /// Runs of rows in buffers of their own.
    pub parts: Vec<Part>,
    /// Where each segment of the contract lies: its part, its first row in it, and its rows.
    places: Vec<(usize, usize, usize)>,
}

/// Rows of one format in one pair of buffers.
pub struct Part {
    pub format: Format,
    pub first: usize,
    pub rows: usize,
    pub values: Buffer,
    pub scales: Option<Buffer>,
}

impl Part {
    /// The planes, as kernels bind them.
    pub fn planes(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.values).chain(&self.scales)
    }
}

impl Matrix {
    /// Allocates. Neighbouring segments of a format share a part while it fits: one dispatch instead of several.
    pub fn new(memory: &Memory, max_plane: usize, cols: usize, segments: &[Segment]) -> Result<Matrix> {
        let rows: usize = segments.iter().map(|s| s.rows).sum();
        if rows > 1 && !cols.is_multiple_of(4) {
            return Err(Error::UnsupportedFormat(format!("a weight of {cols} columns: the GPU backend needs a multiple of 4")));
        }
        let mut runs: Vec<(Format, usize)> = Vec::new();
        let mut places = Vec::new();
        for segment in segments {
            match runs.last_mut() {
                Some((format, held)) if *format == segment.format && joins(*format, cols, *held, segment.rows, max_plane) => {
                    places.push((runs.len() - 1, runs[runs.len() - 1].1, segment.rows));
                    runs.last_mut().expect("a run").1 += segment.rows;
                }
                _ => {
                    places.push((runs.len(), 0, segment.rows));
                    runs.push((segment.format, segment.rows));
                }
            }
        }
        let mut parts = Vec::new();
        let mut first = 0;
        for (format, rows) in runs {
            let bytes = |plane| {
                let bytes = rows.saturating_mul(format.row_bytes(plane, cols));
                if bytes > max_plane {
                    return Err(Error::OutOfMemory(format!("{rows} x {cols} {} do not fit a buffer of {max_plane} bytes", format.name())));
                }
                Ok(bytes)
            };
            let values = memory.storage("values", bytes(Plane::Values)?);
            let scales = bytes(Plane::Scales)?;
            let scales = format.is_quantised().then(|| memory.storage("scales", scales));
            parts.push(Part { format, first, rows, values, scales });
            first += rows;
        }
        Ok(Matrix { cols, rows, parts, places })
    }

    /// The buffer of a segment's plane, the byte at which it starts there, and its bytes.
    pub fn place(&self, segment: usize, plane: Plane) -> Option<(&Buffer, usize, usize)> {
        let &(part, first, rows) = self.places.get(segment)?;
        let part = &self.parts[part];
        let buffer = match plane {
            Plane::Values => &part.values,
            Plane::Scales => part.scales.as_ref()?,
        };
        let row = part.format.row_bytes(plane, self.cols);
        Some((buffer, first * row, rows * row))
    }
}

/// Whether `more` rows can follow `held` rows in one part: they fit, and start at a word in both planes.
fn joins(format: Format, cols: usize, held: usize, more: usize, max_plane: usize) -> bool {
    [Plane::Values, Plane::Scales].into_iter().all(|plane| {
        let row = format.row_bytes(plane, cols);
        (held * row).is_multiple_of(4) && (held + more).checked_mul(row).is_some_and(|bytes| bytes <= max_plane)
    })
}
