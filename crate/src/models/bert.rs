//! BERT (Devlin et al. 2018) as an encoder: learned positions, attention in both directions, norms after each half of a block.

use serde_json::json;

use super::{Network, Positions, classic::activation, config::Config, pooling::Pooling};
use crate::{
    backend::{Activation, Attention, Backend, Cache, CacheSpec, Tensor, Weight},
    error::Result,
    layers::{Linear, SelfAttention, classic::LayerNorm},
    weights::loader::Loader,
};

struct Layer {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// The network.
pub struct Bert {
    words: Weight,
    positions: Weight,
    /// The embedding of a text's first part; there is no second.
    part: Vec<f32>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    activation: Activation,
    pooling: Pooling,
    hidden: usize,
    attention: Attention,
    vocab: usize,
    context: usize,
}

/// Checkpoints name tensors with or without `bert.`; the pooler served BERT's own training.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Bert> {
    config.only("position_embedding_type", &json!("absolute"))?;
    for key in ["is_decoder", "add_cross_attention"] {
        config.only(key, &json!(false))?;
    }
    let (hidden, vocab, inner) = (config.size("hidden_size")?, config.size("vocab_size")?, config.size("intermediate_size")?);
    let (context, eps) = (config.size("max_position_embeddings")?, config.need_number("layer_norm_eps")? as f32);
    let attention = Attention { causal: false, ..config.attention(hidden)? };
    if !loader.has("bert.embeddings.word_embeddings.weight") {
        loader.strip("bert.");
    }
    for unused in ["pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"] {
        loader.ignore(&format!("bert.{unused}"));
    }
    let words = loader.matrix("bert.embeddings.word_embeddings.weight", vocab, hidden).await?;
    let positions = loader.matrix("bert.embeddings.position_embeddings.weight", context, hidden).await?;
    let parts = [config.size("type_vocab_size")?, hidden];
    let part = loader.row("bert.embeddings.token_type_embeddings.weight", parts, 0).await?;
    let norm = LayerNorm::load(loader, "bert.embeddings.LayerNorm", hidden, eps).await?;
    let mut layers = Vec::new();
    for i in 0..config.size("num_hidden_layers")? {
        let name = |part: &str| format!("bert.encoder.layer.{i}.{part}");
        let width = attention.heads * attention.head_dim;
        let maps = ["query", "key", "value"].map(|map| (name(&format!("attention.self.{map}")), width));
        let qkv = Linear::stacked(loader, &maps.each_ref().map(|(name, width)| (name.as_str(), *width)), hidden, true).await?;
        let out = Linear::load(loader, &name("attention.output.dense"), hidden, width, true).await?;
        layers.push(Layer {
            attention: SelfAttention::new(qkv, out, attention, None, Cache(i as u32)),
            attention_norm: LayerNorm::load(loader, &name("attention.output.LayerNorm"), hidden, eps).await?,
            up: Linear::load(loader, &name("intermediate.dense"), inner, hidden, true).await?,
            down: Linear::load(loader, &name("output.dense"), hidden, inner, true).await?,
            norm: LayerNorm::load(loader, &name("output.LayerNorm"), hidden, eps).await?,
        });
    }
    let activation = activation(config.get("hidden_act").and_then(|v| v.as_str()))?;
    let pooling = Pooling::load(config, loader, hidden).await?;
    Ok(Bert { words, positions, part, norm, layers, activation, pooling, hidden, attention, vocab, context })
}

impl Network for Bert {
    fn caches(&self) -> Vec<CacheSpec> {
        vec![CacheSpec { kv_heads: self.attention.kv_heads, head_dim: self.attention.head_dim }; self.layers.len()]
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn pooling(&self) -> Option<&Pooling> {
        Some(&self.pooling)
    }

    fn forward(&self, b: &mut dyn Backend, _: Positions) -> Tensor {
        let (words, positions) = (b.embed(self.words), b.embed_positions(self.positions));
        let part = b.upload(self.hidden, &self.part);
        let x = b.add(words, positions);
        let x = b.add(x, part);
        let mut x = self.norm.of(b, x);
        for layer in &self.layers {
            let attended = layer.attention.add_to(b, x, x);
            x = layer.attention_norm.of(b, attended);
            let y = layer.up.of(b, x);
            let y = b.activate(y, self.activation);
            let y = layer.down.add_to(b, y, x);
            x = layer.norm.of(b, y);
            x = b.keep(x);
        }
        x
    }
}
