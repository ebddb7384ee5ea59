//! SmolLM 3 (2025): Llama in which some layers have no rotary positions.

use serde_json::Value;

use super::{config::Config, decoder::Decoder, qwen2, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::{Error, Result},
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// `no_rope_layers` says 1 where a layer rotates; without it every `no_rope_layer_interval`th does not.
fn rotates(config: Config<'_>, layers: usize) -> Result<Vec<bool>> {
    let Some(list) = config.get("no_rope_layers") else {
        let interval = config.size_or_none("no_rope_layer_interval")?.unwrap_or(4);
        return Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect());
    };
    let flag = |v: &Value| v.as_u64().filter(|&v| v < 2).map(|v| v == 1);
    let flags = list.as_array().and_then(|list| list.iter().map(flag).collect::<Option<Vec<_>>>()).filter(|f| f.len() == layers);
    flags.ok_or_else(|| Error::InvalidFile(format!("config.json: no_rope_layers is not a list of {layers} zeros and ones")))
}

/// Llama's block, with rope or without.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?;
    let (bias, mlp_bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    let block = |(rotates, window): (bool, Option<usize>)| {
        let (attention, rope) = (Attention { window, ..sizes.attention }, rotates.then_some(rope));
        let attention = AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm: None, rope };
        BlockSpec { mlp_bias, ..BlockSpec::llama(attention) }
    };
    let layers = rotates(config, sizes.layers)?.into_iter().zip(qwen2::windows(config, sizes.layers)?);
    let blocks: Vec<_> = layers.map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, true).await
}
