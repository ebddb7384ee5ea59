//! Plain f32 loops: the oracle. Every op runs at once, by its own reference in [`crate::ops`].

use std::collections::VecDeque;

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::{
    Activation, Attention, Backend, BackendInfo, Cache, Conv, Input, Rope, Routes, Routing, Sampling, Segment, Session, SessionSpec,
    Tensor, Weight,
};
use crate::{
    error::{Error, Result},
    ops,
    quant::Plane,
};
use matrix::Matrix;

mod matrix;
mod snapshot;

/// The reference backend.
#[derive(Default)]
pub struct Reference {
    weights: Vec<Matrix>,
    /// Handles of weights that were dropped.
    vacant: Vec<Weight>,
    ropes: Vec<(Vec<f32>, f32)>,
    sessions: Vec<Option<State>>,
    step: Step,
    sampled: VecDeque<u32>,
}

struct State {
    spec: SessionSpec,
    position: usize,
    /// The largest position since the session was empty.
    most: usize,
    caches: Vec<(Vec<f32>, Vec<f32>)>,
    /// The last rows of each convolution's history.
    convs: Vec<Vec<f32>>,
    counts: Vec<u32>,
    sampled: u32,
}

#[derive(Default)]
struct Step {
    session: Option<Session>,
    tokens: Vec<u32>,
    tensors: Vec<Values>,
}

struct Values {
    cols: usize,
    data: Vec<f32>,
}

impl Reference {
    fn state(&mut self) -> &mut State {
        let session = self.step.session.expect("an operation outside a step");
        self.sessions[session.0 as usize].as_mut().expect("a session in use")
    }

    fn tensor(&mut self, cols: usize, data: Vec<f32>) -> Tensor {
        self.step.tensors.push(Values { cols, data });
        Tensor(self.step.tensors.len() as u32 - 1)
    }

    fn values(&self, tensor: Tensor) -> &Values {
        &self.step.tensors[tensor.0 as usize]
    }

    fn live(&self, session: Session) -> &State {
        self.sessions[session.0 as usize].as_ref().expect("a session in use")
    }

    fn live_mut(&mut self, session: Session) -> &mut State {
        self.sessions[session.0 as usize].as_mut().expect("a session in use")
    }
}

impl Backend for Reference {
    fn info(&self) -> BackendInfo {
        BackendInfo { name: "reference", device: "plain f32 loops, one thread".into(), software: true }
    }

    fn max_plane_bytes(&self) -> usize {
        1 << 30
    }

    fn new_weight(&mut self, cols: usize, segments: &[Segment]) -> Result<Weight> {
        let matrix = Matrix::new(cols, segments)?;
        if let Some(weight) = self.vacant.pop() {
            self.weights[weight.0 as usize] = matrix;
            return Ok(weight);
        }
        self.weights.push(matrix);
        Ok(Weight(self.weights.len() as u32 - 1))
    }

    fn drop_weight(&mut self, weight: Weight) {
        self.weights[weight.0 as usize] = Matrix::default();
        self.vacant.push(weight);
    }

    fn write_weight(&mut self, weight: Weight, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()> {
        self.weights[weight.0 as usize].write(segment, plane, offset, bytes);
        Ok(())
    }

    fn new_rope(&mut self, inverse_frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        self.ropes.push((inverse_frequencies.to_vec(), magnitude));
        Ok(Rope(self.ropes.len() as u32 - 1))
    }

    fn flush(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        future::ready(Ok(())).boxed_local()
    }

    fn new_session(&mut self, spec: &SessionSpec) -> Result<Session> {
        self.sessions.push(Some(State {
            spec: spec.clone(),
            position: 0,
            most: 0,
            caches: vec![(Vec::new(), Vec::new()); spec.caches.len()],
            convs: vec![Vec::new(); spec.convs.len()],
            counts: vec![0; spec.vocab],
            sampled: 0,
        }));
        Ok(Session(self.sessions.len() as u32 - 1))
    }

    fn drop_session(&mut self, session: Session) {
        self.sessions[session.0 as usize] = None;
    }

    fn position(&self, session: Session) -> usize {
        self.live(session).position
    }

    fn truncate(&mut self, session: Session, position: usize) {
        let state = self.live_mut(session);
        let position = state.spec.back_to(state.position.min(position), state.most);
        for (conv, history) in state.spec.convs.iter().zip(&mut state.convs) {
            history.truncate(history.len().saturating_sub((state.position - position) * conv.cols));
        }
        state.position = position;
        state.most = if position == 0 { 0 } else { state.most };
        for (cache, (keys, values)) in state.spec.caches.iter().zip(&mut state.caches) {
            let width = cache.kv_heads * cache.head_dim;
            keys.truncate(state.position * width);
            values.truncate(state.position * width);
        }
    }

    fn reset_counts(&mut self, session: Session, prompt: &[u32]) {
        let counts = &mut self.live_mut(session).counts;
        counts.fill(0);
        for &id in prompt {
            counts[id as usize] = ops::sample::IN_PROMPT;
        }
    }

    fn begin(&mut self, session: Session, input: Input<'_>) -> Result<usize> {
        let state = self.live(session);
        let tokens = match input {
            Input::Tokens(ids) => ids.to_vec(),
            Input::Sampled => vec![state.sampled],
        };
        let (rows, end, context) = (tokens.len(), state.position + tokens.len(), state.spec.context);
        if end > context {
            return Err(Error::ContextOverflow { tokens: end, context });
        }
        self.step = Step { session: Some(session), tokens, tensors: Vec::new() };
        Ok(rows)
    }

    fn upload(&mut self, cols: usize, data: &[f32]) -> Tensor {
        self.tensor(cols, data.to_vec())
    }

    fn embed(&mut self, table: Weight) -> Tensor {
        let matrix = &self.weights[table.0 as usize];
        let cols = matrix.cols;
        let mut data = vec![0.0; self.step.tokens.len() * cols];
        for (&id, out) in self.step.tokens.iter().zip(data.chunks_exact_mut(cols)) {
            matrix.unpack_row(id as usize, out);
        }
        self.tensor(cols, data)
    }

    fn embed_positions(&mut self, table: Weight) -> Tensor {
        let (first, rows) = (self.state().position, self.step.tokens.len());
        let matrix = &self.weights[table.0 as usize];
        let mut data = vec![0.0; rows * matrix.cols];
        for (t, out) in data.chunks_exact_mut(matrix.cols).enumerate() {
            matrix.unpack_row(first + t, out);
        }
        let cols = matrix.cols;
        self.tensor(cols, data)
    }

    /// [`ops::matmul::reference`] with one row of the weight unpacked at a time.
    fn matmul(&mut self, weight: Weight, x: Tensor, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let matrix = &self.weights[weight.0 as usize];
        let (x, out) = (self.values(x), matrix.rows());
        assert_eq!(x.cols, matrix.cols, "matmul: columns of x and weight");
        let bias = bias.map(|b| self.weights[b.0 as usize].vector());
        let residual = residual.map(|r| &self.values(r).data);
        let mut data = vec![0.0; x.data.len() / x.cols * out];
        let mut row = vec![0.0; x.cols];
        for o in 0..out {
            matrix.unpack_row(o, &mut row);
            for (t, x_row) in x.data.chunks_exact(x.cols).enumerate() {
                let index = t * out + o;
                data[index] = ops::matmul::dot(x_row, &row) + bias.as_ref().map_or(0.0, |b| b[o]) + residual.map_or(0.0, |r| r[index]);
            }
        }
        self.tensor(out, data)
    }

    fn rms_norm(&mut self, x: Tensor, weight: Weight, eps: f32) -> Tensor {
        let w = self.weights[weight.0 as usize].vector();
        let x = self.values(x);
        let (cols, data) = (x.cols, ops::rms_norm::reference(&x.data, &w, eps));
        self.tensor(cols, data)
    }

    fn layer_norm(&mut self, x: Tensor, weight: Weight, bias: Option<Weight>, eps: f32) -> Tensor {
        let w = self.weights[weight.0 as usize].vector();
        let bias = bias.map(|b| self.weights[b.0 as usize].vector());
        let data = ops::layer_norm::reference(&self.values(x).data, &w, bias.as_deref(), eps);
        self.tensor(w.len(), data)
    }

    fn columns(&mut self, x: Tensor, start: usize, width: usize) -> Tensor {
        let x = self.values(x);
        let data = x.data.chunks_exact(x.cols).flat_map(|row| &row[start..start + width]).copied().collect();
        self.tensor(width, data)
    }

    fn first_row(&mut self, x: Tensor) -> Tensor {
        let cols = self.values(x).cols;
        self.tensor(cols, self.values(x).data[..cols].to_vec())
    }

    fn last_row(&mut self, x: Tensor) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols, x.data[x.data.len() - x.cols..].to_vec());
        self.tensor(cols, data)
    }

    fn mean_rows(&mut self, x: Tensor) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols, ops::mean_rows::reference(&x.data, x.cols));
        self.tensor(cols, data)
    }

    fn rope(&mut self, x: Tensor, rope: Rope, head_dim: usize) -> Tensor {
        let position = self.state().position;
        let (x, (frequencies, magnitude)) = (self.values(x), &self.ropes[rope.0 as usize]);
        let (cols, data) = (x.cols, ops::rope::reference(&x.data, x.cols, head_dim, frequencies, *magnitude, position));
        self.tensor(cols, data)
    }

    fn append(&mut self, cache: Cache, k: Tensor, v: Tensor) {
        let (k, v) = (self.values(k).data.clone(), self.values(v).data.clone());
        let (keys, values) = &mut self.state().caches[cache.0 as usize];
        keys.extend(k);
        values.extend(v);
    }

    fn attention(&mut self, cache: Cache, q: Tensor, spec: &Attention) -> Tensor {
        let state = self.live(self.step.session.expect("an operation outside a step"));
        let (keys, values) = &state.caches[cache.0 as usize];
        let q = self.values(q);
        let sinks = spec.sinks.map(|s| self.weights[s.0 as usize].vector());
        let (cols, data) = (q.cols, ops::attention::reference(&q.data, keys, values, state.position, spec, sinks.as_deref()));
        self.tensor(cols, data)
    }

    fn short_conv(&mut self, conv: Conv, bcx: Tensor, taps: Weight, bias: Option<Weight>) -> Tensor {
        let taps = self.weights[taps.0 as usize].vector();
        let bias = bias.map(|b| self.weights[b.0 as usize].vector());
        let bcx = self.values(bcx).data.clone();
        let State { spec, convs, .. } = self.state();
        let (spec, history) = (spec.convs[conv.0 as usize], &mut convs[conv.0 as usize]);
        let data = ops::short_conv::reference(&bcx, history, &spec, &taps, bias.as_deref());
        history.drain(..history.len().saturating_sub(spec.slots() * spec.cols));
        self.tensor(spec.cols, data)
    }

    fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let (a, b) = (self.values(a), self.values(b));
        let (cols, data) = (a.cols, ops::add::reference(&a.data, &b.data));
        self.tensor(cols, data)
    }

    fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols, ops::scale::reference(&x.data, factor));
        self.tensor(cols, data)
    }

    fn scale_columns(&mut self, x: Tensor, factors: Weight, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let factors = self.weights[factors.0 as usize].vector();
        let bias = bias.map(|b| self.weights[b.0 as usize].vector());
        let residual = residual.map(|r| &*self.values(r).data);
        let data = ops::scale_columns::reference(&self.values(x).data, &factors, bias.as_deref(), residual);
        self.tensor(factors.len(), data)
    }

    fn softcap(&mut self, x: Tensor, cap: f32) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols, ops::softcap::reference(&x.data, cap));
        self.tensor(cols, data)
    }

    fn activate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols, ops::activate::reference(&x.data, activation));
        self.tensor(cols, data)
    }

    fn gate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let x = self.values(x);
        let (cols, data) = (x.cols / 2, ops::gate::reference(&x.data, x.cols, activation));
        self.tensor(cols, data)
    }

    fn route(&mut self, logits: Tensor, routing: Routing) -> Routes {
        let x = self.values(logits);
        let (experts, (ids, weights)) = (x.cols, ops::route::reference(&x.data, x.cols, routing));
        Routes { ids: self.tensor(routing.per_row, ids), weights: self.tensor(routing.per_row, weights), experts }
    }

    /// [`ops::experts::reference`] with one row of the weight unpacked at a time, of experts in use.
    fn expert_matmul(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>) -> Tensor {
        let matrix = &self.weights[weight.0 as usize];
        let (x, ids, out) = (self.values(x), &self.values(routes.ids).data, matrix.rows() / routes.experts);
        let share = ids.len() / (x.data.len() / x.cols);
        let bias = bias.map(|b| self.weights[b.0 as usize].vector());
        let mut data = vec![0.0; ids.len() * out];
        let mut row = vec![0.0; x.cols];
        for expert in 0..routes.experts {
            let its: Vec<usize> = (0..ids.len()).filter(|&route| ids[route] as usize == expert).collect();
            for o in if its.is_empty() { 0..0 } else { 0..out } {
                matrix.unpack_row(expert * out + o, &mut row);
                for &route in &its {
                    let x_row = &x.data[route / share * x.cols..][..x.cols];
                    data[route * out + o] = ops::matmul::dot(x_row, &row) + bias.as_ref().map_or(0.0, |b| b[expert * out + o]);
                }
            }
        }
        self.tensor(out, data)
    }

    fn mix(&mut self, x: Tensor, routes: Routes, residual: Option<Tensor>) -> Tensor {
        let (x, weights) = (self.values(x), self.values(routes.weights));
        let residual = residual.map(|r| self.values(r).data.as_slice());
        let (cols, data) = (x.cols, ops::mix::reference(&x.data, x.cols, &weights.data, weights.cols, residual));
        self.tensor(cols, data)
    }

    fn sample(&mut self, logits: Tensor, sampling: &Sampling) {
        let logits = self.values(logits);
        let last = logits.data[logits.data.len() - logits.cols..].to_vec();
        let next = self.step.tokens.len();
        let state = self.state();
        let id = ops::sample::reference(&last, &state.counts, sampling, (state.position + next) as u32);
        state.counts[id as usize] += 1;
        state.sampled = id;
        self.sampled.push_back(id);
    }

    fn end(&mut self) -> Result<()> {
        let rows = self.step.tokens.len();
        let state = self.state();
        state.position += rows;
        state.most = state.most.max(state.position);
        Ok(())
    }

    fn read(&mut self, tensor: Tensor) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        future::ready(Ok(self.values(tensor).data.clone())).boxed_local()
    }

    fn sampled(&mut self) -> LocalBoxFuture<'static, Result<Option<u32>>> {
        future::ready(Ok(self.sampled.pop_front())).boxed_local()
    }

    fn set_sampled(&mut self, session: Session, token: u32) {
        let state = self.live_mut(session);
        state.counts[token as usize] += 1;
        state.sampled = token;
    }
}
