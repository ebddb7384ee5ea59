//! GGUF's Q4_K: `w = d * scale * q - dmin * minimum`, blocks of 256. Its planes are those of `q4_1`: 160 bytes for 144.

use super::{
    Ggml, Layout,
    bits::{f16_at, field, put_fields, put_product},
    q4_1,
};
use crate::error::Result;

pub(super) const LAYOUT: Layout =
    Layout { name: "q4_k", pack: None, ggml: Ggml { id: 12, elements: 256, bytes: 144, split }, ..q4_1::LAYOUT };

/// ggml's block: d f16, dmin f16, 12 bytes of scales and minima, 128 bytes of nibbles: byte `32 j + l` holds elements
/// `64 j + l` and `64 j + l + 32`.
fn split(blocks: &[u8], values: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
    for block in blocks.chunks_exact(144) {
        put_scales(block, scales)?;
        for (group, nibbles) in block[16..].chunks_exact(32).flat_map(|bytes| [(0, bytes), (1, bytes)]) {
            let elements: [u8; 32] = std::array::from_fn(|l| field(&nibbles[l..], 4, group));
            put_fields(&elements, 0, 4, values);
        }
    }
    Ok(())
}

/// Scale and minimum of the 8 groups of a block of Q4_K or Q5_K.
pub(super) fn put_scales(block: &[u8], scales: &mut Vec<u8>) -> Result<()> {
    let (d, dmin, packed) = (f16_at(block, 0), f16_at(block, 1), &block[4..16]);
    for group in 0..8 {
        let (scale, minimum) = six_bit_pair(packed, group);
        put_product(d, scale.into(), scales)?;
        put_product(dmin, -i32::from(minimum), scales)?;
    }
    Ok(())
}

/// Scale and minimum of group `j`: the first four groups' are the low 6 bits of bytes `j` and `j + 4`; the others' have their
/// low 4 bits in byte `j + 4` and their high 2 bits in the first groups' bytes.
fn six_bit_pair(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4))
    }
}
