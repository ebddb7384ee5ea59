//! Phi 3, 3.5 and 4-mini (2024): Llama with stacked maps, partial rotation and a window. Of long contexts' rope ("longrope") nothing
//! yet: it is refused by name.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    backend::Attention,
    error::{Error, Result},
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// Llama's block with `qkv_proj` and `gate_up_proj`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let head_dim = sizes.attention.head_dim;
    let part = match config.get("rope_parameters").map(|p| Config(p).number("partial_rotary_factor")).transpose()?.flatten() {
        Some(part) => part,
        None => config.number("partial_rotary_factor")?.unwrap_or(1.0),
    };
    if !(part > 0.0 && part <= 1.0) {
        return Err(Error::InvalidFile(format!("config.json: partial_rotary_factor is {part}")));
    }
    let rope = Some(Frequencies::from_config(config, (head_dim as f64 * part) as usize)?.load(loader)?);
    let attention = Attention { window: config.size_or_none("sliding_window")?, ..sizes.attention };
    let block = |_| BlockSpec::llama(AttentionSpec { attention, fused: true, qkv_bias: false, out_bias: false, qk_norm: None, rope });
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
