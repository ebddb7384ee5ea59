//! Mixture of experts: the choice stays on the device, products read the chosen experts only.

use super::*;
use crate::ops::experts::{self, Product as ExpertProduct};

impl Gpu {
    pub(super) fn choose_experts(&mut self, logits: Tensor, routing: Routing) -> Routes {
        let view = self.step.view(logits);
        let most = ops::route::MOST_PER_ROW;
        if routing.per_row > most {
            self.fail(Error::UnsupportedFormat(format!("{} experts a token: the GPU backend chooses up to {most}", routing.per_row)));
        }
        let ids = self.step.tensor(view.rows, routing.per_row, None);
        let weights = self.step.tensor(view.rows, routing.per_row, None);
        self.record(ops::route::call(view, routing), [Slot::Tensor(logits), Slot::Tensor(ids), Slot::Tensor(weights)]);
        Routes { ids, weights, experts: view.cols }
    }

    /// Whether each part of the weight holds whole experts, so that a kernel sees an expert's gate and up.
    pub(super) fn holds_whole_experts(&self, weight: Weight, experts: usize) -> bool {
        let matrix = &self.weights[weight.0 as usize];
        let rows = matrix.rows / experts;
        matrix.parts.iter().all(|part| part.first.is_multiple_of(rows) && part.rows.is_multiple_of(rows))
    }

    /// One product per part of the weight, into the rows of the same tensor.
    pub(super) fn expert_product(
        &mut self,
        weight: Weight,
        x: Tensor,
        routes: Routes,
        bias: Option<Weight>,
        gated: Option<Activation>,
    ) -> Tensor {
        let (view, ids) = (self.step.view(x), self.step.view(routes.ids));
        self.need_quads("a product with input", view);
        let variant = experts::variant(self.device.info.software);
        let expert_rows = self.weights[weight.0 as usize].rows / routes.experts;
        let out = if gated.is_some() { expert_rows / 2 } else { expert_rows };
        let y = self.step.tensor(ids.len(), out, None);
        for index in 0..self.weights[weight.0 as usize].parts.len() {
            let part = &self.weights[weight.0 as usize].parts[index];
            let product = ExpertProduct {
                format: part.format,
                rows: part.rows,
                first: part.first,
                expert_rows,
                x: view,
                routes: ids.len(),
                bias: bias.is_some(),
            };
            let mut slots = vec![Slot::Tensor(x), Slot::Tensor(y), self.or_nothing(bias), Slot::Tensor(routes.ids)];
            slots.extend(planes(part));
            let call = match gated {
                Some(activation) => product.gated_call(variant, activation),
                None => product.call(variant),
            };
            self.step.call(call, slots);
        }
        y
    }
}
