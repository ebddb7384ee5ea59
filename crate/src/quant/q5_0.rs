//! 5 bits, symmetric, groups of 32: `w = scale * (q - 16)`, as GGUF's Q5_0.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, interleave_nibbles, scale},
};
use crate::error::Result;

/// `values`: five words a group, four of nibbles as in `q4_0`, one of the elements' fifth bits. `scales`: one f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q5_0",
    planes: Format::Q5_0,
    bits: 5,
    group: 32,
    scales: Scales::Scale,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 31,
        signed: false,
        offset: 16,
        minima: false,
        codes: |values, out| codes(values, 20, out, 32, |bytes, i| (field(bytes, 4, i) | (field(&bytes[16..], 1, i) << 4)) as i8),
        scale,
    }),
    pack: None,
    ggml: Ggml { id: 6, elements: 32, bytes: 22, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("q5.wgsl"), include_str!("scale.wgsl"), include_str!("q5_0.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, bytes)) in out.chunks_mut(32).zip(values.chunks(20)).enumerate() {
        let scale = f16_at(scales, g);
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * (five_bits(bytes, i) - 16.0);
        }
    }
}

/// Element `i` of a group of the values plane.
pub(super) fn five_bits(group: &[u8], i: usize) -> f32 {
    f32::from(field(group, 4, i) | (field(&group[16..], 1, i) << 4))
}

/// ggml's block: scale f16, 4 bytes of fifth bits, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(22) {
        scales.extend(&block[..2]);
        interleave_nibbles(&block[6..], values);
        values.extend(&block[2..6]);
    }
    Ok(())
}
