//! gpt-oss: experts with biases, attention sinks, windows in every second layer. What its configuration says beyond the file (the
//! clamp, unrounded corners of yarn) is the same for all of its models.

use serde_json::Value as Json;

use super::llama::{ATTENTION, OUTSIDE, QUERY_KEY};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{ExpertInner, Experts, Heads, Hidden},
            Line, RMS, ROPE, SIZES, line,
        },
        file::File,
    },
};

pub(super) const GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    experts: true,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, &["expert_feed_forward_length", "attention.sliding_window", "attention.sliding_window_pattern"]],
    tensors: &[OUTSIDE, QUERY_KEY, ATTENTION, TENSORS],
    config,
};

const TENSORS: &[Line] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Hidden]),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Hidden]),
    line("blk.{}.attn_sinks", "model.layers.{}.self_attn.sinks", &[Heads]).bare(),
    line("blk.{}.ffn_gate_inp", "model.layers.{}.mlp.router", &[Experts, Hidden]).with_bias(),
    line("blk.{}.ffn_gate_exps", "model.layers.{}.mlp.experts.gate_proj", &[Experts, ExpertInner, Hidden]).with_bias(),
    line("blk.{}.ffn_up_exps", "model.layers.{}.mlp.experts.up_proj", &[Experts, ExpertInner, Hidden]).with_bias(),
    line("blk.{}.ffn_down_exps", "model.layers.{}.mlp.experts.down_proj", &[Experts, Hidden, ExpertInner]).with_bias(),
];

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("gpt_oss")?;
    config["head_dim"] = file.sizes.head_dim.into();
    config["intermediate_size"] = file.sizes.expert_inner.into();
    config["num_local_experts"] = file.sizes.experts.into();
    config["num_experts_per_tok"] = file.need_size("expert_used_count")?.into();
    config["sliding_window"] = file.need_size("attention.sliding_window")?.into();
    config["layer_types"] = file.layer_types(2)?;
    config["attention_bias"] = true.into();
    config["swiglu_limit"] = 7.0.into();
    if config["rope_scaling"]["rope_type"] == "yarn" {
        config["rope_scaling"]["truncate"] = false.into();
    }
    Ok(config)
}
