//! DoRA's lengths: each row of `W + s D`, with `D = B A` scaled, is given the length in the magnitude vector, so the outputs
//! of a row are multiplied by `m / |w + s d|` (Liu et al. 2024; as in PEFT, the length follows the adapter's scale `s`).
//! `|w + s d|^2 = w w + 2 s w d + s^2 d d`, so the base is read once and any scale is set without it.

use crate::{
    error::{Error, Result},
    ops::matmul::dot,
    quant::Plane,
    weights::{Checkpoint, TensorInfo, loader::Target},
};

/// Bytes of the base that are read at a time.
const PIECE: usize = 1 << 20;

/// What the factors of one tensor's rows are computed from, in the order of the weight's rows.
pub struct Lengths {
    name: String,
    start: usize,
    rows: Vec<Row>,
}

struct Row {
    magnitude: f64,
    ww: f64,
    wd: f64,
    dd: f64,
}

impl Lengths {
    /// Reads the base's rows of the tensor `name`. `a` is `[rank, cols]`; `b` is `[rows, rank]`, scaled and in the weight's
    /// order; `magnitude` is in the published order.
    pub async fn measure(base: &Checkpoint, name: &str, target: &Target, a: &[f32], b: &[f32], magnitude: &[f32]) -> Result<Lengths> {
        if target.transposed {
            return Err(Error::UnsupportedFormat(format!("a DoRA of {name:?}, which is published transposed")));
        }
        let (tensor, cols) = (base.tensor(name)?, target.cols);
        let rank = a.len() / cols;
        let gram: Vec<f64> = a.chunks_exact(cols).flat_map(|x| a.chunks_exact(cols).map(|y| f64::from(dot(x, y)))).collect();
        let mut own_b = b.chunks_exact(rank);
        let mut rows = Vec::new();
        let at_once = (PIECE / tensor.format.row_bytes(Plane::Values, cols)).max(1);
        for range in &target.order {
            for first in range.clone().step_by(at_once) {
                let last = range.end.min(first + at_once);
                let weights = unpack(base, tensor, first, last - first).await?;
                for ((w, b), m) in weights.chunks_exact(cols).zip(&mut own_b).zip(&magnitude[first..last]) {
                    let b: Vec<f64> = b.iter().map(|v| f64::from(*v)).collect();
                    let along = a.chunks_exact(cols).map(|a| f64::from(dot(w, a)));
                    let wd = b.iter().zip(along).map(|(b, a)| b * a).sum();
                    let dd = gram.chunks_exact(rank).zip(&b).map(|(row, x)| x * row.iter().zip(&b).map(|(g, y)| g * y).sum::<f64>()).sum();
                    rows.push(Row { magnitude: f64::from(*m), ww: f64::from(dot(w, w)), wd, dd });
                }
            }
        }
        Ok(Lengths { name: name.to_owned(), start: target.start, rows })
    }

    /// Writes this tensor's factors among those of the weight.
    pub fn factors(&self, scale: f32, all: &mut [f32]) -> Result<()> {
        let s = f64::from(scale);
        for (Row { magnitude, ww, wd, dd }, factor) in self.rows.iter().zip(&mut all[self.start..]) {
            let length = (ww + 2.0 * s * wd + s * s * dd).max(0.0).sqrt();
            *factor = (magnitude / length) as f32;
            if !factor.is_finite() {
                let message =
                    format!("a row of {:?} has the length {length} with the adapter's scale {scale}: a DoRA cannot be applied", self.name);
                return Err(Error::InvalidInput(message));
            }
        }
        Ok(())
    }
}

/// Rows of a tensor as floats.
async fn unpack(base: &Checkpoint, tensor: &TensorInfo, first: usize, count: usize) -> Result<Vec<f32>> {
    let (format, cols) = (tensor.format, tensor.cols());
    let values = base.read_rows(tensor, Plane::Values, first, count).await?;
    let scales = base.read_rows(tensor, Plane::Scales, first, count).await?;
    let row = |bytes: &'_ [u8], plane: Plane, index: usize| {
        let len = format.row_bytes(plane, cols);
        bytes[index * len..(index + 1) * len].to_vec()
    };
    let mut floats = vec![0.0; count * cols];
    for (index, out) in floats.chunks_exact_mut(cols).enumerate() {
        format.unpack_row(&row(&values, Plane::Values, index), &row(&scales, Plane::Scales, index), out);
    }
    Ok(floats)
}
