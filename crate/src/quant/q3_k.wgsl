// q3_k: w = d * scale * (q - 4); 3 bits, for 32 elements two words of low bits and one of high bits; groups of 16.
const GROUP = 4u;

// Four elements from the low ends of their low and high bits.
fn three_bits(pairs: u32, high: u32) -> vec4f {
    let low = vec4u(pairs, pairs >> 2u, pairs >> 4u, pairs >> 6u) & vec4u(3u);
    return vec4f(low | (vec4u(high << 2u, high << 1u, high, high >> 1u) & vec4u(4u)));
}

fn raw4(i: u32) -> vec4f {
    let start = i / 8u * 3u;
    return three_bits(values[start + i % 8u / 4u] >> (i % 4u * 8u), values[start + 2u] >> (i % 8u * 4u));
}

fn raw8(i: u32) -> Eight {
    let start = i / 8u * 3u;
    let pairs = values[start + i % 8u / 4u] >> (i % 4u * 8u);
    let high = values[start + 2u] >> (i % 8u * 4u);
    return Eight(three_bits(pairs, high), three_bits(pairs >> 8u, high >> 4u));
}

// For 256 elements a word with d, then a signed byte for each group.
fn scaling(g: u32) -> vec2f {
    let start = g / 16u * 5u;
    let word = bitcast<i32>(scales[start + 1u + g % 16u / 4u]);
    let signed = (word << (24u - g % 4u * 8u)) >> 24u;
    return unpack2x16float(scales[start]).x * f32(signed) * vec2f(1.0, -4.0);
}
