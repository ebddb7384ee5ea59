// Variant for GPUs: a workgroup per row.
const THREADS = 64u;
var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
    // Groups past the end do the last norm once more: barriers want all of a group's threads.
    let row = min(group.y * groups.x + group.x, p.norms - 1u);
    let first = start(row);
    var sum = 0.0;
    for (var i = thread; i < p.quads; i += THREADS) {
        let v = x[first + i];
        sum += dot(v, v);
    }
    partial[thread] = sum;
    for (var n = THREADS / 2u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if thread < n {
            partial[thread] += partial[thread + n];
        }
    }
    workgroupBarrier();
    let factor = 1.0 / sqrt(partial[0] / f32(4u * p.quads) + p.eps);
    for (var i = thread; i < p.quads; i += THREADS) {
        y[row * p.quads + i] = x[first + i] * factor * w[i];
    }
}
