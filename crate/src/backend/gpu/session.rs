//! A conversation on the device: caches, convolution states, position, sampled token, counts.

use super::memory::{Buffer, Memory};
use crate::{
    backend::{CacheSpec, SessionSpec},
    error::{Error, Result},
    ops::sample,
};

/// Positions that a cache holds at first.
const FIRST_CAPACITY: usize = 256;

/// A session.
pub struct State {
    pub spec: SessionSpec,
    pub position: usize,
    /// The largest position since the session was empty.
    most: usize,
    pub capacity: usize,
    pub caches: Vec<[Buffer; 2]>,
    pub convs: Vec<Buffer>,
    /// What a step needs to know: its first position, then its token ids.
    pub step: Buffer,
    pub counts: Buffer,
    /// The sampled token, and whether one was found.
    pub chosen: Buffer,
    /// Scratch of the sampler.
    pub work: Buffer,
}

/// A copy that moves a cache to a larger buffer.
pub struct Move {
    pub from: Buffer,
    pub to: Buffer,
    pub bytes: u64,
}

impl State {
    pub fn new(memory: &Memory, max_binding: u64, spec: &SessionSpec) -> Result<State> {
        for cache in &spec.caches {
            let bytes = cache_bytes(cache, spec.context);
            if bytes.is_none_or(|b| b as u64 > max_binding) {
                return Err(Error::OutOfMemory(format!(
                    "a context of {} tokens needs caches larger than this GPU's limit of {max_binding} bytes; load with a smaller contextLength",
                    spec.context
                )));
            }
            if !cache.head_dim.is_multiple_of(4) || cache.head_dim > 256 {
                return Err(Error::UnsupportedFormat(format!(
                    "attention heads of {}: the GPU backend takes multiples of 4 up to 256",
                    cache.head_dim
                )));
            }
        }
        let capacity = spec.context.min(FIRST_CAPACITY);
        Ok(State {
            spec: spec.clone(),
            position: 0,
            most: 0,
            capacity,
            caches: spec.caches.iter().map(|c| pair(memory, c, capacity)).collect(),
            convs: spec.convs.iter().map(|c| memory.storage("convolution", 4 * c.slots() * c.cols)).collect(),
            step: memory.storage("step", 4 * (1 + capacity)),
            counts: memory.storage("counts", 4 * spec.vocab),
            chosen: memory.storage("chosen", 8),
            work: memory.storage("sampler", sample::WORK_BYTES),
        })
    }

    /// Counts the rows of a step that was submitted.
    pub fn advance(&mut self, rows: usize) {
        self.position += rows;
        self.most = self.most.max(self.position);
    }

    /// Begins at `position`.
    pub fn resume(&mut self, position: usize) {
        (self.position, self.most) = (position, self.spec.most_at(position));
    }

    /// Goes back to `position`, or to nothing, see [`SessionSpec::back_to`].
    pub fn truncate(&mut self, position: usize) {
        self.position = self.spec.back_to(self.position.min(position), self.most);
        if self.position == 0 {
            self.most = 0;
        }
    }

    /// Makes room for `positions` positions; returns the copies to make before the step, and the ids of buffers left.
    pub fn grow(&mut self, memory: &Memory, positions: usize) -> (Vec<Move>, Vec<u64>) {
        if positions <= self.capacity {
            return (Vec::new(), Vec::new());
        }
        self.capacity = positions.next_power_of_two().min(self.spec.context);
        let (mut moves, mut left) = (Vec::new(), vec![self.step.id]);
        self.step = memory.storage("step", 4 * (1 + self.capacity));
        for (spec, pair_of) in self.spec.caches.iter().zip(&mut self.caches) {
            let old = std::mem::replace(pair_of, pair(memory, spec, self.capacity));
            for (from, to) in old.into_iter().zip(pair_of.iter()) {
                left.push(from.id);
                let bytes = (self.position * spec.kv_heads * spec.head_dim * 4) as u64;
                moves.push(Move { from, to: to.clone(), bytes });
            }
        }
        (moves, left)
    }

    /// All its buffers.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let own = [&self.step, &self.counts, &self.chosen, &self.work];
        own.into_iter().chain(self.caches.iter().flatten()).chain(&self.convs)
    }
}

fn cache_bytes(spec: &CacheSpec, positions: usize) -> Option<usize> {
    spec.kv_heads.checked_mul(spec.head_dim)?.checked_mul(positions)?.checked_mul(4)
}

fn pair(memory: &Memory, spec: &CacheSpec, positions: usize) -> [Buffer; 2] {
    let bytes = cache_bytes(spec, positions).expect("checked for the whole context");
    [memory.storage("keys", bytes), memory.storage("values", bytes)]
}
