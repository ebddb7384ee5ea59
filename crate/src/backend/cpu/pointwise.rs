//! Norms and operations on single elements, a row at a time.
#![allow(unsafe_code)] // Vector loads and stores.

use super::{
    activations::fold,
    simd::{Exp, Level, Simd, Task},
};
use crate::backend::Activation;

/// `y = x / sqrt(mean(x^2) + eps) * w`.
pub fn rms_norm(level: Level, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    assert!(x.len() == w.len() && x.len() == y.len());
    level.run(RmsNorm { x, w, eps, y });
}

/// `y = activation(gate) * up`.
pub fn gate(level: Level, activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == y.len());
    match activation {
        Activation::Gelu | Activation::Tanh | Activation::ClampedQuickGelu => {
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = crate::ops::gate::gated(activation, *g, *u);
            }
        }
        _ => level.run(Gate { tanh: activation == Activation::GeluTanh, gate, up, y }),
    }
}

/// The largest of `values`, the first among equals.
pub fn largest(level: Level, values: &[f32]) -> usize {
    // A vector's lanes find the value; where it stands first is a plain search.
    let value = level.run(Largest { values });
    values.iter().position(|v| *v == value).unwrap_or(0)
}

struct RmsNorm<'a> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Task for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, whole) = (self.x.len(), self.x.len() / S::LANES * S::LANES);
        unsafe {
            let mut squares = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let x = S::load(self.x.as_ptr().add(i));
                squares = S::mul_add(x, x, squares);
            }
            let rest: f32 = self.x[whole..].iter().map(|x| x * x).sum();
            let mean = (fold::<S>(squares, |a, b| a + b) + rest) / n as f32;
            let factor = 1.0 / (mean + self.eps).sqrt();
            let factors = S::splat(factor);
            for i in (0..whole).step_by(S::LANES) {
                let x = S::mul(S::load(self.x.as_ptr().add(i)), factors);
                S::store(self.y.as_mut_ptr().add(i), S::mul(x, S::load(self.w.as_ptr().add(i))));
            }
            for i in whole..n {
                self.y[i] = self.x[i] * factor * self.w[i];
            }
        }
    }
}

struct Gate<'a> {
    tanh: bool,
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Task for Gate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, whole, exp) = (self.gate.len(), self.gate.len() / S::LANES * S::LANES, Exp::prepare());
        unsafe {
            for i in (0..whole).step_by(S::LANES) {
                let gated = activate::<S>(self.tanh, exp, S::load(self.gate.as_ptr().add(i)));
                S::store(self.y.as_mut_ptr().add(i), S::mul(gated, S::load(self.up.as_ptr().add(i))));
            }
            if whole < n {
                let (mut gate, mut out) = ([0.0_f32; 16], [0.0_f32; 16]);
                gate[..n - whole].copy_from_slice(&self.gate[whole..]);
                S::store(out.as_mut_ptr(), activate::<S>(self.tanh, exp, S::load(gate.as_ptr())));
                for (i, out) in (whole..n).zip(out) {
                    self.y[i] = out * self.up[i];
                }
            }
        }
    }
}

/// SiLU, `x / (1 + exp(-x))`; or GELU's tanh form, which is `x / (1 + exp(-2 u))`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
unsafe fn activate<S: Simd>(tanh: bool, exp: Exp, x: S::F) -> S::F {
    unsafe {
        let exponent = if tanh {
            let cubed = S::mul(S::mul(x, x), x);
            S::mul(S::mul_add(cubed, S::splat(0.044_715), x), S::splat(-2.0 * 0.797_884_6))
        } else {
            S::sub(S::splat(0.0), x)
        };
        S::div(x, S::add(S::splat(1.0), exp.of::<S>(exponent)))
    }
}

struct Largest<'a> {
    values: &'a [f32],
}

impl Task for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let whole = self.values.len() / S::LANES * S::LANES;
        unsafe {
            let mut largest = S::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(S::LANES) {
                // The new value first: where it is no number, the old one stays.
                largest = S::max(S::load(self.values.as_ptr().add(i)), largest);
            }
            self.values[whole..].iter().copied().fold(fold::<S>(largest, f32::max), f32::max)
        }
    }
}
