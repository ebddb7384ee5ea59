//! GGUF's Q5_K: `w = d * scale * q - dmin * minimum`, blocks of 256. Its planes are those of `q5_1`: 192 bytes for 176.

use super::{
    Ggml, Layout,
    bits::{field, put_fields},
    q4_k::put_scales,
    q5_1,
};
use crate::error::Result;

pub(super) const LAYOUT: Layout =
    Layout { name: "q5_k", pack: None, ggml: Ggml { id: 13, elements: 256, bytes: 176, split }, ..q5_1::LAYOUT };

/// ggml's block: d, dmin and scales as in Q4_K, 32 bytes of fifth bits (bit `g` of byte `l` for element `l` of group `g`), nibbles as
/// in Q4_K.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(176) {
        put_scales(block, scales)?;
        let (high, low) = block[16..].split_at(32);
        for group in 0..8 {
            let nibbles = &low[group / 2 * 32..];
            let elements: [u8; 32] = std::array::from_fn(|l| field(&nibbles[l..], 4, group % 2) | (field(&high[l..], 1, group) << 4));
            put_fields(&elements, 0, 4, values);
            put_fields(&elements, 4, 1, values);
        }
    }
    Ok(())
}
