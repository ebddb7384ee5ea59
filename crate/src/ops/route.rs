//! A router's choice: the `per_row` experts with the largest logits, the lower id first where two are equal, and their weights:
//! `w_e = exp(l_e) / sum_j exp(l_j)`, where `j` runs over all experts, or, normalised, over the chosen ones. The latter is at once
//! "softmax, then top-k, then divide by the sum" (Mixtral) and "top-k, then softmax" (gpt-oss).

use super::{
    check::{self, Outcome, Random},
    kernel::{Access, Call, Kernel, View},
};
use crate::{
    backend::{Backend, Routing},
    error::Result,
};

/// Most experts of a row that the kernel chooses: its workgroup writes a weight with each thread.
pub const MOST_PER_ROW: usize = 64;

/// Bindings: logits, ids, weights.
pub fn kernels() -> Vec<Kernel> {
    vec![Kernel::new("route", &[include_str!("route.wgsl")], &[Access::Read, Access::Write, Access::Write])]
}

/// The choice for every row of `logits`.
pub fn call(logits: View, routing: Routing) -> Call {
    let params = [logits.cols, routing.per_row, usize::from(routing.normalise), logits.offset, logits.stride];
    Call { kernel: ("route", None), params: params.map(|v| v as u32).to_vec(), groups: [1, logits.rows as u32, 1] }
}

/// `logits`: rows of `experts`; returns ids and weights, rows of `routing.per_row`.
pub fn reference(logits: &[f32], experts: usize, routing: Routing) -> (Vec<f32>, Vec<f32>) {
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(experts) {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let chosen = &order[..routing.per_row];
        let exp = |&e: &usize| (row[e] - row[order[0]]).exp();
        let sum: f32 = if routing.normalise { chosen.iter().map(exp).sum() } else { order.iter().map(exp).sum() };
        ids.extend(chosen.iter().map(|&e| e as f32));
        weights.extend(chosen.iter().map(|e| exp(e) / sum));
    }
    (ids, weights)
}

/// Few and many experts, one and all of them chosen, equal logits, either kind of weights.
pub async fn cases(backend: &mut dyn Backend) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut random = Random(12);
    for (rows, experts, per_row) in [(1, 4, 2), (3, 4, 4), (9, 32, 4), (1, 128, 8), (5, 129, 1), (2, 64, 64)] {
        for normalise in [false, true] {
            let routing = Routing { per_row, normalise };
            let mut logits: Vec<f32> = random.floats(rows * experts).iter().map(|v| v * 6.0).collect();
            // The two largest of the first row are equal.
            (logits[0], logits[experts - 1]) = (6.5, 6.5);
            let (ids, weights) = reference(&logits, experts, routing);
            for (what, expected) in [("ids", ids), ("weights", weights)] {
                let actual = check::one_step(backend, 0, rows, |b| {
                    let input = b.upload(experts, &logits);
                    let routes = b.route(input, routing);
                    if what == "ids" { routes.ids } else { routes.weights }
                })
                .await?;
                outcomes.push(Outcome {
                    name: format!("route, {what}: {rows} rows, {per_row} of {experts}, {normalise}"),
                    expected,
                    actual,
                });
            }
        }
    }
    Ok(outcomes)
}
