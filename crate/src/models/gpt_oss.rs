//! gpt-oss (OpenAI 2025): experts with biases and a clamped gate, a sink for each head's attention, windows in every second layer.

use serde_json::json;

use super::{config::Config, decoder::Decoder, rotary::Frequencies};
use crate::{
    backend::{Activation, Attention, Routing},
    error::Result,
    layers::{AttentionSpec, block::BlockSpec, experts::ExpertsSpec},
    weights::loader::Loader,
};

/// Llama's block with sinks, windows and experts; `hidden_act` says "silu" and means [`Activation::ClampedQuickGelu`].
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    config.only("swiglu_limit", &json!(7.0))?;
    config.only("swiglu_alpha", &json!(1.702))?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", true)?;
    let window = config.size_or_none("sliding_window")?;
    let experts = config.size("num_local_experts")?;
    let routing = Routing { per_row: config.size("num_experts_per_tok")?, normalise: true };
    let mut blocks = Vec::new();
    for (i, slides) in config.sliding_layers(sizes.layers, |layer| layer.is_multiple_of(2))?.into_iter().enumerate() {
        let sinks = Some(loader.vector(&format!("model.layers.{i}.self_attn.sinks"), sizes.attention.heads, 0.0).await?);
        let attention = Attention { window: window.filter(|_| slides), sinks, ..sizes.attention };
        let attention = AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm: None, rope };
        let maps = ["gate_proj", "up_proj", "down_proj"];
        let experts = Some(ExpertsSpec { experts, routing, intermediate: sizes.intermediate, module: "mlp", router: "router", maps });
        let activation = Activation::ClampedQuickGelu;
        blocks.push(BlockSpec { experts, activation, mlp_bias: true, ..BlockSpec::llama(attention) });
    }
    Decoder::load(config, loader, sizes, &blocks, false).await
}
