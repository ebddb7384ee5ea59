// y = x / sqrt(mean(x^2) + eps) * w.
struct Params {
    rows: u32,
    quads: u32,
    offset: u32, // vec4s
    stride: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

