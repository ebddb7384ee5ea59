//! LFM2: layers without key/value heads are short convolutions.

use serde_json::Value as Json;

use crate::{
    error::Result,
    weights::gguf::{
        Value,
        architecture::{
            Architecture,
            Dim::{Gated, Head, Hidden, Inner, KeyValue, One, Query, Taps, Vocab},
            Line, RMS, ROPE, SIZES, line,
        },
        file::File,
    },
};

pub(super) const LFM2: Architecture = Architecture {
    name: "lfm2",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, &["shortconv.l_cache"]],
    tensors: &[TENSORS],
    config,
};

/// A layer has the tensors of attention or those of a convolution; the model's loader says which one misses.
const TENSORS: &[Line] = &[
    line("token_embd", "model.embed_tokens", &[Vocab, Hidden]),
    line("token_embd_norm", "model.embedding_norm", &[Hidden]),
    line("output", "lm_head", &[Vocab, Hidden]).optional(),
    line("blk.{}.attn_norm", "model.layers.{}.operator_norm", &[Hidden]),
    line("blk.{}.ffn_norm", "model.layers.{}.ffn_norm", &[Hidden]),
    line("blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", &[Query, Hidden]).optional(),
    line("blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", &[KeyValue, Hidden]).optional(),
    line("blk.{}.attn_v", "model.layers.{}.self_attn.v_proj", &[KeyValue, Hidden]).optional(),
    line("blk.{}.attn_output", "model.layers.{}.self_attn.out_proj", &[Hidden, Query]).optional(),
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_layernorm", &[Head]).optional(),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_layernorm", &[Head]).optional(),
    line("blk.{}.shortconv.conv", "model.layers.{}.conv.conv", &[Hidden, Taps]).published(&[Hidden, One, Taps]).optional(),
    line("blk.{}.shortconv.in_proj", "model.layers.{}.conv.in_proj", &[Gated, Hidden]).optional(),
    line("blk.{}.shortconv.out_proj", "model.layers.{}.conv.out_proj", &[Hidden, Hidden]).optional(),
    line("blk.{}.ffn_gate", "model.layers.{}.feed_forward.w1", &[Inner, Hidden]),
    line("blk.{}.ffn_up", "model.layers.{}.feed_forward.w3", &[Inner, Hidden]),
    line("blk.{}.ffn_down", "model.layers.{}.feed_forward.w2", &[Hidden, Inner]),
];

fn config(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("lfm2")?;
    let key = "attention.head_count_kv";
    let heads = match file.metadata().get(&file.key(key)) {
        Some(Value::Integers(list)) if list.len() as u64 == file.sizes.layers => list,
        _ => return Err(file.bad(key, "is no list with a number for each layer")),
    };
    let kind = |heads: &i64| if *heads == 0 { "conv" } else { "full_attention" };
    config["layer_types"] = heads.iter().map(kind).collect::<Vec<_>>().into();
    config["norm_eps"] = file.need_number("attention.layer_norm_rms_epsilon")?;
    config["conv_L_cache"] = file.need_size("shortconv.l_cache")?.into();
    config["conv_bias"] = false.into();
    // The width is the one that was adjusted.
    config["block_auto_adjust_ff_dim"] = false.into();
    Ok(config)
}
