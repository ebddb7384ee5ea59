//! A session's state, out and in.

use std::ops::Range;

use futures_util::future::{FutureExt, LocalBoxFuture};

use super::{Buffer, Gpu, readback};
use crate::{
    backend::{Cache, Conv, ConvSpec, Session, snapshot::Snapshot},
    error::Result,
};

impl Snapshot for Gpu {
    fn read_cache(&mut self, session: Session, cache: Cache, positions: Range<usize>) -> LocalBoxFuture<'static, Result<[Vec<f32>; 2]>> {
        let (buffers, width) = self.cache(session, cache);
        let count = positions.len() * width;
        let parts = buffers.map(|buffer| (buffer, positions.start * width, count));
        let words = self.read_floats(&parts, 2 * count);
        async move {
            let mut keys = words.await?;
            let values = keys.split_off(count);
            Ok([keys, values])
        }
        .boxed_local()
    }

    fn write_cache(&mut self, session: Session, cache: Cache, first: usize, keys: &[f32], values: &[f32]) {
        let (buffers, width) = self.cache(session, cache);
        for (buffer, rows) in buffers.iter().zip([keys, values]) {
            self.device.queue.write_buffer(&buffer.raw, (4 * first * width) as u64, bytemuck::cast_slice(rows));
        }
    }

    fn read_conv(&mut self, session: Session, conv: Conv) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let (buffer, spec, position) = self.conv(session, conv);
        let seen = position - spec.seen(position)..position;
        let parts: Vec<_> = seen.map(|at| (buffer.clone(), at % spec.slots() * spec.cols, spec.cols)).collect();
        let count = parts.len() * spec.cols;
        self.read_floats(&parts, count)
    }

    fn write_conv(&mut self, session: Session, conv: Conv, rows: &[f32]) {
        let (buffer, spec, position) = self.conv(session, conv);
        for (at, row) in (position - spec.seen(position)..position).zip(rows.chunks_exact(spec.cols)) {
            let offset = (4 * (at % spec.slots()) * spec.cols) as u64;
            self.device.queue.write_buffer(&buffer.raw, offset, bytemuck::cast_slice(row));
        }
    }

    fn resume(&mut self, session: Session, position: usize) -> Result<()> {
        let Gpu { sessions, memory, compose, device, .. } = self;
        let state = sessions[session.0 as usize].as_mut().expect("a session in use");
        let (moves, left) = state.grow(memory, position);
        compose.forget(&left);
        // The session was empty: there is nothing to move.
        moves.iter().for_each(|m| m.from.raw.destroy());
        state.resume(position);
        device.failure.check()
    }
}

impl Gpu {
    /// Buffers of keys and values, and elements of a position in each.
    fn cache(&self, session: Session, cache: Cache) -> ([Buffer; 2], usize) {
        let state = self.live(session);
        let spec = state.spec.caches[cache.0 as usize];
        (state.caches[cache.0 as usize].clone(), spec.kv_heads * spec.head_dim)
    }

    fn conv(&self, session: Session, conv: Conv) -> (Buffer, ConvSpec, usize) {
        let state = self.live(session);
        (state.convs[conv.0 as usize].clone(), state.spec.convs[conv.0 as usize], state.position)
    }

    /// Parts of buffers (first element, number of elements), one after the other.
    fn read_floats(&mut self, parts: &[(Buffer, usize, usize)], count: usize) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        if count == 0 {
            return async { Ok(Vec::new()) }.boxed_local();
        }
        let staging = self.staging.take(&self.memory, 4 * count);
        let mut encoder = self.device.raw.create_command_encoder(&Default::default());
        let mut to = 0;
        for (buffer, first, elements) in parts {
            encoder.copy_buffer_to_buffer(&buffer.raw, 4 * *first as u64, &staging.raw, to, 4 * *elements as u64);
            to += 4 * *elements as u64;
        }
        let submission = self.device.queue.submit([encoder.finish()]);
        let words = readback::words(&self.device, &self.staging, staging, count, submission);
        async move { Ok(words.await?.into_iter().map(f32::from_bits).collect()) }.boxed_local()
    }
}
