// Variant for emulated GPUs: a thread per row, no barriers.
@compute @workgroup_size(4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * groups.x + group.x) * 4u + thread;
    if row >= p.norms {
        return;
    }
    let first = start(row);
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
