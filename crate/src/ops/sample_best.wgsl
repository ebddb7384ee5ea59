// First pass: the best of each workgroup's part of the vocabulary; clears what later passes add to.
var<workgroup> values: array<f32, THREADS>;
var<workgroup> ids: array<u32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    for (var b = group.x * THREADS + thread; b < BINS; b += p.groups * THREADS) {
        atomicStore(&work.bins[b], 0u);
    }
    if group.x == 0u && thread == 0u {
        atomicStore(&work.count, 0u);
    }
    var best = LOWEST;
    var best_id = 0u;
    let first = group.x * PER_GROUP;
    let end = min(first + PER_GROUP, p.vocab);
    for (var id = first + thread; id < end; id += THREADS) {
        var value = scaled(id);
        if p.draw != 0u {
            value += gumbel(id);
        }
        if value > best {
            best = value;
            best_id = id;
        }
    }
    values[thread] = best;
    ids[thread] = best_id;
    workgroupBarrier();
    if thread == 0u {
        for (var i = 1u; i < THREADS; i++) {
            if before(values[i], ids[i], best, best_id) {
                best = values[i];
                best_id = ids[i];
            }
        }
        work.best_value[group.x] = best;
        work.best_id[group.x] = best_id;
    }
}
