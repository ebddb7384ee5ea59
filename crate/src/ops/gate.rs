//! Gate of a gated MLP (Shazeer 2020): `y = activation(gate) * up`, where a row of `x` is `gate | up`; gpt-oss (2025) has
//! `min(max(up, -7), 7) + 1` in place of `up`.

use super::{
    activate::{WGSL, activate, kind},
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Activation, Backend},
    error::Result,
    quant::Format,
};

/// Bindings: x, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("gate", &[WGSL, include_str!("gate.wgsl")], &[Access::Read, Access::Write])]
}

/// The gate of every row of `x`, `gate | up`.
pub fn call(x: View, activation: Activation) -> Call {
    let half = x.cols / 2;
    let params = [x.rows as u32, half as u32, x.offset as u32, x.stride as u32, kind(activation)].to_vec();
    Call { kernel: ("gate", None), params, groups: [half.div_ceil(64) as u32, x.rows as u32, 1] }
}

/// The formula.
pub fn gated(activation: Activation, gate: f32, up: f32) -> f32 {
    let up = if activation == Activation::ClampedQuickGelu { up.clamp(-7.0, 7.0) + 1.0 } else { up };
    activate(activation, gate) * up
}

/// `x`: rows of `cols` elements; returns rows of `cols / 2`.
pub fn reference(x: &[f32], cols: usize, activation: Activation) -> Vec<f32> {
    x.chunks_exact(cols)
        .flat_map(|row| {
            let (gate, up) = row.split_at(cols / 2);
            gate.iter().zip(up).map(move |(g, u)| gated(activation, *g, *u))
        })
        .collect()
}

/// Widths around a workgroup, large magnitudes; and fused with norm and product.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(6);
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::ClampedQuickGelu] {
        for (rows, half, magnitude) in [(1, 4, 1.0), (1, 80, 30.0), (5, 1536, 5.0), (65, 100, 120.0)] {
            let x: Vec<f32> = random.floats(rows * 2 * half).iter().map(|v| v * magnitude).collect();
            let actual = check::one_step(backend, 0, rows, |b| {
                let input = b.upload(2 * half, &x);
                b.gate(input, activation)
            })
            .await?;
            let expected = reference(&x, 2 * half, activation);
            outcomes.push(Outcome { name: format!("gate {activation:?} [{rows}, 2 x {half}]"), expected, actual });
        }
    }
    for (activation, rows, cols, half) in [
        (Activation::Silu, 1, 64, 80),
        (Activation::GeluTanh, 1, 576, 33),
        (Activation::Silu, 9, 96, 70),
        (Activation::GeluTanh, 9, 64, 33),
        (Activation::ClampedQuickGelu, 1, 64, 33),
    ] {
        let (x, norm) = (random.floats(rows * cols), random.floats(cols));
        let norm_weight = check::vector(backend, &norm)?;
        let segments = [(Format::Q4_1, half), (Format::Q4_1, half)];
        let (matrix, dense) = check::random_weight(backend, &mut random, cols, &segments).await?;
        let actual = check::one_step(backend, 0, rows, |b| {
            let input = b.upload(cols, &x);
            b.norm_gated(input, norm_weight, 1e-5, matrix, None, activation)
        })
        .await?;
        let both = super::matmul::expected(backend, &segments, &dense, cols, &super::rms_norm::reference(&x, &norm, 1e-5), None, None);
        outcomes.push(Outcome {
            name: format!("norm_gated {activation:?} [{rows}, {cols}] -> {half}"),
            expected: reference(&both, 2 * half, activation),
            actual,
        });
    }
    Ok(outcomes)
}
