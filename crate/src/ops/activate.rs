//! Activations, element by element.
//!
//! * SiLU: `x / (1 + exp(-x))`
//! * GELU: `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016)
//! * GELU's tanh form: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
//! * tanh
//! * gpt-oss's (2025): `c / (1 + exp(-1.702 c))` with `c = min(x, 7)`

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Activation, Backend},
    error::Result,
};

/// WGSL of the activations: `fn activate(kind: u32, x: f32) -> f32`; and of gates, `fn gated(kind: u32, gate: f32, up: f32) -> f32`.
pub const WGSL: &str = include_str!("activate.wgsl");

/// Bindings: x, y.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new(
        "activate",
        &[include_str!("pointwise.wgsl"), WGSL, include_str!("activate_all.wgsl")],
        &[Access::Read, Access::Write],
    )]
}

/// The activation's number in WGSL.
pub fn kind(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::Gelu => 2,
        Activation::ClampedQuickGelu => 3,
        Activation::Tanh => 4,
    }
}

/// Of every element of `x`.
pub fn call(x: View, activation: Activation) -> Call {
    let params = vec![x.cols as u32, x.offset as u32, x.stride as u32, kind(activation)];
    Call { kernel: ("activate", None), params, groups: [x.cols.div_ceil(64) as u32, x.rows as u32, 1] }
}

/// The formula.
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044715 * x * x * x)).tanh()),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::Tanh => x.tanh(),
        Activation::ClampedQuickGelu => {
            let x = x.min(7.0);
            x / (1.0 + (-1.702 * x).exp())
        }
    }
}

/// Element by element.
pub fn reference(x: &[f32], activation: Activation) -> Vec<f32> {
    x.iter().map(|x| activate(activation, *x)).collect()
}

/// Each activation; widths around a workgroup, small and large values.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(10);
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::Gelu, Activation::ClampedQuickGelu, Activation::Tanh] {
        for (rows, cols, magnitude) in [(1, 4, 1.0), (3, 65, 5.0), (9, 100, 120.0)] {
            let x: Vec<f32> = random.floats(rows * cols).iter().map(|v| v * magnitude).collect();
            let actual = check::one_step(backend, 0, rows, |b| {
                let input = b.upload(cols, &x);
                b.activate(input, activation)
            })
            .await?;
            outcomes.push(Outcome { name: format!("{activation:?} [{rows}, {cols}]"), expected: reference(&x, activation), actual });
        }
    }
    Ok(outcomes)
}
