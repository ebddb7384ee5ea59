// Sampling, the part that all passes share; formulas and order are those of sample.rs.
struct Params {
    vocab: u32,
    offset: u32,     // of the logits' last row
    rows: u32,       // of the step: the draw's position is step.position + rows
    groups: u32,     // workgroups of a pass over the vocabulary
    draw: u32,       // 1: add noise in the first pass, which then decides
    filter_on: u32,  // 1: candidates decide
    top_k: u32,
    seed_low: u32,
    seed_high: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition: f32,
    frequency: f32,
    presence: f32,
}
struct Step {
    position: u32,
}
const THREADS = 256u;
const PER_GROUP = 4096u;
const BINS = 2048u;
const BINS_PER_UNIT = 64.0; // of a logit
const KEPT = 1024u;         // most candidates that are ranked
const CANDIDATES = 128u;
const LOWEST = -3.4e38;
struct Work {
    best_value: array<f32, 1024>, // per workgroup
    best_id: array<u32, 1024>,
    sums: array<f32, 1024>,       // of exp(scaled - largest), per workgroup
    bins: array<atomic<u32>, BINS>,
    ids: array<u32, KEPT>,
    values: array<f32, KEPT>,
    count: atomic<u32>,
}
struct Chosen {
    token: u32,
    found: u32, // 0: the candidates do not hold the nucleus
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> work: Work;
@group(0) @binding(5) var<storage, read_write> chosen: Chosen;

const IN_PROMPT = 0x80000000u;

// The logit after penalties and temperature.
fn scaled(id: u32) -> f32 {
    var logit = logits[p.offset + id];
    let count = counts[id];
    if count != 0u {
        logit = select(logit * p.repetition, logit / p.repetition, logit > 0.0);
        let times = count & ~IN_PROMPT;
        logit = logit - p.frequency * f32(times) - select(0.0, p.presence, times > 0u);
    }
    if p.temperature > 0.0 {
        return logit / p.temperature;
    }
    return logit;
}

fn hash(word: vec4u) -> u32 {
    var v = word * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4u(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v.x;
}

fn gumbel(id: u32) -> f32 {
    let bits = hash(vec4u(p.seed_low, p.seed_high, step.position + p.rows, id));
    let u = (f32(bits) + 0.5) * (1.0 / 4294967296.0);
    var e = u * (1.0 + u * (1.0 / 2.0 + u * (1.0 / 3.0 + u * (1.0 / 4.0 + u / 5.0))));
    if u >= 1.0 / 16.0 {
        e = -log(max(1.0 - u, 1.0 / 33554432.0));
    }
    return -log(e);
}

// Whether (value, id) goes before another: larger, or equal with a lower id.
fn before(value: f32, id: u32, other_value: f32, other_id: u32) -> bool {
    return value > other_value || (value == other_value && id < other_id);
}

// Steps of 1 / BINS_PER_UNIT of a logit below the largest; the last bin holds the rest.
fn bin_of(value: f32, largest: f32) -> u32 {
    return u32(min((largest - value) * p.temperature * BINS_PER_UNIT, f32(BINS - 1u)));
}

// The largest of all workgroups of the first pass.
fn largest_of_groups() -> f32 {
    var largest = LOWEST;
    for (var g = 0u; g < p.groups; g++) {
        largest = max(largest, work.best_value[g]);
    }
    return largest;
}

