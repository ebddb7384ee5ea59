// y = the rows of x that belong to a row, times their weights, added up.
struct Params {
    cols: u32,
    per_row: u32,
    offset: u32,
    stride: u32,
    has_residual: u32,
    residual_offset: u32,
    residual_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.cols {
        return;
    }
    var sum = 0.0;
    if p.has_residual != 0u {
        sum = residual[p.residual_offset + id.y * p.residual_stride + id.x];
    }
    for (var route = id.y * p.per_row; route < (id.y + 1u) * p.per_row; route++) {
        sum += weights[route] * x[p.offset + route * p.stride + id.x];
    }
    y[id.y * p.cols + id.x] = sum;
}
