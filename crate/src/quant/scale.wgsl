// The scale of group g: f16, two in a word.
fn scale(g: u32) -> f32 {
    return unpack2x16float(scales[g >> 1u] >> ((g & 1u) * 16u)).x;
}
