//! A step as it is recorded: calls on tensors that have no buffers yet. When it ends, the last use of each tensor is known, and
//! tensors share buffers.

use super::{
    compose::{Compose, Ready},
    memory::{Buffer, Lent, Memory, Pool},
};
use crate::{
    backend::Tensor,
    ops::kernel::{self, Access, Call, View},
};

/// What a call binds.
pub enum Slot {
    /// A tensor of the step.
    Tensor(Tensor),
    /// Anything else.
    Buffer(Buffer),
}

/// A step.
#[derive(Default)]
pub struct Step {
    tensors: Vec<Entry>,
    roots: Vec<Root>,
    calls: Vec<(Call, Vec<Slot>)>,
}

/// A tensor: a view of a root.
struct Entry {
    root: usize,
    view: View,
}

/// A tensor with a buffer of its own.
struct Root {
    bytes: usize,
    upload: Option<Vec<f32>>,
    /// Whether it outlives its last reader.
    keep: bool,
    lent: Option<Lent>,
    released: bool,
}

impl Step {
    /// A new tensor; with `upload` its content comes from outside.
    pub fn tensor(&mut self, rows: usize, cols: usize, upload: Option<Vec<f32>>) -> Tensor {
        let view = View::whole(rows, cols);
        self.roots.push(Root { bytes: 4 * view.len(), upload, keep: false, lent: None, released: false });
        self.entry(self.roots.len() - 1, view)
    }

    /// A view of a tensor.
    pub fn part(&mut self, of: Tensor, change: impl FnOnce(View) -> View) -> Tensor {
        let Entry { root, view } = self.tensors[of.0 as usize];
        self.entry(root, change(view))
    }

    fn entry(&mut self, root: usize, view: View) -> Tensor {
        self.tensors.push(Entry { root, view });
        Tensor(self.tensors.len() as u32 - 1)
    }

    pub fn view(&self, tensor: Tensor) -> View {
        self.tensors[tensor.0 as usize].view
    }

    /// Keeps a tensor for reading although the step goes on to use it.
    pub fn keep(&mut self, tensor: Tensor) {
        let root = self.tensors[tensor.0 as usize].root;
        self.roots[root].keep = true;
    }

    pub fn call(&mut self, call: Call, slots: Vec<Slot>) {
        self.calls.push((call, slots));
    }

    /// The buffer of a tensor after [`Step::finish`]; `None` if another took its place.
    pub fn buffer(&self, tensor: Tensor) -> Option<&Buffer> {
        let root = &self.roots[self.tensors[tensor.0 as usize].root];
        root.lent.as_ref().filter(|_| !root.released).map(|l| &l.buffer)
    }

    /// Gives tensors buffers and calls bind groups, in order. A tensor that is read gives its buffer back after the last
    /// reader; one that is never read is a result and stays.
    pub fn finish(&mut self, pool: &mut Pool, memory: &Memory, compose: &mut Compose, queue: &wgpu::Queue) -> Vec<Ready> {
        pool.reset();
        let calls = std::mem::take(&mut self.calls);
        let (last, read) = self.uses(&calls);
        for root in &mut self.roots {
            if let Some(data) = root.upload.take() {
                let lent = pool.take(memory, root.bytes);
                queue.write_buffer(&lent.buffer.raw, 0, bytemuck::cast_slice(&data));
                root.lent = Some(lent);
            }
        }
        let mut ready = Vec::new();
        for (index, (call, slots)) in calls.into_iter().enumerate() {
            for slot in &slots {
                if let Slot::Tensor(t) = slot {
                    let root = &mut self.roots[self.tensors[t.0 as usize].root];
                    root.lent.get_or_insert_with(|| pool.take(memory, root.bytes));
                }
            }
            let buffers: Vec<&Buffer> = slots
                .iter()
                .map(|slot| match slot {
                    Slot::Buffer(buffer) => buffer,
                    Slot::Tensor(t) => self.buffer(*t).expect("a tensor in use has a buffer"),
                })
                .collect();
            ready.push(compose.ready(call, &buffers));
            for (id, root) in self.roots.iter_mut().enumerate() {
                if last[id] == Some(index) && read[id] && !root.keep {
                    pool.give(root.lent.as_ref().expect("a tensor in use has a buffer"));
                    root.released = true;
                }
            }
        }
        ready
    }

    /// For each root its last call, and whether any call reads it.
    fn uses(&self, calls: &[(Call, Vec<Slot>)]) -> (Vec<Option<usize>>, Vec<bool>) {
        let (mut last, mut read) = (vec![None; self.roots.len()], vec![false; self.roots.len()]);
        for (index, (call, slots)) in calls.iter().enumerate() {
            for (slot, (_, access)) in slots.iter().zip(&kernel::find(call.kernel).bindings) {
                if let Slot::Tensor(t) = slot {
                    let root = self.tensors[t.0 as usize].root;
                    last[root] = Some(index);
                    read[root] |= *access == Access::Read;
                }
            }
        }
        (last, read)
    }
}
