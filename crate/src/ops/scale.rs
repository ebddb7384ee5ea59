//! Multiplication by a number: `y = x * factor`.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: x, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("scale", &[include_str!("pointwise.wgsl"), include_str!("scale.wgsl")], &[Access::Read, Access::Write])]
}

/// Of every element of `x`.
pub fn call(x: View, factor: f32) -> Call {
    let params = vec![x.cols as u32, x.offset as u32, x.stride as u32, factor.to_bits()];
    Call { kernel: ("scale", None), params, groups: [x.cols.div_ceil(64) as u32, x.rows as u32, 1] }
}

/// Element by element.
pub fn reference(x: &[f32], factor: f32) -> Vec<f32> {
    x.iter().map(|x| x * factor).collect()
}

/// Widths around a workgroup, small and large values.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(9);
    for (rows, cols, factor) in [(1, 4, 2.0), (3, 65, -0.125), (9, 100, 1e-3)] {
        let x: Vec<f32> = random.floats(rows * cols).iter().map(|v| v * 90.0).collect();
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.scale(input, factor)
        })
        .await?;
        outcomes.push(Outcome { name: format!("scale [{rows}, {cols}] {factor}"), expected: reference(&x, factor), actual });
    }
    Ok(outcomes)
}
