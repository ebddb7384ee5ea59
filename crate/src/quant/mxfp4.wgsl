// mxfp4: w = 2^(e - 128) * element, elements doubled so that all are integers: 0 1 2 3 4 6 8 12, a nibble each in this word.
const MAGNITUDES = 0xc8643210u;

fn element(q: vec4u) -> vec4f {
    let magnitude = (vec4u(MAGNITUDES) >> ((q & vec4u(7u)) * 4u)) & vec4u(15u);
    return vec4f(magnitude) * (1.0 - 2.0 * vec4f(q >> vec4u(3u)));
}

// A byte for each group; the two smallest powers are subnormal.
fn scaling(g: u32) -> vec2f {
    let e = (scales[g / 4u] >> (g % 4u * 8u)) & 255u;
    return vec2f(bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u)), 0.0);
}
