//! Plain Rust, four lanes.

use half::{bf16, f16};

use super::Simd;

#[derive(Clone, Copy)]
pub struct Scalar;

fn each<A: Copy, B: Copy, C: Default + Copy>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> C) -> [C; 4] {
    let mut out = [C::default(); 4];
    for lane in 0..4 {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

unsafe impl Simd for Scalar {
    const LANES: usize = 4;
    const SUM_LIMIT: i32 = i32::MAX;
    const SUM_TERMS: i32 = 4;

    type F = [f32; 4];
    type I = [i32; 4];
    type B = [[u8; 4]; 4];
    type Sums = [i32; 4];

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::F {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        unsafe { p.cast::<[u16; 4]>().read_unaligned() }.map(|v| f16::from_bits(v).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        unsafe { p.cast::<[u16; 4]>().read_unaligned() }.map(|v| bf16::from_bits(v).to_f32())
    }
    #[inline(always)]
    unsafe fn load_i16(p: *const i16) -> Self::F {
        unsafe { p.cast::<[i16; 4]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        unsafe { p.cast::<Self::F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(each(a, b, |a, b| a * b), c, |p, c| p + c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn times_pow2(y: Self::F, shifted: Self::F) -> Self::F {
        each(y, shifted, |y, shifted| f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23)))
    }

    #[inline(always)]
    unsafe fn splat_i(v: i32) -> Self::I {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn times_16(a: Self::I) -> Self::I {
        a.map(|v| v << 4)
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        a.map(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::F) {
        unsafe { p.cast::<[i8; 4]>().write_unaligned(v.map(|v| v as i8)) }
    }

    #[inline(always)]
    unsafe fn load_b(p: *const u8) -> Self::B {
        unsafe { p.cast::<Self::B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_quad(p: *const i8) -> Self::B {
        [unsafe { p.cast::<[u8; 4]>().read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn low_nibbles(b: Self::B) -> Self::B {
        b.map(|lane| lane.map(|v| v & 15))
    }
    #[inline(always)]
    unsafe fn high_nibbles(b: Self::B) -> Self::B {
        b.map(|lane| lane.map(|v| v >> 4))
    }
    #[inline(always)]
    unsafe fn apply_sign(w: Self::B, sign: Self::B) -> Self::B {
        each(w, sign, |w, sign| each(w, sign, |w, sign| (w ^ sign).wrapping_sub(sign)))
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, u: Self::B, s: Self::B) -> Self::Sums {
        let products = each(u, s, |u, s| (0..4).map(|i| i32::from(u[i]) * i32::from(s[i] as i8)).sum::<i32>());
        each(sums, products, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums) -> Self::I {
        sums
    }
}
