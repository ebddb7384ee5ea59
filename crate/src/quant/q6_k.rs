//! 6 bits, symmetric, groups of 16: `w = scale * (q - 32)`. GGUF's Q6_K has `scale = d * (8 bits)` in blocks of 256: 224 bytes
//! for 210.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, put_fields, put_product, scale},
};
use crate::error::Result;

/// `values`: three words a group, two of nibbles, one of the elements' two high bits. `scales`: one f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q6_k",
    planes: Format::Q6K,
    bits: 6,
    group: 16,
    scales: Scales::Scale,
    unpack,
    integers: Some(Integers {
        group: 16,
        largest: 63,
        signed: false,
        offset: 32,
        minima: false,
        codes: |values, out| codes(values, 12, out, 16, |bytes, i| (field(bytes, 4, i) | (field(&bytes[8..], 2, i) << 4)) as i8),
        scale,
    }),
    pack: None,
    ggml: Ggml { id: 14, elements: 256, bytes: 210, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("scale.wgsl"), include_str!("q6_k.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, bytes)) in out.chunks_mut(16).zip(values.chunks(12)).enumerate() {
        let scale = f16_at(scales, g);
        for (i, o) in group.iter_mut().enumerate() {
            let q = field(bytes, 4, i) | (field(&bytes[8..], 2, i) << 4);
            *o = scale * (f32::from(q) - 32.0);
        }
    }
}

/// ggml's block: 128 bytes of low bits, 64 of high bits, 16 signed scales, d f16. Element `128 h + 32 j + l` has its low bits in
/// nibble `j / 2` of byte `64 h + 32 (j % 2) + l`, its high bits in bits `2 j` of byte `32 h + l`.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(210) {
        let (low, high) = (&block[..128], &block[128..192]);
        for &scale in &block[192..208] {
            put_product(f16_at(&block[208..], 0), i32::from(scale as i8), scales)?;
        }
        let elements: [u8; 256] = std::array::from_fn(|i| {
            let (h, j, l) = (i / 128, i / 32 % 4, i % 32);
            field(&low[64 * h + 32 * (j % 2) + l..], 4, j / 2) | (field(&high[32 * h + l..], 2, j) << 4)
        });
        for group in elements.chunks_exact(16) {
            put_fields(group, 0, 4, values);
            put_fields(group, 4, 2, values);
        }
    }
    Ok(())
}
