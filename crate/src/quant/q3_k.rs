//! 3 bits, groups of 16 with scales in two levels: `w = d * scale * (q - 4)`, as GGUF's Q3_K: 116 bytes for 110.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, put_fields},
};
use crate::error::Result;

/// `values`: for each 32 elements two words of low bits and one of high bits. `scales`: for each 256 elements a word whose low half is
/// d, then 16 signed bytes.
pub(super) const LAYOUT: Layout = Layout {
    name: "q3_k",
    planes: Format::Q3K,
    bits: 3,
    group: 256,
    scales: Scales::TwoLevel,
    unpack,
    integers: Some(Integers {
        group: 16,
        largest: 7,
        signed: false,
        offset: 4,
        minima: false,
        codes: |values, out| codes(values, 12, out, 32, |bytes, i| (field(bytes, 2, i) | (field(&bytes[8..], 1, i) << 2)) as i8),
        scale: two_levels,
    }),
    pack: None,
    ggml: Ggml { id: 11, elements: 256, bytes: 110, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("q3_k.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for ((block, values), scales) in out.chunks_mut(256).zip(values.chunks(96)).zip(scales.chunks(20)) {
        let d = f16_at(scales, 0);
        for (i, o) in block.iter_mut().enumerate() {
            let bytes = &values[i / 32 * 12..];
            let q = field(bytes, 2, i % 32) | (field(&bytes[8..], 1, i % 32) << 2);
            *o = d * f32::from(scales[4 + i / 16] as i8) * (f32::from(q) - 4.0);
        }
    }
}

/// A group's `d * scale`.
fn two_levels(scales: &[u8], group: usize) -> [f32; 2] {
    let block = &scales[group / 16 * 20..];
    [f16_at(block, 0) * f32::from(block[4 + group % 16] as i8), 0.0]
}

/// ggml's block: 32 bytes of high bits, 64 of low bits, 12 of scales, d f16. Element `128 h + 32 j + l` has its low bits in bits `2 j`
/// of byte `32 h + l`, its high bit in bit `4 h + j` of byte `l`.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(110) {
        let (high, low, packed) = (&block[..32], &block[32..96], &block[96..108]);
        scales.extend([block[108], block[109], 0, 0]);
        scales.extend((0..16).map(|g| six_bits(packed, g).wrapping_sub(32)));
        let elements: [u8; 256] = std::array::from_fn(|i| {
            let (h, j, l) = (i / 128, i / 32 % 4, i % 32);
            field(&low[32 * h + l..], 2, j) | (field(&high[l..], 1, 4 * h + j) << 2)
        });
        for group in elements.chunks_exact(32) {
            put_fields(group, 0, 2, values);
            put_fields(group, 2, 1, values);
        }
    }
    Ok(())
}

/// Scale of group `g`, plus 32: low 4 bits in nibble `g / 8` of byte `g % 8`, high 2 bits in bits `2 (g / 4)` of byte `8 + g % 4`.
fn six_bits(packed: &[u8], g: usize) -> u8 {
    field(&packed[g % 8..], 4, g / 8) | (field(&packed[8 + g % 4..], 2, g / 4) << 4)
}
