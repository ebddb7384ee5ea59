//! 2 bits, groups of 16 with scales and minima in two levels: `w = d * scale * q - dmin * minimum`, as GGUF's Q2_K: 84 bytes.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, put_fields},
};
use crate::error::Result;

/// `values`: a word for each 16 elements. `scales`: for each 256 elements d and dmin, then 16 bytes: scale in the low half, minimum in
/// the high half.
pub(super) const LAYOUT: Layout = Layout {
    name: "q2_k",
    planes: Format::Q2K,
    bits: 2,
    group: 256,
    scales: Scales::TwoLevel,
    unpack,
    integers: Some(Integers {
        group: 16,
        largest: 3,
        signed: false,
        offset: 0,
        minima: true,
        codes: |values, out| codes(values, 64, out, 256, |bytes, i| field(bytes, 2, i) as i8),
        scale: two_levels,
    }),
    pack: None,
    ggml: Ggml { id: 10, elements: 256, bytes: 84, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("q2_k.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for ((block, values), scales) in out.chunks_mut(256).zip(values.chunks(64)).zip(scales.chunks(20)) {
        let (d, dmin) = (f16_at(scales, 0), f16_at(scales, 1));
        for (i, o) in block.iter_mut().enumerate() {
            let pair = scales[4 + i / 16];
            *o = d * f32::from(pair & 15) * f32::from(field(values, 2, i)) - dmin * f32::from(pair >> 4);
        }
    }
}

/// A group's `d * scale` and `-dmin * minimum`.
fn two_levels(scales: &[u8], group: usize) -> [f32; 2] {
    let (block, pair) = (&scales[group / 16 * 20..], scales[group / 16 * 20 + 4 + group % 16]);
    [f16_at(block, 0) * f32::from(pair & 15), -f16_at(block, 1) * f32::from(pair >> 4)]
}

/// ggml's block: 16 bytes of scales and minima, 64 of elements (`128 h + 32 j + l` in bits `2 j` of byte `32 h + l`), d f16,
/// dmin f16.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(84) {
        scales.extend(&block[80..]);
        scales.extend(&block[..16]);
        let elements: [u8; 256] = std::array::from_fn(|i| field(&block[16 + i / 128 * 32 + i % 32..], 2, i / 32 % 4));
        put_fields(&elements, 0, 2, values);
    }
    Ok(())
}
