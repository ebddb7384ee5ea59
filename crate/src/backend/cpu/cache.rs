//! Keys and values of one attention layer, in pages of 64 positions, so that growing copies nothing.

use super::pack::zeros;
use crate::{backend::CacheSpec, error::Result};

/// Positions of a page.
pub const PAGE: usize = 64;
/// Positions whose keys are interleaved, so that a vector's lanes are positions.
pub const BLOCK: usize = 16;

/// The cache of a layer.
pub struct Cache {
    kv_heads: usize,
    head_dim: usize,
    pages: Vec<Page>,
}

struct Page {
    /// `[kv_heads][PAGE / BLOCK][head_dim][BLOCK]`.
    keys: Vec<f32>,
    /// `[kv_heads][PAGE][width]`.
    values: Vec<f32>,
}

impl Cache {
    /// An empty cache.
    pub fn new(spec: CacheSpec) -> Cache {
        Cache { kv_heads: spec.kv_heads, head_dim: spec.head_dim, pages: Vec::new() }
    }

    /// Elements of a head's values with their padding: whole vectors.
    pub fn width(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Makes room for `positions` positions.
    pub fn grow(&mut self, positions: usize) -> Result<()> {
        while self.pages.len() * PAGE < positions {
            let keys = zeros(Some(self.kv_heads * PAGE * self.head_dim))?;
            self.pages.push(Page { keys, values: zeros(Some(self.kv_heads * PAGE * self.width()))? });
        }
        Ok(())
    }

    /// Writes the keys and values of all heads at `position`, for which there is room.
    #[cfg_attr(size_first, optimize(speed))]
    pub fn put(&mut self, position: usize, k: &[f32], v: &[f32]) {
        let (width, at) = (self.width(), position % PAGE);
        let page = &mut self.pages[position / PAGE];
        for (head, (k, v)) in k.chunks_exact(self.head_dim).zip(v.chunks_exact(self.head_dim)).enumerate() {
            let block = &mut page.keys[(head * PAGE + at / BLOCK * BLOCK) * self.head_dim..][..BLOCK * self.head_dim];
            for (place, value) in block.iter_mut().skip(at % BLOCK).step_by(BLOCK).zip(k) {
                *place = *value;
            }
            page.values[(head * PAGE + at) * width..][..self.head_dim].copy_from_slice(v);
        }
    }

    /// Reads what [`Cache::put`] wrote.
    pub fn get(&self, position: usize, k: &mut [f32], v: &mut [f32]) {
        let (width, at) = (self.width(), position % PAGE);
        let page = &self.pages[position / PAGE];
        for (head, (k, v)) in k.chunks_exact_mut(self.head_dim).zip(v.chunks_exact_mut(self.head_dim)).enumerate() {
            let block = &page.keys[(head * PAGE + at / BLOCK * BLOCK) * self.head_dim..][..BLOCK * self.head_dim];
            for (value, place) in k.iter_mut().zip(block.iter().skip(at % BLOCK).step_by(BLOCK)) {
                *value = *place;
            }
            v.copy_from_slice(&page.values[(head * PAGE + at) * width..][..self.head_dim]);
        }
    }

    /// The keys of a page's head: `[PAGE / BLOCK][head_dim][BLOCK]`.
    pub fn keys(&self, page: usize, head: usize) -> &[f32] {
        &self.pages[page].keys[head * PAGE * self.head_dim..][..PAGE * self.head_dim]
    }

    /// The values of a page's head: `[PAGE][width]`.
    pub fn values(&self, page: usize, head: usize) -> &[f32] {
        &self.pages[page].values[head * PAGE * self.width()..][..PAGE * self.width()]
    }
}
