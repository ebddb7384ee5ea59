//! What nearly all decoders share: token embedding, blocks of attention and MLP, final norm, output head. An architecture's
//! file says how its blocks differ.

use super::{
    Network, Positions,
    config::{Config, Sizes},
};
use crate::{
    backend::{Activation, Backend, Cache, CacheSpec, Tensor, Weight},
    error::Result,
    layers::{AttentionSpec, GatedMlp, Linear, Residual, RmsNorm, SelfAttention},
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
        BlockSpec { attention, activation, mlp_bias: false, norms, norm_offset: 0.0, residual_scale: None }
    }
}

struct Block {
    attention: SelfAttention,
    mlp: GatedMlp,
    around_attention: Residual,
    around_mlp: Residual,
}

/// A decoder-only transformer.
pub struct Decoder {
    sizes: Sizes,
    embed: Weight,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    scales: Scales,
}

/// What happens to embeddings and logits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scales {
    /// Factor on embeddings.
    pub embed: Option<f32>,
    /// Factor on logits.
    pub logits: Option<f32>,
    /// Soft cap of logits.
    pub softcap: Option<f32>,
}

impl Decoder {
    /// With these scales.
    pub fn scaled(self, scales: Scales) -> Decoder {
        Decoder { scales, ..self }
    }

    /// Loads `specs.len()` blocks; `tied` is what an absent `tie_word_embeddings` means.
    pub async fn load(config: Config<'_>, loader: &mut Loader<'_>, sizes: Sizes, specs: &[BlockSpec], tied: bool) -> Result<Decoder> {
        let embed = loader.matrix("model.embed_tokens.weight", sizes.vocab, sizes.hidden).await?;
        let mut blocks = Vec::new();
        for (i, spec) in specs.iter().enumerate() {
            blocks.push(Block::load(loader, &sizes, i, spec).await?);
        }
        let norm_offset = specs.first().map_or(0.0, |s| s.norm_offset);
        let norm = RmsNorm::load(loader, "model.norm", sizes.hidden, sizes.eps, norm_offset).await?;
        let head = match config.flag("tie_word_embeddings", tied)? {
            true => Linear::tied(embed),
            false => Linear::load(loader, "lm_head", sizes.vocab, sizes.hidden, false).await?,
        };
        Ok(Decoder { sizes, embed, blocks, norm, head, scales: Scales::default() })
    }
}

impl Block {
    async fn load(loader: &mut Loader<'_>, sizes: &Sizes, index: usize, spec: &BlockSpec) -> Result<Block> {
        let Sizes { hidden, intermediate, eps, .. } = *sizes;
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
        let fused = spec.attention.fused;
        Ok(Block {
            attention: SelfAttention::load(loader, &name("self_attn"), hidden, &spec.attention, Cache(index as u32)).await?,
            mlp: GatedMlp::load(loader, &name("mlp"), [hidden, intermediate], fused, spec.mlp_bias, spec.activation).await?,
            around_attention,
            around_mlp,
        })
    }
}

impl Network for Decoder {
    fn caches(&self) -> Vec<CacheSpec> {
        let spec = |block: &Block| CacheSpec { kv_heads: block.attention.spec().kv_heads, head_dim: block.attention.spec().head_dim };
        self.blocks.iter().map(spec).collect()
    }

    fn vocab(&self) -> usize {
        self.sizes.vocab
    }

    fn context(&self) -> usize {
        self.sizes.context
    }

    fn forward(&self, b: &mut dyn Backend, positions: Positions) -> Tensor {
        let mut x = b.embed(self.embed);
        if let Some(factor) = self.scales.embed {
            x = b.scale(x, factor);
        }
        for block in &self.blocks {
            x = block.around_attention.attention(b, &block.attention, x);
            x = block.around_mlp.mlp(b, &block.mlp, x);
        }
        if positions == Positions::Last {
            x = b.last_row(x);
        }
        let mut logits = self.head.of_normed(b, Some(&self.norm), x);
        if let Some(factor) = self.scales.logits {
            logits = b.scale(logits, factor);
        }
        if let Some(cap) = self.scales.softcap {
            logits = b.softcap(logits, cap);
        }
        logits
    }
}
