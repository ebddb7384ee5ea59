// Rotation of one element, shared by rope_apply and rope_append. `table`: [position][pair] = (cos, sin).
struct Params {
    rows: u32,
    width: u32,      // columns that a thread each is given
    offset: u32,
    stride: u32,
    head_dim: u32,
    pairs: u32,
    q_width: u32,
    kv_width: u32,
}
struct Step {
    position: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<vec2f>;

// Element `column` of row `row`, rotated within its head.
fn rotated(row: u32, column: u32) -> f32 {
    let at = p.offset + row * p.stride + column;
    let i = column % p.head_dim;
    if i >= 2u * p.pairs {
        return x[at];
    }
    let turn = table[(step.position + row) * p.pairs + i % p.pairs];
    if i < p.pairs {
        return x[at] * turn.x - x[at + p.pairs] * turn.y;
    }
    return x[at] * turn.x + x[at - p.pairs] * turn.y;
}

