//! A session's state, out and in.

use std::ops::Range;

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::Cpu;
use crate::{
    backend::{Cache, Conv, Session, snapshot::Snapshot},
    error::Result,
};

impl Snapshot for Cpu {
    fn read_cache(&mut self, session: Session, cache: Cache, positions: Range<usize>) -> LocalBoxFuture<'static, Result<[Vec<f32>; 2]>> {
        let state = self.host.live(session);
        let (spec, cache) = (state.spec.caches[cache.0 as usize], &state.caches[cache.0 as usize]);
        let width = spec.kv_heads * spec.head_dim;
        let mut rows = [vec![0.0; positions.len() * width], vec![0.0; positions.len() * width]];
        let [keys, values] = &mut rows;
        for ((position, k), v) in positions.zip(keys.chunks_exact_mut(width)).zip(values.chunks_exact_mut(width)) {
            cache.get(position, k, v);
        }
        future::ready(Ok(rows)).boxed_local()
    }

    fn write_cache(&mut self, session: Session, cache: Cache, first: usize, keys: &[f32], values: &[f32]) {
        let state = self.host.live_mut(session);
        let (spec, cache) = (state.spec.caches[cache.0 as usize], &mut state.caches[cache.0 as usize]);
        let width = spec.kv_heads * spec.head_dim;
        for ((position, k), v) in (first..).zip(keys.chunks_exact(width)).zip(values.chunks_exact(width)) {
            cache.put(position, k, v);
        }
    }

    fn read_conv(&mut self, session: Session, conv: Conv) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let state = self.host.live(session);
        let (spec, history) = (state.spec.convs[conv.0 as usize], &state.convs[conv.0 as usize]);
        let rows = history[history.len() - spec.seen(state.position) * spec.cols..].to_vec();
        future::ready(Ok(rows)).boxed_local()
    }

    fn write_conv(&mut self, session: Session, conv: Conv, rows: &[f32]) {
        self.host.live_mut(session).convs[conv.0 as usize] = rows.to_vec();
    }

    fn resume(&mut self, session: Session, position: usize) -> Result<()> {
        let state = self.host.live_mut(session);
        state.grow(position)?;
        state.position = position;
        state.most = state.spec.most_at(position);
        Ok(())
    }
}
