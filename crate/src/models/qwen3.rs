//! Qwen 3 (2025): Qwen 2 without biases, with norms of each head's query and key.

use super::{config::Config, decoder::Decoder, qwen2, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::Result,
    layers::{AttentionSpec, QkNorm, block::BlockSpec},
    weights::loader::Loader,
};

/// Llama's block with norms of q and k per head.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    let qk_norm = Some(QkNorm { per_head: true, eps: sizes.eps, offset: 0.0 });
    let block = |window: Option<usize>| {
        let attention = Attention { window, ..sizes.attention };
        BlockSpec::llama(AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm, rope })
    };
    let blocks: Vec<_> = qwen2::windows(config, sizes.layers)?.into_iter().map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
