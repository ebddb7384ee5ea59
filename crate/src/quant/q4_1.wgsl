// q4_1: w = scale * q + minimum.
fn element(q: vec4u) -> vec4f {
    return vec4f(q);
}
