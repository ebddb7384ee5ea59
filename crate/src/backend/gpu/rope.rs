//! Rotation tables: made on the processor for as many positions as sessions hold, since WGSL's sine and cosine are coarse.

use super::memory::{Buffer, Memory};
use crate::ops;

/// `[position][pair] = (cos, sin)`.
pub struct Table {
    frequencies: Vec<f32>,
    magnitude: f32,
    capacity: usize,
    pub buffer: Buffer,
}

impl Table {
    pub fn new(memory: &Memory, frequencies: &[f32], magnitude: f32) -> Table {
        Table { frequencies: frequencies.to_vec(), magnitude, capacity: 0, buffer: memory.storage("rope", 16) }
    }

    /// Pairs of a position.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Makes room for `positions`; returns the id of the buffer left, if any.
    pub fn grow(&mut self, memory: &Memory, queue: &wgpu::Queue, positions: usize) -> Option<u64> {
        if positions <= self.capacity {
            return None;
        }
        self.capacity = positions;
        let angles = |position| ops::rope::angles(&self.frequencies, self.magnitude, position).flat_map(|(cos, sin)| [cos, sin]);
        let table: Vec<f32> = (0..positions).flat_map(angles).collect();
        let old = std::mem::replace(&mut self.buffer, memory.storage("rope", 4 * table.len()));
        queue.write_buffer(&self.buffer.raw, 0, bytemuck::cast_slice(&table));
        Some(old.id)
    }
}
