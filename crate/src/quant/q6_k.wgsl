// q6_k: w = scale * (q - 32); 6 bits in groups of 16: two words of nibbles, a word of the two high bits.
const GROUP = 4u;

// Four elements from the low ends of their nibbles and high bits.
fn six_bits(nibbles: u32, high: u32) -> vec4f {
    let low = vec4u(nibbles, nibbles >> 4u, nibbles >> 8u, nibbles >> 12u) & vec4u(15u);
    return vec4f(low | (vec4u(high << 4u, high << 2u, high, high >> 2u) & vec4u(48u)));
}

fn raw4(i: u32) -> vec4f {
    let start = i / 4u * 3u;
    return six_bits(values[start + i % 4u / 2u] >> ((i & 1u) * 16u), values[start + 2u] >> (i % 4u * 8u));
}

fn raw8(i: u32) -> Eight {
    let start = i / 4u * 3u;
    let nibbles = values[start + i % 4u / 2u];
    let high = values[start + 2u] >> (i % 4u * 8u);
    return Eight(six_bits(nibbles, high), six_bits(nibbles >> 16u, high >> 8u));
}

fn scaling(g: u32) -> vec2f {
    return scale(g) * vec2f(1.0, -32.0);
}
