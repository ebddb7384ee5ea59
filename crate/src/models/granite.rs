//! Granite (IBM, 2024): Llama with four multipliers.

use super::{
    config::Config,
    decoder::{Decoder, Scales},
    rotary::Frequencies,
};
use crate::{
    backend::Attention,
    error::{Error, Result},
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// Llama's block; embeddings, scores, what blocks add and logits are scaled.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let (bias, mlp_bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    if bias || mlp_bias {
        return Err(Error::UnsupportedFormat("config.json: granite with attention_bias or mlp_bias".into()));
    }
    let factor = |key: &str| Ok(config.number(key)?.unwrap_or(1.0) as f32);
    let attention = Attention { scale: factor("attention_multiplier")?, ..sizes.attention };
    let residual_scale = Some(factor("residual_multiplier")?);
    let block = |_| {
        let attention = AttentionSpec { attention, fused: false, qkv_bias: false, out_bias: false, qk_norm: None, rope };
        BlockSpec { residual_scale, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    let decoder = Decoder::load(config, loader, sizes, &blocks, false).await?;
    Ok(decoder.scaled(Scales {
        embed: Some(factor("embedding_multiplier")?),
        logits: Some(1.0 / factor("logits_scaling")?),
        ..Scales::default()
    }))
}
