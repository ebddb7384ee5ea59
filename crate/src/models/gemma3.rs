//! Gemma 3 text models (2025): Gemma 2 with norms of each head's query and key instead of soft caps, five windowed layers to a
//! full one, and a rope base of their own for the windowed ones. EmbeddingGemma sees both directions: it is an encoder.

use serde_json::json;

use super::{
    config::Config,
    decoder::{Decoder, Scales},
    gemma::GELU,
    rotary::Frequencies,
};
use crate::{
    backend::{Activation, Attention},
    error::{Error, Result},
    layers::{
        AttentionSpec, QkNorm,
        block::{BlockSpec, Norms},
    },
    weights::loader::Loader,
};

/// Frequencies of full and of windowed layers, in either spelling: `rope_parameters` by layer type, or `rope_theta` with
/// `rope_scaling` and `rope_local_base_freq`.
fn frequencies(config: Config<'_>, head_dim: usize) -> Result<[Frequencies; 2]> {
    if let Some(parameters) = config.object("rope_parameters")? {
        let of = |kind: &str| {
            let rope = parameters.object(kind)?;
            let rope = rope.ok_or_else(|| Error::InvalidFile(format!("config.json: \"rope_parameters\" has no {kind:?}")))?;
            Frequencies::from_parameters(config, rope, head_dim)
        };
        return Ok([of("full_attention")?, of("sliding_attention")?]);
    }
    let local = json!({ "rope_theta": config.number("rope_local_base_freq")?.unwrap_or(10000.0) });
    Ok([Frequencies::from_config(config, head_dim)?, Frequencies::from_parameters(config, Config(&local), head_dim)?])
}

/// Gemma 2's block with norms of q and k per head.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(GELU)?;
    let causal = !config.flag("use_bidirectional_attention", false)?;
    let sizes = config.sizes()?;
    let [full, local] = frequencies(config, sizes.attention.head_dim)?;
    let (full, local) = (full.load(loader)?, local.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    // In both directions a window counts all that it spans; ours counts one side and the middle.
    let window = config.size_or_none("sliding_window")?.map(|window| if causal { window } else { window / 2 + 1 });
    let cap = |key| Ok(config.number(key)?.map(|cap| cap as f32));
    let softcap = cap("attn_logit_softcapping")?;
    let scale = config.need_number("query_pre_attn_scalar")?.powf(-0.5) as f32;
    let pattern = config.size_or_none("sliding_window_pattern")?.unwrap_or(6);
    let qk_norm = Some(QkNorm { per_head: true, eps: sizes.eps, offset: 1.0 });
    let block = |slides: bool| {
        let attention = Attention { causal, window: window.filter(|_| slides), softcap, scale, ..sizes.attention };
        let rope = Some(if slides { local } else { full });
        let attention = AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm, rope };
        BlockSpec { activation: Activation::GeluTanh, norm_offset: 1.0, norms: Norms::Both, ..BlockSpec::llama(attention) }
    };
    let slides = config.sliding_layers(sizes.layers, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let blocks: Vec<_> = slides.into_iter().map(block).collect();
    let decoder = Decoder::load(config, loader, sizes, &blocks, true).await?;
    Ok(decoder.scaled(Scales { embed: Some((sizes.hidden as f32).sqrt()), softcap: cap("final_logit_softcapping")?, ..Scales::default() }))
}
