//! What adapters can change: the linear maps of a network, by the publisher's tensor names, and what adapters add to each.

use std::{
    cell::{Ref, RefCell},
    collections::BTreeMap,
    ops::Range,
    rc::Rc,
};

use crate::backend::Weight;

/// What an adapter makes of the outputs `y` of a weight `[out, in]`: `factors * (y + scale * B A x)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Side {
    /// `[rank, in]`.
    pub a: Weight,
    /// `[out, rank]`.
    pub b: Weight,
    /// How much of the adapter is added.
    pub scale: f32,
    /// A factor for each output; none where all are 1.
    pub factors: Option<Weight>,
}

/// The sides of one weight, in the order in which they act. A linear map has one, and so has whoever fills it.
#[derive(Debug, Clone, Default)]
pub struct Slot(Rc<RefCell<Vec<Side>>>);

impl Slot {
    /// Whether no adapter acts here.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The sides.
    pub fn sides(&self) -> Ref<'_, [Side]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    /// Adds a side after the others.
    pub fn push(&self, side: Side) {
        self.0.borrow_mut().push(side);
    }

    /// Takes all sides away.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// A published tensor that adapters can change.
#[derive(Debug, Clone)]
pub struct Target {
    /// The slot of the weight that the tensor is part of.
    pub slot: Slot,
    /// That weight.
    pub weight: Weight,
    /// Its rows.
    pub out: usize,
    /// The columns of both.
    pub cols: usize,
    /// The weight's row that is the tensor's first.
    pub start: usize,
    /// The tensor's rows in the weight's order: these ranges one after the other.
    pub order: Vec<Range<usize>>,
    /// Whether the tensor is published as `[in, out]`.
    pub transposed: bool,
}

impl Target {
    /// Rows of the tensor, had it been published as `[out, in]`.
    pub fn rows(&self) -> usize {
        self.order.iter().map(Range::len).sum()
    }
}

/// All targets by their tensors' names; clones are the same table. The loader fills it.
#[derive(Debug, Clone, Default)]
pub struct Targets(Rc<RefCell<BTreeMap<String, Target>>>);

impl Targets {
    pub(super) fn insert(&self, name: String, target: Target) {
        self.0.borrow_mut().insert(name, target);
    }

    /// The target called `name`.
    pub fn get(&self, name: &str) -> Option<Target> {
        self.0.borrow().get(name).cloned()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}
