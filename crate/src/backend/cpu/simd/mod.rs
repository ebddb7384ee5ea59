//! The few vector operations that kernels are written in, once; each instruction set implements them.
//!
//! A kernel is a [`Task`]: generic code over [`Simd`], which [`Level::run`] compiles once per instruction set and calls
//! for the best one that the machine has.
//!
//! Products of bytes: weights are 7-bit (0 to 127; signed ones give their sign away first, larger ones go in two halves), activations signed 8-bit (-127 to 127), so that
//! instructions which treat one operand as unsigned (x86), as signed (Arm), or either (relaxed SIMD) agree.
#![allow(unsafe_code)] // Vector instructions and unchecked loads: the reason this module exists.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
#[cfg(not(target_arch = "wasm32"))]
mod scalar;
#[cfg(target_arch = "wasm32")]
mod wasm;

/// `body` for `i` from 0 to `n - 1`, at most 4 times, written out: arrays that it indexes stay in registers, which a loop that the
/// compiler decides not to unroll would put into memory.
macro_rules! unroll {
    ($i:ident in $n:expr => $body:expr) => {{
        const { assert!($n <= 4) };
        if $n > 0 {
            let $i = 0;
            $body;
        }
        if $n > 1 {
            let $i = 1;
            $body;
        }
        if $n > 2 {
            let $i = 2;
            $body;
        }
        if $n > 3 {
            let $i = 3;
            $body;
        }
    }};
}
pub use exp::Exp;
pub(super) use unroll;

/// Vectors of [`Simd::LANES`] 32-bit lanes, and of four bytes for each lane.
///
/// # Safety
/// Every function needs the instruction set; loads and stores need valid memory for a whole vector, of any alignment.
#[allow(clippy::missing_safety_doc)] // One contract for all, above.
pub unsafe trait Simd: Copy {
    /// 32-bit lanes of a vector: 4, 8 or 16.
    const LANES: usize;
    /// Largest magnitude that a lane of [`Simd::Sums`] holds.
    const SUM_LIMIT: i32;
    /// Products that [`Simd::dot`] adds to one lane of [`Simd::Sums`].
    const SUM_TERMS: i32;

    /// Floats.
    type F: Copy;
    /// Signed integers.
    type I: Copy;
    /// Four bytes a lane.
    type B: Copy;
    /// Sums of products of bytes, perhaps in 16 bits.
    type Sums: Copy;

    /// All lanes `v`.
    unsafe fn splat(v: f32) -> Self::F;
    /// From memory.
    unsafe fn load(p: *const f32) -> Self::F;
    /// From f16 in memory.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// From bf16 in memory.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// From 16-bit integers in memory.
    unsafe fn load_i16(p: *const i16) -> Self::F;
    /// To memory.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// `a + b`.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once or twice.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where one is not a number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where one is not a number.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Without sign.
    unsafe fn abs(a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `y * 2^n`, with `n` in the lowest bits of `shifted`, which is `n +` [`WHOLE`].
    unsafe fn times_pow2(y: Self::F, shifted: Self::F) -> Self::F;

    /// All lanes `v`.
    unsafe fn splat_i(v: i32) -> Self::I;
    /// `a + b`.
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// `16 a`.
    unsafe fn times_16(a: Self::I) -> Self::I;
    /// To floats.
    unsafe fn to_f(a: Self::I) -> Self::F;
    /// Whole floats within -127 to 127, to one byte a lane in memory.
    unsafe fn store_i8(p: *mut i8, v: Self::F);

    /// From memory.
    unsafe fn load_b(p: *const u8) -> Self::B;
    /// The four bytes at `p` in every lane.
    unsafe fn splat_quad(p: *const i8) -> Self::B;
    /// The lower four bits of each byte.
    unsafe fn low_nibbles(b: Self::B) -> Self::B;
    /// The upper four bits of each byte.
    unsafe fn high_nibbles(b: Self::B) -> Self::B;
    /// Of 32 bytes at `codes`, none of them -128: each one's magnitude, and -1 where it is negative, else 0.
    #[inline(always)]
    unsafe fn store_signs(codes: *const i8, magnitudes: *mut i8, signs: *mut i8) {
        for i in 0..32 {
            unsafe {
                let code = *codes.add(i);
                *magnitudes.add(i) = code.abs();
                *signs.add(i) = code >> 7;
            }
        }
    }
    /// `-w` where `sign` is all ones; `w` is not -128.
    unsafe fn apply_sign(w: Self::B, sign: Self::B) -> Self::B;

    /// No sums.
    unsafe fn no_sums() -> Self::Sums;
    /// `sums + u * s`, the four products of a lane added up in one or in several parts; `u` from 0 to 127, `s` signed.
    unsafe fn dot(sums: Self::Sums, u: Self::B, s: Self::B) -> Self::Sums;
    /// The sums of each lane.
    unsafe fn widen(sums: Self::Sums) -> Self::I;
}

/// Quads of bytes whose products with weights up to `largest` [`Simd::Sums`] adds without overflow.
pub const fn quads<S: Simd>(largest: i32) -> usize {
    (S::SUM_LIMIT / (S::SUM_TERMS * 127 * largest)) as usize
}

/// Added to a float below 2^22 in magnitude, it rounds it to the nearest integer (ties to even), which is then in the lowest bits.
pub const WHOLE: f32 = 12_582_912.0; // 1.5 * 2^23: the last bit of floats around it counts ones.

/// Work written once for all instruction sets. The wasm is built for size (`cfg(size_first)`), but for this and a few loops beside it.
pub trait Task {
    /// What it gives.
    type Output;
    /// Does it. `#[inline(always)]`, as everything that it calls, so that the instruction set reaches all of it.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust; in wasm everybody has SIMD.
    #[cfg(not(target_arch = "wasm32"))]
    Scalar,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with byte products (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// WebAssembly's 128-bit SIMD; relaxed if the module was built for it.
    #[cfg(target_arch = "wasm32")]
    Wasm,
}

impl Level {
    /// What this machine has, the best first.
    #[cfg(target_arch = "x86_64")]
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level::Scalar];
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            levels.insert(0, Level::Avx2);
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
                levels.insert(0, Level::Avx512);
            }
        }
        levels
    }

    /// What this machine has, the best first.
    #[cfg(target_arch = "wasm32")]
    pub fn available() -> Vec<Level> {
        vec![Level::Wasm]
    }

    /// What this machine has, the best first.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "wasm32")))]
    pub fn available() -> Vec<Level> {
        vec![Level::Scalar]
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(not(target_arch = "wasm32"))]
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512 VNNI",
            #[cfg(target_arch = "wasm32")]
            Level::Wasm => wasm::NAME,
        }
    }

    /// Runs `task` with this instruction set.
    #[cfg_attr(size_first, optimize(speed))]
    #[inline(never)]
    pub fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: `available` gives a level only where the machine has it.
        unsafe {
            match self {
                #[cfg(not(target_arch = "wasm32"))]
                Level::Scalar => task.run::<scalar::Scalar>(),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2::run(task),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512::run(task),
                #[cfg(target_arch = "wasm32")]
                Level::Wasm => task.run::<wasm::Wasm>(),
            }
        }
    }
}
