//! Layer norm (Ba et al. 2016): `y = (x - mean(x)) / sqrt(variance(x) + eps) * w + b`, each row.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result};

/// Bindings: x, weight, bias, y.
pub fn kernels() -> Vec<Kernel> {
    let bindings = [Access::Read, Access::Read, Access::Read, Access::Write];
    let shared = include_str!("layer_norm.wgsl");
    vec![
        Kernel::new("layer_norm_plain", &[shared, include_str!("layer_norm_plain.wgsl")], &bindings),
        Kernel::new("layer_norm_reduce", &[shared, include_str!("layer_norm_reduce.wgsl")], &bindings),
    ]
}

/// The norm of every row of `x`; `software` chooses the variant without barriers.
pub fn call(x: View, bias: bool, eps: f32, software: bool) -> Call {
    let params = [x.rows, x.cols / 4, x.offset / 4, x.stride / 4, usize::from(bias)].map(|v| v as u32);
    let (name, groups) = if software { ("layer_norm_plain", x.rows.div_ceil(4)) } else { ("layer_norm_reduce", x.rows) };
    Call { kernel: (name, None), params: [&params[..], &[eps.to_bits()]].concat(), groups: [groups as u32, 1, 1] }
}

/// `x`: rows of `w.len()` elements.
pub fn reference(x: &[f32], w: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(w.len()) {
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / row.len() as f32;
        let factor = 1.0 / (variance + eps).sqrt();
        y.extend(row.iter().zip(w).enumerate().map(|(i, (v, w))| (v - mean) * factor * w + bias.map_or(0.0, |b| b[i])));
    }
    y
}

/// Widths around a workgroup, one and many rows, with and without bias, far from zero.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(11);
    for (rows, cols, shift) in [(1, 4, 0.0), (1, 64, 3.0), (3, 80, 0.0), (17, 260, -2.0), (65, 768, 0.5)] {
        let x: Vec<f32> = random.floats(rows * cols).iter().map(|v| v + shift).collect();
        let (w, bias) = (random.floats(cols), (rows % 2 == 1).then(|| random.floats(cols)));
        let weight = check::vector(backend, &w)?;
        let bias_weight = bias.as_ref().map(|b| check::vector(backend, b)).transpose()?;
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.layer_norm(input, weight, bias_weight, 1e-5)
        })
        .await?;
        outcomes.push(Outcome { name: format!("layer_norm [{rows}, {cols}]"), expected: reference(&x, &w, bias.as_deref(), 1e-5), actual });
    }
    Ok(outcomes)
}
