//! GPT-2 (Radford et al. 2019): learned positions, weights published transposed.

use serde_json::json;

use super::{
    classic::{Classic, activation},
    config::Config,
};
use crate::{
    backend::{Attention, Cache},
    error::Result,
    layers::{
        Linear, SelfAttention,
        classic::{ClassicBlock, LayerNorm},
    },
    weights::loader::Loader,
};

/// `prefix.weight` as `[cols, out]`, or as `[out, cols]` where it comes from a GGUF file; and `prefix.bias`.
async fn conv1d(loader: &mut Loader<'_>, prefix: &str, out: usize, cols: usize, transposed: bool) -> Result<Linear> {
    if !transposed {
        return Linear::load(loader, prefix, out, cols, true).await;
    }
    let weight = loader.transposed(&format!("{prefix}.weight"), out, cols).await?;
    let bias = loader.vector(&format!("{prefix}.bias"), out, 0.0).await?;
    Ok(Linear::new(loader, weight, Some(bias)))
}

/// Checkpoints name tensors with or without `transformer.`, and some keep the causal masks as tensors.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Classic> {
    for (key, value) in [("add_cross_attention", false), ("scale_attn_by_inverse_layer_idx", false), ("scale_attn_weights", true)] {
        config.only(key, &json!(value))?;
    }
    let transposed = config.flag("transposed_weights", true)?;
    let (hidden, heads, vocab) = (config.size("n_embd")?, config.size("n_head")?, config.size("vocab_size")?);
    let inner = config.size_or_none("n_inner")?.unwrap_or(4 * hidden);
    let (context, eps) = (config.size("n_positions")?, config.need_number("layer_norm_epsilon")? as f32);
    let activation = activation(config.get("activation_function").and_then(|v| v.as_str()))?;
    let attention = Attention::new(heads, heads, (hidden / heads).max(1));
    let root = if loader.has("wte.weight") { "" } else { "transformer." };
    let embed = loader.matrix(&format!("{root}wte.weight"), vocab, hidden).await?;
    let positions = Some(loader.matrix(&format!("{root}wpe.weight"), context, hidden).await?);
    let mut blocks = Vec::new();
    for i in 0..config.size("n_layer")? {
        let name = |part: &str| format!("{root}h.{i}.{part}");
        for mask in ["attn.bias", "attn.masked_bias"] {
            loader.ignore(&name(mask));
        }
        let qkv = conv1d(loader, &name("attn.c_attn"), 3 * hidden, hidden, transposed).await?;
        let out = conv1d(loader, &name("attn.c_proj"), hidden, hidden, transposed).await?;
        blocks.push(ClassicBlock {
            attention_norm: LayerNorm::load(loader, &name("ln_1"), hidden, eps).await?,
            attention: SelfAttention::new(qkv, out, attention, None, Cache(i as u32)),
            mlp_norm: Some(LayerNorm::load(loader, &name("ln_2"), hidden, eps).await?),
            up: conv1d(loader, &name("mlp.c_fc"), inner, hidden, transposed).await?,
            activation,
            down: conv1d(loader, &name("mlp.c_proj"), hidden, inner, transposed).await?,
            parallel: false,
        });
    }
    let norm = LayerNorm::load(loader, &format!("{root}ln_f"), hidden, eps).await?;
    let head = match config.flag("tie_word_embeddings", true)? {
        true => Linear::tied(embed),
        false => Linear::load(loader, "lm_head", vocab, hidden, false).await?,
    };
    Ok(Classic { embed, positions, blocks, norm, head, vocab, context })
}
