// q2_k: w = d * scale * q - dmin * minimum; 2 bits, 16 in a word; groups of 16.
const GROUP = 4u;

fn two_bits(pairs: u32) -> vec4f {
    return vec4f(vec4u(pairs, pairs >> 2u, pairs >> 4u, pairs >> 6u) & vec4u(3u));
}

fn raw4(i: u32) -> vec4f {
    return two_bits(values[i / 4u] >> (i % 4u * 8u));
}

fn raw8(i: u32) -> Eight {
    let pairs = values[i / 4u] >> (i % 4u * 8u);
    return Eight(two_bits(pairs), two_bits(pairs >> 8u));
}

// For 256 elements a word with d and dmin, then a byte for each group: scale in the low half, minimum in the high half.
fn scaling(g: u32) -> vec2f {
    let start = g / 16u * 5u;
    let pair = scales[start + 1u + g % 16u / 4u] >> (g % 4u * 8u);
    return unpack2x16float(scales[start]) * vec2f(f32(pair & 15u), -f32((pair >> 4u) & 15u));
}
