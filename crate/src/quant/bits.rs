//! Small fields in bytes, lowest bits first (in little-endian words the same), and f16 numbers in a scales plane.

use half::f16;

use crate::error::{Error, Result};

/// Field `i` of 1, 2 or 4 bits.
pub(super) fn field(bytes: &[u8], width: usize, i: usize) -> u8 {
    (bytes[i * width / 8] >> (i * width % 8)) & ((1 << width) - 1)
}

/// Appends of each element the `width` bits (1, 2 or 4) from bit `from` on.
pub(super) fn put_fields(elements: &[u8], from: usize, width: usize, values: &mut Vec<u8>) {
    let join = |byte: u8, q: &u8| (byte << width) | ((q >> from) & ((1 << width) - 1));
    values.extend(elements.chunks(8 / width).map(|fields| fields.iter().rev().fold(0, join)));
}

/// ggml's order of 32 nibbles (byte `j` holds elements `j` and `j + 16`) to ours (byte `j` holds elements `2j` and `2j + 1`).
pub(super) fn interleave_nibbles(ggml: &[u8], values: &mut Vec<u8>) {
    let (low, high) = (|j: usize| ggml[j] & 15, |j: usize| ggml[j] >> 4);
    values.extend((0..8).map(|j| low(2 * j) | (low(2 * j + 1) << 4)));
    values.extend((0..8).map(|j| high(2 * j) | (high(2 * j + 1) << 4)));
}

/// An f16 from two little-endian bytes.
pub(super) fn f16_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

/// Appends a common scale times a group's own factor as one f16.
///
/// The scale is an f16, so a multiple of 2^-24, and so is its product with an integer: rounding is by at most 2^-11 of the
/// product, in f16's subnormal range as well. A product beyond f16's range is an error.
pub(super) fn put_product(scale: f32, factor: i32, scales: &mut Vec<u8>) -> Result<()> {
    let product = scale * factor as f32;
    let rounded = f16::from_f32(product);
    if product.is_finite() && rounded.is_infinite() {
        return Err(Error::InvalidFile(format!("a scale of {product}: no weights are that large")));
    }
    scales.extend(rounded.to_le_bytes());
    Ok(())
}

/// Codes of groups of `group` elements and `bytes` bytes: `code(bytes, i)`.
pub(super) fn codes(values: &[u8], bytes: usize, codes: &mut [i8], group: usize, code: impl Fn(&[u8], usize) -> i8) {
    for (values, codes) in values.chunks(bytes).zip(codes.chunks_mut(group)) {
        codes.iter_mut().enumerate().for_each(|(i, c)| *c = code(values, i));
    }
}

/// A group's f16 scale.
pub(super) fn scale(scales: &[u8], group: usize) -> [f32; 2] {
    [f16_at(scales, group), 0.0]
}

/// A group's f16 scale and minimum.
pub(super) fn scale_minimum(scales: &[u8], group: usize) -> [f32; 2] {
    [f16_at(scales, 2 * group), f16_at(scales, 2 * group + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back() {
        let elements: Vec<u8> = (0..64).map(|i| (i * 37 % 64) as u8).collect();
        let (mut low, mut high) = (Vec::new(), Vec::new());
        put_fields(&elements, 0, 4, &mut low);
        put_fields(&elements, 4, 2, &mut high);
        assert_eq!((low.len(), high.len()), (32, 16));
        assert!((0..64).all(|i| field(&low, 4, i) | (field(&high, 2, i) << 4) == elements[i]));
    }

    #[test]
    fn products_are_rounded_by_2_to_the_minus_11_or_refused() {
        let finite = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).filter(|d| d.is_finite());
        for d in finite {
            for factor in [-128, -127, -63, -32, -31, -1, 0, 1, 3, 29, 31, 57, 63, 101, 127] {
                let (product, mut scales) = (d * factor as f32, Vec::new());
                // From 65520 on, f16 rounds to infinity.
                assert_eq!(put_product(d, factor, &mut scales).is_err(), product.abs() >= 65520.0, "{d} * {factor}");
                if !scales.is_empty() {
                    assert!((f16_at(&scales, 0) - product).abs() <= product.abs() / 2048.0, "{d} * {factor}");
                }
            }
        }
    }
}
