//! Dot products of a group's codes with rounded activations, for each way in which codes are kept.
#![allow(unsafe_code)] // Vector loads.

use std::mem::zeroed;

use super::{
    activations::Row,
    simd::{self, Simd, unroll},
};

/// How codes are read.
pub trait Integers {
    /// Elements of a row in the four bytes that it has of a line.
    const LINE: usize;

    /// Adds the products of a group whose first element is `first`.
    unsafe fn dot<S: Simd, const V: usize, const T: usize, const G: usize>(
        dots: &mut [[S::I; V]; T],
        codes: *const u8,
        x: &[Row; T],
        first: usize,
    );
}

/// 0 to 15.
pub struct Nibbles;

impl Integers for Nibbles {
    const LINE: usize = 8;

    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize, const G: usize>(
        dots: &mut [[S::I; V]; T],
        codes: *const u8,
        x: &[Row; T],
        first: usize,
    ) {
        const { assert!(simd::quads::<S>(15) >= G / 4) };
        unsafe {
            let mut sums: [[S::Sums; V]; T] = zeroed();
            let mut x_quads: [[S::B; 2]; T] = zeroed();
            unroll!(octet in G / 8 => {
                unroll!(t in T => {
                    let x = x[t].codes.add(first + octet * 8);
                    x_quads[t] = [S::splat_quad(x), S::splat_quad(x.add(4))];
                });
                unroll!(v in V => {
                    let both = S::load_b(codes.add(octet * 64 + v * S::LANES * 4));
                    let (low, high) = (S::low_nibbles(both), S::high_nibbles(both));
                    unroll!(t in T => sums[t][v] = S::dot(S::dot(sums[t][v], low, x_quads[t][0]), high, x_quads[t][1]));
                });
            });
            unroll!(t in T => unroll!(v in V => dots[t][v] = S::add_i(dots[t][v], S::widen(sums[t][v]))));
        }
    }
}

/// 0 to `LARGEST`, below 128.
pub struct Bytes<const LARGEST: i32>;

impl<const LARGEST: i32> Integers for Bytes<LARGEST> {
    const LINE: usize = 4;

    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize, const G: usize>(
        dots: &mut [[S::I; V]; T],
        codes: *const u8,
        x: &[Row; T],
        first: usize,
    ) {
        let step = simd::quads::<S>(LARGEST).min(G / 4);
        unsafe {
            let mut x_quads: [S::B; T] = zeroed();
            for start in (0..G / 4).step_by(step) {
                let mut sums: [[S::Sums; V]; T] = zeroed();
                for quad in start..(start + step).min(G / 4) {
                    unroll!(t in T => x_quads[t] = S::splat_quad(x[t].codes.add(first + quad * 4)));
                    unroll!(v in V => {
                        let w = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                        unroll!(t in T => sums[t][v] = S::dot(sums[t][v], w, x_quads[t]));
                    });
                }
                unroll!(t in T => unroll!(v in V => dots[t][v] = S::add_i(dots[t][v], S::widen(sums[t][v]))));
            }
        }
    }
}

/// -127 to 127: the activation gives its sign to the weight, `w * a = (w * sign(a)) * |a|`.
pub struct Signed;

impl Integers for Signed {
    const LINE: usize = 4;

    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize, const G: usize>(
        dots: &mut [[S::I; V]; T],
        codes: *const u8,
        x: &[Row; T],
        first: usize,
    ) {
        let step = simd::quads::<S>(127).min(G / 4);
        unsafe {
            let mut x_quads: [[S::B; 2]; T] = zeroed();
            for start in (0..G / 4).step_by(step) {
                let mut sums: [[S::Sums; V]; T] = zeroed();
                for quad in start..(start + step).min(G / 4) {
                    unroll!(t in T => {
                        let at = first + quad * 4;
                        x_quads[t] = [S::splat_quad(x[t].magnitudes.add(at)), S::splat_quad(x[t].signs.add(at))];
                    });
                    unroll!(v in V => {
                        let w = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                        unroll!(t in T => sums[t][v] = S::dot(sums[t][v], x_quads[t][0], S::apply_sign(w, x_quads[t][1])));
                    });
                }
                unroll!(t in T => unroll!(v in V => dots[t][v] = S::add_i(dots[t][v], S::widen(sums[t][v]))));
            }
        }
    }
}

/// 0 to 255, in two halves: `16 * high + low`.
pub struct Wide;

impl Integers for Wide {
    const LINE: usize = 4;

    #[inline(always)]
    unsafe fn dot<S: Simd, const V: usize, const T: usize, const G: usize>(
        dots: &mut [[S::I; V]; T],
        codes: *const u8,
        x: &[Row; T],
        first: usize,
    ) {
        const { assert!(simd::quads::<S>(15) >= G / 4) };
        unsafe {
            let mut lows: [[S::Sums; V]; T] = zeroed();
            let mut highs: [[S::Sums; V]; T] = zeroed();
            let mut x_quads: [S::B; T] = zeroed();
            for quad in 0..G / 4 {
                unroll!(t in T => x_quads[t] = S::splat_quad(x[t].codes.add(first + quad * 4)));
                unroll!(v in V => {
                    let both = S::load_b(codes.add(quad * 64 + v * S::LANES * 4));
                    let (low, high) = (S::low_nibbles(both), S::high_nibbles(both));
                    unroll!(t in T => {
                        lows[t][v] = S::dot(lows[t][v], low, x_quads[t]);
                        highs[t][v] = S::dot(highs[t][v], high, x_quads[t]);
                    });
                });
            }
            unroll!(t in T => unroll!(v in V => {
                let high = S::times_16(S::widen(highs[t][v]));
                dots[t][v] = S::add_i(dots[t][v], S::add_i(S::widen(lows[t][v]), high));
            }));
        }
    }
}
