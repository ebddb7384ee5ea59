//! A factor for each column: `y[t][o] = x[t][o] * factors[o] (+ bias[o]) (+ residual[t][o])`.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: x, y, factors, bias, residual.
pub fn kernels() -> Vec<Kernel> {
    let bindings = [Access::Read, Access::Write, Access::Read, Access::Read, Access::Read];
    vec![Kernel::new("scale_columns", &[include_str!("scale_columns.wgsl")], &bindings)]
}

/// Of every column of `x`.
pub fn call(x: View, bias: bool, residual: Option<View>) -> Call {
    let add = residual.unwrap_or(View::whole(0, 0));
    let params = [x.cols, x.offset, x.stride, usize::from(bias), usize::from(residual.is_some()), add.offset, add.stride];
    let groups = [x.cols.div_ceil(64) as u32, x.rows as u32, 1];
    Call { kernel: ("scale_columns", None), params: params.map(|v| v as u32).to_vec(), groups }
}

/// `x`: rows as long as `factors`.
pub fn reference(x: &[f32], factors: &[f32], bias: Option<&[f32]>, residual: Option<&[f32]>) -> Vec<f32> {
    let cols = factors.len();
    let term = |from: Option<&[f32]>, index: usize| from.map_or(0.0, |values| values[index]);
    x.iter().enumerate().map(|(i, x)| x * factors[i % cols] + term(bias, i % cols) + term(residual, i)).collect()
}

/// Widths around a workgroup; a view; bias, residual and both.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(21);
    for (rows, cols, with_bias, with_residual) in [(1, 4, false, false), (3, 65, true, false), (9, 100, false, true), (2, 64, true, true)] {
        let (wide, factors) = (random.floats(rows * (cols + 4)), random.floats(cols));
        let bias = with_bias.then(|| random.floats(cols));
        let residual = with_residual.then(|| random.floats(rows * cols));
        let weight = check::vector(backend, &factors)?;
        let bias_weight = bias.as_ref().map(|b| check::vector(backend, b)).transpose()?;
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols + 4, &wide);
            let view = b.columns(input, 4, cols);
            let add = residual.as_ref().map(|r| b.upload(cols, r));
            b.scale_columns(view, weight, bias_weight, add)
        })
        .await?;
        let x: Vec<f32> = wide.chunks_exact(cols + 4).flat_map(|r| &r[4..]).copied().collect();
        let expected = reference(&x, &factors, bias.as_deref(), residual.as_deref());
        outcomes.push(Outcome {
            name: format!("scale_columns [{rows}, {cols}], bias {with_bias}, residual {with_residual}"),
            expected,
            actual,
        });
    }
    Ok(outcomes)
}
