// Last pass, one workgroup: chooses, counts the token and leaves it for the next step.
var<workgroup> ids: array<u32, CANDIDATES>;
var<workgroup> values: array<f32, CANDIDATES>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
    // The candidates in order: an id's rank is the number of ids that go before it.
    let count = atomicLoad(&work.count);
    if p.filter_on != 0u && count <= KEPT {
        for (var i = thread; i < count; i += THREADS) {
            let value = work.values[i];
            let id = work.ids[i];
            var rank = 0u;
            for (var j = 0u; j < count; j++) {
                rank += u32(before(work.values[j], work.ids[j], value, id));
            }
            if rank < CANDIDATES {
                ids[rank] = id;
                values[rank] = value;
            }
        }
    }
    workgroupBarrier();
    if thread != 0u {
        return;
    }
    chosen.found = 0u;
    if p.filter_on == 0u {
        best_of_groups();
    } else if count <= KEPT {
        draw(min(count, CANDIDATES));
    }
}

fn choose(id: u32) {
    chosen.token = id;
    chosen.found = 1u;
    counts[id] += 1u;
}

// Nothing is found where no logit is a number.
fn best_of_groups() {
    var best = 0u;
    for (var g = 1u; g < p.groups; g++) {
        if before(work.best_value[g], work.best_id[g], work.best_value[best], work.best_id[best]) {
            best = g;
        }
    }
    if work.best_value[best] > LOWEST {
        choose(work.best_id[best]);
    }
}

// Draws among the first `count` candidates that top_k, top_p and min_p leave.
fn draw(count: u32) {
    var kept = count;
    var total = 0.0;
    if p.top_k > 0u {
        kept = min(count, p.top_k);
        for (var i = 0u; i < kept; i++) {
            total += exp(values[i] - values[0]);
        }
    } else {
        for (var g = 0u; g < p.groups; g++) {
            total += work.sums[g];
        }
    }
    var sum = 0.0;
    var best = 0u;
    var best_value = LOWEST;
    var i = 0u;
    for (; i < kept; i++) {
        let weight = exp(values[i] - values[0]);
        if i > 0u && (sum >= p.top_p * total || weight < p.min_p) {
            break;
        }
        sum += weight;
        let value = values[i] + gumbel(ids[i]);
        if value > best_value {
            best_value = value;
            best = ids[i];
        }
    }
    // All candidates are inside and the vocabulary goes on: the nucleus may, too.
    if i == kept && p.top_k == 0u && kept < p.vocab && sum < p.top_p * total {
        return;
    }
    choose(best);
}
