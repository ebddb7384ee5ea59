//! How weights are packed. A format is one file with its layout, packing and unpacking, beside its `.wgsl`.
//!
//! Every weight is rows of `cols` elements in at most two *planes*, little-endian:
//!
//! * `values`: u32 words, lowest bits first; a row starts at a word boundary.
//! * `scales`: f16, present in quantised formats only: per group of [`Format::group`] elements the scale, and for
//!   formats that have one the minimum, interleaved (scale, minimum, scale, minimum, ...).
//!
//! A quantised row is padded with zeros to whole groups. A float row is padded to whole words.

use crate::error::{Error, Result};

mod float;
mod q4_0;
mod q4_1;
mod q8_0;

/// How the elements of a weight are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE half floats, two in a word.
    F16,
    /// The upper half of a 32-bit float, two in a word.
    Bf16,
    /// 4 bits in groups of 32: `w = scale * (q - 8)`; element `i` of a row is nibble `i % 8` of word `i / 8`.
    Q4_0,
    /// 4 bits in groups of 32: `w = scale * q + minimum`; nibbles as in [`Format::Q4_0`].
    Q4_1,
    /// Signed 8 bits in groups of 32: `w = scale * q`; element `i` is byte `i % 4` of word `i / 4`.
    Q8_0,
}

/// One of the two arrays that hold a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// The elements.
    Values,
    /// Scales (and minima) of groups.
    Scales,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 6] = [Format::F32, Format::F16, Format::Bf16, Format::Q4_0, Format::Q4_1, Format::Q8_0];

    /// The name in manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q4_0 => "q4_0",
            Format::Q4_1 => "q4_1",
            Format::Q8_0 => "q8_0",
        }
    }

    /// The format called `name`, or `unsupported_format`.
    pub fn parse(name: &str) -> Result<Format> {
        Format::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| Error::UnsupportedFormat(format!("weight format {name:?}; known: f32, f16, bf16, q4_0, q4_1, q8_0")))
    }

    /// The part of a kernel that unpacks: `unpack4(i) -> vec4f`, with the planes at bindings 5 and 6.
    pub fn wgsl(self) -> &'static str {
        match self {
            Format::F32 => include_str!("f32.wgsl"),
            Format::F16 => include_str!("f16.wgsl"),
            Format::Bf16 => include_str!("bf16.wgsl"),
            Format::Q4_0 => include_str!("q4_0.wgsl"),
            Format::Q4_1 => include_str!("q4_1.wgsl"),
            Format::Q8_0 => include_str!("q8_0.wgsl"),
        }
    }

    /// Bits of one element in the values plane.
    pub fn bits(self) -> usize {
        match self {
            Format::F32 => 32,
            Format::F16 | Format::Bf16 => 16,
            Format::Q8_0 => 8,
            Format::Q4_0 | Format::Q4_1 => 4,
        }
    }

    /// Elements that share a scale; for floats 1.
    pub fn group(self) -> usize {
        if self.is_quantised() { 32 } else { 1 }
    }

    /// Whether the format has a scales plane.
    pub fn is_quantised(self) -> bool {
        matches!(self, Format::Q4_0 | Format::Q4_1 | Format::Q8_0)
    }

    /// f16 numbers per group in the scales plane: scale, or scale and minimum.
    pub fn scales_per_group(self) -> usize {
        match self {
            Format::Q4_1 => 2,
            Format::Q4_0 | Format::Q8_0 => 1,
            _ => 0,
        }
    }

    /// Bytes of one row of `cols` elements in `plane`. A scales row need not be a multiple of 4 bytes: rows follow each
    /// other without padding.
    pub fn row_bytes(self, plane: Plane, cols: usize) -> usize {
        match plane {
            Plane::Values => (cols.div_ceil(self.group()) * self.group() * self.bits()).div_ceil(32) * 4,
            Plane::Scales => cols.div_ceil(self.group()) * self.scales_per_group() * 2,
        }
    }

    /// Bytes of one row of `cols` elements as ggml (GGUF) lays it out: blocks of scales and elements. Quantised rows are
    /// whole groups there.
    pub fn ggml_row_bytes(self, cols: usize) -> usize {
        cols / self.group() * (self.group() * self.bits() / 8 + 2 * self.scales_per_group())
    }

    /// Splits one row of ggml blocks into the two planes, losing nothing; appends. `blocks` holds exactly this row.
    pub fn split_ggml_row(self, blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
        match self {
            Format::F32 => values.extend(blocks),
            Format::F16 | Format::Bf16 => float::copy_16(blocks, values),
            Format::Q4_0 => q4_0::split_ggml(blocks, values, scales),
            Format::Q4_1 => q4_1::split_ggml(blocks, values, scales),
            Format::Q8_0 => q8_0::split_ggml(blocks, values, scales),
        }
    }

    /// Vec4s of a padded row of `cols` elements in the values plane; `cols` is a multiple of 4.
    pub fn row_quads(self, cols: usize) -> usize {
        cols.next_multiple_of(self.group()) / 4
    }

    /// Unpacks one row of `out.len()` elements. `values` and `scales` hold exactly this row.
    pub fn unpack_row(self, values: &[u8], scales: &[u8], out: &mut [f32]) {
        match self {
            Format::F32 => float::unpack_f32(values, out),
            Format::F16 => float::unpack_f16(values, out),
            Format::Bf16 => float::unpack_bf16(values, out),
            Format::Q4_0 => q4_0::unpack(values, scales, out),
            Format::Q4_1 => q4_1::unpack(values, scales, out),
            Format::Q8_0 => q8_0::unpack(values, scales, out),
        }
    }

    /// Packs one row of floats, rounding to nearest; appends to the two planes.
    pub fn pack_row(self, row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
        match self {
            Format::F32 => float::pack_f32(row, values),
            Format::F16 => float::pack_f16(row, values),
            Format::Bf16 => float::pack_bf16(row, values),
            Format::Q4_0 => q4_0::pack(row, values, scales),
            Format::Q4_1 => q4_1::pack(row, values, scales),
            Format::Q8_0 => q8_0::pack(row, values, scales),
        }
    }
}

/// ggml's order of 32 nibbles (byte `j` holds elements `j` and `j + 16`) to ours (byte `j` holds elements `2j` and `2j + 1`).
fn interleave_nibbles(ggml: &[u8], values: &mut Vec<u8>) {
    let (low, high) = (|j: usize| ggml[j] & 15, |j: usize| ggml[j] >> 4);
    values.extend((0..8).map(|j| low(2 * j) | (low(2 * j + 1) << 4)));
    values.extend((0..8).map(|j| high(2 * j) | (high(2 * j + 1) << 4)));
}

/// An f16 from two little-endian bytes of a scales plane.
fn f16_at(bytes: &[u8], index: usize) -> f32 {
    half::f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_then_unpacking_stays_within_half_a_step() {
        // Deterministic values of both signs, a row that is not a multiple of the group.
        let row: Vec<f32> = (0..80).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
        for format in Format::ALL {
            let (mut values, mut scales) = (Vec::new(), Vec::new());
            format.pack_row(&row, &mut values, &mut scales);
            assert_eq!(values.len(), format.row_bytes(Plane::Values, row.len()), "{}", format.name());
            assert_eq!(scales.len(), format.row_bytes(Plane::Scales, row.len()), "{}", format.name());
            let mut out = vec![0.0; row.len()];
            format.unpack_row(&values, &scales, &mut out);
            // Largest magnitude is 0.3: a step is 0.3/8 (q4_0), 0.6/15 (q4_1), 0.3/127 (q8_0), 2^-9 and 2^-12 relative (floats).
            let bound = match format {
                Format::F32 => 0.0,
                Format::F16 => 0.3 / 2048.0,
                Format::Bf16 => 0.3 / 256.0,
                Format::Q8_0 => 0.3 / 127.0 * 0.51,
                // q4_0 clips the side opposite to its largest element by up to one step.
                Format::Q4_0 => 0.3 / 8.0 * 1.01,
                Format::Q4_1 => 0.6 / 15.0 * 0.52,
            };
            for (a, b) in row.iter().zip(&out) {
                assert!((a - b).abs() <= bound, "{}: {a} became {b}", format.name());
            }
        }
    }
}
