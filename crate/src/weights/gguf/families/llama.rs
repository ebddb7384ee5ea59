//! Llama, Mistral and relatives. The converter drops Mistral's window: a file of the first Mistral is a model without one.

use serde_json::Value as Json;

use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{ExpertInner, Experts, Hidden, Inner, KeyValue, Query, Vocab},
            Line, RMS, ROPE, Rows, SIZES, line,
        },
        file::File,
    },
};

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, ROTATED, ATTENTION, MLP],
    config,
};

/// Mixtral: the same name, with experts.
pub(super) const MIXTRAL: Architecture = Architecture {
    name: "llama",
    experts: true,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, ROTATED, ATTENTION, EXPERTS],
    config: mixtral,
};

/// Around the blocks.
pub(super) const OUTSIDE: &[Line] = &[
    line("token_embd", "model.embed_tokens", &[Vocab, Hidden]),
    line("output_norm", "model.norm", &[Hidden]),
    line("output", "lm_head", &[Vocab, Hidden]).optional(),
];

/// Norms before attention and MLP.
pub(super) const NORMS: &[Line] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Hidden]),
    line("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", &[Hidden]),
];

/// Queries and keys of the architectures whose rows the converter interleaves.
pub(super) const ROTATED: &[Line] = &[
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Hidden]).rows(Rows::Interleaved).may_have_bias(),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Hidden]).rows(Rows::Interleaved).may_have_bias(),
];

/// Queries and keys of the others.
pub(super) const QUERY_KEY: &[Line] = &[
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Hidden]).may_have_bias(),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Hidden]).may_have_bias(),
];

/// Values and output.
pub(super) const ATTENTION: &[Line] = &[
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Hidden]).may_have_bias(),
    line("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj", &[Hidden, Query]).may_have_bias(),
];

/// The gated MLP.
pub(super) const MLP: &[Line] = &[
    line("blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj", &[Inner, Hidden]).may_have_bias(),
    line("blk.{}.ffn_up", "model.layers.{}.mlp.up_proj", &[Inner, Hidden]).may_have_bias(),
    line("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj", &[Hidden, Inner]).may_have_bias(),
];

const EXPERTS: &[Line] = &[
    line("blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate", &[Experts, Hidden]),
    line("blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.w1", &[Experts, ExpertInner, Hidden]),
    line("blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.w3", &[Experts, ExpertInner, Hidden]),
    line("blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.w2", &[Experts, Hidden, ExpertInner]),
];

fn mixtral(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("mixtral")?;
    config["num_local_experts"] = file.sizes.experts.into();
    config["num_experts_per_tok"] = file.need_size("expert_used_count")?.into();
    Ok(config)
}

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("llama")?;
    config["attention_bias"] = file.has("blk.0.attn_q.bias").into();
    config["mlp_bias"] = file.has("blk.0.ffn_gate.bias").into();
    Ok(config)
}
