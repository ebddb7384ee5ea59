//! Llama (Touvron et al. 2023; Llama 1 to 3.2, SmolLM 2 and others of `model_type` "llama").

use serde_json::json;

use super::{Network, Positions, config::Config, rotary::Frequencies};
use crate::{
    backend::{Activation, Attention, Backend, Cache, CacheSpec, Tensor, Weight},
    error::{Error, Result},
    layers::{GatedMlp, Linear, RmsNorm, SelfAttention},
    weights::loader::Loader,
};

/// Decoder-only transformer: pre-norm, rotary positions, grouped-query attention, gated SiLU.
pub struct Llama {
    embed: Weight,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    attention: Attention,
    vocab: usize,
    context: usize,
}

struct Layer {
    attention_norm: RmsNorm,
    attention: SelfAttention,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
}

impl Llama {
    /// Reads `config.json` and the weights under `model.`.
    pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Llama> {
        config.only("hidden_act", &json!("silu"))?;
        config.only("pretraining_tp", &json!(1))?;
        let (hidden, vocab) = (config.size("hidden_size")?, config.size("vocab_size")?);
        let eps = config.need_number("rms_norm_eps")? as f32;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.size_or_none("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = config.size_or_none("head_dim")?.unwrap_or(hidden / heads);
        if head_dim == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::InvalidFile(format!("config.json: {heads} heads, {kv_heads} key/value heads, {head_dim} elements a head")));
        }
        let attention = Attention { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
        let frequencies = Frequencies::from_config(config, head_dim)?;
        let rope = loader.rope(&frequencies.inverse, frequencies.magnitude)?;
        let (attention_bias, mlp_bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
        let intermediate = config.size("intermediate_size")?;

        let embed = loader.matrix("model.embed_tokens.weight", vocab, hidden).await?;
        let mut layers = Vec::new();
        for i in 0..config.size("num_hidden_layers")? {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            layers.push(Layer {
                attention_norm: RmsNorm::load(loader, &name("input_layernorm"), hidden, eps).await?,
                attention: SelfAttention::load(loader, &name("self_attn"), hidden, attention, attention_bias, rope, Cache(i as u32))
                    .await?,
                mlp_norm: RmsNorm::load(loader, &name("post_attention_layernorm"), hidden, eps).await?,
                mlp: GatedMlp::load(loader, &name("mlp"), hidden, intermediate, mlp_bias, Activation::Silu).await?,
            });
        }
        let norm = RmsNorm::load(loader, "model.norm", hidden, eps).await?;
        let head = match config.flag("tie_word_embeddings", false)? {
            true => Linear::tied(embed),
            false => Linear::load(loader, "lm_head", vocab, hidden, false).await?,
        };
        Ok(Llama { embed, layers, norm, head, attention, vocab, context: config.size("max_position_embeddings")? })
    }
}

impl Network for Llama {
    fn caches(&self) -> Vec<CacheSpec> {
        let Attention { kv_heads, head_dim, .. } = self.attention;
        vec![CacheSpec { kv_heads, head_dim }; self.layers.len()]
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn forward(&self, b: &mut dyn Backend, positions: Positions) -> Tensor {
        let mut x = b.embed(self.embed);
        for layer in &self.layers {
            x = layer.attention.add_to(b, &layer.attention_norm, x);
            x = layer.mlp.add_to(b, &layer.mlp_norm, x);
        }
        if positions == Positions::Last {
            x = b.last_row(x);
        }
        self.head.of_norm(b, &self.norm, x)
    }
}
