//! 4-bit floats in groups of 32 that share a power of two: `w = 2^(e - 127) * table[q]`, the OCP's MXFP4, GGUF's MXFP4. In
//! safetensors files (gpt-oss) `blocks` and `scales` are these planes byte for byte.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, field, interleave_nibbles},
};
use crate::error::Result;

/// `values` as in `q4_0`; `scales`: one byte a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "mxfp4",
    planes: Format::Mxfp4,
    bits: 4,
    group: 32,
    scales: Scales::Exponent,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 12,
        signed: true,
        offset: 0,
        minima: false,
        codes: |values, out| codes(values, 16, out, 32, |bytes, i| DOUBLED[usize::from(field(bytes, 4, i))]),
        scale: |scales, g| [half_power(scales[g]), 0.0],
    }),
    pack: None,
    ggml: Ggml { id: 39, elements: 32, bytes: 17, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("nibbles.wgsl"), include_str!("mxfp4.wgsl")],
};

/// E2M1, doubled so that all are integers.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for ((group, nibbles), &e) in out.chunks_mut(32).zip(values.chunks(16)).zip(scales) {
        let scale = half_power(e);
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * f32::from(DOUBLED[usize::from(field(nibbles, 4, i))]);
        }
    }
}

/// `2^(e - 128)`; the two smallest are subnormal.
fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// ggml's block: exponent, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(17) {
        scales.push(block[0]);
        interleave_nibbles(&block[1..], values);
    }
    Ok(())
}
