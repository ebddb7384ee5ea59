//! The contract, with kernels.
#![allow(unsafe_code)] // Outputs that threads share; each part is written by one.

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::{attend::TILE, cache::Cache as Keys, multiply::Norm, parts::Parts, pointwise, product::Output, *};
use crate::{
    backend::{Activation, Attention, Backend, BackendInfo, Cache, Conv, Input, Routes, Routing, Sampling, Segment},
    error::Error,
    quant::Plane,
};

impl Backend for Cpu {
    fn info(&self) -> BackendInfo {
        let threads = self.pool.threads();
        let device = format!("{}, {threads} thread{}", self.host.level.name(), if threads == 1 { "" } else { "s" });
        BackendInfo { name: "cpu", device, software: false }
    }

    fn precision(&self) -> Option<Precision> {
        Some(self.rounded.precision)
    }

    fn max_plane_bytes(&self) -> usize {
        1 << 30
    }

    fn new_weight(&mut self, cols: usize, segments: &[Segment]) -> Result<Weight> {
        self.host.weights.push(weights::Matrix::new(cols, segments)?);
        Ok(Weight(self.host.weights.len() as u32 - 1))
    }

    fn write_weight(&mut self, weight: Weight, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()> {
        self.host.weights[weight.0 as usize].write(segment, plane, offset, bytes, &self.pool)
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
        // Beside float weights, which are multiplied as they are, keys and values are kept as they are, too.
        let quantised = self.host.weights.iter().any(weights::Matrix::is_quantised);
        let short = quantised && self.rounded.precision != Precision::Exact;
        let caches = spec.caches.iter().map(|cache| Keys::new(*cache, short)).collect();
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
        let (mut rounded, mut normed) = (std::mem::take(&mut self.rounded), std::mem::take(&mut self.normed));
        self.host.prepare(&self.pool, weight, x, None, &mut rounded, &mut normed);
        let out = self.host.matrix(weight).rows() / routes.experts;
        let y = self.produce(ids.rows * ids.cols, out, |host, pool, y| {
            let output =
                Output { y: y.as_mut_ptr(), stride: out, first: 0, bias: bias.map(|b| host.matrix(b).vector().as_ptr()), residual: None };
            host.multiply_experts(pool, weight, x, ids, &rounded, output);
        });
        (self.rounded, self.normed) = (rounded, normed);
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
        let (row, counts) = (self.host.row(logits, logits.rows - 1), &self.host.live(session).counts);
        let id = self.host.choose(row, counts, sampling, next, &mut self.sampling);
        self.sampled.push_back(id);
        if let Some(id) = id {
            self.set_sampled(session, id);
        }
    }

    fn keep(&mut self, x: Tensor) -> Tensor {
        let Step { views, buffers, used, .. } = &mut self.host.step;
        let view = views[x.0 as usize];
        buffers.swap(0, view.buffer);
        *used = 1;
        views.clear();
        self.host.push(View { buffer: 0, ..view })
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

    fn choose(
        &mut self,
        logits: Tensor,
        vocab: usize,
        sampling: &Sampling,
        first: usize,
    ) -> LocalBoxFuture<'static, Result<Vec<Option<u32>>>> {
        let view = self.host.view(logits);
        let (host, scratch) = (&self.host, &mut self.sampling);
        let of = |row| host.choose(&host.row(view, row)[..vocab], &[], sampling, first + row, scratch);
        future::ready(Ok((0..view.rows).map(of).collect())).boxed_local()
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
        std::mem::take(&mut state.caches[cache.0 as usize])
    }

    /// `(norm of) x * weight^T + bias + residual`.
    fn product(&mut self, weight: Weight, x: Tensor, norm: Norm, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let x = self.host.view(x);
        assert_eq!(x.cols, self.host.matrix(weight).cols, "columns of x and weight");
        let (mut rounded, mut normed) = (std::mem::take(&mut self.rounded), std::mem::take(&mut self.normed));
        self.host.prepare(&self.pool, weight, x, norm, &mut rounded, &mut normed);
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
            host.multiply(pool, weight, x.rows, &rounded, (floats.as_ptr(), stride), output);
        });
        (self.rounded, self.normed) = (rounded, normed);
        y
    }
}
