// Variant for emulated GPUs: a thread per row, no barriers.
@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x;
    if row >= p.rows {
        return;
    }
    let first = p.offset + row * p.stride;
    let count = f32(4u * p.quads);
    var sum = vec4f();
    for (var i = 0u; i < p.quads; i++) {
        sum += x[first + i];
    }
    let mean = dot(sum, vec4f(1.0)) / count;
    var squares = vec4f();
    for (var i = 0u; i < p.quads; i++) {
        let v = x[first + i] - mean;
        squares += v * v;
    }
    let factor = 1.0 / sqrt(dot(squares, vec4f(1.0)) / count + p.eps);
    for (var i = 0u; i < p.quads; i++) {
        write(row, i, x[first + i] - mean, factor);
    }
}
