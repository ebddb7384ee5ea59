//! WebAssembly's 128-bit SIMD: four lanes. Built with relaxed SIMD where the browser has it.

use std::arch::wasm32::*;

use super::{Simd, WHOLE};

#[derive(Clone, Copy)]
pub struct Wasm;

/// What the module was built for.
pub const NAME: &str = if cfg!(target_feature = "relaxed-simd") { "relaxed-simd" } else { "simd128" };

unsafe impl Simd for Wasm {
    const LANES: usize = 4;
    const SUM_LIMIT: i32 = i16::MAX as i32;
    const SUM_TERMS: i32 = if cfg!(target_feature = "relaxed-simd") { 2 } else { 1 };

    type F = v128;
    type I = v128;
    type B = v128;
    /// Relaxed: two 16-bit sums a lane, in one vector. Otherwise four, in two vectors of two lanes each.
    #[cfg(target_feature = "relaxed-simd")]
    type Sums = v128;
    #[cfg(not(target_feature = "relaxed-simd"))]
    type Sums = [v128; 2];

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::F {
        f32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        // A half's exponent and fraction, moved into a float's place, are the value times 2^-112, subnormals included;
        // infinities and NaNs become large numbers, which weights do not hold.
        let bits = unsafe { u32x4_load_extend_u16x4(p) };
        let magnitude = i32x4_shl(v128_and(bits, i32x4_splat(0x7fff)), 13);
        let sign = i32x4_shl(v128_and(bits, i32x4_splat(0x8000)), 16);
        v128_or(f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23))), sign)
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        i32x4_shl(unsafe { u32x4_load_extend_u16x4(p) }, 16)
    }
    #[inline(always)]
    unsafe fn load_i16(p: *const i16) -> Self::F {
        f32x4_convert_i32x4(unsafe { i32x4_load_extend_i16x4(p) })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        unsafe { v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        f32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        f32x4_div(a, b)
    }
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        f32x4_relaxed_madd(a, b, c)
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        f32x4_add(f32x4_mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        f32x4_pmax(b, a)
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        f32x4_pmin(b, a)
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        f32x4_abs(a)
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        f32x4_nearest(a)
    }
    #[inline(always)]
    unsafe fn times_pow2(y: Self::F, shifted: Self::F) -> Self::F {
        i32x4_add(y, i32x4_shl(shifted, 23))
    }

    #[inline(always)]
    unsafe fn splat_i(v: i32) -> Self::I {
        i32x4_splat(v)
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        i32x4_add(a, b)
    }
    #[inline(always)]
    unsafe fn times_16(a: Self::I) -> Self::I {
        i32x4_shl(a, 4)
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        f32x4_convert_i32x4(a)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::F) {
        // Fewer instructions than a conversion, which minds what is no integer.
        let v = i32x4_sub(f32x4_add(v, f32x4_splat(WHOLE)), i32x4_splat(WHOLE.to_bits() as i32));
        let words = i16x8_narrow_i32x4(v, v);
        let bytes = i8x16_narrow_i16x8(words, words);
        unsafe { v128_store32_lane::<0>(bytes, p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_quad(p: *const i8) -> Self::B {
        unsafe { v128_load32_splat(p.cast()) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(b: Self::B) -> Self::B {
        v128_and(b, u8x16_splat(15))
    }
    #[inline(always)]
    unsafe fn high_nibbles(b: Self::B) -> Self::B {
        v128_and(u16x8_shr(b, 4), u8x16_splat(15))
    }
    #[inline(always)]
    unsafe fn store_signs(codes: *const i8, magnitudes: *mut i8, signs: *mut i8) {
        for i in [0, 16] {
            unsafe {
                let code = v128_load(codes.add(i).cast());
                v128_store(magnitudes.add(i).cast(), i8x16_abs(code));
                v128_store(signs.add(i).cast(), i8x16_shr(code, 7));
            }
        }
    }
    #[inline(always)]
    unsafe fn apply_sign(w: Self::B, sign: Self::B) -> Self::B {
        i8x16_sub(v128_xor(w, sign), sign)
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        i16x8_splat(0)
    }
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, u: Self::B, s: Self::B) -> Self::Sums {
        i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(s, u))
    }
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums) -> Self::I {
        i32x4_dot_i16x8(sums, i16x8_splat(1))
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        [i16x8_splat(0); 2]
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn dot([low, high]: Self::Sums, u: Self::B, s: Self::B) -> Self::Sums {
        [i16x8_add(low, i16x8_extmul_low_i8x16(u, s)), i16x8_add(high, i16x8_extmul_high_i8x16(u, s))]
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn widen([low, high]: Self::Sums) -> Self::I {
        let (low, high) = (i32x4_extadd_pairwise_i16x8(low), i32x4_extadd_pairwise_i16x8(high));
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high))
    }
}
