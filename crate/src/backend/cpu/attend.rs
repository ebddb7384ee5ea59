//! Attention shared out among threads: parts of the cache where there are few queries, tiles of queries where there are many.
#![allow(unsafe_code)] // Outputs that threads share; each part is written by one.

use super::{
    Host, View, WORTH_A_FORK,
    attention::{self, Attend, Gathered, gathered},
    cache::PAGE,
    parts::Parts,
    pool::Pool,
};
use crate::backend::{Attention, Cache};

/// Rows of queries that are given to a thread at a time.
pub const TILE: usize = 8;

impl Host {
    /// Few rows: the cache's pages are shared out, then what the parts gathered is joined.
    pub fn attend_parts(&self, pool: &Pool, cache: Cache, q: View, spec: &Attention, scratch: &mut Vec<f32>, out: &mut [f32]) {
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
    pub fn attend_tiles(&self, pool: &Pool, cache: Cache, q: View, spec: &Attention, scratch: &mut Vec<f32>, out: &mut [f32]) {
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
}
