// Keys and values go to the cache at the step's positions.
struct Params {
    rows: u32,
    width: u32,
    k_offset: u32,
    k_stride: u32,
    v_offset: u32,
    v_stride: u32,
}
struct Step {
    position: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<f32>;
@group(0) @binding(5) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.width {
        return;
    }
    let cached = (step.position + id.y) * p.width + id.x;
    keys[cached] = k[p.k_offset + id.y * p.k_stride + id.x];
    values[cached] = v[p.v_offset + id.y * p.v_stride + id.x];
}
