// y = (x - mean(x)) / sqrt(variance(x) + eps) * w + b.
struct Params {
    rows: u32,
    quads: u32,
    offset: u32, // vec4s
    stride: u32,
    has_bias: u32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

fn write(row: u32, i: u32, centred: vec4f, factor: f32) {
    var value = centred * factor * w[i];
    if p.has_bias != 0u {
        value += bias[i];
    }
    y[row * p.quads + i] = value;
}
