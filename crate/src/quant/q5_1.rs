//! 5 bits with a minimum, groups of 32: `w = scale * q + minimum`, as GGUF's Q5_1.

use super::{
    Format, Ggml, Integers, Layout, Scales,
    bits::{codes, f16_at, field, interleave_nibbles, scale_minimum},
    q5_0::five_bits,
};
use crate::error::Result;

/// `values` as in `q5_0`; `scales`: scale and minimum, two f16 a group.
pub(super) const LAYOUT: Layout = Layout {
    name: "q5_1",
    planes: Format::Q5_1,
    bits: 5,
    group: 32,
    scales: Scales::ScaleMinimum,
    unpack,
    integers: Some(Integers {
        group: 32,
        largest: 31,
        signed: false,
        offset: 0,
        minima: true,
        codes: |values, out| codes(values, 20, out, 32, |bytes, i| (field(bytes, 4, i) | (field(&bytes[16..], 1, i) << 4)) as i8),
        scale: scale_minimum,
    }),
    pack: None,
    ggml: Ggml { id: 7, elements: 32, bytes: 24, split },
    wgsl: &[include_str!("quantised.wgsl"), include_str!("q5.wgsl"), include_str!("scale_minimum.wgsl")],
};

fn unpack(values: &[u8], scales: &[u8], out: &mut [f32]) {
    for (g, (group, bytes)) in out.chunks_mut(32).zip(values.chunks(20)).enumerate() {
        let (scale, minimum) = (f16_at(scales, 2 * g), f16_at(scales, 2 * g + 1));
        for (i, o) in group.iter_mut().enumerate() {
            *o = scale * five_bits(bytes, i) + minimum;
        }
    }
}

/// ggml's block: scale f16, minimum f16, 4 bytes of fifth bits, 16 bytes of nibbles.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(24) {
        scales.extend(&block[..4]);
        interleave_nibbles(&block[8..], values);
        values.extend(&block[4..8]);
    }
    Ok(())
}
