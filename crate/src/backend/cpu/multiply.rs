//! Products shared out among threads: rows are prepared (norm, rounding), then blocks of weight rows are multiplied.
#![allow(unsafe_code)] // Outputs that threads share; each part is written by one.

use super::{
    Host, View,
    activations::Activations,
    each_row,
    pack::ROWS,
    parts::Parts,
    pointwise,
    pool::Pool,
    product::{Input, Output, Product},
};
use crate::backend::Weight;

/// Activations for quantised weights: rounded to 8 bits, and what that left, rounded again.
#[derive(Default)]
pub struct Rounded {
    pub coarse: Activations,
    /// None where 8 bits are enough.
    pub fine: Option<Activations>,
}

/// A norm before a product: its weight, and what keeps it from dividing by 0.
pub type Norm = Option<(Weight, f32)>;

/// Where a product's parts read and write.
#[derive(Clone, Copy)]
struct Shared {
    output: Output,
    floats: (*const f32, usize),
}

impl Shared {
    fn get(&self) -> Shared {
        *self
    }
}

// SAFETY: inputs are only read; each part of the output is written by one thread.
unsafe impl Sync for Shared {}

impl Host {
    /// Norms the rows of `x` and rounds them, as the weight needs.
    pub fn prepare(&self, pool: &Pool, weight: Weight, x: View, norm: Norm, rounded: &mut Rounded, normed: &mut Vec<f32>) {
        let rounds = self.matrix(weight).packed().any(|packed| packed.group > 1);
        if rounds {
            rounded.coarse.resize(x.rows, x.cols);
            if let Some(fine) = &mut rounded.fine {
                fine.resize(x.rows, x.cols);
            }
        }
        if norm.is_some() && normed.len() < x.rows * x.cols {
            normed.resize(x.rows * x.cols, 0.0);
        }
        let (coarse, fine, shared) = (rounded.coarse.writer(), rounded.fine.as_mut().map(Activations::writer), Parts::new(normed));
        each_row(pool, x.rows, x.cols, |row| {
            let mut floats = self.row(x, row);
            if let Some((norm, eps)) = norm {
                // SAFETY: each row is given out once.
                let out = unsafe { shared.part(row * x.cols..(row + 1) * x.cols) };
                pointwise::rms_norm(self.level, floats, self.matrix(norm).vector(), eps, out);
                floats = out;
            }
            if rounds {
                coarse.quantise(self.level, row, floats, fine.as_ref());
            }
        });
    }

    /// The product of prepared rows, blocks of weight rows shared out among threads.
    pub fn multiply(&self, pool: &Pool, weight: Weight, rows: usize, rounded: &Rounded, floats: (*const f32, usize), output: Output) {
        let total: usize = self.matrix(weight).packed().map(|p| p.blocks()).sum();
        let chunk = (total / (pool.threads() * 6)).clamp(1, 16);
        let job = Shared { output, floats };
        pool.split(total, chunk, &|blocks| {
            let Shared { output, floats } = job.get();
            let (mut start, mut first) = (0, 0);
            for packed in self.matrix(weight).packed() {
                let (from, to) = (blocks.start.max(start), blocks.end.min(start + packed.blocks()));
                if from < to {
                    let input = match packed.group {
                        1 => Input::Floats(floats.0, floats.1),
                        _ => Input::Rounded(&rounded.coarse),
                    };
                    let output = Output { first, ..output };
                    let (blocks, wanted) = (from - start..to - start, 0..packed.rows);
                    let product = Product { weight: packed, blocks, input, rows: 0..rows, from: 0, wanted, output };
                    self.both(product, rounded);
                }
                start += packed.blocks();
                first += packed.rows;
            }
        });
    }

    /// A product, and that with what rounding left, added to it.
    fn both(&self, product: Product<'_>, rounded: &Rounded) {
        let rest = match (&rounded.fine, product.weight.group) {
            (Some(fine), 2..) => {
                let Output { y, stride, .. } = product.output;
                let output = Output { bias: None, residual: Some((y.cast_const(), stride)), ..product.output };
                Some(Product { input: Input::Rounded(fine), output, ..product.clone() })
            }
            _ => None,
        };
        self.level.run(product);
        if let Some(rest) = rest {
            self.level.run(rest);
        }
    }

    /// Each route's row times its expert's rows; experts' blocks are shared out, all routes of a block together.
    pub fn multiply_experts(&self, pool: &Pool, weight: Weight, x: View, ids: View, rounded: &Rounded, output: Output) {
        let out = output.stride;
        let routes: Vec<usize> = (0..ids.rows).flat_map(|row| self.row(ids, row)).map(|id| *id as usize).collect();
        let share = routes.len() / x.rows;
        let mut experts = routes.clone();
        experts.sort_unstable();
        experts.dedup();
        let per_expert = out.div_ceil(ROWS) + 1;
        let job = Shared { output, floats: (self.data(x).as_ptr(), x.stride) };
        let chunk = (per_expert / 4).clamp(1, 16);
        pool.split(experts.len() * per_expert, chunk, &|units| {
            let Shared { output, floats } = job.get();
            for unit in units {
                // Blocks lie in a segment from its own first row on: an expert begins anywhere in one.
                let (expert, nth) = (experts[unit / per_expert], unit % per_expert);
                let mut start = 0;
                for packed in self.matrix(weight).packed() {
                    let (from, to) = ((expert * out).max(start), ((expert + 1) * out).min(start + packed.rows));
                    let block = from.saturating_sub(start) / ROWS + nth;
                    if from < to && block * ROWS < to - start {
                        let input = match packed.group {
                            1 => Input::Floats(floats.0, floats.1),
                            _ => Input::Rounded(&rounded.coarse),
                        };
                        // SAFETY: the bias has an element for each row of all experts.
                        let bias = output.bias.map(|bias| unsafe { bias.add(expert * out) });
                        let output = Output { first: from - expert * out, bias, ..output };
                        for (route, _) in routes.iter().enumerate().filter(|(_, id)| **id == expert) {
                            let (blocks, wanted) = (block..block + 1, from - start..to - start);
                            let (rows, from) = (route..route + 1, route / share);
                            self.both(Product { weight: packed, blocks, input, rows, from, wanted, output }, rounded);
                        }
                    }
                    start += packed.rows;
                }
            }
        });
    }
}
