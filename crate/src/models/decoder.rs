//! What nearly all decoders share: token embedding, blocks of attention and MLP, final norm, output head. An architecture's
//! file says how its blocks differ. Where blocks see both directions, or the configuration says how to make embeddings, there is
//! pooling instead of a head.

use super::{
    Network, Positions,
    config::Config,
    pooling::{self, Pooling},
    sizes::Sizes,
};
use crate::{
    backend::{Backend, CacheSpec, Tensor, Weight},
    error::Result,
    layers::{
        Linear, RmsNorm,
        block::{Block, BlockSpec},
    },
    weights::loader::Loader,
};

enum Output {
    Logits(Linear),
    Embedding(Pooling),
}

/// A decoder-only transformer.
pub struct Decoder {
    sizes: Sizes,
    embed: Weight,
    blocks: Vec<Block>,
    norm: RmsNorm,
    output: Output,
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
        if loader.has("embed_tokens.weight") {
            loader.strip("model.");
        }
        let embed = loader.matrix("model.embed_tokens.weight", sizes.vocab, sizes.hidden).await?;
        let mut blocks = Vec::new();
        for (i, spec) in specs.iter().enumerate() {
            // A table that older checkpoints carry; ours is computed.
            loader.ignore(&format!("model.layers.{i}.self_attn.rotary_emb.inv_freq"));
            blocks.push(Block::load(loader, i, [sizes.hidden, sizes.intermediate], sizes.eps, spec).await?);
        }
        let norm_offset = specs.first().map_or(0.0, |s| s.norm_offset);
        let norm = RmsNorm::load(loader, "model.norm", sizes.hidden, sizes.eps, norm_offset).await?;
        let encodes = pooling::is_described(config) || specs.iter().any(|spec| !spec.attention.attention.causal);
        let output = match encodes {
            true => Output::Embedding(Pooling::load(config, loader, sizes.hidden).await?),
            false if config.flag("tie_word_embeddings", tied)? => {
                // Some checkpoints keep a copy of the embedding under this name.
                loader.ignore("lm_head.weight");
                Output::Logits(Linear::tied(embed))
            }
            false => Output::Logits(Linear::load(loader, "lm_head", sizes.vocab, sizes.hidden, false).await?),
        };
        Ok(Decoder { sizes, embed, blocks, norm, output, scales: Scales::default() })
    }
}

impl Network for Decoder {
    fn caches(&self) -> Vec<CacheSpec> {
        self.blocks.iter().map(Block::cache).collect()
    }

    fn vocab(&self) -> usize {
        self.sizes.vocab
    }

    fn context(&self) -> usize {
        self.sizes.context
    }

    fn pooling(&self) -> Option<&Pooling> {
        match &self.output {
            Output::Logits(_) => None,
            Output::Embedding(pooling) => Some(pooling),
        }
    }

    fn forward(&self, b: &mut dyn Backend, positions: Positions) -> Tensor {
        let mut x = b.embed(self.embed);
        if let Some(factor) = self.scales.embed {
            x = b.scale(x, factor);
        }
        for block in &self.blocks {
            x = block.forward(b, x);
            x = b.keep(x);
        }
        let Output::Logits(head) = &self.output else { return self.norm.of(b, x) };
        if positions == Positions::Last {
            x = b.last_row(x);
        }
        let mut logits = head.of_normed(b, Some(&self.norm), x);
        if let Some(factor) = self.scales.logits {
            logits = b.scale(logits, factor);
        }
        if let Some(cap) = self.scales.softcap {
            logits = b.softcap(logits, cap);
        }
        logits
    }
}
