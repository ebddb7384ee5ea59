//! 4 bits with a minimum, groups of 32: `w = scale * q + minimum`, as GGUF's Q4_1.

use half::f16;

use super::{
    Format, Ggml, Layout, Scales,
    bits::{f16_at, field, interleave_nibbles},
};
use crate::error::Result;

/// `values` as in `q4_0`; `scales`: scale and minimum, two f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q4_1",
    planes: Format::Q4_1,
    bits: 4,
    group: 32,
    scales: Scales::ScaleMinimum,
    unpack,
    pack: Some(pack),
    ggml: Ggml { id: 3, elements: 32, bytes: 20, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("nibbles.wgsl"), include_str!("scale_minimum.wgsl"), include_str!("q4_1.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, nibbles)) in out.chunks_mut(32).zip(values.chunks(16)).enumerate() {
        let (scale, minimum) = (f16_at(scales, 2 * g), f16_at(scales, 2 * g + 1));
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * f32::from(field(nibbles, 4, i)) + minimum;
        }
    }
}

/// Round to nearest between the group's minimum and maximum.
fn pack(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for group in row.chunks(32) {
        let (min, max) = group.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        let (scale, minimum) = (f16::from_f32((max - min) / 15.0), f16::from_f32(min));
        let inverse = if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() };
        let quantise = |i: usize| group.get(i).map_or(0, |v| ((v - minimum.to_f32()) * inverse).round().clamp(0.0, 15.0) as u8);
        values.extend((0..16).map(|i| quantise(2 * i) | (quantise(2 * i + 1) << 4)));
        scales.extend(scale.to_le_bytes());
        scales.extend(minimum.to_le_bytes());
    }
}

/// ggml's block: scale f16, minimum f16, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(20) {
        scales.extend(&block[..4]);
        interleave_nibbles(&block[4..], values);
    }
    Ok(())
}
