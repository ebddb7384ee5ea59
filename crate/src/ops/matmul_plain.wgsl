// Variant for emulated GPUs and single tokens: a thread computes a block alone, since there a barrier costs more than it saves.
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let block = id.x + id.y * groups.x * 32u;
    let token = id.z;
    if block >= p.blocks {
        return;
    }
    let starts = block_starts(block);
    let first = p.x_offset + token * p.x_stride;
    var sums = vec4f();
    for (var i = 0u; i < p.quads; i++) {
        sums += x[first + i] * weights(starts, i);
    }
    finish(block, token, sums);
}

