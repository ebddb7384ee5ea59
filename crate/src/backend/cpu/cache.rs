//! Keys and values of one attention layer, in pages of 64 positions, so that growing copies nothing.

use super::{
    pack::zeros,
    stored::{Short, Stored},
};
use crate::{backend::CacheSpec, error::Result};

/// Positions of a page.
pub const PAGE: usize = 64;
/// Positions whose keys are interleaved, and elements of a value that are together: whole vectors.
pub const BLOCK: usize = 16;

/// The cache of a layer.
#[derive(Default)]
pub struct Cache {
    kv_heads: usize,
    head_dim: usize,
    pages: Pages,
}

/// Pages, by how their elements are kept.
pub enum Pages {
    /// As they are.
    Float(Vec<Page<f32>>),
    /// In 16 bits.
    Short(Vec<Page<Short>>),
}

impl Default for Pages {
    fn default() -> Pages {
        Pages::Float(Vec::new())
    }
}

/// `f(pages)` for either kind.
macro_rules! either {
    ($pages:expr, $p:ident => $body:expr) => {
        match $pages {
            Pages::Float($p) => $body,
            Pages::Short($p) => $body,
        }
    };
}

/// Keys and values of 64 positions.
pub struct Page<E> {
    /// `[kv_heads][PAGE / BLOCK][head_dim][BLOCK]`.
    keys: Vec<E>,
    /// `[kv_heads][width / BLOCK][PAGE][BLOCK]`.
    values: Vec<E>,
    /// Of keys, then of values: `[2][kv_heads][PAGE]`.
    units: Vec<f32>,
}

/// A head's part of a page.
#[derive(Clone, Copy)]
pub struct Head<'a, E> {
    /// `[PAGE / BLOCK][head_dim][BLOCK]`.
    pub keys: &'a [E],
    /// `[width / BLOCK][PAGE][BLOCK]`.
    pub values: &'a [E],
    /// What keys are multiples of, position by position.
    pub key_units: &'a [f32],
    /// What values are multiples of.
    pub value_units: &'a [f32],
}

impl Cache {
    /// An empty cache; `short` to keep 16 bits of each element.
    pub fn new(spec: CacheSpec, short: bool) -> Cache {
        let pages = if short { Pages::Short(Vec::new()) } else { Pages::Float(Vec::new()) };
        Cache { kv_heads: spec.kv_heads, head_dim: spec.head_dim, pages }
    }

    /// Elements of a head's values with their padding: whole vectors.
    pub fn width(&self) -> usize {
        self.head_dim.next_multiple_of(BLOCK)
    }

    /// Its pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Makes room for `positions` positions.
    pub fn grow(&mut self, positions: usize) -> Result<()> {
        let (kv_heads, head_dim, width) = (self.kv_heads, self.head_dim, self.width());
        either!(&mut self.pages, pages => {
            while pages.len() * PAGE < positions {
                pages.push(Page::new(kv_heads, head_dim, width)?);
            }
        });
        Ok(())
    }

    /// Writes the keys and values of all heads at `position`, for which there is room.
    #[cfg_attr(size_first, optimize(speed))]
    pub fn put(&mut self, position: usize, k: &[f32], v: &[f32]) {
        let (page, at) = (position / PAGE, position % PAGE);
        either!(&mut self.pages, pages => pages[page].put(self.head_dim, at, k, v));
    }

    /// Reads what [`Cache::put`] wrote. Putting what was read changes nothing.
    pub fn get(&self, position: usize, k: &mut [f32], v: &mut [f32]) {
        let (page, at) = (position / PAGE, position % PAGE);
        either!(&self.pages, pages => pages[page].get(self.head_dim, at, k, v));
    }
}

impl<E: Stored> Page<E> {
    fn new(kv_heads: usize, head_dim: usize, width: usize) -> Result<Page<E>> {
        let mut units = zeros(Some(2 * kv_heads * PAGE))?;
        units.fill(1.0);
        Ok(Page { keys: zeros(Some(kv_heads * PAGE * head_dim))?, values: zeros(Some(kv_heads * PAGE * width))?, units })
    }

    #[inline(always)]
    fn put(&mut self, head_dim: usize, at: usize, k: &[f32], v: &[f32]) {
        let (key_units, value_units) = self.units.split_at_mut(k.len() / head_dim * PAGE);
        for (head, k) in k.chunks_exact(head_dim).enumerate() {
            let unit = E::unit(k);
            key_units[head * PAGE + at] = unit;
            let block = &mut self.keys[(head * PAGE + at / BLOCK * BLOCK) * head_dim..][..BLOCK * head_dim];
            let numbers = E::of(unit);
            for (places, value) in block.chunks_exact_mut(BLOCK).zip(k) {
                places[at % BLOCK] = numbers(*value);
            }
        }
        let width = head_dim.next_multiple_of(BLOCK);
        for (head, v) in v.chunks_exact(head_dim).enumerate() {
            let unit = E::unit(v);
            value_units[head * PAGE + at] = unit;
            let numbers = E::of(unit);
            for (i, v) in v.chunks(BLOCK).enumerate() {
                let places = &mut self.values[head * PAGE * width + (i * PAGE + at) * BLOCK..][..v.len()];
                places.iter_mut().zip(v).for_each(|(place, value)| *place = numbers(*value));
            }
        }
    }

    fn get(&self, head_dim: usize, at: usize, k: &mut [f32], v: &mut [f32]) {
        let (key_units, value_units) = self.units.split_at(k.len() / head_dim * PAGE);
        for (head, k) in k.chunks_exact_mut(head_dim).enumerate() {
            let block = &self.keys[(head * PAGE + at / BLOCK * BLOCK) * head_dim..][..BLOCK * head_dim];
            for (value, places) in k.iter_mut().zip(block.chunks_exact(BLOCK)) {
                *value = places[at % BLOCK].value(key_units[head * PAGE + at]);
            }
        }
        let width = head_dim.next_multiple_of(BLOCK);
        for (head, v) in v.chunks_exact_mut(head_dim).enumerate() {
            for (i, v) in v.chunks_mut(BLOCK).enumerate() {
                let places = &self.values[head * PAGE * width + (i * PAGE + at) * BLOCK..];
                v.iter_mut().zip(places).for_each(|(value, place)| *value = place.value(value_units[head * PAGE + at]));
            }
        }
    }

    /// The part of `head`, of `kv_heads` heads.
    pub fn head(&self, head: usize, kv_heads: usize) -> Head<'_, E> {
        let part = |all: &'_ [E]| -> std::ops::Range<usize> {
            let size = all.len() / kv_heads;
            head * size..(head + 1) * size
        };
        let units = |what: usize| &self.units[(what * kv_heads + head) * PAGE..][..PAGE];
        Head { keys: &self.keys[part(&self.keys)], values: &self.values[part(&self.values)], key_units: units(0), value_units: units(1) }
    }
}
