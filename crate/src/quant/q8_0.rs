//! 8 bits, symmetric, groups of 32: `w = scale * q`, as GGUF's Q8_0.

use half::f16;

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{f16_at, scale},
};
use crate::error::Result;

/// `values`: 32 signed bytes a group; `scales`: one f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q8_0",
    planes: Format::Q8_0,
    bits: 8,
    group: 32,
    scales: Scales::Scale,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 127,
        signed: true,
        offset: 0,
        minima: false,
        codes: |values, out| values.iter().zip(out).for_each(|(v, c)| *c = *v as i8),
        scale,
    }),
    pack: Some(pack),
    ggml: Ggml { id: 8, elements: 32, bytes: 34, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("scale.wgsl"), include_str!("q8_0.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, bytes)) in out.chunks_mut(32).zip(values.chunks(32)).enumerate() {
        let scale = f16_at(scales, g);
        for (o, &q) in group.iter_mut().zip(bytes) {
            *o = scale * f32::from(q as i8);
        }
    }
}

/// Round to nearest with the largest magnitude at 127.
fn pack(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for group in row.chunks(32) {
        let largest = group.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
        let quantise = |i: usize| group.get(i).map_or(0, |v| (v * inverse).round().clamp(-127.0, 127.0) as i8 as u8);
        values.extend((0..32).map(quantise));
        scales.extend(scale.to_le_bytes());
    }
}

/// ggml's block: scale f16, 32 signed bytes.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(34) {
        scales.extend(&block[..2]);
        values.extend(&block[2..]);
    }
    Ok(())
}
