// Variant for GPUs: a workgroup per row.
const THREADS = 64u;
var<workgroup> partial: array<f32, THREADS>;

// Sum of all threads' values, the same in each.
fn total(thread: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[thread] = value;
    for (var n = THREADS / 2u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if thread < n {
            partial[thread] += partial[thread + n];
        }
    }
    workgroupBarrier();
    return partial[0];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    let first = p.offset + row * p.stride;
    let count = f32(4u * p.quads);
    var sum = 0.0;
    for (var i = thread; i < p.quads; i += THREADS) {
        sum += dot(x[first + i], vec4f(1.0));
    }
    let mean = total(thread, sum) / count;
    var squares = 0.0;
    for (var i = thread; i < p.quads; i += THREADS) {
        let v = x[first + i] - mean;
        squares += dot(v, v);
    }
    let factor = 1.0 / sqrt(total(thread, squares) / count + p.eps);
    for (var i = thread; i < p.quads; i += THREADS) {
        write(row, i, x[first + i] - mean, factor);
    }
}
