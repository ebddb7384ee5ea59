//! Phi 1, 1.5 and 2 (2023): one norm for attention and MLP, which stand side by side; partial rotation.

use serde_json::json;

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

/// Biases everywhere, the head included.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Classic> {
    config.only("qk_layernorm", &json!(false))?;
    config.only("tie_word_embeddings", &json!(false))?;
    let (hidden, heads, vocab) = (config.size("hidden_size")?, config.size("num_attention_heads")?, config.size("vocab_size")?);
    let kv_heads = config.size_or_none("num_key_value_heads")?.unwrap_or(heads);
    let (intermediate, eps) = (config.size("intermediate_size")?, config.need_number("layer_norm_eps")? as f32);
    let activation = activation(config.get("hidden_act").and_then(|v| v.as_str()))?;
    let head_dim = (hidden / heads).max(1);
    let attention = Attention::new(heads, kv_heads, head_dim);
    let rope = Some(Frequencies::partial(config, head_dim, "partial_rotary_factor", 0.5)?.load(loader)?);
    let embed = loader.matrix("model.embed_tokens.weight", vocab, hidden).await?;
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let mut blocks = Vec::new();
    for i in 0..config.size("num_hidden_layers")? {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let maps = [(&*name("self_attn.q_proj"), q), (&*name("self_attn.k_proj"), kv), (&*name("self_attn.v_proj"), kv)];
        let qkv = Linear::stacked(loader, &maps, hidden, true).await?;
        let out = Linear::load(loader, &name("self_attn.dense"), hidden, q, true).await?;
        blocks.push(ClassicBlock {
            attention_norm: LayerNorm::load(loader, &name("input_layernorm"), hidden, eps).await?,
            attention: SelfAttention::new(qkv, out, attention, rope, Cache(i as u32)),
            mlp_norm: None,
            up: Linear::load(loader, &name("mlp.fc1"), intermediate, hidden, true).await?,
            activation,
            down: Linear::load(loader, &name("mlp.fc2"), hidden, intermediate, true).await?,
            parallel: true,
        });
    }
    let norm = LayerNorm::load(loader, "model.final_layernorm", hidden, eps).await?;
    let head = Linear::load(loader, "lm_head", vocab, hidden, true).await?;
    Ok(Classic { embed, positions: None, blocks, norm, head, vocab, context: config.size("max_position_embeddings")? })
}
