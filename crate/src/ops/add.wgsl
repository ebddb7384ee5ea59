// y = a + b.
struct Params {
    cols: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32, // 0: one row for all
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.cols {
        y[id.y * p.cols + id.x] = a[p.a_offset + id.y * p.a_stride + id.x] + b[p.b_offset + id.y * p.b_stride + id.x];
    }
}
