//! Gemma 2 (2024): Gemma with norms before and after, soft caps of scores and logits, a window in every other layer.

use serde_json::json;

use super::{
    config::Config,
    decoder::{Decoder, Scales},
    gemma::GELU,
    rotary::Frequencies,
};
use crate::{
    backend::{Activation, Attention},
    error::Result,
    layers::{
        AttentionSpec,
        block::{BlockSpec, Norms},
    },
    weights::loader::Loader,
};

/// Scores are scaled by `1 / sqrt(query_pre_attn_scalar)`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(GELU)?;
    config.only("use_bidirectional_attention", &json!(false))?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    let window = config.size_or_none("sliding_window")?;
    let cap = |key| Ok(config.number(key)?.map(|cap| cap as f32));
    let softcap = cap("attn_logit_softcapping")?;
    let scale = config.need_number("query_pre_attn_scalar")?.powf(-0.5) as f32;
    let block = |slides: bool| {
        let attention = Attention { window: window.filter(|_| slides), softcap, scale, ..sizes.attention };
        let attention = AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm: None, rope };
        BlockSpec { activation: Activation::GeluTanh, norm_offset: 1.0, norms: Norms::Both, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = config.sliding_layers(sizes.layers, |layer| layer % 2 == 0)?.into_iter().map(block).collect();
    let decoder = Decoder::load(config, loader, sizes, &blocks, true).await?;
    Ok(decoder.scaled(Scales { embed: Some((sizes.hidden as f32).sqrt()), softcap: cap("final_logit_softcapping")?, ..Scales::default() }))
}
