// Attention of each row and head over a chunk of the cached positions: unnormalised output, largest score and sum of
// exp(score - largest); attention_combine joins the chunks. With one chunk the output is normalised here.
struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    quads: u32,  // vec4s of a head
    offset: u32, // of q, vec4s
    stride: u32,
    chunk: u32,  // positions
    chunks: u32,
    scale: f32,
    window: u32,
    softcap: f32, // 0: none
    causal: u32,
    has_sinks: u32,
}
struct Step {
    position: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read> q: array<vec4f>;
@group(0) @binding(3) var<storage, read> keys: array<vec4f>;
@group(0) @binding(4) var<storage, read> values: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;     // [row][head][chunk][quad]
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>; // [row][head][chunk] = (largest, sum)
@group(0) @binding(7) var<storage, read> sinks: array<f32>;         // [head]

const LOWEST = -3.0e38;

// First position of a chunk and the one past its end, for a row.
fn positions(row: u32, chunk: u32) -> vec2u {
    let first = chunk * p.chunk;
    let own = step.position + row;
    let after = select(min(p.rows - row, p.window), 1u, p.causal != 0u);
    return vec2u(max(first, own + 1u - min(own + 1u, p.window)), min(own + after, first + p.chunk));
}

// tanh overflows in some drivers where its argument is large.
fn capped(score: f32) -> f32 {
    if p.softcap == 0.0 {
        return score;
    }
    return p.softcap * tanh(clamp(score / p.softcap, -20.0, 20.0));
}

// Largest score and sum before the first position: the sink of a head is counted in its first chunk.
fn at_first(head: u32, chunk: u32) -> vec2f {
    if p.has_sinks != 0u && chunk == 0u {
        return vec2f(sinks[head], 1.0);
    }
    return vec2f(LOWEST, 0.0);
}

