// Variant for emulated GPUs and many tokens: a thread computes a block for eight tokens in registers, without barriers;
// weights are unpacked once for the eight.
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let block = id.x + id.y * groups.x * 32u;
    let token = id.z * 8u;
    if block >= p.blocks {
        return;
    }
    let starts = block_starts(block, token);
    let last = p.tokens - 1u;
    let low = vec4u(x_start(token), x_start(token + 1u), x_start(token + 2u), x_start(token + 3u));
    let high = vec4u(x_start(token + 4u), x_start(token + 5u), x_start(token + 6u), x_start(token + 7u));
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    var s4 = vec4f();
    var s5 = vec4f();
    var s6 = vec4f();
    var s7 = vec4f();
    for (var i = 0u; i < p.quads; i++) {
        let w = weights(starts, i);
        s0 += x[low.x + i] * w;
        s1 += x[low.y + i] * w;
        s2 += x[low.z + i] * w;
        s3 += x[low.w + i] * w;
        s4 += x[high.x + i] * w;
        s5 += x[high.y + i] * w;
        s6 += x[high.z + i] * w;
        s7 += x[high.w + i] * w;
    }
    finish(block, token, s0);
    if token + 1u <= last { finish(block, token + 1u, s1); }
    if token + 2u <= last { finish(block, token + 2u, s2); }
    if token + 3u <= last { finish(block, token + 3u, s3); }
    if token + 4u <= last { finish(block, token + 4u, s4); }
    if token + 5u <= last { finish(block, token + 5u, s5); }
    if token + 6u <= last { finish(block, token + 6u, s6); }
    if token + 7u <= last { finish(block, token + 7u, s7); }
}

