//! The mean of all rows: `y[c] = sum_t x[t, c] / rows`.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: x, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("mean_rows", &[include_str!("mean_rows.wgsl")], &[Access::Read, Access::Write])]
}

/// The mean of `x`'s rows.
pub fn call(x: View) -> Call {
    let params = [x.rows, x.cols, x.offset, x.stride].map(|v| v as u32).to_vec();
    Call { kernel: ("mean_rows", None), params, groups: [x.cols.div_ceil(64) as u32, 1, 1] }
}

/// `x`: rows of `cols` elements.
pub fn reference(x: &[f32], cols: usize) -> Vec<f32> {
    let rows = (x.len() / cols) as f32;
    (0..cols).map(|c| x[c..].iter().step_by(cols).sum::<f32>() / rows).collect()
}

/// One and many rows, widths around a workgroup, a view; and the first row.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(13);
    for (rows, cols) in [(1, 4), (24, 64), (9, 100), (700, 65)] {
        let x: Vec<f32> = random.floats(rows * (cols + 3)).iter().map(|v| v + 0.5).collect();
        let inner: Vec<f32> = x.chunks_exact(cols + 3).flat_map(|r| &r[1..1 + cols]).copied().collect();
        for (name, expected) in [("mean_rows", reference(&inner, cols)), ("first_row", inner[..cols].to_vec())] {
            let actual = check::one_step(backend, 0, rows, |b| {
                let input = b.upload(cols + 3, &x);
                let view = b.columns(input, 1, cols);
                if name == "mean_rows" {
                    return b.mean_rows(view);
                }
                let first = b.first_row(view);
                b.scale(first, 1.0)
            })
            .await?;
            outcomes.push(Outcome { name: format!("{name} [{rows}, {cols}]"), expected, actual });
        }
    }
    Ok(outcomes)
}
