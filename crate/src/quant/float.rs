//! f32, f16 and bf16: the elements themselves, rows padded to whole words.

use half::{bf16, f16};

use super::{Format, Ggml, Layout, Scales};
use crate::error::Result;

pub(super) const F32: Layout = Layout {
    name: "f32",
    planes: Format::F32,
    bits: 32,
    group: 1,
    scales: Scales::None,
    unpack: |values, _, out| copy(values, out, f32::from_le_bytes),
    integers: None,
    pack: Some(|row, values, _| values.extend(row.iter().flat_map(|v| v.to_le_bytes()))),
    ggml: Ggml { id: 0, elements: 1, bytes: 4, split: copy_row },
    wgsl: &[include_str!("f32.wgsl"), include_str!("float.wgsl")],
};

pub(super) const F16: Layout = Layout {
    name: "f16",
    planes: Format::F16,
    bits: 16,
    group: 1,
    scales: Scales::None,
    unpack: |values, _, out| copy(values, out, |b| f16::from_le_bytes(b).to_f32()),
    integers: None,
    pack: Some(|row, values, _| pack_16(row, values, |v| f16::from_f32(v).to_le_bytes())),
    ggml: Ggml { id: 1, elements: 1, bytes: 2, split: copy_row },
    wgsl: &[include_str!("f16.wgsl"), include_str!("float.wgsl")],
};

pub(super) const BF16: Layout = Layout {
    name: "bf16",
    planes: Format::Bf16,
    bits: 16,
    group: 1,
    scales: Scales::None,
    unpack: |values, _, out| copy(values, out, |b| bf16::from_le_bytes(b).to_f32()),
    integers: None,
    pack: Some(|row, values, _| pack_16(row, values, |v| bf16::from_f32(v).to_le_bytes())),
    ggml: Ggml { id: 30, elements: 1, bytes: 2, split: copy_row },
    wgsl: &[include_str!("bf16.wgsl"), include_str!("float.wgsl")],
};

fn copy<const N: usize>(values: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32) {
    for (o, bytes) in out.iter_mut().zip(values.as_chunks().0) {
        *o = element(*bytes);
    }
}

fn pack_16(row: &[f32], values: &mut Vec<u8>, element: impl Fn(f32) -> [u8; 2]) {
    values.extend(row.iter().flat_map(|&v| element(v)));
    pad_to_word(2 * row.len(), values);
}

/// A row as it is, padded.
fn copy_row(row: &[u8], values: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<()> {
    values.extend(row);
    pad_to_word(row.len(), values);
    Ok(())
}

/// A row of an odd number of 16-bit elements ends with two zero bytes.
fn pad_to_word(bytes: usize, values: &mut Vec<u8>) {
    if !bytes.is_multiple_of(4) {
        values.extend([0, 0]);
    }
}
