// Variant for GPUs and few tokens: a workgroup computes a block for one token, its threads take turns along the row.
const THREADS = 64u;
var<workgroup> partial: array<vec4f, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.x + group.y * groups.x;
    let token = group.z;
    let starts = block_starts(block, token);
    let first = x_start(token);
    let quads = quads_of(token);
    var sums = vec4f();
    for (var i = thread; i < quads; i += THREADS) {
        sums += x[first + i] * weights(starts, i);
    }
    partial[thread] = sums;
    for (var n = THREADS / 2u; n > 0u; n >>= 1u) {
        workgroupBarrier();
        if thread < n {
            partial[thread] += partial[thread + n];
        }
    }
    // The last group of a folded grid may lie past the end.
    if thread == 0u && block < p.blocks {
        finish(block, token, partial[0]);
    }
}

