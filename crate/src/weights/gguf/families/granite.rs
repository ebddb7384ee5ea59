//! Granite: Llama with four multipliers.

use serde_json::Value as Json;

use super::llama::{ATTENTION, MLP, NORMS, OUTSIDE, ROTATED};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{Architecture, RMS, ROPE, SIZES},
        file::File,
    },
};

pub(super) const GRANITE: Architecture = Architecture {
    name: "granite",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, &["attention.scale", "embedding_scale", "residual_scale", "logit_scale"]],
    tensors: &[OUTSIDE, NORMS, ROTATED, ATTENTION, MLP],
    config,
};

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    // For this architecture the key is a switch.
    if file.metadata().bool(&file.key("rope.scaling.finetuned"))? == Some(false) {
        return Err(file.unsupported("rope.scaling.finetuned", "is false: a Granite without rotary positions"));
    }
    let mut config = file.decoder("granite")?;
    config["attention_bias"] = file.has("blk.0.attn_q.bias").into();
    config["mlp_bias"] = file.has("blk.0.ffn_gate.bias").into();
    for (name, key) in [
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    ] {
        config[name] = file.need_number(key)?;
    }
    Ok(config)
}
