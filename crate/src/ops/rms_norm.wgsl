// y = x / sqrt(mean(x^2) + eps) * w.
struct Params {
    norms: u32,  // rows times heads
    quads: u32,  // of a head
    offset: u32, // vec4s
    stride: u32,
    heads: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

// First vec4 of a norm's head in x.
fn start(norm: u32) -> u32 {
    return p.offset + norm / p.heads * p.stride + norm % p.heads * p.quads;
}

