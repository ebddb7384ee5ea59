// Variant for emulated GPUs and single tokens: a thread computes a block alone, since there a barrier costs more than it
// saves. Loads are dear, too: a weight word is loaded once for its elements, a scale once for its group.
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let block = id.x + id.y * groups.x * 32u;
    let token = id.z;
    if block >= p.blocks {
        return;
    }
    let starts = block_starts(block, token);
    let first = x_start(token);
    let quads = quads_of(token);
    var sums = vec4f();
    for (var start = 0u; start < quads; start += GROUP) {
        var group = vec4f();
        var inputs = vec4f();
        let end = min(start + GROUP, quads);
        for (var i = start; i < end; i += 2u) {
            let a = x[first + i];
            // The row may end within the pair.
            var b = vec4f();
            if i + 1u < end {
                b = x[first + i + 1u];
            }
            inputs += a + b;
            let w0 = raw8(starts.x + i);
            let w1 = raw8(starts.y + i);
            let w2 = raw8(starts.z + i);
            let w3 = raw8(starts.w + i);
            group += a * mat4x4f(w0.low, w1.low, w2.low, w3.low) + b * mat4x4f(w0.high, w1.high, w2.high, w3.high);
        }
        let g = (starts + start) / GROUP;
        let input = dot(inputs, vec4f(1.0));
        let s = mat4x2f(scaling(g.x), scaling(g.y), scaling(g.z), scaling(g.w));
        sums += vec4f(s[0].x, s[1].x, s[2].x, s[3].x) * group + vec4f(s[0].y, s[1].y, s[2].y, s[3].y) * input;
    }
    finish(block, token, sums);
}

