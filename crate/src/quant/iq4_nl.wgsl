// iq4_nl: w = scale * table[q].
const TABLE = array<f32, 16>(
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
);

fn element(q: vec4u) -> vec4f {
    return vec4f(TABLE[q.x], TABLE[q.y], TABLE[q.z], TABLE[q.w]);
}

fn scaling(g: u32) -> vec2f {
    return vec2f(scale(g), 0.0);
}
