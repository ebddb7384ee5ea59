// Third pass: collects the ids in the fewest bins that hold CANDIDATES ids.
var<workgroup> last_bin: u32;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    if thread == 0u {
        var held = 0u;
        var b = 0u;
        for (; b < BINS - 1u; b++) {
            held += atomicLoad(&work.bins[b]);
            if held >= CANDIDATES {
                break;
            }
        }
        last_bin = b;
    }
    workgroupBarrier();
    let largest = largest_of_groups();
    let first = group.x * PER_GROUP;
    let end = min(first + PER_GROUP, p.vocab);
    for (var id = first + thread; id < end; id += THREADS) {
        let value = scaled(id);
        if bin_of(value, largest) <= last_bin {
            let slot = atomicAdd(&work.count, 1u);
            if slot < KEPT {
                work.ids[slot] = id;
                work.values[slot] = value;
            }
        }
    }
}
