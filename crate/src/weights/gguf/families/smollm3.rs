//! SmolLM 3: Llama in which every fourth layer has no rotary positions. Files do not say which: it is the architecture's.

use serde_json::Value as Json;

use super::llama::{ATTENTION, MLP, NORMS, OUTSIDE, ROTATED};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{Architecture, RMS, ROPE, SIZES},
        file::File,
    },
};

pub(super) const SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, ROTATED, ATTENTION, MLP],
    config,
};

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("smollm3")?;
    config["no_rope_layer_interval"] = 4.into();
    config["attention_bias"] = file.has("blk.0.attn_q.bias").into();
    config["mlp_bias"] = file.has("blk.0.ffn_gate.bias").into();
    Ok(config)
}
