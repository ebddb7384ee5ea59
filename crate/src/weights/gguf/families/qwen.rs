//! Qwen 2, 2.5 and 3: Llama with biases on queries, keys and values, or with norms of each head's query and key.

use serde_json::Value as Json;

use super::llama::{ATTENTION, MLP, NORMS, OUTSIDE, QUERY_KEY};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{Architecture, Dim::Head, Line, RMS, ROPE, SIZES, line},
        file::File,
    },
};

pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    experts: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, ATTENTION, MLP],
    config: qwen2,
};

pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    experts: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, QK_NORMS, ATTENTION, MLP],
    config: qwen3,
};

/// Norms of each head's query and key.
pub(super) const QK_NORMS: &[Line] = &[
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head]),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head]),
];

fn qwen2(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    file.decoder("qwen2")
}

fn qwen3(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("qwen3")?;
    config["head_dim"] = file.sizes.head_dim.into();
    config["attention_bias"] = file.has("blk.0.attn_q.bias").into();
    Ok(config)
}
