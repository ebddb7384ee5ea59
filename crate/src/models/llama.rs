//! Llama (Touvron et al. 2023; Llama 1 to 3.2, SmolLM 2 and others of `model_type` "llama").

use serde_json::json;

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    error::Result,
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// Pre-norm, rotary positions, grouped-query attention, gated SiLU.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    config.only("pretraining_tp", &json!(1))?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let (bias, mlp_bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    let block = |_| {
        let attention = AttentionSpec { attention: sizes.attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm: None, rope };
        BlockSpec { mlp_bias, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
