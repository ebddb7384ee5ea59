//! Soft cap (Gemma 2): `y = cap * tanh(x / cap)`.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: x, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("softcap", &[include_str!("pointwise.wgsl"), include_str!("softcap.wgsl")], &[Access::Read, Access::Write])]
}

/// Of every element of `x`.
pub fn call(x: View, cap: f32) -> Call {
    let params = vec![x.cols as u32, x.offset as u32, x.stride as u32, cap.to_bits()];
    Call { kernel: ("softcap", None), params, groups: [x.cols.div_ceil(64) as u32, x.rows as u32, 1] }
}

/// Element by element.
pub fn reference(x: &[f32], cap: f32) -> Vec<f32> {
    x.iter().map(|x| cap * (x / cap).tanh()).collect()
}

/// Widths around a workgroup, small and large values.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(9);
    for (rows, cols, cap) in [(1, 4, 30.0), (3, 65, 10.0), (9, 100, 1.0)] {
        let x: Vec<f32> = random.floats(rows * cols).iter().map(|v| v * 90.0).collect();
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.softcap(input, cap)
        })
        .await?;
        outcomes.push(Outcome { name: format!("softcap [{rows}, {cols}] {cap}"), expected: reference(&x, cap), actual });
    }
    Ok(outcomes)
}
