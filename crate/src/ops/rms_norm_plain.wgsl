// Variant for emulated GPUs: a thread per row, no barriers.
@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x;
    if row >= p.rows {
        return;
    }
    let first = p.offset + row * p.stride;
    var sum = vec4f();
    for (var i = 0u; i < p.quads; i++) {
        let v = x[first + i];
        sum += v * v;
    }
    let factor = 1.0 / sqrt(dot(sum, vec4f(1.0)) / f32(4u * p.quads) + p.eps);
    for (var i = 0u; i < p.quads; i++) {
        y[row * p.quads + i] = x[first + i] * factor * w[i];
    }
}
