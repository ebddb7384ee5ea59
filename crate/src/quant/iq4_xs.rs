//! GGUF's IQ4_XS: `w = d * scale * table[q]`, blocks of 256. Its planes are those of `iq4_nl`: 144 bytes for 136.

use super::{
    Ggml, Layout,
    bits::{f16_at, field, interleave_nibbles, put_product},
    iq4_nl,
};
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout { name: "iq4_xs", ggml: Ggml { id: 23, elements: 256, bytes: 136, split }, ..iq4_nl::LAYOUT };

/// ggml's block: d f16, the high 2 bits of the groups' scales in 2 bytes, the low 4 bits in 4 bytes, 128 bytes of nibbles. Scales are
/// stored plus 32.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(136) {
        for (group, nibbles) in block[8..].chunks_exact(16).enumerate() {
            let scale = field(&block[4..], 4, group) | (field(&block[2..], 2, group) << 4);
            put_product(f16_at(block, 0), i32::from(scale) - 32, scales)?;
            interleave_nibbles(nibbles, values);
        }
    }
    Ok(())
}
