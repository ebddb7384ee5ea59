// Scale and minimum of group g: f16, a word.
fn scaling(g: u32) -> vec2f {
    return unpack2x16float(scales[g]);
}
