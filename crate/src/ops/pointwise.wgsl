// What operations on single elements share: y = apply(x). An op's own file says what apply does with the last parameter.
struct Params {
    cols: u32,
    offset: u32,
    stride: u32,
    setting: u32, // a number's bits, or a choice
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.cols {
        y[id.y * p.cols + id.x] = apply(x[p.offset + id.y * p.stride + id.x]);
    }
}
