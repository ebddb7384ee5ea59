//! 4 bits, symmetric, groups of 32: `w = scale * (q - 8)`, as GGUF's Q4_0.

use half::f16;

use super::{f16_at, interleave_nibbles};

/// `values`: 16 bytes a group, element `i` in nibble `i % 8` of word `i / 8`. `scales`: one f16 a group.
pub(super) fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, nibbles)) in out.chunks_mut(32).zip(values.chunks(16)).enumerate() {
        let scale = f16_at(scales, g);
        for (i, o) in group.iter_mut().enumerate() {
            let q = (nibbles[i / 2] >> (4 * (i % 2))) & 15;
            *o = scale * (f32::from(q) - 8.0);
        }
    }
}

/// Round to nearest with the element of largest magnitude at -8, as llama.cpp does.
pub(super) fn pack(row: &[f32], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
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
pub(super) fn split_ggml(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) {
    for block in blocks.chunks_exact(18) {
        scales.extend(&block[..2]);
        interleave_nibbles(&block[2..], values);
    }
}
