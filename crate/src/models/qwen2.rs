//! Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values, and windows in upper layers.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::Result,
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// The window of each layer: `sliding_window` counts only with `use_sliding_window`, from layer `max_window_layers` on.
pub(super) fn windows(config: Config<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match config.flag("use_sliding_window", false)? {
        true => config.size_or_none("sliding_window")?,
        false => None,
    };
    let from = config.get("max_window_layers").and_then(|v| v.as_u64()).unwrap_or(layers as u64);
    let slides = config.sliding_layers(layers, |layer| layer as u64 >= from)?;
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// Llama's block with biases on q, k and v.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let block = |window: Option<usize>| {
        let attention = Attention { window, ..sizes.attention };
        BlockSpec::llama(AttentionSpec { attention, fused: false, qkv_bias: true, out_bias: false, qk_norm: None, rope })
    };
    let blocks: Vec<_> = windows(config, sizes.layers)?.into_iter().map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
