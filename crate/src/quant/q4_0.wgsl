// q4_0: w = scale * (q - 8), 8 nibbles in a word, groups of 32.
@group(0) @binding(5) var<storage, read> values: array<u32>;
@group(0) @binding(6) var<storage, read> scales: array<u32>;

// The scale of group g: f16, two in a word.
fn scale(g: u32) -> f32 {
    return unpack2x16float(scales[g >> 1u] >> ((g & 1u) * 16u)).x;
}

// Elements 4 i .. 4 i + 3 of the values plane, rows padded as `quant` says.
fn unpack4(i: u32) -> vec4f {
    let half = values[i >> 1u] >> ((i & 1u) * 16u);
    let q = vec4u(half, half >> 4u, half >> 8u, half >> 12u) & vec4u(15u);
    return scale(i >> 3u) * (vec4f(q) - 8.0);
}

// The same without scale: 8 elements from vec4 i on, i even; w = scale * raw + offset with scaling(g) of their group g.
fn raw8(i: u32) -> Eight {
    let word = values[i >> 1u];
    let low = vec4u(word, word >> 4u, word >> 8u, word >> 12u) & vec4u(15u);
    let high = vec4u(word >> 16u, word >> 20u, word >> 24u, word >> 28u) & vec4u(15u);
    return Eight(vec4f(low), vec4f(high));
}

fn scaling(g: u32) -> vec2f {
    return scale(g) * vec2f(1.0, -8.0);
}
