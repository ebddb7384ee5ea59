//! Phi 2 (and 1, 1.5) and Phi 3 (3.5 mini, 4-mini, 4).

use serde_json::Value as Json;

use super::llama::{NORMS, OUTSIDE};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{GateUp, Hidden, Inner, KeyValue, Query, Stacked, Vocab},
            LAYER_NORM, Line, RMS, ROPE, SIZES, cut, line,
        },
        file::File,
    },
};

pub(super) const PHI2: Architecture =
    Architecture { name: "phi2", experts: false, encoder: false, keys: &[SIZES, LAYER_NORM, ROPE], tensors: &[PHI2_TENSORS], config: phi2 };

pub(super) const PHI3: Architecture = Architecture {
    name: "phi3",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, &["attention.sliding_window"]],
    tensors: &[OUTSIDE, NORMS, PHI3_TENSORS],
    config: phi3,
};

/// Older files have queries, keys and values in one matrix.
const PHI2_TENSORS: &[Line] = &[
    line("token_embd", "model.embed_tokens", &[Vocab, Hidden]),
    line("output_norm", "model.final_layernorm", &[Hidden]).with_bias(),
    line("output", "lm_head", &[Vocab, Hidden]).with_bias(),
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Hidden]).with_bias(),
    cut(
        "blk.{}.attn_qkv",
        &[
            ("model.layers.{}.self_attn.q_proj", Query),
            ("model.layers.{}.self_attn.k_proj", KeyValue),
            ("model.layers.{}.self_attn.v_proj", KeyValue),
        ],
        &[Stacked, Hidden],
    )
    .optional()
    .may_have_bias(),
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Hidden]).optional().may_have_bias(),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Hidden]).optional().may_have_bias(),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Hidden]).optional().may_have_bias(),
    line("blk.{}.attn_output", "model.layers.{}.self_attn.dense", &[Hidden, Query]).with_bias(),
    line("blk.{}.ffn_up", "model.layers.{}.mlp.fc1", &[Inner, Hidden]).with_bias(),
    line("blk.{}.ffn_down", "model.layers.{}.mlp.fc2", &[Hidden, Inner]).with_bias(),
];

const PHI3_TENSORS: &[Line] = &[
    line("blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj", &[Stacked, Hidden]),
    line("blk.{}.attn_output", "model.layers.{}.self_attn.o_proj", &[Hidden, Query]),
    line("blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj", &[GateUp, Hidden]),
    line("blk.{}.ffn_down", "model.layers.{}.mlp.down_proj", &[Hidden, Inner]),
];

fn phi2(file: &File<'_>) -> Result<Json> {
    let mut config = file.decoder("phi")?;
    config["hidden_act"] = "gelu_new".into();
    config["partial_rotary_factor"] = file.rotated_part()?.into();
    Ok(config)
}

fn phi3(file: &File<'_>) -> Result<Json> {
    let mut config = file.decoder("phi3")?;
    config["partial_rotary_factor"] = file.rotated_part()?.into();
    config["original_max_position_embeddings"] = file.size("rope.scaling.original_context_length")?.unwrap_or(file.sizes.context).into();
    // Phi 4 is told by a window of 0.
    if let Some(window @ 1..) = file.metadata().u32(&file.key("attention.sliding_window"))? {
        config["sliding_window"] = window.into();
    }
    Ok(config)
}
