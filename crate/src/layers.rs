//! What architectures share. A layer loads its weights by the publisher's names and records its operations on a backend.

pub mod block;
pub mod classic;
pub mod experts;
pub mod short_conv;

use crate::{
    backend::{Activation, Attention, Backend, Cache, Rope, Tensor, Weight},
    error::Result,
    weights::loader::{Loader, Slot},
};

/// `x W^T + b`, and what adapters add.
pub struct Linear {
    weight: Weight,
    bias: Option<Weight>,
    adapters: Slot,
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
        Ok(Linear::new(loader, weight, bias))
    }

    /// From weights that `loader` has loaded.
    pub fn new(loader: &mut Loader<'_>, weight: Weight, bias: Option<Weight>) -> Linear {
        Linear { weight, bias, adapters: loader.slot(weight) }
    }

    /// An output head that shares the embedding's table; adapters do not change it.
    pub fn tied(embedding: Weight) -> Linear {
        Linear { weight: embedding, bias: None, adapters: Slot::default() }
    }

    /// `x W^T + b`.
    pub fn of(&self, b: &mut dyn Backend, x: Tensor) -> Tensor {
        self.apply(b, x, None)
    }

    /// `x W^T + b + residual`.
    pub fn add_to(&self, b: &mut dyn Backend, x: Tensor, residual: Tensor) -> Tensor {
        self.apply(b, x, Some(residual))
    }

    /// The map of `x`, normed first if there is a norm.
    pub fn of_normed(&self, b: &mut dyn Backend, norm: Option<&RmsNorm>, x: Tensor) -> Tensor {
        match norm {
            Some(norm) if self.adapters.is_empty() => b.norm_matmul(x, norm.weight, norm.eps, self.weight, self.bias),
            Some(norm) => {
                let x = norm.of(b, x);
                self.of(b, x)
            }
            None => self.of(b, x),
        }
    }

    /// `x W^T`, changed by each adapter in turn, plus bias and residual.
    fn apply(&self, b: &mut dyn Backend, x: Tensor, residual: Option<Tensor>) -> Tensor {
        let sides = self.adapters.sides();
        // Factors are for what the weights give: bias and residual come with the last ones, or with the product if there are none.
        let last = sides.iter().rposition(|side| side.factors.is_some());
        let added = |here: bool| if here { (self.bias, residual) } else { (None, None) };
        let (bias, rest) = added(last.is_none());
        let mut y = b.matmul(self.weight, x, bias, rest);
        for (index, side) in sides.iter().enumerate() {
            let mut thin = b.matmul(side.a, x, None, None);
            if side.scale != 1.0 {
                thin = b.scale(thin, side.scale);
            }
            y = b.matmul(side.b, thin, None, Some(y));
            if let Some(factors) = side.factors {
                let (bias, rest) = added(last == Some(index));
                y = b.scale_columns(y, factors, bias, rest);
            }
        }
        y
    }
}

/// Root mean square norm.
pub struct RmsNorm {
    weight: Weight,
    eps: f32,
}

impl RmsNorm {
    /// `prefix.weight`, with `offset` added: Gemma publishes `w` and means `1 + w`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, width: usize, eps: f32, offset: f32) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: loader.vector(&format!("{prefix}.weight"), width, offset).await?, eps })
    }

    /// The norm of each row, or of each head if the weight is as long as a head.
    pub fn of(&self, b: &mut dyn Backend, x: Tensor) -> Tensor {
        b.rms_norm(x, self.weight, self.eps)
    }
}

/// What self-attention is made of.
pub struct AttentionSpec {
    /// Heads, scale, window.
    pub attention: Attention,
    /// `qkv_proj` instead of `q_proj`, `k_proj` and `v_proj`.
    pub fused: bool,
    /// Biases of the query, key and value maps.
    pub qkv_bias: bool,
    /// Bias of the output map.
    pub out_bias: bool,
    /// Norms of queries and keys before rotation.
    pub qk_norm: Option<QkNorm>,
    /// Rotary positions; `None`: none.
    pub rope: Option<Rope>,
}

/// `q_norm` and `k_norm`.
#[derive(Clone, Copy)]
pub struct QkNorm {
    /// Norm each head by itself rather than all heads together.
    pub per_head: bool,
    /// See [`RmsNorm::load`].
    pub eps: f32,
    /// See [`RmsNorm::load`].
    pub offset: f32,
}

/// Grouped-query self-attention.
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    norms: Option<[RmsNorm; 2]>,
    rope: Option<Rope>,
    spec: Attention,
    cache: Cache,
}

impl SelfAttention {
    /// `prefix.{q,k,v,o}_proj`, or `prefix.{qkv,o}_proj`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, hidden: usize, spec: &AttentionSpec, cache: Cache) -> Result<SelfAttention> {
        let AttentionSpec { attention, qkv_bias, out_bias, rope, .. } = *spec;
        let (q, kv) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        let name = |part: &str| format!("{prefix}.{part}");
        let qkv = match spec.fused {
            true => Linear::load(loader, &name("qkv_proj"), q + 2 * kv, hidden, qkv_bias).await?,
            false => {
                let maps = [(&*name("q_proj"), q), (&*name("k_proj"), kv), (&*name("v_proj"), kv)];
                Linear::stacked(loader, &maps, hidden, qkv_bias).await?
            }
        };
        let norms = match spec.qk_norm {
            Some(QkNorm { per_head, eps, offset }) => {
                let width = |all: usize| if per_head { attention.head_dim } else { all };
                let q_norm = RmsNorm::load(loader, &name("q_norm"), width(q), eps, offset).await?;
                Some([q_norm, RmsNorm::load(loader, &name("k_norm"), width(kv), eps, offset).await?])
            }
            None => None,
        };
        let out = Linear::load(loader, &name("o_proj"), hidden, q, out_bias).await?;
        Ok(SelfAttention { qkv, out, norms, rope, spec: attention, cache })
    }

    /// From maps that are loaded; `qkv` gives `q | k | v`.
    pub fn new(qkv: Linear, out: Linear, spec: Attention, rope: Option<Rope>, cache: Cache) -> SelfAttention {
        SelfAttention { qkv, out, norms: None, rope, spec, cache }
    }

    /// With norms of each query and key.
    pub fn normed(self, norms: [RmsNorm; 2]) -> SelfAttention {
        SelfAttention { norms: Some(norms), ..self }
    }

    /// `residual + attention(x)`.
    pub fn add_to(&self, b: &mut dyn Backend, x: Tensor, residual: Tensor) -> Tensor {
        let y = self.mix(b, None, x);
        self.out.add_to(b, y, residual)
    }

    /// Heads, scale, window.
    pub fn spec(&self) -> Attention {
        self.spec
    }

    /// The heads' outputs, before the output map.
    fn mix(&self, b: &mut dyn Backend, norm: Option<&RmsNorm>, x: Tensor) -> Tensor {
        let qkv = self.qkv.of_normed(b, norm, x);
        let q = match (&self.norms, self.rope) {
            (None, Some(rope)) => b.rope_append(self.cache, qkv, rope, &self.spec),
            _ => self.split_append(b, qkv),
        };
        b.attention(self.cache, q, &self.spec)
    }

    /// [`Backend::rope_append`] with norms, or without rotation.
    fn split_append(&self, b: &mut dyn Backend, qkv: Tensor) -> Tensor {
        let Attention { heads, kv_heads, head_dim, .. } = self.spec;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let mut q = b.columns(qkv, 0, q_width);
        let mut k = b.columns(qkv, q_width, kv_width);
        let v = b.columns(qkv, q_width + kv_width, kv_width);
        if let Some([q_norm, k_norm]) = &self.norms {
            (q, k) = (q_norm.of(b, q), k_norm.of(b, k));
        }
        if let Some(rope) = self.rope {
            (q, k) = (b.rope(q, rope, head_dim), b.rope(k, rope, head_dim));
        }
        b.append(self.cache, k, v);
        q
    }
}

/// `down(activation(gate(x)) * up(x))`.
pub struct GatedMlp {
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// `prefix.{gate,up,down}_proj`, or `prefix.{gate_up,down}_proj` if `fused`.
    pub async fn load(
        loader: &mut Loader<'_>,
        prefix: &str,
        [hidden, intermediate]: [usize; 2],
        fused: bool,
        bias: bool,
        activation: Activation,
    ) -> Result<GatedMlp> {
        let name = |part: &str| format!("{prefix}.{part}_proj");
        let gate_up = match fused {
            true => Linear::load(loader, &name("gate_up"), 2 * intermediate, hidden, bias).await?,
            false => Linear::stacked(loader, &[(&name("gate"), intermediate), (&name("up"), intermediate)], hidden, bias).await?,
        };
        let down = Linear::load(loader, &name("down"), hidden, intermediate, bias).await?;
        Ok(GatedMlp { gate_up, down, activation })
    }

    /// From maps that are loaded; `gate_up` gives `gate | up`.
    pub fn new(gate_up: Linear, down: Linear, activation: Activation) -> GatedMlp {
        GatedMlp { gate_up, down, activation }
    }

    /// The gated values, before the down map.
    fn gated(&self, b: &mut dyn Backend, norm: Option<&RmsNorm>, x: Tensor) -> Tensor {
        match norm {
            Some(norm) if self.gate_up.adapters.is_empty() => {
                let Linear { weight, bias, .. } = self.gate_up;
                b.norm_gated(x, norm.weight, norm.eps, weight, bias, self.activation)
            }
            norm => {
                let both = self.gate_up.of_normed(b, norm, x);
                b.gate(both, self.activation)
            }
        }
    }
}

/// A half of a block, added to its input: `x + residual_scale * post(f(pre(x)))`.
#[derive(Default)]
pub struct Residual {
    /// Norm of the input.
    pub pre: Option<RmsNorm>,
    /// Norm of the output.
    pub post: Option<RmsNorm>,
    /// Factor on the output; needs an output map without bias.
    pub scale: Option<f32>,
}

impl Residual {
    /// `x + attention(x)`, normed as said.
    pub fn attention(&self, b: &mut dyn Backend, attention: &SelfAttention, x: Tensor) -> Tensor {
        let y = attention.mix(b, self.pre.as_ref(), x);
        self.join(b, &attention.out, y, x)
    }

    /// `x + mlp(x)`, normed as said.
    pub fn mlp(&self, b: &mut dyn Backend, mlp: &GatedMlp, x: Tensor) -> Tensor {
        let y = mlp.gated(b, self.pre.as_ref(), x);
        self.join(b, &mlp.down, y, x)
    }

    fn join(&self, b: &mut dyn Backend, out: &Linear, y: Tensor, x: Tensor) -> Tensor {
        // The output map is linear: its input is scaled, so that it can add the residual itself.
        let y = match self.scale {
            Some(scale) => b.scale(y, scale),
            None => y,
        };
        match &self.post {
            None => out.add_to(b, y, x),
            Some(norm) => {
                let y = out.of(b, y);
                let y = norm.of(b, y);
                b.add(x, y)
            }
        }
    }
}
