//! Phi 3, 3.5 and 4-mini (2024): Llama with stacked maps, partial rotation and a window. Of long contexts' rope ("longrope") nothing
//! yet: it is refused by name.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
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
    let rope = Some(Frequencies::partial(config, sizes.attention.head_dim, "partial_rotary_factor", 1.0)?.load(loader)?);
    let attention = Attention { window: config.size_or_none("sliding_window")?, ..sizes.attention };
    let block = |_| BlockSpec::llama(AttentionSpec { attention, fused: true, qkv_bias: false, out_bias: false, qk_norm: None, rope });
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
