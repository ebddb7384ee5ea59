//! Mixture of experts: a router sends each token to a few of many gated MLPs, whose outputs are weighted and added up.

use super::{Linear, Residual};
use crate::{
    backend::{Activation, Backend, Routing, Tensor, Weight},
    error::{Error, Result},
    weights::loader::{Loader, experts::in_turns},
};

/// How experts are made, and what they are called.
pub struct ExpertsSpec {
    /// Number of experts.
    pub experts: usize,
    /// How many of them a token goes to, and with what weights.
    pub routing: Routing,
    /// Width of an expert.
    pub intermediate: usize,
    /// The module below the layer that holds router and `experts`.
    pub module: &'static str,
    /// The router's name there.
    pub router: &'static str,
    /// Names of gate, up and down.
    pub maps: [&'static str; 3],
}

/// Router and experts.
pub struct Experts {
    router: Linear,
    gate_up: Linear,
    down: Linear,
    routing: Routing,
    activation: Activation,
}

impl Experts {
    /// Below `layer`, which ends with a dot; with biases of router and maps if `bias`.
    pub async fn load(
        loader: &mut Loader<'_>,
        layer: &str,
        hidden: usize,
        spec: &ExpertsSpec,
        bias: bool,
        activation: Activation,
    ) -> Result<Experts> {
        let ExpertsSpec { experts, routing, intermediate, module, router, maps } = *spec;
        if routing.per_row > experts {
            return Err(Error::InvalidFile(format!("config.json: each token goes to {} of {experts} experts", routing.per_row)));
        }
        let router = Linear::load(loader, &format!("{layer}{module}.{router}"), experts, hidden, bias).await?;
        let prefix = format!("{layer}{module}.experts");
        let [gate, up, down] = maps;
        let fused = format!("{prefix}.gate_up_proj");
        let (gate_up, down) = if loader.has(&fused) || loader.has(&format!("{fused}_blocks")) {
            let (turns, order) = (in_turns(2 * intermediate), (0..hidden).collect::<Vec<_>>());
            (
                published_by_openai(loader, &fused, experts, hidden, &turns, bias).await?,
                published_by_openai(loader, &format!("{prefix}.down_proj"), experts, intermediate, &order, bias).await?,
            )
        } else {
            (
                stacked(loader, &prefix, experts, &[(gate, intermediate), (up, intermediate)], hidden, bias).await?,
                stacked(loader, &prefix, experts, &[(down, hidden)], intermediate, bias).await?,
            )
        };
        Ok(Experts { router, gate_up, down, routing, activation })
    }

    /// The experts' outputs for `x`, plus `residual`.
    fn of(&self, b: &mut dyn Backend, x: Tensor, residual: Option<Tensor>) -> Tensor {
        let logits = self.router.of(b, x);
        let routes = b.route(logits, self.routing);
        let y = b.expert_gated(self.gate_up.weight, x, routes, self.gate_up.bias, self.activation);
        let y = b.expert_matmul(self.down.weight, y, routes, self.down.bias);
        b.mix(y, routes, residual)
    }
}

/// A map of all experts, or several that have the same input.
async fn stacked(loader: &mut Loader<'_>, prefix: &str, experts: usize, maps: &[(&str, usize)], cols: usize, bias: bool) -> Result<Linear> {
    let weight = loader.experts(prefix, experts, maps, cols).await?;
    let bias: Option<Weight> = if bias { Some(loader.expert_biases(prefix, experts, maps).await?) } else { None };
    Ok(Linear::new(loader, weight, bias))
}

/// A map of all experts as gpt-oss publishes it: `name`, `[experts, in, out]`, or `name_blocks`, `[experts, out, in]` in mxfp4; with
/// `name_bias`.
async fn published_by_openai(
    loader: &mut Loader<'_>,
    name: &str,
    experts: usize,
    cols: usize,
    order: &[usize],
    bias: bool,
) -> Result<Linear> {
    let blocks = format!("{name}_blocks");
    let weight = match loader.has(&blocks) {
        true => loader.experts_in_order(&blocks, experts, cols, order).await?,
        false => loader.experts_transposed(name, experts, cols, order).await?,
    };
    let bias = if bias { Some(loader.expert_biases_in_order(&format!("{name}_bias"), experts, order).await?) } else { None };
    Ok(Linear::new(loader, weight, bias))
}

impl Residual {
    /// `x + experts(x)`, normed as said.
    pub fn experts(&self, b: &mut dyn Backend, experts: &Experts, x: Tensor) -> Tensor {
        let normed = self.pre.as_ref().map_or(x, |norm| norm.of(b, x));
        if self.post.is_none() && self.scale.is_none() {
            return experts.of(b, normed, Some(x));
        }
        let mut y = experts.of(b, normed, None);
        if let Some(scale) = self.scale {
            y = b.scale(y, scale);
        }
        if let Some(norm) = &self.post {
            y = norm.of(b, y);
        }
        b.add(x, y)
    }
}
