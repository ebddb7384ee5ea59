//! GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023): partial rotation, attention and MLP side by side.

use std::ops::Range;

use super::{
    classic::{Classic, activation},
    config::Config,
    rotary::Frequencies,
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

/// Published rows are `q | k | v` of the first head, then of the second, ...; ours are all of q, all of k, all of v.
fn by_part(heads: usize, head_dim: usize) -> Vec<Range<usize>> {
    let start = |part: usize, head: usize| (3 * head + part) * head_dim;
    (0..3).flat_map(|part| (0..heads).map(move |head| start(part, head)..start(part, head) + head_dim)).collect()
}

/// Weights under `gpt_neox.`, the head in `embed_out`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Classic> {
    let (hidden, heads, vocab) = (config.size("hidden_size")?, config.size("num_attention_heads")?, config.size("vocab_size")?);
    let (intermediate, eps) = (config.size("intermediate_size")?, config.need_number("layer_norm_eps")? as f32);
    let activation = activation(config.get("hidden_act").and_then(|v| v.as_str()))?;
    let (bias, parallel) = (config.flag("attention_bias", true)?, config.flag("use_parallel_residual", true)?);
    let head_dim = (hidden / heads).max(1);
    let attention = Attention::new(heads, heads, head_dim);
    let rope = Some(Frequencies::partial(config, head_dim, "rotary_pct", 0.25)?.load(loader)?);
    let order = by_part(heads, head_dim);
    let embed = loader.matrix("gpt_neox.embed_in.weight", vocab, hidden).await?;
    let mut blocks = Vec::new();
    for i in 0..config.size("num_hidden_layers")? {
        let name = |part: &str| format!("gpt_neox.layers.{i}.{part}");
        for buffer in ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"] {
            loader.ignore(&name(buffer));
        }
        let weight = loader.reordered(&name("attention.query_key_value.weight"), 3 * hidden, hidden, &order).await?;
        let qkv_bias = match bias {
            true => Some(loader.reordered_vector(&name("attention.query_key_value.bias"), 3 * hidden, &order).await?),
            false => None,
        };
        let qkv = Linear::new(loader, weight, qkv_bias);
        let out = Linear::load(loader, &name("attention.dense"), hidden, hidden, bias).await?;
        blocks.push(ClassicBlock {
            attention_norm: LayerNorm::load(loader, &name("input_layernorm"), hidden, eps).await?,
            attention: SelfAttention::new(qkv, out, attention, rope, Cache(i as u32)),
            mlp_norm: Some(LayerNorm::load(loader, &name("post_attention_layernorm"), hidden, eps).await?),
            up: Linear::load(loader, &name("mlp.dense_h_to_4h"), intermediate, hidden, true).await?,
            activation,
            down: Linear::load(loader, &name("mlp.dense_4h_to_h"), hidden, intermediate, true).await?,
            parallel,
        });
    }
    let norm = LayerNorm::load(loader, "gpt_neox.final_layer_norm", hidden, eps).await?;
    let head = match config.flag("tie_word_embeddings", false)? {
        true => Linear::tied(embed),
        false => Linear::load(loader, "embed_out", vocab, hidden, false).await?,
    };
    Ok(Classic { embed, positions: None, blocks, norm, head, vocab, context: config.size("max_position_embeddings")? })
}
