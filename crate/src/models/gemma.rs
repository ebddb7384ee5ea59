//! Gemma 1 (2024): scaled embeddings, norms of `1 + w`, gated GELU. Its configurations say "gelu" and mean the tanh form.

use serde_json::json;

use super::{
    config::Config,
    decoder::{Decoder, Scales},
    rotary::Frequencies,
};
use crate::{
    backend::Activation,
    error::Result,
    layers::{AttentionSpec, block::BlockSpec},
    weights::loader::Loader,
};

/// The spellings of GELU's tanh form in Gemma's configurations.
pub(super) const GELU: &[&str] = &["gelu", "gelu_pytorch_tanh"];

/// Llama's block with Gemma's norms and activation.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(GELU)?;
    config.only("use_bidirectional_attention", &json!(false))?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    let block = |_| {
        let attention = AttentionSpec { attention: sizes.attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm: None, rope };
        BlockSpec { activation: Activation::GeluTanh, norm_offset: 1.0, ..BlockSpec::llama(attention) }
    };
    let blocks: Vec<_> = (0..sizes.layers).map(block).collect();
    let decoder = Decoder::load(config, loader, sizes, &blocks, true).await?;
    Ok(decoder.scaled(Scales { embed: Some((sizes.hidden as f32).sqrt()), ..Scales::default() }))
}
