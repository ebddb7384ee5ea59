//! Buffers: with an identity for cache keys, and a pool for a step's tensors.

use std::{cell::Cell, collections::HashMap};

use wgpu::BufferUsages;

/// A GPU buffer; clones are the same buffer.
#[derive(Clone)]
pub struct Buffer {
    pub id: u64,
    pub raw: wgpu::Buffer,
}

/// Makes buffers.
pub struct Memory {
    device: wgpu::Device,
    next: Cell<u64>,
}

impl Memory {
    pub fn new(device: &wgpu::Device) -> Memory {
        Memory { device: device.clone(), next: Cell::new(0) }
    }

    /// A storage buffer of zeros. Kernels read whole vec4s, so the size is a multiple of 16.
    pub fn storage(&self, label: &str, bytes: usize) -> Buffer {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.buffer(label, bytes.next_multiple_of(16).max(16) as u64, usage)
    }

    /// A buffer to read results from.
    pub fn staging(&self, bytes: u64) -> Buffer {
        self.buffer("staging", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)
    }

    fn buffer(&self, label: &str, size: u64, usage: BufferUsages) -> Buffer {
        let id = self.next.replace(self.next.get() + 1);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        Buffer { id, raw: self.device.create_buffer(&descriptor) }
    }
}

/// Buffers of the step's tensors by size class (powers of two). A step that asks for the same sizes in the same order gets
/// the same buffers, so that its bind groups are found again.
#[derive(Default)]
pub struct Pool {
    classes: HashMap<usize, Class>,
}

#[derive(Default)]
struct Class {
    buffers: Vec<Buffer>,
    free: Vec<usize>,
}

/// A buffer lent by the pool.
#[derive(Clone)]
pub struct Lent {
    pub buffer: Buffer,
    class: usize,
    index: usize,
}

impl Pool {
    /// Takes everything back.
    pub fn reset(&mut self) {
        for class in self.classes.values_mut() {
            class.free = (0..class.buffers.len()).rev().collect();
        }
    }

    pub fn take(&mut self, memory: &Memory, bytes: usize) -> Lent {
        let size = bytes.next_power_of_two().max(256);
        let class = self.classes.entry(size).or_default();
        let index = class.free.pop().unwrap_or_else(|| {
            class.buffers.push(memory.storage("tensor", size));
            class.buffers.len() - 1
        });
        Lent { buffer: class.buffers[index].clone(), class: size, index }
    }

    pub fn give(&mut self, lent: &Lent) {
        self.classes.get_mut(&lent.class).expect("a class of this pool").free.push(lent.index);
    }
}
