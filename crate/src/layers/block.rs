//! A decoder's block: attention and gated MLP, or experts, in a residual stream, with norms where an architecture has them.

use super::{
    AttentionSpec, GatedMlp, Residual, RmsNorm, SelfAttention,
    experts::{Experts, ExpertsSpec},
};
use crate::{
    backend::{Activation, Attention, Backend, Cache, CacheSpec, Tensor},
    error::Result,
    weights::loader::Loader,
};

/// Where a block has norms, and what they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before attention (`input_layernorm`) and MLP (`post_attention_layernorm`).
    Pre,
    /// After attention (`post_attention_layernorm`) and MLP (`post_feedforward_layernorm`).
    Post,
    /// Before and after both (`input_`, `post_attention_`, `pre_feedforward_`, `post_feedforward_layernorm`).
    Both,
}

/// How a block is made.
pub struct BlockSpec {
    /// Attention.
    pub attention: AttentionSpec,
    /// Of the gated MLP.
    pub activation: Activation,
    /// Biases of the MLP.
    pub mlp_bias: bool,
    /// Experts in place of one MLP.
    pub experts: Option<ExpertsSpec>,
    /// Where norms stand.
    pub norms: Norms,
    /// Added to norm weights: 1 for Gemma.
    pub norm_offset: f32,
    /// Factor on what attention and MLP add.
    pub residual_scale: Option<f32>,
}

impl BlockSpec {
    /// Llama's block with this attention; an architecture changes what differs.
    pub fn llama(attention: AttentionSpec) -> BlockSpec {
        let (activation, norms) = (Activation::Silu, Norms::Pre);
        BlockSpec { attention, activation, mlp_bias: false, experts: None, norms, norm_offset: 0.0, residual_scale: None }
    }
}

enum Mlp {
    Gated(GatedMlp),
    Experts(Experts),
}

/// Attention and MLP, each added to its input.
pub struct Block {
    attention: SelfAttention,
    mlp: Mlp,
    around_attention: Residual,
    around_mlp: Residual,
}

impl Block {
    /// Block `index`, under `model.layers.`; the two sizes are the widths of the residual stream and of the MLP.
    pub async fn load(
        loader: &mut Loader<'_>,
        index: usize,
        [hidden, intermediate]: [usize; 2],
        eps: f32,
        spec: &BlockSpec,
    ) -> Result<Block> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let [before_attention, after_attention, before_mlp, after_mlp] = match spec.norms {
            Norms::Pre => [Some("input_layernorm"), None, Some("post_attention_layernorm"), None],
            Norms::Post => [None, Some("post_attention_layernorm"), None, Some("post_feedforward_layernorm")],
            Norms::Both => {
                ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"].map(Some)
            }
        };
        let mut around = Vec::new();
        for (pre, post) in [(before_attention, after_attention), (before_mlp, after_mlp)] {
            let mut residual = Residual { scale: spec.residual_scale, ..Residual::default() };
            for (norm, slot) in [(pre, &mut residual.pre), (post, &mut residual.post)] {
                if let Some(norm) = norm {
                    *slot = Some(RmsNorm::load(loader, &name(norm), hidden, eps, spec.norm_offset).await?);
                }
            }
            around.push(residual);
        }
        let (around_mlp, around_attention) = (around.pop().unwrap_or_default(), around.pop().unwrap_or_default());
        let (fused, mlp_bias) = (spec.attention.fused, spec.mlp_bias);
        let mlp = match &spec.experts {
            None => Mlp::Gated(GatedMlp::load(loader, &name("mlp"), [hidden, intermediate], fused, mlp_bias, spec.activation).await?),
            Some(experts) => Mlp::Experts(Experts::load(loader, &name(""), hidden, experts, mlp_bias, spec.activation).await?),
        };
        Ok(Block {
            attention: SelfAttention::load(loader, &name("self_attn"), hidden, &spec.attention, Cache(index as u32)).await?,
            mlp,
            around_attention,
            around_mlp,
        })
    }

    /// The cache of its attention.
    pub fn cache(&self) -> CacheSpec {
        let Attention { kv_heads, head_dim, .. } = self.attention.spec();
        CacheSpec { kv_heads, head_dim }
    }

    /// `x` with attention, then MLP, added.
    pub fn forward(&self, b: &mut dyn Backend, x: Tensor) -> Tensor {
        let x = self.around_attention.attention(b, &self.attention, x);
        match &self.mlp {
            Mlp::Gated(mlp) => self.around_mlp.mlp(b, mlp, x),
            Mlp::Experts(experts) => self.around_mlp.experts(b, experts, x),
        }
    }
}
