
// All tokens have the same weight.
@group(0) @binding(4) var<storage, read> residual: array<f32>;

// First vec4 of a token's row. Tokens past the end repeat the last one; their sums are dropped.
fn x_start(token: u32) -> u32 {
    return p.x_offset + min(token, p.tokens - 1u) * p.x_stride;
}

fn quads_of(token: u32) -> u32 {
    return p.quads;
}
