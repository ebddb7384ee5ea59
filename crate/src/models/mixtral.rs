//! Mixtral (Jiang et al. 2024): Mistral with experts.

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    backend::{Attention, Routing},
    error::Result,
    layers::{AttentionSpec, block::BlockSpec, experts::ExpertsSpec},
    weights::loader::Loader,
};

/// Llama's block with experts, `sliding_window`.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let attention = Attention { window: config.size_or_none("sliding_window")?, ..sizes.attention };
    let experts = config.size("num_local_experts")?;
    let routing = Routing { per_row: config.size("num_experts_per_tok")?, normalise: true };
    let block = |_| {
        let attention = AttentionSpec { attention, fused: false, qkv_bias: false, out_bias: false, qk_norm: None, rope };
        let maps = ["w1", "w3", "w2"];
        let intermediate = sizes.intermediate;
        let experts = Some(ExpertsSpec { experts, routing, intermediate, module: "block_sparse_moe", router: "gate", maps });
        BlockSpec { experts, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
