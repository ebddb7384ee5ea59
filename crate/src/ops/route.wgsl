// A workgroup takes a row. A thread counts, for each of its experts, how many come before it: that is its place in the order, so
// that nothing need be sorted.
struct Params {
    experts: u32,
    per_row: u32,
    normalise: u32,
    offset: u32,
    stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<f32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;

const THREADS = 64u;
var<workgroup> chosen: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let first = p.offset + group.y * p.stride;
    let out = group.y * p.per_row;
    for (var expert = thread; expert < p.experts; expert += THREADS) {
        let mine = logits[first + expert];
        var place = 0u;
        for (var other = 0u; other < p.experts; other++) {
            let logit = logits[first + other];
            if logit > mine || (logit == mine && other < expert) {
                place++;
            }
        }
        if place < p.per_row {
            chosen[place] = mine;
            ids[out + place] = f32(expert);
        }
    }
    workgroupBarrier();
    if thread >= p.per_row {
        return;
    }
    var total = 0.0;
    if p.normalise != 0u {
        for (var i = 0u; i < p.per_row; i++) {
            total += exp(chosen[i] - chosen[0]);
        }
    } else {
        for (var i = 0u; i < p.experts; i++) {
            total += exp(logits[first + i] - chosen[0]);
        }
    }
    weights[out + thread] = exp(chosen[thread] - chosen[0]) / total;
}
