//! OLMo 2: norms after attention and MLP, and of all queries and keys together.

use serde_json::Value as Json;

use super::llama::{ATTENTION, MLP, OUTSIDE, QUERY_KEY};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{Hidden, KeyValue, Query},
            Line, RMS, ROPE, SIZES, line,
        },
        file::File,
    },
};

pub(super) const OLMO2: Architecture = Architecture {
    name: "olmo2",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, ATTENTION, MLP],
    config,
};

const NORMS: &[Line] = &[
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Query]),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[KeyValue]),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Hidden]),
    line("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Hidden]),
];

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("olmo2")?;
    config["attention_bias"] = file.has("blk.0.attn_q.bias").into();
    Ok(config)
}
