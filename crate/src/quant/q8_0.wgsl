// q8_0: w = scale * q, signed bytes, groups of 32.
const GROUP = 8u;

fn raw4(i: u32) -> vec4f {
    let word = bitcast<i32>(values[i]);
    return vec4f(vec4i(word << 24u, word << 16u, word << 8u, word) >> vec4u(24u));
}

fn raw8(i: u32) -> Eight {
    return Eight(raw4(i), raw4(i + 1u));
}

fn scaling(g: u32) -> vec2f {
    return vec2f(scale(g), 0.0);
}
