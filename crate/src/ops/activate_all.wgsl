// y = activation(x).
struct Params {
    cols: u32,
    offset: u32,
    stride: u32,
    activation: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.cols {
        y[id.y * p.cols + id.x] = activate(p.activation, x[p.offset + id.y * p.stride + id.x]);
    }
}
