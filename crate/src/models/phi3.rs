//! Phi 3, 3.5 and 4-mini (2024): Llama with stacked maps, partial rotation, a window, and "longrope" for long contexts.

use super::{config::Config, decoder::Decoder, longrope, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::Result,
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// Llama's block with `qkv_proj` and `gate_up_proj`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rotated = Frequencies::part(config, sizes.attention.head_dim, "partial_rotary_factor", 1.0)?;
    let frequencies = match longrope::frequencies(config, rotated, loader.context())? {
        Some(frequencies) => frequencies,
        None => Frequencies::partial(config, sizes.attention.head_dim, "partial_rotary_factor", 1.0)?,
    };
    let rope = Some(frequencies.load(loader)?);
    let attention = Attention { window: config.size_or_none("sliding_window")?, ..sizes.attention };
    let block = |_| BlockSpec::llama(AttentionSpec { attention, fused: true, qkv_bias: false, out_bias: false, qk_norm: None, rope });
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
