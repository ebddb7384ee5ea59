// q4_0: w = scale * (q - 8).
fn element(q: vec4u) -> vec4f {
    return vec4f(q);
}

fn scaling(g: u32) -> vec2f {
    return scale(g) * vec2f(1.0, -8.0);
}
