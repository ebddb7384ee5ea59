//! Root mean square norm (Zhang and Sennrich 2019): `y = x / sqrt(mean(x^2) + eps) * w`, each row; where `w` is shorter than a
//! row, each head of `w`'s length.

use super::{
    check::{self, Outcome, Random},
    kernel::{self, Access, Call, Kernel, View},
};
use crate::{backend::Backend, error::Result, quant::Format};

/// Bindings: x, weight, y.
pub fn kernels() -> Vec<Kernel> {
    let bindings = [Access::Read, Access::Read, Access::Write];
    let shared = include_str!("rms_norm.wgsl");
    vec![
        Kernel::new("rms_norm_plain", &[shared, include_str!("rms_norm_plain.wgsl")], &bindings),
        Kernel::new("rms_norm_reduce", &[shared, include_str!("rms_norm_reduce.wgsl")], &bindings),
    ]
}

/// The norm of every head of `head` elements of `x`; `software` chooses the variant without barriers.
pub fn call(x: View, head: usize, eps: f32, software: bool) -> Call {
    let heads = x.cols / head;
    let norms = x.rows * heads;
    let params = [norms, head / 4, x.offset / 4, x.stride / 4, heads].map(|v| v as u32);
    let (name, per_group) = if software { ("rms_norm_plain", 4) } else { ("rms_norm_reduce", 1) };
    let [gx, gy] = kernel::fold(norms, per_group);
    Call { kernel: (name, None), params: [&params[..], &[eps.to_bits()]].concat(), groups: [gx, gy, 1] }
}

/// `x`: rows of `w.len()` elements.
pub fn reference(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    x.chunks_exact(w.len())
        .flat_map(|row| {
            let mean = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
            let factor = 1.0 / (mean + eps).sqrt();
            row.iter().zip(w).map(move |(v, w)| v * factor * w)
        })
        .collect()
}

/// Widths around a workgroup, one and many rows; and fused with the product that follows.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(3);
    for (rows, cols) in [(1, 4), (1, 64), (1, 576), (3, 80), (17, 260), (65, 1024)] {
        let (x, w) = (random.floats(rows * cols), random.floats(cols));
        let weight = check::vector(backend, &w)?;
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.rms_norm(input, weight, 1e-5)
        })
        .await?;
        outcomes.push(Outcome { name: format!("rms_norm [{rows}, {cols}]"), expected: reference(&x, &w, 1e-5), actual });

        let out = 37;
        let (matrix, dense) = check::random_weight(backend, &mut random, cols, &[(Format::Q4_1, out)]).await?;
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.norm_matmul(input, weight, 1e-5, matrix, None)
        })
        .await?;
        let expected = super::matmul::expected(backend, &[(Format::Q4_1, out)], &dense, cols, &reference(&x, &w, 1e-5), None, None);
        outcomes.push(Outcome { name: format!("norm_matmul [{rows}, {cols}] -> {out}"), expected, actual });
    }
    outcomes.push(of_heads(backend, &mut random).await?);
    Ok(outcomes)
}

/// Three heads of each row, of a view.
async fn of_heads(backend: &mut dyn Backend, random: &mut Random) -> Result<Outcome> {
    let (rows, head, cols) = (5, 16, 80);
    let (x, w) = (random.floats(rows * cols), random.floats(head));
    let weight = check::vector(backend, &w)?;
    let actual = check::one_step(backend, 0, rows, |b| {
        let input = b.upload(cols, &x);
        let view = b.columns(input, 16, 3 * head);
        b.rms_norm(view, weight, 1e-6)
    })
    .await?;
    let view: Vec<f32> = x.chunks_exact(cols).flat_map(|r| &r[16..16 + 3 * head]).copied().collect();
    Ok(Outcome { name: "rms_norm of heads".into(), expected: reference(&view, &w, 1e-6), actual })
}
