// Variant for GPUs and many tokens: a workgroup computes 64 tokens by 16 blocks (64 rows); weights are unpacked once per tile
// into workgroup memory, a thread holds four tokens of a block in registers.
const STEP = 4u; // vec4s of a row per tile
var<workgroup> x_tile: array<vec4f, 256>;    // [token][step]
var<workgroup> w_tile: array<vec4f, 256>;    // [block][row of the block][step]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let first_block = (group.x + group.y * groups.x) * 16u;
    let first_token = group.z * 64u;
    // What this thread loads: one vec4 of each tile.
    let lane = thread / STEP;
    let quad = thread % STEP;
    let x_first = x_start(first_token + lane);
    let w_first = block_row(first_block + lane / 4u, lane % 4u, first_token) * p.row_quads;
    // What it computes: four tokens of a block.
    let block = thread % 16u;
    let token = thread / 16u * 4u;
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    for (var start = 0u; start < p.quads; start += STEP) {
        let i = start + quad;
        var x_quad = vec4f();
        var w_quad = vec4f();
        if i < p.quads {
            x_quad = x[x_first + i];
            w_quad = unpack4(w_first + i);
        }
        workgroupBarrier();
        x_tile[thread] = x_quad;
        w_tile[thread] = w_quad;
        workgroupBarrier();
        for (var k = 0u; k < STEP; k++) {
            let at = block * 4u * STEP + k;
            let w = mat4x4f(w_tile[at], w_tile[at + STEP], w_tile[at + 2u * STEP], w_tile[at + 3u * STEP]);
            s0 += x_tile[token * STEP + k] * w;
            s1 += x_tile[(token + 1u) * STEP + k] * w;
            s2 += x_tile[(token + 2u) * STEP + k] * w;
            s3 += x_tile[(token + 3u) * STEP + k] * w;
        }
    }
    let b = first_block + block;
    let t = first_token + token;
    if b >= p.blocks {
        return;
    }
    if t < p.tokens { finish(b, t, s0); }
    if t + 1u < p.tokens { finish(b, t + 1u, s1); }
    if t + 2u < p.tokens { finish(b, t + 2u, s2); }
    if t + 3u < p.tokens { finish(b, t + 3u, s3); }
}

