//! The contract, with kernels.
#![allow(unsafe_code)] // Outputs that threads share; each part is written by one.

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::{
    attention::{Attend, Gathered, gathered},
    cache::{Cache as Keys, PAGE},
    pack::ROWS,
    parts::Parts,
    pointwise,
    product::{Input as Factor, Output, Product},
    *,
};
use crate::{
    backend::{Activation, Attention, Backend, BackendInfo, Cache, Conv, Input, Routes, Routing, Sampling, Segment},
    error::Error,
    quant::Plane,
};

/// Rows of queries that prefill gives to a thread at a time.
const TILE: usize = 8;

/// A norm before a product.
type Norm = Option<(Weight, f32)>;

impl Backend for Cpu {
    fn info(&self) -> BackendInfo {
        let threads = self.pool.threads();
        let device = format!("{}, {threads} thread{}", self.host.level.name(), if threads == 1 { "" } else { "s" });
        BackendInfo { name: "cpu", device, software: false }
    }

    fn rounds_activations(&self) -> bool {
        true
    }

    fn max_plane_bytes(&self) -> usize {
        1 << 30
    }

    fn new_weight(&mut self, cols: usize, segments: &[Segment]) -> Result<Weight> {
        self.host.weights.push(weights::Matrix::new(cols, segments)?);
        Ok(Weight(self.host.weights.len() as u32 - 1))
    }

    fn write_weight(&mut self, weight: Weight, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()> {
        self.host.weights[weight.0 as usize].write(segment, plane, offset, bytes)
    }

    fn drop_weight(&mut self, weight: Weight) {
        self.host.weights[weight.0 as usize] = weights::Matrix::default();
    }

    fn new_rope(&mut self, inverse_frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        self.host.ropes.push(Table { frequencies: inverse_frequencies.to_vec(), magnitude, turns: Vec::new() });
        Ok(Rope(self.host.ropes.len() as u32 - 1))
    }

    fn flush(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        future::ready(Ok(())).boxed_local()
    }

    fn new_session(&mut self, spec: &SessionSpec) -> Result<Session> {
        let caches = spec.caches.iter().map(|cache| Keys::new(*cache)).collect();
        let counts = vec![0; spec.vocab];
        let convs = vec![Vec::new(); spec.convs.len()];
        self.host.sessions.push(Some(State { spec: spec.clone(), position: 0, most: 0, caches, convs, counts, sampled: 0 }));
        Ok(Session(self.host.sessions.len() as u32 - 1))
    }

    fn drop_session(&mut self, session: Session) {
        self.host.sessions[session.0 as usize] = None;
    }

    fn position(&self, session: Session) -> usize {
        self.host.live(session).position
    }

    fn truncate(&mut self, session: Session, position: usize) {
        let state = self.host.live_mut(session);
        let position = state.spec.back_to(state.position.min(position), state.most);
        for (conv, history) in state.spec.convs.iter().zip(&mut state.convs) {
            history.truncate(history.len().saturating_sub((state.position - position) * conv.cols));
        }
        state.most = if position == 0 { 0 } else { state.most };
        state.position = position;
    }

    fn reset_counts(&mut self, session: Session, prompt: &[u32]) {
        self.sampled.clear();
        let counts = &mut self.host.live_mut(session).counts;
        counts.fill(0);
        for &id in prompt {
            counts[id as usize] = ops::sample::IN_PROMPT;
        }
    }

    fn begin(&mut self, session: Session, input: Input<'_>) -> Result<usize> {
        let Host { sessions, step, ropes, .. } = &mut self.host;
        let state = sessions[session.0 as usize].as_mut().expect("a session in use");
        step.tokens.clear();
        match input {
            Input::Tokens(ids) => step.tokens.extend(ids),
            Input::Sampled => step.tokens.push(state.sampled),
        }
        let rows = step.tokens.len();
        let (end, context) = (state.position + rows, state.spec.context);
        if end > context {
            return Err(Error::ContextOverflow { tokens: end, context });
        }
        state.grow(end)?;
        ropes.iter_mut().for_each(|rope| rope.grow(end));
        step.session = Some(session);
        step.views.clear();
        step.used = 0;
        Ok(rows)
    }

    fn upload(&mut self, cols: usize, data: &[f32]) -> Tensor {
        self.produce(data.len() / cols, cols, |_, _, out| out.copy_from_slice(data))
    }

    fn embed(&mut self, table: Weight) -> Tensor {
        let cols = self.host.matrix(table).cols;
        self.by_row(self.host.step.tokens.len(), cols, |host, row, out| {
            host.matrix(table).unpack_row(host.step.tokens[row] as usize, out);
        })
    }

    fn embed_positions(&mut self, table: Weight) -> Tensor {
        let (first, cols) = (self.host.live(self.host.session()).position, self.host.matrix(table).cols);
        self.by_row(self.host.step.tokens.len(), cols, |host, row, out| host.matrix(table).unpack_row(first + row, out))
    }

    fn matmul(&mut self, weight: Weight, x: Tensor, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        self.product(weight, x, None, bias, residual)
    }

    fn norm_matmul(&mut self, x: Tensor, norm: Weight, eps: f32, weight: Weight, bias: Option<Weight>) -> Tensor {
        self.product(weight, x, Some((norm, eps)), bias, None)
    }

    fn rms_norm(&mut self, x: Tensor, weight: Weight, eps: f32) -> Tensor {
        let x = self.host.view(x);
        self.by_row(x.rows, x.cols, |host, row, out| {
            let w = host.matrix(weight).vector();
            for (x, out) in host.row(x, row).chunks_exact(w.len()).zip(out.chunks_exact_mut(w.len())) {
                pointwise::rms_norm(host.level, x, w, eps, out);
            }
        })
    }

    fn layer_norm(&mut self, x: Tensor, weight: Weight, bias: Option<Weight>, eps: f32) -> Tensor {
        let x = self.host.view(x);
        self.by_row(x.rows, x.cols, |host, row, out| {
            let bias = bias.map(|b| host.matrix(b).vector());
            out.copy_from_slice(&ops::layer_norm::reference(host.row(x, row), host.matrix(weight).vector(), bias, eps));
        })
    }

    fn columns(&mut self, x: Tensor, start: usize, width: usize) -> Tensor {
        let x = self.host.view(x);
        self.host.push(View { offset: x.offset + start, cols: width, ..x })
    }

    fn first_row(&mut self, x: Tensor) -> Tensor {
        let x = self.host.view(x);
        self.host.push(View { rows: 1, ..x })
    }

    fn last_row(&mut self, x: Tensor) -> Tensor {
        let x = self.host.view(x);
        self.host.push(View { offset: x.offset + (x.rows - 1) * x.stride, rows: 1, ..x })
    }

    fn mean_rows(&mut self, x: Tensor) -> Tensor {
        let x = self.host.view(x);
        self.produce(1, x.cols, |host, _, out| {
            out.fill(0.0);
            for row in 0..x.rows {
                out.iter_mut().zip(host.row(x, row)).for_each(|(sum, x)| *sum += x);
            }
            out.iter_mut().for_each(|sum| *sum /= x.rows as f32);
        })
    }

    fn rope(&mut self, x: Tensor, rope: Rope, head_dim: usize) -> Tensor {
        let (x, first) = (self.host.view(x), self.host.live(self.host.session()).position);
        self.by_row(x.rows, x.cols, |host, row, out| {
            out.copy_from_slice(host.row(x, row));
            host.ropes[rope.0 as usize].turn(out, head_dim, first + row);
        })
    }

    fn append(&mut self, cache: Cache, k: Tensor, v: Tensor) {
        let (k, v) = (self.host.view(k), self.host.view(v));
        let session = self.host.session();
        let mut keys = self.take_cache(session, cache);
        let first = self.host.live(session).position;
        for row in 0..k.rows {
            keys.put(first + row, self.host.row(k, row), self.host.row(v, row));
        }
        self.host.live_mut(session).caches[cache.0 as usize] = keys;
    }

    fn attention(&mut self, cache: Cache, q: Tensor, spec: &Attention) -> Tensor {
        let q = self.host.view(q);
        let mut scratch = std::mem::take(&mut self.scratch);
        let y = self.produce(q.rows, q.cols, |host, pool, out| match q.rows < TILE {
            true => host.attend_parts(pool, cache, q, spec, &mut scratch, out),
            false => host.attend_tiles(pool, cache, q, spec, &mut scratch, out),
        });
        self.scratch = scratch;
        y
    }

    fn short_conv(&mut self, conv: Conv, bcx: Tensor, taps: Weight, bias: Option<Weight>) -> Tensor {
        let (bcx, session) = (self.host.view(bcx), self.host.session());
        let state = self.host.live_mut(session);
        let spec = state.spec.convs[conv.0 as usize];
        let mut history = std::mem::take(&mut state.convs[conv.0 as usize]);
        let y = self.produce(bcx.rows, spec.cols, |host, _, out| {
            let rows: Vec<f32> = (0..bcx.rows).flat_map(|row| host.row(bcx, row)).copied().collect();
            let bias = bias.map(|b| host.matrix(b).vector());
            out.copy_from_slice(&ops::short_conv::reference(&rows, &mut history, &spec, host.matrix(taps).vector(), bias));
        });
        history.drain(..history.len().saturating_sub(spec.slots() * spec.cols));
        self.host.live_mut(session).convs[conv.0 as usize] = history;
        y
    }

    fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let (a, b) = (self.host.view(a), self.host.view(b));
        self.by_row(a.rows, a.cols, |host, row, out| {
            for ((out, a), b) in out.iter_mut().zip(host.row(a, row)).zip(host.row(b, row.min(b.rows - 1))) {
                *out = a + b;
            }
        })
    }

    fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        let x = self.host.view(x);
        self.by_row(x.rows, x.cols, |host, row, out| {
            out.iter_mut().zip(host.row(x, row)).for_each(|(out, x)| *out = x * factor);
        })
    }

    fn scale_columns(&mut self, x: Tensor, factors: Weight, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let (x, residual) = (self.host.view(x), residual.map(|r| self.host.view(r)));
        self.by_row(x.rows, x.cols, |host, row, out| {
            let bias = bias.map(|b| host.matrix(b).vector());
            let residual = residual.map(|r| host.row(r, row));
            let factors = host.matrix(factors).vector();
            for (i, (out, x)) in out.iter_mut().zip(host.row(x, row)).enumerate() {
                *out = x * factors[i] + bias.map_or(0.0, |b| b[i]) + residual.map_or(0.0, |r| r[i]);
            }
        })
    }

    fn softcap(&mut self, x: Tensor, cap: f32) -> Tensor {
        self.map(x, |row| ops::softcap::reference(row, cap))
    }

    fn activate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        self.map(x, |row| ops::activate::reference(row, activation))
    }

    fn gate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let x = self.host.view(x);
        let half = x.cols / 2;
        if x.rows == 1 && half >= WORTH_A_FORK / 16 {
            return self.produce(1, half, |host, pool, out| {
                let (gate, up) = host.row(x, 0).split_at(half);
                let (shared, chunk) = (Parts::new(out), half.div_ceil(pool.threads()).next_multiple_of(16));
                pool.split(half, chunk, &|range| {
                    // SAFETY: ranges do not overlap.
                    let out = unsafe { shared.part(range.clone()) };
                    pointwise::gate(host.level, activation, &gate[range.clone()], &up[range], out);
                });
            });
        }
        self.by_row(x.rows, half, |host, row, out| {
            let (gate, up) = host.row(x, row).split_at(half);
            pointwise::gate(host.level, activation, gate, up, out);
        })
    }

    fn route(&mut self, logits: Tensor, routing: Routing) -> Routes {
        let x = self.host.view(logits);
        let rows: Vec<f32> = (0..x.rows).flat_map(|row| self.host.row(x, row)).copied().collect();
        let (ids, weights) = ops::route::reference(&rows, x.cols, routing);
        let mut put = |data: Vec<f32>| self.produce(x.rows, routing.per_row, |_, _, out| out.copy_from_slice(&data));
        Routes { ids: put(ids), weights: put(weights), experts: x.cols }
    }

    fn expert_matmul(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>) -> Tensor {
        let (x, ids) = (self.host.view(x), self.host.view(routes.ids));
        let (mut activations, mut normed) = (std::mem::take(&mut self.activations), std::mem::take(&mut self.normed));
        self.host.prepare(&self.pool, weight, x, None, &mut activations, &mut normed);
        let out = self.host.matrix(weight).rows() / routes.experts;
        let y = self.produce(ids.rows * ids.cols, out, |host, pool, y| {
            let output =
                Output { y: y.as_mut_ptr(), stride: out, first: 0, bias: bias.map(|b| host.matrix(b).vector().as_ptr()), residual: None };
            host.multiply_experts(pool, weight, x, ids, out, &activations, output);
        });
        (self.activations, self.normed) = (activations, normed);
        y
    }

    fn mix(&mut self, x: Tensor, routes: Routes, residual: Option<Tensor>) -> Tensor {
        let (x, weights) = (self.host.view(x), self.host.view(routes.weights));
        let residual = residual.map(|r| self.host.view(r));
        self.by_row(weights.rows, x.cols, |host, row, out| {
            match residual {
                Some(residual) => out.copy_from_slice(host.row(residual, row)),
                None => out.fill(0.0),
            }
            for (i, weight) in host.row(weights, row).iter().enumerate() {
                let x = host.row(x, row * weights.cols + i);
                out.iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
            }
        })
    }

    fn rope_append(&mut self, cache: Cache, qkv: Tensor, rope: Rope, spec: &Attention) -> Tensor {
        let qkv = self.host.view(qkv);
        let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let session = self.host.session();
        let first = self.host.live(session).position;
        let mut keys = self.take_cache(session, cache);
        let q = self.produce(qkv.rows, q_width, |host, _, out| {
            let table = &host.ropes[rope.0 as usize];
            let mut k = vec![0.0; kv_width];
            for (row, out) in out.chunks_exact_mut(q_width).enumerate() {
                let x = host.row(qkv, row);
                out.copy_from_slice(&x[..q_width]);
                table.turn(out, spec.head_dim, first + row);
                k.copy_from_slice(&x[q_width..q_width + kv_width]);
                table.turn(&mut k, spec.head_dim, first + row);
                keys.put(first + row, &k, &x[q_width + kv_width..]);
            }
        });
        self.host.live_mut(session).caches[cache.0 as usize] = keys;
        q
    }

    fn sample(&mut self, logits: Tensor, sampling: &Sampling) {
        let logits = self.host.view(logits);
        let session = self.host.session();
        let next = self.host.live(session).position + self.host.step.tokens.len();
        let id = self.host.choose(self.host.row(logits, logits.rows - 1), &self.host.live(session).counts, sampling, next);
        self.sampled.push_back(id);
        if let Some(id) = id {
            self.set_sampled(session, id);
        }
    }

    fn end(&mut self) -> Result<()> {
        let (session, rows) = (self.host.session(), self.host.step.tokens.len());
        let state = self.host.live_mut(session);
        state.position += rows;
        state.most = state.most.max(state.position);
        Ok(())
    }

    fn read(&mut self, tensor: Tensor) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let view = self.host.view(tensor);
        let data = (0..view.rows).flat_map(|row| self.host.row(view, row)).copied().collect();
        future::ready(Ok(data)).boxed_local()
    }

    fn sampled(&mut self) -> LocalBoxFuture<'static, Result<Option<u32>>> {
        future::ready(Ok(self.sampled.pop_front().flatten())).boxed_local()
    }

    fn set_sampled(&mut self, session: Session, token: u32) {
        let state = self.host.live_mut(session);
        state.counts[token as usize] += 1;
        state.sampled = token;
    }
}

impl Cpu {
    /// The cache, out of the session while it is written.
    fn take_cache(&mut self, session: Session, cache: Cache) -> Keys {
        let state = self.host.live_mut(session);
        std::mem::replace(&mut state.caches[cache.0 as usize], Keys::new(state.spec.caches[cache.0 as usize]))
    }

    /// `(norm of) x * weight^T + bias + residual`.
    fn product(&mut self, weight: Weight, x: Tensor, norm: Norm, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let x = self.host.view(x);
        assert_eq!(x.cols, self.host.matrix(weight).cols, "columns of x and weight");
        let (mut activations, mut normed) = (std::mem::take(&mut self.activations), std::mem::take(&mut self.normed));
        self.host.prepare(&self.pool, weight, x, norm, &mut activations, &mut normed);
        let residual = residual.map(|r| self.host.view(r));
        let out = self.host.matrix(weight).rows();
        let y = self.produce(x.rows, out, |host, pool, y| {
            let (floats, stride) = if norm.is_some() { (&normed[..], x.cols) } else { (host.data(x), x.stride) };
            let output = Output {
                y: y.as_mut_ptr(),
                stride: out,
                first: 0,
                bias: bias.map(|b| host.matrix(b).vector().as_ptr()),
                residual: residual.map(|r| (host.data(r).as_ptr(), r.stride)),
            };
            host.multiply(pool, weight, x.rows, &activations, (floats.as_ptr(), stride), output);
        });
        (self.activations, self.normed) = (activations, normed);
        y
    }
}

impl Host {
    /// Norms the rows of `x` and rounds them, as the weight needs.
    fn prepare(&self, pool: &Pool, weight: Weight, x: View, norm: Norm, activations: &mut Activations, normed: &mut Vec<f32>) {
        let rounds = self.matrix(weight).packed().any(|packed| packed.group > 1);
        if rounds {
            activations.resize(x.rows, x.cols);
        }
        if norm.is_some() && normed.len() < x.rows * x.cols {
            normed.resize(x.rows * x.cols, 0.0);
        }
        let (rounded, shared) = (activations.writer(), Parts::new(normed));
        each_row(pool, x.rows, x.cols, |row| {
            let mut floats = self.row(x, row);
            if let Some((norm, eps)) = norm {
                // SAFETY: each row is given out once.
                let out = unsafe { shared.part(row * x.cols..(row + 1) * x.cols) };
                pointwise::rms_norm(self.level, floats, self.matrix(norm).vector(), eps, out);
                floats = out;
            }
            if rounds {
                rounded.quantise(self.level, row, floats);
            }
        });
    }

    /// The product of prepared rows, blocks of weight rows shared out among threads.
    fn multiply(&self, pool: &Pool, weight: Weight, rows: usize, activations: &Activations, floats: (*const f32, usize), output: Output) {
        let total: usize = self.matrix(weight).packed().map(|p| p.blocks()).sum();
        let chunk = (total / (pool.threads() * 6)).clamp(1, 16);
        let job = Shared { output, floats };
        pool.split(total, chunk, &|blocks| {
            let Shared { output, floats } = job.get();
            let (mut start, mut first) = (0, 0);
            for packed in self.matrix(weight).packed() {
                let (from, to) = (blocks.start.max(start), blocks.end.min(start + packed.blocks()));
                if from < to {
                    let input = match packed.group {
                        1 => Factor::Floats(floats.0, floats.1),
                        _ => Factor::Rounded(activations),
                    };
                    let output = Output { first, ..output };
                    let (blocks, wanted) = (from - start..to - start, 0..packed.rows);
                    self.level.run(Product { weight: packed, blocks, input, rows: 0..rows, from: 0, wanted, output });
                }
                start += packed.blocks();
                first += packed.rows;
            }
        });
    }

    /// Each route's row times its expert's rows; experts' blocks are shared out, all routes of a block together.
    fn multiply_experts(&self, pool: &Pool, weight: Weight, x: View, ids: View, out: usize, activations: &Activations, output: Output) {
        let routes: Vec<usize> = (0..ids.rows).flat_map(|row| self.row(ids, row)).map(|id| *id as usize).collect();
        let share = routes.len() / x.rows;
        let mut experts = routes.clone();
        experts.sort_unstable();
        experts.dedup();
        let per_expert = out.div_ceil(ROWS) + 1;
        let job = Shared { output, floats: (self.data(x).as_ptr(), x.stride) };
        let chunk = (per_expert / 4).clamp(1, 16);
        pool.split(experts.len() * per_expert, chunk, &|units| {
            let Shared { output, floats } = job.get();
            for unit in units {
                // Blocks lie in a segment from its own first row on: an expert begins anywhere in one.
                let (expert, nth) = (experts[unit / per_expert], unit % per_expert);
                let mut start = 0;
                for packed in self.matrix(weight).packed() {
                    let (from, to) = ((expert * out).max(start), ((expert + 1) * out).min(start + packed.rows));
                    let block = from.saturating_sub(start) / ROWS + nth;
                    if from < to && block * ROWS < to - start {
                        let input = match packed.group {
                            1 => Factor::Floats(floats.0, floats.1),
                            _ => Factor::Rounded(activations),
                        };
                        // SAFETY: the bias has an element for each row of all experts.
                        let bias = output.bias.map(|bias| unsafe { bias.add(expert * out) });
                        let output = Output { first: from - expert * out, bias, ..output };
                        for (route, _) in routes.iter().enumerate().filter(|(_, id)| **id == expert) {
                            let (blocks, wanted) = (block..block + 1, from - start..to - start);
                            let (rows, from) = (route..route + 1, route / share);
                            self.level.run(Product { weight: packed, blocks, input, rows, from, wanted, output });
                        }
                    }
                    start += packed.rows;
                }
            }
        });
    }

    /// Few rows: the cache's pages are shared out, then what the parts gathered is joined.
    fn attend_parts(&self, pool: &Pool, cache: Cache, q: View, spec: &Attention, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let state = self.live(self.session());
        let keys = &state.caches[cache.0 as usize];
        let (past, width) = (state.position, keys.width());
        let positions = past + q.rows;
        let first = attention::seen(spec, past, positions).start / PAGE;
        let pages = positions.div_ceil(PAGE) - first;
        let group = spec.heads / spec.kv_heads;
        let queries = q.rows * group;
        // Two parts a thread, and at least four pages a part.
        let parts = (2 * pool.threads()).div_ceil(spec.kv_heads).clamp(1, pages.div_ceil(4));
        let per_part = pages.div_ceil(parts);
        let size = Attend::scratch(queries, width);
        scratch.resize((spec.kv_heads * parts * size).max(scratch.len()), 0.0);
        let shared = Parts::new(scratch);
        let work = |i: usize| {
            let (head, part) = (i / parts, i % parts);
            let pages = first + part * per_part..(first + (part + 1) * per_part).min(first + pages);
            // SAFETY: each part has its own working memory.
            let scratch = unsafe { shared.part(i * size..(i + 1) * size) };
            let (q, stride) = (self.data(q), q.stride);
            self.level.run(Attend { cache: keys, spec, past, positions, q, stride, rows: 0..queries / group, head, pages, scratch });
        };
        if spec.kv_heads * pages * PAGE * width * queries < WORTH_A_FORK {
            (0..spec.kv_heads * parts).for_each(work);
        } else {
            pool.split(spec.kv_heads * parts, 1, &|range| range.for_each(work));
        }
        let mut of_parts = Vec::with_capacity(parts);
        for head in 0..spec.kv_heads {
            for i in 0..queries {
                of_parts.clear();
                of_parts.extend(
                    (0..parts).filter_map(|part| gathered(&scratch[(head * parts + part) * size..][..size], queries, width).nth(i)),
                );
                of_parts.extend(self.sink(spec, head * group + i % group));
                let at = i / group * q.cols + (head * group + i % group) * spec.head_dim;
                attention::join(&of_parts, &mut out[at..at + spec.head_dim]);
            }
        }
    }

    /// What a head's sink takes of the softmax.
    fn sink(&self, spec: &Attention, head: usize) -> Option<Gathered<'static>> {
        spec.sinks.map(|sinks| Gathered { largest: self.matrix(sinks).vector()[head], sum: 1.0, values: &[] })
    }

    /// Many rows: tiles of rows are shared out, each over all the pages that it sees.
    fn attend_tiles(&self, pool: &Pool, cache: Cache, q: View, spec: &Attention, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let state = self.live(self.session());
        let keys = &state.caches[cache.0 as usize];
        let (past, width) = (state.position, keys.width());
        let positions = past + q.rows;
        let group = spec.heads / spec.kv_heads;
        let tiles = q.rows.div_ceil(TILE);
        let size = Attend::scratch(TILE * group, width);
        scratch.resize((spec.kv_heads * tiles * size).max(scratch.len()), 0.0);
        let (shared, out) = (Parts::new(scratch), Parts::new(out));
        // The last tiles see most: they go first, so that threads end together.
        pool.split(spec.kv_heads * tiles, 1, &|range| {
            for i in range {
                let (head, tile) = (i % spec.kv_heads, tiles - 1 - i / spec.kv_heads);
                let rows = tile * TILE..((tile + 1) * TILE).min(q.rows);
                let first = attention::seen(spec, past + rows.start, positions).start / PAGE;
                let pages = first..attention::seen(spec, past + rows.end - 1, positions).end.div_ceil(PAGE);
                // SAFETY: each tile has its own working memory and its own part of the output.
                let scratch = unsafe { shared.part(i * size..(i + 1) * size) };
                let (data, stride) = (self.data(q), q.stride);
                let attend = Attend { cache: keys, spec, past, positions, q: data, stride, rows: rows.clone(), head, pages, scratch };
                self.level.run(attend);
                // SAFETY: as above.
                let scratch = unsafe { shared.part(i * size..(i + 1) * size) };
                for (j, got) in gathered(scratch, rows.len() * group, width).enumerate() {
                    let at = (rows.start + j / group) * q.cols + (head * group + j % group) * spec.head_dim;
                    // SAFETY: as above.
                    let out = unsafe { out.part(at..at + spec.head_dim) };
                    match self.sink(spec, head * group + j % group) {
                        Some(sink) => attention::join(&[got, sink], out),
                        None => attention::join(&[got], out),
                    }
                }
            }
        });
    }

    /// The token that `sampling` chooses for position `next`; none where no logit is a number.
    fn choose(&self, logits: &[f32], counts: &[u32], sampling: &Sampling, next: usize) -> Option<u32> {
        let best = pointwise::largest(self.level, logits);
        if !logits[best].is_finite() {
            return None;
        }
        let plain = sampling.repetition_penalty == 1.0 && sampling.frequency_penalty == 0.0 && sampling.presence_penalty == 0.0;
        if sampling.temperature <= 0.0 && plain {
            return Some(best as u32);
        }
        Some(ops::sample::reference(logits, counts, sampling, next as u32))
    }
}

/// Where a product's parts read and write.
#[derive(Clone, Copy)]
struct Shared {
    output: Output,
    floats: (*const f32, usize),
}

impl Shared {
    fn get(&self) -> Shared {
        *self
    }
}

// SAFETY: inputs are only read; each part of the output is written by one thread.
unsafe impl Sync for Shared {}
