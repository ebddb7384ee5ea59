//! Qwen 2, 2.5 and 3: Llama with biases on queries, keys and values, or with norms of each head's query and key; and with experts.

use serde_json::Value as Json;

use super::llama::{ATTENTION, MLP, NORMS, OUTSIDE, QUERY_KEY};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{ExpertInner, Experts, Head, Hidden},
            Line, RMS, ROPE, SIZES, line,
        },
        file::File,
    },
};

pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, ATTENTION, MLP],
    config: qwen2,
};

pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, QK_NORMS, ATTENTION, MLP],
    config: qwen3,
};

pub(super) const QWEN3MOE: Architecture = Architecture {
    name: "qwen3moe",
    experts: true,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, &["expert_feed_forward_length"]],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, QK_NORMS, ATTENTION, EXPERTS],
    config: qwen3moe,
};

const EXPERTS: &[Line] = &[
    line("blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate", &[Experts, Hidden]),
    line("blk.{}.ffn_gate_exps", "model.layers.{}.mlp.experts.gate_proj", &[Experts, ExpertInner, Hidden]),
    line("blk.{}.ffn_up_exps", "model.layers.{}.mlp.experts.up_proj", &[Experts, ExpertInner, Hidden]),
    line("blk.{}.ffn_down_exps", "model.layers.{}.mlp.experts.down_proj", &[Experts, Hidden, ExpertInner]),
];

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

/// Weights of a token's experts are normalised: files do not say it, llama.cpp does it for this architecture.
fn qwen3moe(file: &File<'_>) -> Result<Json> {
    let mut config = qwen3(file)?;
    config["model_type"] = "qwen3_moe".into();
    config["num_experts"] = file.sizes.experts.into();
    config["num_experts_per_tok"] = file.need_size("expert_used_count")?.into();
    config["moe_intermediate_size"] = file.need_size("expert_feed_forward_length")?.into();
    config["norm_topk_prob"] = true.into();
    Ok(config)
}
