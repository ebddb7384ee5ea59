//! How a cache keeps numbers: as floats, or as 16-bit multiples of a unit that the elements of a head at a position share.
#![allow(unsafe_code)] // Vector loads.

use super::simd::{Simd, WHOLE};

/// An element of a cache.
pub trait Stored: Copy + bytemuck::Zeroable {
    /// What `values` are kept as multiples of.
    fn unit(values: &[f32]) -> f32;
    /// Turns values into multiples of `unit`.
    fn of(unit: f32) -> impl Fn(f32) -> Self;
    /// The value.
    fn value(self, unit: f32) -> f32;
    /// Multiples of their units, a vector of them.
    ///
    /// # Safety
    /// As for [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
}

impl Stored for f32 {
    #[inline(always)]
    fn unit(_: &[f32]) -> f32 {
        1.0
    }
    #[inline(always)]
    fn of(_: f32) -> impl Fn(f32) -> f32 {
        |value| value
    }
    #[inline(always)]
    fn value(self, _: f32) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::F {
        unsafe { S::load(p) }
    }
}

/// 15 bits and a sign: half of the memory, and finer than f16 where it matters, for the largest elements. Units are powers of two, so that
/// what is read and written again stays as it is.
pub type Short = i16;

impl Stored for Short {
    #[inline(always)]
    fn unit(values: &[f32]) -> f32 {
        // Without their signs, floats are ordered as integers are, what is not finite last.
        let largest = values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
        match largest >> 23 {
            0xff => f32::NAN,
            // The largest is below 2^(exponent - 126), which becomes 2^15.
            exponent => f32::from_bits(exponent.max(15).wrapping_sub(14) << 23),
        }
    }
    #[inline(always)]
    fn of(unit: f32) -> impl Fn(f32) -> Short {
        let inverse = 1.0 / unit;
        move |value| {
            let multiple = value * inverse;
            let multiple = multiple.clamp(-32767.0, 32767.0);
            (multiple + WHOLE).to_bits() as i16
        }
    }
    #[inline(always)]
    fn value(self, unit: f32) -> f32 {
        f32::from(self) * unit
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Short) -> S::F {
        unsafe { S::load_i16(p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Random;

    #[test]
    fn short_numbers_are_within_half_a_unit_and_stay_as_they_are() {
        let mut random = Random(1);
        for exponent in [-140, -120, -20, 0, 3, 100, 127] {
            let values: Vec<f32> = random.floats(64).iter().map(|v| (f64::from(*v) * f64::from(exponent).exp2()) as f32).collect();
            let unit = Short::unit(&values);
            let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(unit <= (largest / 16384.0).max(f32::MIN_POSITIVE), "{exponent}: {unit}");
            let shorts: Vec<Short> = values.iter().map(|v| Short::of(unit)(*v)).collect();
            let read: Vec<f32> = shorts.iter().map(|s| s.value(unit)).collect();
            for (value, read) in values.iter().zip(&read) {
                // The largest may be next to 2^15, which is beyond the range.
                assert!((value - read).abs() <= unit, "{exponent}: {value} became {read}");
            }
            assert_eq!(Short::unit(&read), unit, "{exponent}");
            assert!(read.iter().zip(&shorts).all(|(read, short)| Short::of(unit)(*read) == *short), "{exponent}");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let unit = Short::unit(&[1.0, bad]);
            assert!(Short::of(unit)(1.0).value(unit).is_nan(), "what is not a number stays so");
        }
        assert_eq!(Short::of(Short::unit(&[0.0]))(0.0), 0);
        // Next to what would be one more than fits, on both sides.
        for edge in [32767.9_f32, -32767.9, f32::MAX, f32::MIN] {
            let unit = Short::unit(&[edge]);
            let read = Short::of(unit)(edge).value(unit);
            assert!(read.is_finite() && Short::unit(&[read]) == unit, "{edge} became {read}");
        }
    }
}
