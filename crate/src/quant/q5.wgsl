// 5 bits in groups of 32: four words of nibbles, a word of fifth bits.
const GROUP = 8u;

// Four elements from the low ends of their nibbles and fifth bits.
fn five_bits(nibbles: u32, high: u32) -> vec4f {
    let low = vec4u(nibbles, nibbles >> 4u, nibbles >> 8u, nibbles >> 12u) & vec4u(15u);
    return vec4f(low | (vec4u(high << 4u, high << 3u, high << 2u, high << 1u) & vec4u(16u)));
}

fn raw4(i: u32) -> vec4f {
    let start = i / 8u * 5u;
    return five_bits(values[start + i % 8u / 2u] >> ((i & 1u) * 16u), values[start + 4u] >> (i % 8u * 4u));
}

fn raw8(i: u32) -> Eight {
    let start = i / 8u * 5u;
    let nibbles = values[start + i % 8u / 2u];
    let high = values[start + 4u] >> (i % 8u * 4u);
    return Eight(five_bits(nibbles, high), five_bits(nibbles >> 16u, high >> 4u));
}
