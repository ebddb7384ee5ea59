// bf16, two in a word: the upper halves of f32.
@group(0) @binding(5) var<storage, read> values: array<vec2u>;

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    let words = values[i];
    return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
