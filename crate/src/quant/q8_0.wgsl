// q8_0: w = scale * q, signed bytes, groups of 32.
@group(0) @binding(5) var<storage, read> values: array<u32>;
@group(0) @binding(6) var<storage, read> scales: array<u32>;

// The scale of group g: f16, two in a word.
fn scale(g: u32) -> f32 {
    return unpack2x16float(scales[g >> 1u] >> ((g & 1u) * 16u)).x;
}

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    let word = bitcast<i32>(values[i]);
    let q = vec4i(word << 24u, word << 16u, word << 8u, word) >> vec4u(24u);
    return scale(i >> 3u) * vec4f(q);
}

// The same without scale: 8 elements from vec4 i on, i even; w = scale * raw + offset with scaling(g) of their group g.
fn raw8(i: u32) -> Eight {
    return Eight(raw4(i), raw4(i + 1u));
}

fn raw4(i: u32) -> vec4f {
    let word = bitcast<i32>(values[i]);
    return vec4f(vec4i(word << 24u, word << 16u, word << 8u, word) >> vec4u(24u));
}

fn scaling(g: u32) -> vec2f {
    return vec2f(scale(g), 0.0);
}
