// 4 bits in groups of 32, 8 in a word. The format's element(q) says what they stand for.
const GROUP = 8u;

fn raw4(i: u32) -> vec4f {
    let half = values[i >> 1u] >> ((i & 1u) * 16u);
    return element(vec4u(half, half >> 4u, half >> 8u, half >> 12u) & vec4u(15u));
}

fn raw8(i: u32) -> Eight {
    let word = values[i >> 1u];
    let low = vec4u(word, word >> 4u, word >> 8u, word >> 12u) & vec4u(15u);
    let high = vec4u(word >> 16u, word >> 20u, word >> 24u, word >> 28u) & vec4u(15u);
    return Eight(element(low), element(high));
}
