//! A session's state, out and in.

use std::ops::Range;

use futures_util::future::{self, FutureExt, LocalBoxFuture};

use super::Reference;
use crate::{
    backend::{Cache, Conv, Session, snapshot::Snapshot},
    error::Result,
};

impl Snapshot for Reference {
    fn read_cache(&mut self, session: Session, cache: Cache, positions: Range<usize>) -> LocalBoxFuture<'static, Result<[Vec<f32>; 2]>> {
        let state = self.live(session);
        let (spec, (keys, values)) = (state.spec.caches[cache.0 as usize], &state.caches[cache.0 as usize]);
        let width = spec.kv_heads * spec.head_dim;
        let part = |all: &[f32]| all[positions.start * width..positions.end * width].to_vec();
        future::ready(Ok([part(keys), part(values)])).boxed_local()
    }

    fn write_cache(&mut self, session: Session, cache: Cache, first: usize, keys: &[f32], values: &[f32]) {
        let state = self.live_mut(session);
        let (spec, (all_keys, all_values)) = (state.spec.caches[cache.0 as usize], &mut state.caches[cache.0 as usize]);
        let start = first * spec.kv_heads * spec.head_dim;
        all_keys[start..start + keys.len()].copy_from_slice(keys);
        all_values[start..start + values.len()].copy_from_slice(values);
    }

    fn read_conv(&mut self, session: Session, conv: Conv) -> LocalBoxFuture<'static, Result<Vec<f32>>> {
        let state = self.live(session);
        let (spec, history) = (state.spec.convs[conv.0 as usize], &state.convs[conv.0 as usize]);
        let rows = history[history.len() - spec.seen(state.position) * spec.cols..].to_vec();
        future::ready(Ok(rows)).boxed_local()
    }

    fn write_conv(&mut self, session: Session, conv: Conv, rows: &[f32]) {
        self.live_mut(session).convs[conv.0 as usize] = rows.to_vec();
    }

    fn resume(&mut self, session: Session, position: usize) -> Result<()> {
        let state = self.live_mut(session);
        state.position = position;
        state.most = state.spec.most_at(position);
        for (spec, (keys, values)) in state.spec.caches.iter().zip(&mut state.caches) {
            let elements = position * spec.kv_heads * spec.head_dim;
            keys.resize(elements, 0.0);
            values.resize(elements, 0.0);
        }
        Ok(())
    }
}
