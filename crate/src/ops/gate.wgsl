// y = activation(gate) * up, where a row of x is gate | up.
struct Params {
    rows: u32,
    half: u32,
    offset: u32,
    stride: u32,
    activation: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.half {
        return;
    }
    let at = p.offset + id.y * p.stride + id.x;
    y[id.y * p.half + id.x] = gated(p.activation, x[at], x[at + p.half]);
}
