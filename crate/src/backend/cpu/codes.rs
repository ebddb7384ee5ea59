//! Dot products of a group's codes with rounded activations, for each way in which codes are kept.
#![allow(unsafe_code)] // Vector loads.

use std::mem::zeroed;

use super::{
    activations::Row,
    simd::{self, Simd, unroll},
};

/// How codes are read.
pub trait Integers {
    /// Adds the products of a group of `lines` lines whose first element is `first`.
    ///
    /// How many lines there are is said at run time, so that they stay a loop. Written out, the compiler to wasm takes one accumulator through
    /// all of them and then the next, and what is unpacked goes to the stack meanwhile: a model took 11 % longer. Within a line, what was
    /// unpacked meets all tokens before the next vector is.
    unsafe fn dot<S: Simd, const V: usize, const T: usize>(
        dots: &mut [[S::I; T]; V],
        codes: *const u8,
        lines: usize,
        x: &[Row; T],
        first: usize,
    );
}

/// 0 to 15.
pub struct Nibbles;

impl Integers for Nibbles {
    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize>(
        dots: &mut [[S::I; T]; V],
        codes: *const u8,
        lines: usize,
        x: &[Row; T],
        first: usize,
    ) {
        const { assert!(simd::quads::<S>(15) >= 8) };
        unsafe {
            let mut sums: [[S::Sums; T]; V] = zeroed();
            let mut x_quads: [[S::B; 2]; T] = zeroed();
            for line in 0..lines {
                unroll!(t in T => {
                    let x = x[t].codes.add(first + line * 8);
                    x_quads[t] = [S::splat_quad(x), S::splat_quad(x.add(4))];
                });
                unroll!(v in V => {
                    let both = S::load_b(codes.add(line * 64 + v * S::LANES * 4));
                    let (low, high) = (S::low_nibbles(both), S::high_nibbles(both));
                    unroll!(t in T => sums[v][t] = S::dot(S::dot(sums[v][t], low, x_quads[t][0]), high, x_quads[t][1]));
                });
            }
            unroll!(v in V => unroll!(t in T => dots[v][t] = S::add_i(dots[v][t], S::widen(sums[v][t]))));
        }
    }
}

/// 0 to `LARGEST`, below 128.
pub struct Bytes<const LARGEST: i32>;

impl<const LARGEST: i32> Integers for Bytes<LARGEST> {
    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize>(
        dots: &mut [[S::I; T]; V],
        codes: *const u8,
        lines: usize,
        x: &[Row; T],
        first: usize,
    ) {
        let step = simd::quads::<S>(LARGEST);
        unsafe {
            let mut x_quads: [S::B; T] = zeroed();
            for start in (0..lines).step_by(step) {
                let mut sums: [[S::Sums; T]; V] = zeroed();
                for quad in start..(start + step).min(lines) {
                    unroll!(t in T => x_quads[t] = S::splat_quad(x[t].codes.add(first + quad * 4)));
                    unroll!(v in V => {
                        let w = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                        unroll!(t in T => sums[v][t] = S::dot(sums[v][t], w, x_quads[t]));
                    });
                }
                unroll!(v in V => unroll!(t in T => dots[v][t] = S::add_i(dots[v][t], S::widen(sums[v][t]))));
            }
        }
    }
}

/// -127 to 127: the activation gives its sign to the weight, `w * a = (w * sign(a)) * |a|`.
pub struct Signed;

impl Integers for Signed {
    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize>(
        dots: &mut [[S::I; T]; V],
        codes: *const u8,
        lines: usize,
        x: &[Row; T],
        first: usize,
    ) {
        let step = simd::quads::<S>(127);
        unsafe {
            let mut x_quads: [[S::B; 2]; T] = zeroed();
            for start in (0..lines).step_by(step) {
                let mut sums: [[S::Sums; T]; V] = zeroed();
                for quad in start..(start + step).min(lines) {
                    unroll!(t in T => {
                        let at = first + quad * 4;
                        x_quads[t] = [S::splat_quad(x[t].magnitudes.add(at)), S::splat_quad(x[t].signs.add(at))];
                    });
                    unroll!(v in V => {
                        let w = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                        unroll!(t in T => sums[v][t] = S::dot(sums[v][t], x_quads[t][0], S::apply_sign(w, x_quads[t][1])));
                    });
                }
                unroll!(v in V => unroll!(t in T => dots[v][t] = S::add_i(dots[v][t], S::widen(sums[v][t]))));
            }
        }
    }
}

/// 0 to 255, in two halves: `16 * high + low`.
pub struct Wide;

impl Integers for Wide {
    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize>(
        dots: &mut [[S::I; T]; V],
        codes: *const u8,
        lines: usize,
        x: &[Row; T],
        first: usize,
    ) {
        const { assert!(simd::quads::<S>(15) >= 8) };
        unsafe {
            let mut lows: [[S::Sums; T]; V] = zeroed();
            let mut highs: [[S::Sums; T]; V] = zeroed();
            let mut x_quads: [S::B; T] = zeroed();
            for quad in 0..lines {
                unroll!(t in T => x_quads[t] = S::splat_quad(x[t].codes.add(first + quad * 4)));
                unroll!(v in V => {
                    let both = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                    let (low, high) = (S::low_nibbles(both), S::high_nibbles(both));
                    unroll!(t in T => {
                        lows[v][t] = S::dot(lows[v][t], low, x_quads[t]);
                        highs[v][t] = S::dot(highs[v][t], high, x_quads[t]);
                    });
                });
            }
            unroll!(v in V => unroll!(t in T => {
                let high = S::times_16(S::widen(highs[v][t]));
                dots[v][t] = S::add_i(dots[v][t], S::add_i(S::widen(lows[v][t]), high));
            }));
        }
    }
}
