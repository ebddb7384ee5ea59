//! Qwen 3 with experts (2025), whose weights are normalised only where `norm_topk_prob` says so.

use serde_json::Value;

use super::{config::Config, decoder::Decoder, qwen2, rotary::Frequencies};
use crate::{
    backend::{Attention, Routing},
    error::{Error, Result},
    layers::{AttentionSpec, QkNorm, block::BlockSpec, experts::ExpertsSpec},
    weights::loader::Loader,
};

/// Whether each layer has experts: every `decoder_sparse_step`th, but not those of `mlp_only_layers`.
fn sparse(config: Config<'_>, layers: usize) -> Result<Vec<bool>> {
    let step = config.size_or_none("decoder_sparse_step")?.unwrap_or(1);
    let dense = match config.get("mlp_only_layers") {
        None => Vec::new(),
        Some(list) => {
            let list = list.as_array().and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
            list.ok_or_else(|| Error::InvalidFile("config.json: mlp_only_layers is not a list of layers".into()))?
        }
    };
    Ok((0..layers).map(|layer| (layer + 1).is_multiple_of(step) && !dense.contains(&(layer as u64))).collect())
}

/// Qwen 3's block, with experts where they are.
pub async fn load(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Decoder> {
    config.activation(&["silu"])?;
    let sizes = config.sizes()?;
    let rope = Some(Frequencies::from_config(config, sizes.attention.head_dim)?.load(loader)?);
    let bias = config.flag("attention_bias", false)?;
    let qk_norm = Some(QkNorm { per_head: true, eps: sizes.eps, offset: 0.0 });
    let experts = config.size_of_either("num_experts", "num_local_experts")?;
    let intermediate = config.size("moe_intermediate_size")?;
    let routing = Routing { per_row: config.size("num_experts_per_tok")?, normalise: config.flag("norm_topk_prob", false)? };
    let block = |(window, sparse): (Option<usize>, bool)| {
        let attention = Attention { window, ..sizes.attention };
        let attention = AttentionSpec { attention, fused: false, qkv_bias: bias, out_bias: bias, qk_norm, rope };
        let maps = ["gate_proj", "up_proj", "down_proj"];
        let experts = sparse.then_some(ExpertsSpec { experts, routing, intermediate, module: "mlp", router: "gate", maps });
        BlockSpec { experts, ..BlockSpec::llama(attention) }
    };
    let layers = qwen2::windows(config, sizes.layers)?.into_iter().zip(sparse(config, sizes.layers)?);
    let blocks: Vec<_> = layers.map(block).collect();
    Decoder::load(config, loader, sizes, &blocks, false).await
}
