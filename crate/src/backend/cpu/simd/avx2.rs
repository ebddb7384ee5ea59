//! AVX2, FMA and F16C: eight lanes.

use std::arch::x86_64::*;

use super::{Simd, Task};

#[derive(Clone, Copy)]
pub struct Avx2;

#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<T: Task>(task: T) -> T::Output {
    unsafe { task.run::<Avx2>() }
}

unsafe impl Simd for Avx2 {
    const LANES: usize = 8;
    const SUM_LIMIT: i32 = i16::MAX as i32;
    const SUM_TERMS: i32 = 2;

    type F = __m256;
    type I = __m256i;
    type B = __m256i;
    /// Two 16-bit sums a lane.
    type Sums = __m256i;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::F {
        unsafe { _mm256_set1_ps(v) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_i16(p: *const i16) -> Self::F {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn times_pow2(y: Self::F, shifted: Self::F) -> Self::F {
        unsafe { _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted)))) }
    }

    #[inline(always)]
    unsafe fn splat_i(v: i32) -> Self::I {
        unsafe { _mm256_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn times_16(a: Self::I) -> Self::I {
        unsafe { _mm256_slli_epi32::<4>(a) }
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::F) {
        unsafe {
            let v = _mm256_cvtps_epi32(v);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
        }
    }

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_quad(p: *const i8) -> Self::B {
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn low_nibbles(b: Self::B) -> Self::B {
        unsafe { _mm256_and_si256(b, _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(b: Self::B) -> Self::B {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(b), _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn apply_sign(w: Self::B, sign: Self::B) -> Self::B {
        unsafe { _mm256_sub_epi8(_mm256_xor_si256(w, sign), sign) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, u: Self::B, s: Self::B) -> Self::Sums {
        unsafe { _mm256_add_epi16(sums, _mm256_maddubs_epi16(u, s)) }
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums) -> Self::I {
        unsafe { _mm256_madd_epi16(sums, _mm256_set1_epi16(1)) }
    }
}
