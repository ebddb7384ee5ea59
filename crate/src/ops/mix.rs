//! Sum of experts' outputs: `y[t] = sum_s w[t][s] * x[t * per_row + s] (+ residual[t])`.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Backend, Routing},
    error::Result,
};

/// Bindings: x, weights, residual, y.
pub fn kernels() -> Vec<Kernel> {
    use Access::{Read, Write};
    vec![Kernel::new("mix", &[include_str!("mix.wgsl")], &[Read, Read, Read, Write])]
}

/// The sum for `rows` rows.
pub fn call(x: View, rows: usize, residual: Option<View>) -> Call {
    let add = residual.unwrap_or(View::whole(0, 0));
    let params = [x.cols, x.rows / rows, x.offset, x.stride, usize::from(residual.is_some()), add.offset, add.stride];
    Call { kernel: ("mix", None), params: params.map(|v| v as u32).to_vec(), groups: [x.cols.div_ceil(64) as u32, rows as u32, 1] }
}

/// `x`: rows of `cols`, one for each of `weights`; `per_row` of them make a row of the result.
pub fn reference(x: &[f32], cols: usize, weights: &[f32], per_row: usize, residual: Option<&[f32]>) -> Vec<f32> {
    let mut y = residual.map_or_else(|| vec![0.0; weights.len() / per_row * cols], <[f32]>::to_vec);
    for (i, (row, weight)) in x.chunks_exact(cols).zip(weights).enumerate() {
        for (sum, v) in y[i / per_row * cols..].iter_mut().zip(row) {
            *sum += weight * v;
        }
    }
    y
}

/// Widths around a workgroup, with residual and without.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(13);
    for (rows, cols, per_row, with_residual) in [(1, 64, 2, true), (3, 100, 4, false), (9, 65, 8, true), (2, 4, 1, false)] {
        let routing = Routing { per_row, normalise: true };
        let (logits, x) = (random.floats(rows * 8), random.floats(rows * per_row * cols));
        let residual = with_residual.then(|| random.floats(rows * cols));
        let actual = check::one_step(backend, 0, rows, |b| {
            let (logits, x) = (b.upload(8, &logits), b.upload(cols, &x));
            let residual = residual.as_ref().map(|r| b.upload(cols, r));
            let routes = b.route(logits, routing);
            b.mix(x, routes, residual)
        })
        .await?;
        let (_, weights) = super::route::reference(&logits, 8, routing);
        outcomes.push(Outcome {
            name: format!("mix [{rows} x {per_row}, {cols}], residual {with_residual}"),
            expected: reference(&x, cols, &weights, per_row, residual.as_deref()),
            actual,
        });
    }
    Ok(outcomes)
}
