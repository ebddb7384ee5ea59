// Second pass: a histogram of distances from the largest, and the softmax's sum.
var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let largest = largest_of_groups();
    let first = group.x * PER_GROUP;
    let end = min(first + PER_GROUP, p.vocab);
    var sum = 0.0;
    for (var id = first + thread; id < end; id += THREADS) {
        let value = scaled(id);
        sum += exp(value - largest);
        atomicAdd(&work.bins[bin_of(value, largest)], 1u);
    }
    partial[thread] = sum;
    workgroupBarrier();
    if thread == 0u {
        for (var i = 1u; i < THREADS; i++) {
            sum += partial[i];
        }
        work.sums[group.x] = sum;
    }
}
