// q5_0: w = scale * (q - 16).
fn scaling(g: u32) -> vec2f {
    return scale(g) * vec2f(1.0, -16.0);
}
