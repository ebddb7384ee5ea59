// Joins the chunks of attention: y = sum_c exp(m_c - m) y_c / sum_c exp(m_c - m) l_c with m the largest m_c.
struct Params {
    heads: u32,
    quads: u32,
    chunks: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4f>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.heads * p.quads {
        return;
    }
    let first = (id.y * p.heads + id.x / p.quads) * p.chunks;
    var largest = stats[first].x;
    for (var c = 1u; c < p.chunks; c++) {
        largest = max(largest, stats[first + c].x);
    }
    var sum = vec4f();
    var total = 0.0;
    for (var c = 0u; c < p.chunks; c++) {
        let weight = exp(stats[first + c].x - largest);
        sum += weight * parts[(first + c) * p.quads + id.x % p.quads];
        total += weight * stats[first + c].y;
    }
    y[id.y * p.heads * p.quads + id.x] = sum / total;
}
