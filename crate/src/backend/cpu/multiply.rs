//! Products shared out among threads: rows are prepared (norm, rounding), then blocks of weight rows are multiplied.
#![allow(unsafe_code)] // Outputs that threads share; each part is written by one.

use super::{
    Host, View,
    activations::{Activations, GROUP},
    each_row,
    pack::{Codes, ROWS},
    parts::Parts,
    pointwise,
    pool::Pool,
    product::{Input, Output, Product},
};
use crate::backend::{Precision, Weight};

/// Activations for quantised weights: rounded to 8 bits, and what that left, rounded again where [`Precision`] says so.
#[derive(Default)]
pub struct Rounded {
    pub precision: Precision,
    coarse: Activations,
    fine: Activations,
}

impl Rounded {
    /// Without rows.
    pub fn new(precision: Precision) -> Rounded {
        Rounded { precision, ..Rounded::default() }
    }

    fn input(&self) -> Input<'_> {
        Input::Rounded(&self.coarse, (self.precision != Precision::Fast).then_some(&self.fine))
    }
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
            rounded.fine.resize(x.rows, x.cols);
        }
        if norm.is_some() && normed.len() < x.rows * x.cols {
            normed.resize(x.rows * x.cols, 0.0);
        }
        let signs = self.matrix(weight).packed().any(|packed| packed.codes == Codes::Signed);
        let again = rounded.precision.again(x.cols.div_ceil(GROUP));
        let (coarse, fine, shared) = (rounded.coarse.writer(), rounded.fine.writer(), Parts::new(normed));
        each_row(pool, x.rows, x.cols, |row| {
            let mut floats = self.row(x, row);
            if let Some((norm, eps)) = norm {
                // SAFETY: each row is given out once.
                let out = unsafe { shared.part(row * x.cols..(row + 1) * x.cols) };
                pointwise::rms_norm(self.level, floats, self.matrix(norm).vector(), eps, out);
                floats = out;
            }
            if rounds {
                coarse.quantise(self.level, row, floats, &fine, again, signs);
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
                        _ => rounded.input(),
                    };
                    let output = Output { first, ..output };
                    let (blocks, wanted) = (from - start..to - start, 0..packed.rows);
                    Product { weight: packed, blocks, input, rows: 0..rows, from: 0, wanted, output }.run(self.level);
                }
                start += packed.blocks();
                first += packed.rows;
            }
        });
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
                            _ => rounded.input(),
                        };
                        // SAFETY: the bias has an element for each row of all experts.
                        let bias = output.bias.map(|bias| unsafe { bias.add(expert * out) });
                        let output = Output { first: from - expert * out, bias, ..output };
                        for (route, _) in routes.iter().enumerate().filter(|(_, id)| **id == expert) {
                            let (blocks, wanted) = (block..block + 1, from - start..to - start);
                            let (rows, from) = (route..route + 1, route / share);
                            Product { weight: packed, blocks, input, rows, from, wanted, output }.run(self.level);
                        }
                    }
                    start += packed.rows;
                }
            }
        });
    }
}
