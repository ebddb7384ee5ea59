// Variant for emulated GPUs: a thread per row, head and chunk, no barriers.
@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= p.heads * p.chunks {
        return;
    }
    let row = id.y;
    let head = id.x / p.chunks;
    let range = positions(row, id.x % p.chunks);
    let kv_stride = p.kv_heads * p.quads;
    let kv_head = head / (p.heads / p.kv_heads) * p.quads;
    var query: array<vec4f, 64>;
    var sums: array<vec4f, 64>;
    for (var i = 0u; i < p.quads; i++) {
        query[i] = q[p.offset + row * p.stride + head * p.quads + i] * p.scale;
        sums[i] = vec4f();
    }
    let first = at_first(head, id.x % p.chunks);
    var largest = first.x;
    var total = first.y;
    for (var position = range.x; position < range.y; position++) {
        let at = position * kv_stride + kv_head;
        var score = 0.0;
        for (var i = 0u; i < p.quads; i++) {
            score += dot(query[i], keys[at + i]);
        }
        score = capped(score);
        if score > largest {
            let shrink = exp(largest - score);
            largest = score;
            total *= shrink;
            for (var i = 0u; i < p.quads; i++) {
                sums[i] *= shrink;
            }
        }
        let weight = exp(score - largest);
        total += weight;
        for (var i = 0u; i < p.quads; i++) {
            sums[i] += weight * values[at + i];
        }
    }
    let part = row * p.heads * p.chunks + id.x;
    let factor = select(1.0, 1.0 / total, p.chunks == 1u);
    for (var i = 0u; i < p.quads; i++) {
        y[part * p.quads + i] = sums[i] * factor;
    }
    stats[part] = vec2f(largest, total);
}
