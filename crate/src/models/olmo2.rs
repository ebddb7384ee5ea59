//! OLMo 2 (OLMo et al. 2024), open in weights, code and data: norms after attention and MLP, and of all queries and keys together.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    error::Result,
    layers::{
        AttentionSpec, QkNorm,
        block::{BlockSpec, Norms},
    },
    weights::loader::Loader,
};

/// Llama's block with norms after, not before.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    let qk_norm = Some(QkNorm { per_head: false, eps: sizes.eps, offset: 0.0 });
    let block = |_| {
        let attention = AttentionSpec { attention: sizes.attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm, rope };
        BlockSpec { norms: Norms::Post, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
