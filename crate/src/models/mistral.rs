//! Mistral (Jiang et al. 2023), Nemo, Ministral: Llama with a sliding window in every layer, or none.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::Result,
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// Llama's block, `sliding_window`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let attention = Attention { window: config.size_or_none("sliding_window")?, ..sizes.attention };
    let block = |_| BlockSpec::llama(AttentionSpec { attention, fused: false, qkv_bias: false, out_bias: false, qk_norm: None, rope });
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
