// Variant for GPUs: a workgroup per row, head and chunk; tiles of 64 positions with online softmax. In a tile a thread first
// computes the score of a position, then adds up a vec4 of values over every `lanes`-th position.
const THREADS = 64u;
var<workgroup> query: array<vec4f, 64>;
var<workgroup> scores: array<f32, THREADS>;
var<workgroup> reduced: array<f32, THREADS>;
var<workgroup> sums: array<vec4f, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let head = group.x / p.chunks;
    let range = positions(row, group.x % p.chunks);
    let kv_stride = p.kv_heads * p.quads;
    let kv_head = head / (p.heads / p.kv_heads) * p.quads;
    let lanes = THREADS / p.quads;
    let lane = thread / p.quads;
    let quad = thread % p.quads;
    if thread < p.quads {
        query[thread] = q[p.offset + row * p.stride + head * p.quads + thread] * p.scale;
    }
    workgroupBarrier();
    let before = at_first(head, group.x % p.chunks);
    var largest = before.x;
    // Totals of lanes are added up at the end.
    var total = select(0.0, before.y, lane == 0u);
    var sum = vec4f();
    // The bound is the same for all threads, so barriers inside are uniform.
    let tiles = (max(range.y, range.x) - range.x + THREADS - 1u) / THREADS;
    for (var tile = 0u; tile < tiles; tile++) {
        let first = range.x + tile * THREADS;
        let position = first + thread;
        var score = LOWEST;
        if position < range.y {
            score = 0.0;
            let at = position * kv_stride + kv_head;
            for (var i = 0u; i < p.quads; i++) {
                score += dot(query[i], keys[at + i]);
            }
            score = capped(score);
        }
        reduced[thread] = score;
        for (var n = THREADS / 2u; n > 0u; n >>= 1u) {
            workgroupBarrier();
            if thread < n {
                reduced[thread] = max(reduced[thread], reduced[thread + n]);
            }
        }
        workgroupBarrier();
        let next = max(largest, reduced[0]);
        scores[thread] = select(0.0, exp(score - next), position < range.y);
        workgroupBarrier();
        let shrink = exp(largest - next);
        largest = next;
        total *= shrink;
        sum *= shrink;
        if lane < lanes && first < range.y {
            let count = min(THREADS, range.y - first);
            for (var j = lane; j < count; j += lanes) {
                let weight = scores[j];
                total += weight;
                sum += weight * values[(first + j) * kv_stride + kv_head + quad];
            }
        }
        workgroupBarrier();
    }
    sums[thread] = sum;
    reduced[thread] = total;
    workgroupBarrier();
    if thread < p.quads {
        for (var other = 1u; other < lanes; other++) {
            sum += sums[other * p.quads + thread];
            total += reduced[other * p.quads + thread];
        }
        let part = row * p.heads * p.chunks + group.x;
        y[part * p.quads + thread] = sum * select(1.0, 1.0 / total, p.chunks == 1u);
        if thread == 0u {
            stats[part] = vec2f(largest, total);
        }
    }
}
