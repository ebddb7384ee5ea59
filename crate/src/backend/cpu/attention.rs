//! Attention in one pass over the cache (Dao et al. 2022; Milakov and Gimelshein 2018): per page of 64 positions scores, running
//! maximum and sum, weighted values. All queries that share a key/value head go together, so that keys and values are read once.
#![allow(unsafe_code)] // Vector loads and stores.

use std::ops::Range;

use super::{
    activations::fold,
    cache::{BLOCK, Cache, Head, PAGE, Page, Pages},
    simd::{Exp, Simd, Task, unroll},
    stored::Stored,
};
use crate::backend::Attention;

/// The queries of some rows that share a key/value head, over some pages.
pub struct Attend<'a> {
    /// Keys and values.
    pub cache: &'a Cache,
    /// Heads, scale, window.
    pub spec: &'a Attention,
    /// Position of the first row of `q`.
    pub past: usize,
    /// Positions that the cache holds, the step's included.
    pub positions: usize,
    /// Queries, `[rows, heads * head_dim]`, rows `stride` apart.
    pub q: &'a [f32],
    /// See `q`.
    pub stride: usize,
    /// Rows of `q`.
    pub rows: Range<usize>,
    /// The head of keys and values.
    pub head: usize,
    /// Pages of the cache.
    pub pages: Range<usize>,
    /// Working memory: [`Attend::scratch`] floats.
    pub scratch: &'a mut [f32],
}

/// What a query has gathered: `sum(exp(score - largest) * value) / sum(exp(score - largest))` is its result.
#[derive(Clone, Copy)]
pub struct Gathered<'a> {
    /// Largest score.
    pub largest: f32,
    /// Sum of weights.
    pub sum: f32,
    /// Weighted sum of values.
    pub values: &'a [f32],
}

impl Attend<'_> {
    /// Floats of working memory for `queries` queries.
    pub fn scratch(queries: usize, width: usize) -> usize {
        queries * (PAGE + width + 2)
    }

    fn queries(&self) -> usize {
        self.rows.len() * self.spec.heads / self.spec.kv_heads
    }

    #[inline(always)]
    unsafe fn over<S: Simd, E: Stored>(self, cached: &[Page<E>]) {
        let n = self.queries();
        let group = self.spec.heads / self.spec.kv_heads;
        let (head_dim, width) = (self.spec.head_dim, self.cache.width());
        let Attend { spec, past, positions, q, stride, rows, head, pages, scratch, .. } = self;
        let (sums_of_values, rest) = scratch.split_at_mut(n * width);
        let (largest, rest) = rest.split_at_mut(n);
        let (sums, rest) = rest.split_at_mut(n);
        let weights = &mut rest[..n * PAGE];
        let exp = Exp::prepare();
        sums_of_values.fill(0.0);
        largest.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        // Query `i` is head `head * group + i % group` of row `rows.start + i / group`.
        let query = |i: usize| &q[(rows.start + i / group) * stride + (head * group + i % group) * head_dim..][..head_dim];
        let position = |i: usize| past + rows.start + i / group;
        for page in pages {
            let first = page * PAGE;
            let count = PAGE.min(positions - first);
            let visible = |i: usize| -> Range<usize> {
                let seen = seen(spec, position(i), positions);
                let within = |p: usize| p.clamp(first, first + count) - first;
                within(seen.start)..within(seen.end)
            };
            if visible(0).is_empty() && visible(n - 1).is_empty() {
                continue;
            }
            let Head { keys, values, key_units, value_units } = cached[page].head(head, spec.kv_heads);
            let used = count.next_multiple_of(BLOCK);
            unsafe {
                by_fours(n, |i, many| {
                    let q: [*const f32; 4] = std::array::from_fn(|j| query((i + j).min(n - 1)).as_ptr());
                    let out = weights[i * PAGE..].as_mut_ptr();
                    for block in 0..used / BLOCK {
                        let keys = keys[block * BLOCK * head_dim..].as_ptr();
                        let out = out.add(block * BLOCK);
                        match many {
                            4 => scores::<S, E, 4>(q, keys, head_dim, out),
                            3 => scores::<S, E, 3>(q, keys, head_dim, out),
                            2 => scores::<S, E, 2>(q, keys, head_dim, out),
                            _ => scores::<S, E, 1>(q, keys, head_dim, out),
                        }
                    }
                });
                for i in 0..n {
                    let row = &mut weights[i * PAGE..][..used];
                    let units = [key_units, value_units];
                    let factor = soften::<S>(row, units, visible(i), spec, exp, &mut largest[i], &mut sums[i]);
                    if factor != 1.0 {
                        scale::<S>(&mut sums_of_values[i * width..][..width], factor);
                    }
                }
                by_fours(n, |i, many| {
                    let (p, v, out) = (weights[i * PAGE..].as_ptr(), values.as_ptr(), sums_of_values[i * width..].as_mut_ptr());
                    match many {
                        4 => gather::<S, E, 4>(p, v, count, width, out),
                        3 => gather::<S, E, 3>(p, v, count, width, out),
                        2 => gather::<S, E, 2>(p, v, count, width, out),
                        _ => gather::<S, E, 1>(p, v, count, width, out),
                    }
                });
            }
        }
    }
}

/// The parts of the working memory after [`Attend`] ran, query by query (row by row, head by head within a row).
pub fn gathered(scratch: &[f32], queries: usize, width: usize) -> impl Iterator<Item = Gathered<'_>> {
    let (values, rest) = scratch.split_at(queries * width);
    let (largest, rest) = rest.split_at(queries);
    values.chunks_exact(width).zip(largest).zip(&rest[..queries]).map(|((values, largest), sum)| Gathered {
        largest: *largest,
        sum: *sum,
        values,
    })
}

impl Task for Attend<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe {
            match self.cache.pages() {
                Pages::Float(pages) => self.over::<S, _>(pages),
                Pages::Short(pages) => self.over::<S, _>(pages),
            }
        }
    }
}

/// The positions that a query at `position` sees, of `positions` in all.
pub fn seen(spec: &Attention, position: usize, positions: usize) -> Range<usize> {
    let reach = spec.window.unwrap_or(positions);
    let end = if spec.causal { position + 1 } else { (position + reach).min(positions) };
    (position + 1).saturating_sub(reach)..end
}

/// `f(first, many)` over `0..n` in groups of up to four.
#[inline(always)]
fn by_fours(n: usize, mut f: impl FnMut(usize, usize)) {
    let mut i = 0;
    while i < n {
        let many = (n - i).min(4);
        f(i, many);
        i += many;
    }
}

/// Dot products of `Q` queries with 16 interleaved keys, in their units; results `PAGE` apart.
#[inline(always)]
unsafe fn scores<S: Simd, E: Stored, const Q: usize>(q: [*const f32; 4], keys: *const E, head_dim: usize, out: *mut f32) {
    // Two vectors of positions at a time keep four queries in 16 registers.
    let wide = BLOCK.min(2 * S::LANES);
    unsafe {
        for from in (0..BLOCK).step_by(wide) {
            let mut sums: [[S::F; 2]; Q] = std::mem::zeroed();
            for d in 0..head_dim {
                let at = keys.add(d * BLOCK + from);
                let low = E::load::<S>(at);
                let high = if wide > S::LANES { E::load::<S>(at.add(S::LANES)) } else { low };
                unroll!(j in Q => {
                    let x = S::splat(*q[j].add(d));
                    sums[j][0] = S::mul_add(low, x, sums[j][0]);
                    if wide > S::LANES {
                        sums[j][1] = S::mul_add(high, x, sums[j][1]);
                    }
                });
            }
            unroll!(j in Q => {
                S::store(out.add(j * PAGE + from), sums[j][0]);
                if wide > S::LANES {
                    S::store(out.add(j * PAGE + from + S::LANES), sums[j][1]);
                }
            });
        }
    }
}

/// Turns scores in the units of keys into weights `exp(score - largest)` in the units of values, 0 where not visible; returns the factor
/// for what was gathered before.
#[inline(always)]
unsafe fn soften<S: Simd>(
    row: &mut [f32],
    [key_units, value_units]: [&[f32]; 2],
    visible: Range<usize>,
    spec: &Attention,
    exp: Exp,
    largest: &mut f32,
    sum: &mut f32,
) -> f32 {
    if visible.is_empty() {
        row.fill(0.0);
        return 1.0;
    }
    unsafe {
        let (p, key_units, value_units) = (row.as_mut_ptr(), key_units[..row.len()].as_ptr(), value_units[..row.len()].as_ptr());
        let scale = S::splat(spec.scale);
        for i in (0..row.len()).step_by(S::LANES) {
            let unit = S::mul(S::load(key_units.add(i)), scale);
            let mut score = S::mul(S::load(p.add(i)), unit);
            if let Some(cap) = spec.softcap {
                score = softcap::<S>(score, cap, exp);
            }
            S::store(p.add(i), score);
        }
        row[..visible.start].fill(f32::NEG_INFINITY);
        row[visible.end..].fill(f32::NEG_INFINITY);
        let mut highest = S::splat(f32::NEG_INFINITY);
        for i in (0..row.len()).step_by(S::LANES) {
            highest = S::max(S::load(p.add(i)), highest);
        }
        let before = *largest;
        *largest = before.max(fold::<S>(highest, f32::max));
        let shift = S::splat(*largest);
        let mut total = S::splat(0.0);
        for i in (0..row.len()).step_by(S::LANES) {
            // What is not visible adds 1e-26, and then has no weight. Smaller weights times a unit would be subnormal, which some processors take long for.
            let weight = exp.of::<S>(S::max(S::sub(S::load(p.add(i)), shift), S::splat(-60.0)));
            total = S::add(total, weight);
            S::store(p.add(i), S::mul(weight, S::load(value_units.add(i))));
        }
        row[..visible.start].fill(0.0);
        row[visible.end..].fill(0.0);
        let factor = if before == *largest { 1.0 } else { (before - *largest).exp() };
        *sum = *sum * factor + fold::<S>(total, |a, b| a + b);
        factor
    }
}

/// `cap * tanh(x / cap)`, with `tanh(y) = 1 - 2 / (exp(2 y) + 1)`.
#[inline(always)]
unsafe fn softcap<S: Simd>(x: S::F, cap: f32, exp: Exp) -> S::F {
    unsafe {
        let raised = exp.of::<S>(S::mul(x, S::splat(2.0 / cap)));
        let tanh = S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(raised, S::splat(1.0))));
        S::mul(S::splat(cap), tanh)
    }
}

/// `values *= factor`.
#[inline(always)]
unsafe fn scale<S: Simd>(values: &mut [f32], factor: f32) {
    unsafe {
        let factor = S::splat(factor);
        for i in (0..values.len()).step_by(S::LANES) {
            let p = values.as_mut_ptr().add(i);
            S::store(p, S::mul(S::load(p), factor));
        }
    }
}

/// Adds `weight * value` of `count` positions to `Q` queries' sums.
#[inline(always)]
unsafe fn gather<S: Simd, E: Stored, const Q: usize>(weights: *const f32, values: *const E, count: usize, width: usize, out: *mut f32) {
    let wide = BLOCK.min(2 * S::LANES);
    unsafe {
        for from in (0..width).step_by(wide) {
            let at = |j: usize, v: usize| out.add(j * width + from + v * S::LANES);
            let mut sums: [[S::F; 2]; Q] = std::mem::zeroed();
            unroll!(j in Q => sums[j] = [S::load(at(j, 0)), S::load(at(j, if wide > S::LANES { 1 } else { 0 }))]);
            for position in 0..count {
                let p = values.add((from / BLOCK * PAGE + position) * BLOCK + from % BLOCK);
                let low = E::load::<S>(p);
                let high = if wide > S::LANES { E::load::<S>(p.add(S::LANES)) } else { low };
                unroll!(j in Q => {
                    let weight = S::splat(*weights.add(j * PAGE + position));
                    sums[j][0] = S::mul_add(low, weight, sums[j][0]);
                    if wide > S::LANES {
                        sums[j][1] = S::mul_add(high, weight, sums[j][1]);
                    }
                });
            }
            unroll!(j in Q => {
                S::store(at(j, 0), sums[j][0]);
                if wide > S::LANES {
                    S::store(at(j, 1), sums[j][1]);
                }
            });
        }
    }
}

/// The result of a query of which `parts` gathered over different pages; a sink is a part without values.
pub fn join(parts: &[Gathered<'_>], out: &mut [f32]) {
    let largest = parts.iter().map(|part| part.largest).fold(f32::NEG_INFINITY, f32::max);
    let factor = |part: &Gathered<'_>| if part.largest == largest { 1.0 } else { (part.largest - largest).exp() };
    let sum: f32 = parts.iter().map(|part| part.sum * factor(part)).sum();
    out.fill(0.0);
    for part in parts {
        let weight = factor(part) / sum;
        out.iter_mut().zip(part.values).for_each(|(out, value)| *out += weight * value);
    }
}
