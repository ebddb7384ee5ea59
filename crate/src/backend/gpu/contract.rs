//! The contract, with kernels.

use super::*;
use crate::ops::embed::By;

/// Weight bytes that may wait for a submission.
const MOST_STAGED: usize = 64 << 20;

/// Bytes of the step's header before its token ids.
const HEADER_WORDS: usize = 1;

impl Backend for Gpu {
    fn info(&self) -> BackendInfo {
        self.device.info.clone()
    }

    fn max_plane_bytes(&self) -> usize {
        self.device.max_plane_bytes
    }

    fn new_weight(&mut self, cols: usize, segments: &[Segment]) -> Result<Weight> {
        let matrix = Matrix::new(&self.memory, self.device.max_plane_bytes, cols, segments)?;
        self.device.failure.check()?;
        if let Some(weight) = self.vacant.pop() {
            self.weights[weight.0 as usize] = matrix;
            return Ok(weight);
        }
        self.weights.push(matrix);
        Ok(Weight(self.weights.len() as u32 - 1))
    }

    fn drop_weight(&mut self, weight: Weight) {
        let matrix = std::mem::take(&mut self.weights[weight.0 as usize]);
        let buffers: Vec<&Buffer> = matrix.parts.iter().flat_map(Part::planes).collect();
        self.compose.forget(&buffers.iter().map(|b| b.id).collect::<Vec<_>>());
        // Browsers free a buffer when its wrapper is collected, which may be much later.
        buffers.iter().for_each(|b| b.raw.destroy());
        self.vacant.push(weight);
    }

    fn write_weight(&mut self, weight: Weight, segment: usize, plane: Plane, offset: usize, bytes: &[u8]) -> Result<()> {
        let (buffer, start, length) = self.weights[weight.0 as usize]
            .place(segment, plane)
            .ok_or_else(|| Error::InvalidInput(format!("segment {segment} has no plane {plane:?}")))?;
        if offset.checked_add(bytes.len()).is_none_or(|end| end > length) {
            return Err(Error::InvalidInput(format!("{} bytes at {offset} of a plane of {length}", bytes.len())));
        }
        // Written bytes are staged until the next submission: without one a load would hold the weights twice.
        self.staged += bytes.len();
        if self.staged > MOST_STAGED {
            self.staged = 0;
            self.device.queue.submit([]);
        }
        let whole = bytes.len() / 4 * 4;
        let queue = &self.device.queue;
        queue.write_buffer(&buffer.raw, (start + offset) as u64, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            queue.write_buffer(&buffer.raw, (start + offset + whole) as u64, &last);
        }
        Ok(())
    }

    fn new_rope(&mut self, inverse_frequencies: &[f32], magnitude: f32) -> Result<Rope> {
        self.ropes.push(Table::new(&self.memory, inverse_frequencies, magnitude));
        Ok(Rope(self.ropes.len() as u32 - 1))
    }

    fn flush(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        readback::done(&self.device)
    }

    fn new_session(&mut self, spec: &SessionSpec) -> Result<Session> {
        let state = State::new(&self.memory, self.device.max_binding_bytes, spec)?;
        self.device.failure.check()?;
        self.sessions.push(Some(state));
        Ok(Session(self.sessions.len() as u32 - 1))
    }

    fn drop_session(&mut self, session: Session) {
        if let Some(state) = self.sessions[session.0 as usize].take() {
            self.compose.forget(&state.buffers().map(|b| b.id).collect::<Vec<_>>());
            // Browsers free a buffer when its wrapper is collected, which may be much later.
            state.buffers().for_each(|b| b.raw.destroy());
        }
    }

    fn position(&self, session: Session) -> usize {
        self.live(session).position
    }

    fn truncate(&mut self, session: Session, position: usize) {
        self.live_mut(session).truncate(position);
    }

    fn reset_counts(&mut self, session: Session, prompt: &[u32]) {
        // What a failed step sampled belongs to nobody.
        self.sampled.clear();
        let state = self.live(session);
        let mut counts = vec![0; state.spec.vocab];
        for &id in prompt {
            counts[id as usize] = ops::sample::IN_PROMPT;
        }
        self.device.queue.write_buffer(&state.counts.raw, 0, bytemuck::cast_slice(&counts));
    }

    fn begin(&mut self, session: Session, input: Input<'_>) -> Result<usize> {
        let Gpu { sessions, memory, device, ropes, compose, .. } = self;
        let state = sessions[session.0 as usize].as_mut().expect("a session in use");
        let (source, ids) = match input {
            Input::Tokens(ids) => (TokenSource::Given, ids),
            Input::Sampled => (TokenSource::Sampled, &[][..]),
        };
        let rows = if source == TokenSource::Sampled { 1 } else { ids.len() };
        let (end, context) = (state.position + rows, state.spec.context);
        if rows == 0 {
            return Err(Error::InvalidInput("a step without tokens".into()));
        }
        if end > context {
            return Err(Error::ContextOverflow { tokens: end, context });
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= state.spec.vocab) {
            return Err(Error::InvalidInput(format!("token {id} of a vocabulary of {}", state.spec.vocab)));
        }
        device.failure.check()?;
        let (moves, mut left) = state.grow(memory, end);
        left.extend(ropes.iter_mut().filter_map(|r| r.grow(memory, &device.queue, state.capacity)));
        if !left.is_empty() {
            compose.forget(&left);
        }
        let words = [&[state.position as u32], ids].concat();
        device.queue.write_buffer(&state.step.raw, 0, bytemuck::cast_slice(&words));
        // A step that was begun but never ended leaves its copies to the next.
        let mut earlier = std::mem::take(&mut self.current.moves);
        earlier.extend(moves);
        self.current = Current { session: Some(session), rows, input: source, moves: earlier, ..Current::default() };
        self.step = Step::default();
        self.dispatches = 0;
        Ok(rows)
    }

    fn upload(&mut self, cols: usize, data: &[f32]) -> Tensor {
        self.step.tensor(data.len() / cols, cols, Some(data.to_vec()))
    }

    fn embed(&mut self, table: Weight) -> Tensor {
        match self.current.input {
            TokenSource::Given => self.embed_by(table, self.state().step.clone(), By::Id(HEADER_WORDS)),
            TokenSource::Sampled => self.embed_by(table, self.state().chosen.clone(), By::Id(0)),
        }
    }

    fn embed_positions(&mut self, table: Weight) -> Tensor {
        self.embed_by(table, self.state().step.clone(), By::Position)
    }

    fn matmul(&mut self, weight: Weight, x: Tensor, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let out = self.weights[weight.0 as usize].rows;
        self.product(weight, x, bias, residual, out, None)
    }

    fn rms_norm(&mut self, x: Tensor, weight: Weight, eps: f32) -> Tensor {
        let view = self.step.view(x);
        self.need_quads("a norm", view);
        let y = self.step.tensor(view.rows, view.cols, None);
        let w = self.vector(weight);
        let head = self.weights[weight.0 as usize].cols;
        self.record(ops::rms_norm::call(view, head, eps, self.device.info.software), [Slot::Tensor(x), Slot::Buffer(w), Slot::Tensor(y)]);
        y
    }

    fn layer_norm(&mut self, x: Tensor, weight: Weight, bias: Option<Weight>, eps: f32) -> Tensor {
        let view = self.step.view(x);
        self.need_quads("a norm", view);
        let y = self.step.tensor(view.rows, view.cols, None);
        let (w, b) = (self.vector(weight), self.or_nothing(bias));
        let call = ops::layer_norm::call(view, bias.is_some(), eps, self.device.info.software);
        self.record(call, [Slot::Tensor(x), Slot::Buffer(w), b, Slot::Tensor(y)]);
        y
    }

    fn columns(&mut self, x: Tensor, start: usize, width: usize) -> Tensor {
        self.step.part(x, |v| View { cols: width, offset: v.offset + start, ..v })
    }

    fn first_row(&mut self, x: Tensor) -> Tensor {
        self.step.part(x, |v| View { rows: 1, ..v })
    }

    fn last_row(&mut self, x: Tensor) -> Tensor {
        self.step.part(x, |v| View { rows: 1, offset: v.offset + (v.rows - 1) * v.stride, ..v })
    }

    fn mean_rows(&mut self, x: Tensor) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(1, view.cols, None);
        self.record(ops::mean_rows::call(view), [Slot::Tensor(x), Slot::Tensor(y)]);
        y
    }

    fn rope(&mut self, x: Tensor, rope: Rope, head_dim: usize) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols, None);
        let table = &self.ropes[rope.0 as usize];
        let call = ops::rope::call(view, head_dim, table.pairs());
        let slots = [Slot::Buffer(self.state().step.clone()), Slot::Tensor(x), Slot::Buffer(table.buffer.clone()), Slot::Tensor(y)];
        self.record(call, slots);
        y
    }

    fn append(&mut self, cache: Cache, k: Tensor, v: Tensor) {
        let call = ops::rope::plain_append_call(self.step.view(k), self.step.view(v));
        let state = self.state();
        let [keys, values] = state.caches[cache.0 as usize].clone();
        let slots = [Slot::Buffer(state.step.clone()), Slot::Tensor(k), Slot::Tensor(v), Slot::Buffer(keys), Slot::Buffer(values)];
        self.record(call, slots);
    }

    fn attention(&mut self, cache: Cache, q: Tensor, spec: &Attention) -> Tensor {
        let view = self.step.view(q);
        self.need_quads("attention queries", view);
        let state = self.state();
        let [keys, values] = state.caches[cache.0 as usize].clone();
        let step = state.step.clone();
        let positions = state.position + view.rows;
        let chunks = ops::attention::chunks(view.rows, positions);
        let call = ops::attention::call(view, spec, positions, self.device.info.software);
        let parts = self.step.tensor(view.rows, view.cols * chunks, None);
        let stats = self.step.tensor(view.rows, spec.heads * chunks * 2, None);
        let inputs = [Slot::Buffer(step), Slot::Tensor(q), Slot::Buffer(keys), Slot::Buffer(values)];
        let ([s, q, k, v], sinks) = (inputs, self.or_nothing(spec.sinks));
        self.record(call, [s, q, k, v, Slot::Tensor(parts), Slot::Tensor(stats), sinks]);
        if chunks == 1 {
            return parts;
        }
        let y = self.step.tensor(view.rows, view.cols, None);
        let call = ops::attention::combine_call(view.rows, spec, chunks);
        self.record(call, [Slot::Tensor(parts), Slot::Tensor(stats), Slot::Tensor(y)]);
        y
    }

    fn short_conv(&mut self, conv: Conv, bcx: Tensor, taps: Weight, bias: Option<Weight>) -> Tensor {
        let view = self.step.view(bcx);
        let (spec, state) = (self.state().spec.convs[conv.0 as usize], self.state().convs[conv.0 as usize].clone());
        let y = self.step.tensor(view.rows, spec.cols, None);
        for call in ops::short_conv::calls(view, &spec, bias.is_some()) {
            let (step, taps, bias) = (self.state().step.clone(), self.vector(taps), self.or_nothing(bias));
            let slots = [Slot::Buffer(step), Slot::Tensor(bcx), Slot::Buffer(taps), bias, Slot::Buffer(state.clone()), Slot::Tensor(y)];
            self.record(call, slots);
        }
        y
    }

    fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let (left, right) = (self.step.view(a), self.step.view(b));
        let y = self.step.tensor(left.rows, left.cols, None);
        self.record(ops::add::call(left, right), [Slot::Tensor(a), Slot::Tensor(b), Slot::Tensor(y)]);
        y
    }

    fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols, None);
        self.record(ops::scale::call(view, factor), [Slot::Tensor(x), Slot::Tensor(y)]);
        y
    }

    fn scale_columns(&mut self, x: Tensor, factors: Weight, bias: Option<Weight>, residual: Option<Tensor>) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols, None);
        let call = ops::scale_columns::call(view, bias.is_some(), residual.map(|r| self.step.view(r)));
        let (factors, bias) = (Slot::Buffer(self.vector(factors)), self.or_nothing(bias));
        let add = residual.map_or_else(|| Slot::Buffer(self.nothing.clone()), Slot::Tensor);
        self.record(call, [Slot::Tensor(x), Slot::Tensor(y), factors, bias, add]);
        y
    }

    fn softcap(&mut self, x: Tensor, cap: f32) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols, None);
        self.record(ops::softcap::call(view, cap), [Slot::Tensor(x), Slot::Tensor(y)]);
        y
    }

    fn activate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols, None);
        self.record(ops::activate::call(view, activation), [Slot::Tensor(x), Slot::Tensor(y)]);
        y
    }

    fn gate(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let view = self.step.view(x);
        let y = self.step.tensor(view.rows, view.cols / 2, None);
        self.record(ops::gate::call(view, activation), [Slot::Tensor(x), Slot::Tensor(y)]);
        y
    }

    fn route(&mut self, logits: Tensor, routing: Routing) -> Routes {
        self.choose_experts(logits, routing)
    }

    fn expert_matmul(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>) -> Tensor {
        self.expert_product(weight, x, routes, bias, None)
    }

    fn mix(&mut self, x: Tensor, routes: Routes, residual: Option<Tensor>) -> Tensor {
        let (view, rows) = (self.step.view(x), self.step.view(routes.weights).rows);
        let y = self.step.tensor(rows, view.cols, None);
        let call = ops::mix::call(view, rows, residual.map(|r| self.step.view(r)));
        let add = residual.map_or_else(|| Slot::Buffer(self.nothing.clone()), Slot::Tensor);
        self.record(call, [Slot::Tensor(x), Slot::Tensor(routes.weights), add, Slot::Tensor(y)]);
        y
    }

    fn sample(&mut self, logits: Tensor, sampling: &Sampling) {
        let calls = ops::sample::calls(self.step.view(logits), self.current.rows, sampling);
        self.current.sample = if calls.is_empty() { Sample::Elsewhere } else { Sample::OnDevice };
        for call in calls {
            let State { step, counts, work, chosen, .. } = self.state();
            let [step, counts, work, chosen] = [step, counts, work, chosen].map(|b| Slot::Buffer(b.clone()));
            self.record(call, [step, Slot::Tensor(logits), counts, work, chosen]);
        }
        // Where the device finds no token, the logits are read.
        self.step.keep(logits);
    }

    fn end(&mut self) -> Result<()> {
        if let Some(error) = self.current.error.take() {
            return Err(error);
        }
        let ready = self.step.finish(&mut self.pool, &self.memory, &mut self.compose, &self.device.queue);
        self.dispatches = ready.len();
        let moves = std::mem::take(&mut self.current.moves);
        let on_device = self.current.sample == Sample::OnDevice;
        let chosen = self.state().chosen.clone();
        let staging = on_device.then(|| self.staging.take(&self.memory, 8));
        let submission = self.submit(&ready, &moves, staging.as_ref().map(|to| (&chosen, to)));
        moves.iter().for_each(|m| m.from.raw.destroy());
        match (self.current.sample, staging) {
            (_, Some(buffer)) => {
                let words = readback::words(&self.device, &self.staging, buffer, 2, submission);
                self.sampled.push_back(words.map(|w| w.map(|w| (w[1] != 0).then_some(w[0]))).boxed_local());
            }
            (Sample::Elsewhere, None) => self.sampled.push_back(future::ready(Ok(None)).boxed_local()),
            _ => {}
        }
        let rows = self.current.rows;
        let session = self.current.session.expect("an operation outside a step");
        self.live_mut(session).advance(rows);
        self.device.failure.check()
    }

    fn read(&mut self, tensor: Tensor) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let view = self.step.view(tensor);
        let Some(buffer) = self.step.buffer(tensor) else {
            let why = "this tensor was used up within the step: only results, which no other operation read, can be read";
            return future::ready(Err(Error::InvalidInput(why.into()))).boxed_local();
        };
        // From the first to the last element, then row by row.
        let span = (view.rows - 1) * view.stride + view.cols;
        let staging = self.staging.take(&self.memory, 4 * span);
        let mut encoder = self.device.raw.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer.raw, 4 * view.offset as u64, &staging.raw, 0, 4 * span as u64);
        let submission = self.device.queue.submit([encoder.finish()]);
        let words = readback::words(&self.device, &self.staging, staging, span, submission);
        words
            .map(move |words| {
                let words = words?;
                let rows = words.chunks(view.stride).flat_map(|row| &row[..view.cols]);
                Ok(rows.map(|w| f32::from_bits(*w)).collect())
            })
            .boxed_local()
    }

    fn sampled(&mut self) -> LocalBoxFuture<'static, Result<Option<u32>>> {
        let nothing = || future::ready(Err(Error::InvalidInput("no step has sampled".into()))).boxed_local();
        self.sampled.pop_front().unwrap_or_else(nothing)
    }

    fn set_sampled(&mut self, session: Session, token: u32) {
        let (counts, chosen) = (self.live(session).counts.clone(), self.live(session).chosen.clone());
        self.device.queue.write_buffer(&chosen.raw, 0, bytemuck::cast_slice(&[token, 1]));
        let ready = self.compose.ready(ops::sample::count_call(), &[&counts, &chosen]);
        self.submit(&[ready], &[], None);
    }

    fn dispatches(&self) -> usize {
        self.dispatches
    }

    fn rope_append(&mut self, cache: Cache, qkv: Tensor, rope: Rope, spec: &Attention) -> Tensor {
        let view = self.step.view(qkv);
        let q = self.step.tensor(view.rows, spec.heads * spec.head_dim, None);
        let table = &self.ropes[rope.0 as usize];
        let call = ops::rope::append_call(view, spec, table.pairs());
        let table = Slot::Buffer(table.buffer.clone());
        let state = self.state();
        let [keys, values] = state.caches[cache.0 as usize].clone().map(Slot::Buffer);
        let step = Slot::Buffer(state.step.clone());
        self.record(call, [step, Slot::Tensor(qkv), table, Slot::Tensor(q), keys, values]);
        q
    }

    fn norm_gated(&mut self, x: Tensor, norm: Weight, eps: f32, weight: Weight, bias: Option<Weight>, activation: Activation) -> Tensor {
        let matrix = &self.weights[weight.0 as usize];
        // Gate and up must lie in one part for a kernel to see both.
        if matrix.parts.len() > 1 {
            let both = self.norm_matmul(x, norm, eps, weight, bias);
            return self.gate(both, activation);
        }
        let half = matrix.rows / 2;
        let normed = self.rms_norm(x, norm, eps);
        self.product(weight, normed, bias, None, half, Some(activation))
    }

    fn expert_gated(&mut self, weight: Weight, x: Tensor, routes: Routes, bias: Option<Weight>, activation: Activation) -> Tensor {
        if self.holds_whole_experts(weight, routes.experts) {
            return self.expert_product(weight, x, routes, bias, Some(activation));
        }
        let both = self.expert_matmul(weight, x, routes, bias);
        self.gate(both, activation)
    }
}
