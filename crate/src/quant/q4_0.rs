//! 4 bits, symmetric, groups of 32: `w = scale * (q - 8)`, as GGUF's Q4_0.

use half::f16;

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, interleave_nibbles, scale},
};
use crate::error::Result;

/// `values`: 16 bytes a group, element `i` in nibble `i % 8` of word `i / 8`. `scales`: one f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q4_0",
    planes: Format::Q4_0,
    bits: 4,
    group: 32,
    scales: Scales::Scale,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 15,
        signed: false,
        offset: 8,
        minima: false,
        codes: |values, out| codes(values, 16, out, 32, |bytes, i| field(bytes, 4, i) as i8),
        scale,
    }),
    pack: Some(pack),
    ggml: Ggml { id: 2, elements: 32, bytes: 18, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("nibbles.wgsl"), include_str!("scale.wgsl"), include_str!("q4_0.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, nibbles)) in out.chunks_mut(32).zip(values.chunks(16)).enumerate() {
        let scale = f16_at(scales, g);
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * (f32::from(field(nibbles, 4, i)) - 8.0);
        }
    }
}

/// Round to nearest with the element of largest magnitude at -8, as llama.cpp does.
fn pack(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for group in row.chunks(32) {
        let extreme = group.iter().copied().fold(0.0_f32, |m, v| if v.abs() > m.abs() { v } else { m });
        let scale = f16::from_f32(extreme / -8.0);
        let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
        let quantise = |i: usize| group.get(i).map_or(8, |v| (v * inverse + 8.0).round().clamp(0.0, 15.0) as u8);
        values.extend((0..16).map(|i| quantise(2 * i) | (quantise(2 * i + 1) << 4)));
        scales.extend(scale.to_le_bytes());
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
