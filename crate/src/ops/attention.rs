//! Scaled dot-product attention with grouped queries: query head `h` reads key/value head `h / (heads / kv_heads)`;
//! `y = softmax(cap(scale * q K^T)) V` over the positions less than `window` away, where causal only up to the query's own;
//! `cap(s) = softcap * tanh(s / softcap)` where there is one. A head's sink (Xiao et al. 2023; gpt-oss) is one more score in its
//! softmax, whose value is zero.

use std::iter::repeat;

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
    matmul::dot,
};
use crate::{
    backend::{Attention, Backend, Cache, Input, Precision},
    error::Result,
};

/// Bindings: `attention_*` step, q, keys, values, y or parts, stats, sinks; `attention_combine` parts, stats, y.
pub fn kernels() -> Vec<Kernel> {
    use Access::{Read, Write};
    let shared = include_str!("attention.wgsl");
    let bindings = [Read, Read, Read, Read, Write, Write, Read];
    vec![
        Kernel::new("attention_plain", &[shared, include_str!("attention_plain.wgsl")], &bindings),
        Kernel::new("attention_tiled", &[shared, include_str!("attention_tiled.wgsl")], &bindings),
        Kernel::new("attention_combine", &[include_str!("attention_combine.wgsl")], &[Read, Read, Write]),
    ]
}

/// Fewest positions that a decode step's threads or workgroups take each. Few rows leave a device idle unless the positions are
/// shared out; many rows fill it as they are.
const CHUNK: usize = 128;

/// How many chunks `rows` rows cut `positions` positions into.
pub fn chunks(rows: usize, positions: usize) -> usize {
    if rows < 8 { positions.div_ceil(chunk(positions)) } else { 1 }
}

/// Positions of a chunk: at most 64 chunks, however long the context.
fn chunk(positions: usize) -> usize {
    positions.div_ceil(64).next_multiple_of(CHUNK)
}

/// Attention over `positions` cached positions, the step's included; `software` chooses the variant without barriers.
pub fn call(q: View, spec: &Attention, positions: usize, software: bool) -> Call {
    let chunks = chunks(q.rows, positions);
    let chunk = if chunks == 1 { positions.next_multiple_of(CHUNK) } else { chunk(positions) };
    let params = [q.rows, spec.heads, spec.kv_heads, spec.head_dim / 4, q.offset / 4, q.stride / 4, chunk, chunks].map(|v| v as u32);
    let units = (spec.heads * chunks) as u32;
    let window = spec.window.map_or(u32::MAX, |w| w as u32);
    // A softcap of 0 is none.
    let softcap = spec.softcap.unwrap_or(0.0).to_bits();
    Call {
        kernel: (if software { "attention_plain" } else { "attention_tiled" }, None),
        params: [&params[..], &[spec.scale.to_bits(), window, softcap, u32::from(spec.causal), u32::from(spec.sinks.is_some())]].concat(),
        groups: [if software { units.div_ceil(16) } else { units }, q.rows as u32, 1],
    }
}

/// The chunks of `rows` rows joined.
pub fn combine_call(rows: usize, spec: &Attention, chunks: usize) -> Call {
    let quads = spec.head_dim / 4;
    Call {
        kernel: ("attention_combine", None),
        params: [spec.heads, quads, chunks].map(|v| v as u32).to_vec(),
        groups: [(spec.heads * quads).div_ceil(64) as u32, rows as u32, 1],
    }
}

/// `q`: `[rows, heads * head_dim]`, row `t` at position `past + t`; `keys`, `values`: `[past + rows, kv_heads * head_dim]`;
/// `sinks` has an element for each head.
pub fn reference(q: &[f32], keys: &[f32], values: &[f32], past: usize, spec: &Attention, sinks: Option<&[f32]>) -> Vec<f32> {
    let Attention { heads, kv_heads, head_dim, scale, causal, window, softcap, .. } = *spec;
    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let score = |s: f32| softcap.map_or(s, |cap| cap * (s / cap).tanh());
    let mut y = vec![0.0; q.len()];
    let mut weights = Vec::new();
    for (t, (q_row, y_row)) in q.chunks_exact(q_width).zip(y.chunks_exact_mut(q_width)).enumerate() {
        for (h, (q_head, y_head)) in q_row.chunks_exact(head_dim).zip(y_row.chunks_exact_mut(head_dim)).enumerate() {
            let column = h / (heads / kv_heads) * head_dim;
            let (all, own) = (keys.len() / kv_width, past + t);
            let window = window.unwrap_or(all);
            let first = (own + 1).saturating_sub(window);
            let end = if causal { own + 1 } else { all.min(own + window) };
            let (keys, values) = (&keys[first * kv_width..end * kv_width], &values[first * kv_width..]);
            weights.clear();
            weights.extend(keys.chunks_exact(kv_width).map(|k| score(dot(q_head, &k[column..column + head_dim]) * scale)));
            let sink = sinks.map_or(f32::NEG_INFINITY, |s| s[h]);
            let largest = weights.iter().copied().fold(sink.max(f32::MIN), f32::max);
            weights.iter_mut().for_each(|w| *w = (*w - largest).exp());
            let sum = weights.iter().sum::<f32>() + (sink - largest).exp();
            for (w, v) in weights.iter().zip(values.chunks_exact(kv_width)) {
                for (o, x) in y_head.iter_mut().zip(&v[column..column + head_dim]) {
                    *o += w / sum * x;
                }
            }
        }
    }
    y
}

/// Keys or values as a backend keeps them that has quantised weights: in 16 bits if it rounds products ([`Backend::precision`]), but
/// for [`Precision::Exact`]. The elements of a head are multiples of a power of two by integers from -32767 to 32767, to nearest, ties
/// to even; the largest is at least 16384.
pub fn round_cached(rows: &[f32], head_dim: usize, precision: Option<Precision>) -> Vec<f32> {
    if precision.is_none_or(|precision| precision == Precision::Exact) {
        return rows.to_vec();
    }
    let round = |head: &[f32]| -> Vec<f32> {
        let largest = head.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let unit = (largest.log2().floor() - 14.0).exp2();
        head.iter().map(|v| (v / unit).round_ties_even().clamp(-32767.0, 32767.0) * unit).collect()
    };
    rows.chunks_exact(head_dim).flat_map(round).collect()
}

/// Prefill, decode and chunks; lengths around tiles; many, grouped and single key/value heads; both directions; then after `truncate`.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(5);
    check::quantise(backend)?;
    let without_sinks = [
        (1, 1, 4, true, None, None, vec![1, 1, 1]),
        (4, 2, 16, true, None, None, vec![24, 1, 1]),
        (9, 3, 64, true, None, None, vec![33, 31, 1, 64, 1]),
        (4, 1, 128, true, None, Some(0.5), vec![130, 1]),
        (8, 8, 32, true, None, None, vec![1, 300, 1]),
        (2, 1, 80, true, None, None, vec![7, 1]),
        (4, 2, 16, true, Some(8), None, vec![24, 1, 1, 3, 1]),
        (2, 1, 24, true, Some(1), Some(2.0), vec![5, 1]),
        (3, 1, 64, true, Some(100), None, vec![300, 1, 5, 1]),
        (2, 2, 256, true, Some(300), None, vec![40, 300, 1]),
        (3, 1, 24, false, None, None, vec![1, 7]),
        (4, 2, 16, false, None, Some(0.5), vec![70, 3]),
        (4, 1, 24, false, Some(9), None, vec![24]),
        (2, 2, 64, false, Some(1), None, vec![6]),
        (2, 1, 32, false, Some(100), None, vec![260]),
        (2, 1, 32, false, Some(140), None, vec![300, 3]),
    ];
    let with_sinks = [(4, 2, 80, true, None, None, vec![24, 1, 300, 1]), (4, 1, 64, true, Some(100), None, vec![300, 1, 5])];
    let cases = without_sinks.into_iter().zip(repeat(false)).chain(with_sinks.into_iter().zip(repeat(true)));
    for ((heads, kv_heads, head_dim, causal, window, softcap, steps), sunk) in cases {
        let sinks = sunk.then(|| random.floats(heads).iter().map(|s| s * 4.0).collect::<Vec<_>>());
        let sink_weight = sinks.as_ref().map(|s| check::vector(backend, s)).transpose()?;
        let spec = Attention { causal, window, softcap, sinks: sink_weight, ..Attention::new(heads, kv_heads, head_dim) };
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let total: usize = steps.iter().sum();
        let session = check::session(backend, kv_heads, head_dim, total, 8)?;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let truncations = [None, Some(total - 1)];
        for truncation in truncations {
            let steps = if truncation.is_some() { vec![1] } else { steps.clone() };
            if let Some(length) = truncation {
                backend.truncate(session, length);
                keys.truncate(length * kv_width);
                values.truncate(length * kv_width);
            }
            for rows in steps {
                let past = backend.position(session);
                let (q, k, v) = (random.floats(rows * q_width), random.floats(rows * kv_width), random.floats(rows * kv_width));
                keys.extend(round_cached(&k, head_dim, backend.precision()));
                values.extend(round_cached(&v, head_dim, backend.precision()));
                backend.begin(session, Input::Tokens(&vec![0; rows]))?;
                let (q_in, k_in, v_in) = (backend.upload(q_width, &q), backend.upload(kv_width, &k), backend.upload(kv_width, &v));
                backend.append(Cache(0), k_in, v_in);
                let y = backend.attention(Cache(0), q_in, &spec);
                backend.end()?;
                outcomes.push(Outcome {
                    name: format!(
                        "attention {heads}/{kv_heads} heads of {head_dim}, {rows} rows at {past}, causal {causal}, window {window:?}, cap {softcap:?}, sinks {sunk}"
                    ),
                    expected: reference(&q, &keys, &values, past, &spec, sinks.as_deref()),
                    actual: backend.read(y).await?,
                });
            }
        }
        backend.drop_session(session);
    }
    Ok(outcomes)
}
