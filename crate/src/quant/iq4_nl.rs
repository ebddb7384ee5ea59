//! 4 bits through a table that is denser around zero, groups of 32: `w = scale * table[q]`, as GGUF's IQ4_NL.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, interleave_nibbles, scale},
};
use crate::error::Result;

/// `values` as in `q4_0`; `scales`: one f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "iq4_nl",
    planes: Format::Iq4Nl,
    bits: 4,
    group: 32,
    scales: Scales::Scale,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 127,
        signed: true,
        offset: 0,
        minima: false,
        codes: |values, out| codes(values, 16, out, 32, |bytes, i| TABLE[usize::from(field(bytes, 4, i))]),
        scale,
    }),
    pack: None,
    ggml: Ggml { id: 20, elements: 32, bytes: 18, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("nibbles.wgsl"), include_str!("scale.wgsl"), include_str!("iq4_nl.wgsl")],
};

/// `kvalues_iq4nl` of ggml.
const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, nibbles)) in out.chunks_mut(32).zip(values.chunks(16)).enumerate() {
        let scale = f16_at(scales, g);
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * f32::from(TABLE[usize::from(field(nibbles, 4, i))]);
        }
    }
}

/// ggml's block: scale f16, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(18) {
        scales.extend(&block[..2]);
        interleave_nibbles(&block[2..], values);
    }
    Ok(())
}
