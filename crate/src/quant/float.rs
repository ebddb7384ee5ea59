//! f32, f16 and bf16: the elements themselves, rows padded to whole words.

use half::{bf16, f16};

/// Little-endian f32.
pub(super) fn unpack_f32(values: &[u8], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(values.chunks_exact(4)) {
        *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

/// Little-endian f16.
pub(super) fn unpack_f16(values: &[u8], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(values.chunks_exact(2)) {
        *o = f16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

/// Little-endian bf16.
pub(super) fn unpack_bf16(values: &[u8], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(values.chunks_exact(2)) {
        *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

pub(super) fn pack_f32(row: &[f32], values: &mut Vec<u8>) {
    values.extend(row.iter().flat_map(|v| v.to_le_bytes()));
}

pub(super) fn pack_f16(row: &[f32], values: &mut Vec<u8>) {
    values.extend(row.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    pad_to_word(row.len(), values);
}

pub(super) fn pack_bf16(row: &[f32], values: &mut Vec<u8>) {
    values.extend(row.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
    pad_to_word(row.len(), values);
}

/// A row of 16-bit elements as it is, padded.
pub(super) fn copy_16(row: &[u8], values: &mut Vec<u8>) {
    values.extend(row);
    pad_to_word(row.len() / 2, values);
}

/// A row of an odd number of 16-bit elements ends with two zero bytes.
fn pad_to_word(cols: usize, values: &mut Vec<u8>) {
    if cols % 2 == 1 {
        values.extend([0, 0]);
    }
}
