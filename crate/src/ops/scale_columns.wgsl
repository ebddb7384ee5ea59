// y = x * factors + bias + residual, a factor for each column.
struct Params {
    cols: u32,
    offset: u32,
    stride: u32,
    has_bias: u32,
    has_residual: u32,
    residual_offset: u32,
    residual_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.cols {
        return;
    }
    var value = x[p.offset + id.y * p.stride + id.x] * factors[id.x];
    if p.has_bias != 0u {
        value += bias[id.x];
    }
    if p.has_residual != 0u {
        value += residual[p.residual_offset + id.y * p.residual_stride + id.x];
    }
    y[id.y * p.cols + id.x] = value;
}
