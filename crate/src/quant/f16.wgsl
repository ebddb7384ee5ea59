// f16, two in a word.
@group(0) @binding(5) var<storage, read> values: array<vec2u>;

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    let words = values[i];
    return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
