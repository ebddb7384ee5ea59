// The mean of all rows, a thread a column.
struct Params {
    rows: u32,
    cols: u32,
    offset: u32,
    stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.cols {
        return;
    }
    var sum = 0.0;
    for (var row = 0u; row < p.rows; row++) {
        sum += x[p.offset + row * p.stride + id.x];
    }
    y[id.x] = sum / f32(p.rows);
}
