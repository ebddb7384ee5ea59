//! What architectures share. A layer loads its weights by the publisher's names and records its operations on a backend.

use crate::{
    backend::{Activation, Attention, Backend, Cache, Rope, Tensor, Weight},
    error::Result,
    weights::loader::Loader,
};

/// `x W^T + b`.
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
}

impl Linear {
    /// `prefix.weight`, and `prefix.bias` if `bias`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, out: usize, cols: usize, bias: bool) -> Result<Linear> {
        Linear::stacked(loader, &[(prefix, out)], cols, bias).await
    }

    /// Several linear maps of the same input, stacked.
    pub async fn stacked(loader: &mut Loader<'_>, prefixes: &[(&str, usize)], cols: usize, bias: bool) -> Result<Linear> {
        let named = |suffix: &str| -> Vec<(String, usize)> { prefixes.iter().map(|(p, n)| (format!("{p}.{suffix}"), *n)).collect() };
        let weights = named("weight");
        let weights: Vec<(&str, usize)> = weights.iter().map(|(p, n)| (p.as_str(), *n)).collect();
        let weight = loader.stacked(&weights, cols).await?;
        let bias = if bias {
            let biases = named("bias");
            let biases: Vec<(&str, usize)> = biases.iter().map(|(p, n)| (p.as_str(), *n)).collect();
            Some(loader.stacked_vectors(&biases).await?)
        } else {
            None
        };
        Ok(Linear { weight, bias })
    }

    /// An output head that shares the embedding's table.
    pub fn tied(embedding: Weight) -> Linear {
        Linear { weight: embedding, bias: None }
    }

    /// `x W^T + b + residual`.
    pub fn add_to(&self, b: &mut dyn Backend, x: Tensor, residual: Tensor) -> Tensor {
        b.matmul(self.weight, x, self.bias, Some(residual))
    }

    /// The map of the normed `x`.
    pub fn of_norm(&self, b: &mut dyn Backend, norm: &RmsNorm, x: Tensor) -> Tensor {
        b.norm_matmul(x, norm.weight, norm.eps, self.weight, self.bias)
    }
}

/// Root mean square norm.
pub struct RmsNorm {
    weight: Weight,
    eps: f32,
}

impl RmsNorm {
    /// `prefix.weight`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, width: usize, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: loader.vector(&format!("{prefix}.weight"), width).await?, eps })
    }
}

/// Grouped-query self-attention with rotary positions.
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    rope: Rope,
    spec: Attention,
    cache: Cache,
}

impl SelfAttention {
    /// `prefix.{q,k,v,o}_proj`.
    pub async fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        hidden: usize,
        spec: Attention,
        bias: bool,
        rope: Rope,
        cache: Cache,
    ) -> Result<SelfAttention> {
        let (q, kv) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let name = |part: &str| format!("{prefix}.{part}_proj");
        let qkv = Linear::stacked(loader, &[(&name("q"), q), (&name("k"), kv), (&name("v"), kv)], hidden, bias).await?;
        let out = Linear::load(loader, &name("o"), hidden, q, bias).await?;
        Ok(SelfAttention { qkv, out, rope, spec, cache })
    }

    /// `x + attention(norm(x))`.
    pub fn add_to(&self, b: &mut dyn Backend, norm: &RmsNorm, x: Tensor) -> Tensor {
        let qkv = self.qkv.of_norm(b, norm, x);
        let q = b.rope_append(self.cache, qkv, self.rope, &self.spec);
        let y = b.attention(self.cache, q, &self.spec);
        self.out.add_to(b, y, x)
    }
}

/// `down(activation(gate(x)) * up(x))`.
pub struct GatedMlp {
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// `prefix.{gate,up,down}_proj`.
    pub async fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        hidden: usize,
        intermediate: usize,
        bias: bool,
        activation: Activation,
    ) -> Result<GatedMlp> {
        let name = |part: &str| format!("{prefix}.{part}_proj");
        let gate_up = Linear::stacked(loader, &[(&name("gate"), intermediate), (&name("up"), intermediate)], hidden, bias).await?;
        let down = Linear::load(loader, &name("down"), hidden, intermediate, bias).await?;
        Ok(GatedMlp { gate_up, down, activation })
    }

    /// `x + mlp(norm(x))`.
    pub fn add_to(&self, b: &mut dyn Backend, norm: &RmsNorm, x: Tensor) -> Tensor {
        let gated = b.norm_gated(x, norm.weight, norm.eps, self.gate_up.weight, self.gate_up.bias, self.activation);
        self.down.add_to(b, gated, x)
    }
}
