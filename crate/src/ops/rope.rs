//! Rotary position embedding (Su et al. 2021), half-split form: with `h` inverse frequencies, elements `i` and `i + h` of a
//! head are rotated by `position * inverse_frequency[i]`; elements from `2 h` on stay as they are. Sine and cosine carry a
//! factor `magnitude` (yarn's attention factor; otherwise 1).
//!
//! The angles are made in f32 on the processor and given to the device as tables, since WGSL promises sine and cosine only
//! to 2^-11.

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Attention, Backend, Input},
    error::Result,
};

/// Bindings: `rope` step, x, table, y; `rope_append` step, x, table, q, keys, values; `append` step, k, v, keys, values.
pub fn kernels() -> Vec<Kernel> {
    use Access::{Read, Write};
    let shared = include_str!("rope.wgsl");
    vec![
        Kernel::new("rope", &[shared, include_str!("rope_apply.wgsl")], &[Read, Read, Read, Write]),
        Kernel::new("rope_append", &[shared, include_str!("rope_append.wgsl")], &[Read, Read, Read, Write, Write, Write]),
        Kernel::new("append", &[include_str!("append.wgsl")], &[Read, Read, Read, Write, Write]),
    ]
}

/// The rotation of `x` by a table of `pairs` pairs a position.
pub fn call(x: View, head_dim: usize, pairs: usize) -> Call {
    turn("rope", x, head_dim, pairs, x.cols, 0)
}

/// The rotation of q and k of `qkv`, and the cache.
pub fn append_call(qkv: View, spec: &Attention, pairs: usize) -> Call {
    turn("rope_append", qkv, spec.head_dim, pairs, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim)
}

fn turn(kernel: &'static str, x: View, head_dim: usize, pairs: usize, q_width: usize, kv_width: usize) -> Call {
    let width = q_width + 2 * kv_width;
    let params = [x.rows, width, x.offset, x.stride, head_dim, pairs, q_width, kv_width];
    Call { kernel: (kernel, None), params: params.map(|v| v as u32).to_vec(), groups: [width.div_ceil(64) as u32, x.rows as u32, 1] }
}

/// Keys and values without rotation.
pub fn plain_append_call(k: View, v: View) -> Call {
    let params = [k.rows, k.cols, k.offset, k.stride, v.offset, v.stride];
    Call { kernel: ("append", None), params: params.map(|v| v as u32).to_vec(), groups: [k.cols.div_ceil(64) as u32, k.rows as u32, 1] }
}

/// `cos, sin` of every pair at `position`, both times `magnitude`.
pub fn angles(inverse_frequencies: &[f32], magnitude: f32, position: usize) -> impl Iterator<Item = (f32, f32)> {
    inverse_frequencies.iter().map(move |f| {
        let angle = position as f32 * f;
        (angle.cos() * magnitude, angle.sin() * magnitude)
    })
}

/// `x`: rows of `heads * head_dim` elements; row `t` stands at position `first + t`.
pub fn reference(x: &[f32], cols: usize, head_dim: usize, inverse_frequencies: &[f32], magnitude: f32, first: usize) -> Vec<f32> {
    let half = inverse_frequencies.len();
    let mut y = x.to_vec();
    for (t, row) in y.chunks_exact_mut(cols).enumerate() {
        for head in row.chunks_exact_mut(head_dim) {
            for (i, (cos, sin)) in angles(inverse_frequencies, magnitude, first + t).enumerate() {
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
    y
}

/// Positions from 0 and from far on, whole and partial rotation, a view as input; and fused with the cache.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(4);
    for (past, rows, heads, head_dim, rotated, magnitude) in
        [(0, 1, 1, 4, 4, 1.0), (0, 9, 3, 64, 64, 1.0), (37, 1, 9, 64, 64, 1.0), (300, 5, 2, 32, 16, 1.3)]
    {
        let frequencies: Vec<f32> = (0..rotated / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
        let rope = backend.new_rope(&frequencies, magnitude)?;
        let cols = heads * head_dim;
        let wide = random.floats(rows * (cols + 8));
        let actual = check::one_step(backend, past, rows, |b| {
            let input = b.upload(cols + 8, &wide);
            let view = b.columns(input, 4, cols);
            b.rope(view, rope, head_dim)
        })
        .await?;
        let x: Vec<f32> = wide.chunks_exact(cols + 8).flat_map(|r| &r[4..4 + cols]).copied().collect();
        outcomes.push(Outcome {
            name: format!("rope {rows} rows at {past}, {heads} heads of {head_dim}, {rotated} rotated"),
            expected: reference(&x, cols, head_dim, &frequencies, magnitude, past),
            actual,
        });
    }
    outcomes.extend(fused(backend, &mut random).await?);
    Ok(outcomes)
}

/// `rope_append` then attention equals rope, append and attention by the references, over two steps.
async fn fused(backend: &mut dyn Backend, random: &mut Random) -> Result<Vec<Outcome>> {
    let spec = Attention::new(6, 2, 16);
    let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let width = q_width + 2 * kv_width;
    let frequencies: Vec<f32> = (0..8).map(|i| 100f32.powf(-(i as f32) / 8.0)).collect();
    let rope = backend.new_rope(&frequencies, 1.0)?;
    check::quantise(backend)?;
    let session = check::session(backend, spec.kv_heads, spec.head_dim, 64, 8)?;
    let (mut keys, mut values, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    let mut past = 0;
    for rows in [5, 1, 1] {
        let qkv = random.floats(rows * width);
        let cut = |from: usize, n: usize| -> Vec<f32> { qkv.chunks_exact(width).flat_map(|r| &r[from..from + n]).copied().collect() };
        let q = reference(&cut(0, q_width), q_width, spec.head_dim, &frequencies, 1.0, past);
        let k = reference(&cut(q_width, kv_width), kv_width, spec.head_dim, &frequencies, 1.0, past);
        let rounded = |rows: &[f32]| super::attention::round_cached(rows, spec.head_dim, backend.precision());
        keys.extend(rounded(&k));
        values.extend(rounded(&cut(q_width + kv_width, kv_width)));
        backend.begin(session, Input::Tokens(&vec![0; rows]))?;
        let input = backend.upload(width, &qkv);
        let rotated = backend.rope_append(crate::backend::Cache(0), input, rope, &spec);
        let y = backend.attention(crate::backend::Cache(0), rotated, &spec);
        backend.end()?;
        let actual = backend.read(y).await?;
        let expected = super::attention::reference(&q, &keys, &values, past, &spec, None);
        outcomes.push(Outcome { name: format!("rope_append and attention, {rows} rows at {past}"), expected, actual });
        past += rows;
    }
    backend.drop_session(session);
    Ok(outcomes)
}
