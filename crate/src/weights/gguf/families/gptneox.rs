//! GPT-NeoX and Pythia.

use serde_json::Value as Json;

use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{Hidden, Inner, Stacked, Vocab},
            LAYER_NORM, Line, ROPE, Rows, SIZES, line,
        },
        file::File,
    },
};

pub(super) const GPTNEOX: Architecture = Architecture {
    name: "gptneox",
    experts: false,
    encoder: false,
    keys: &[SIZES, LAYER_NORM, ROPE, &["use_parallel_residual"]],
    tensors: &[TENSORS],
    config,
};

const TENSORS: &[Line] = &[
    line("token_embd", "gpt_neox.embed_in", &[Vocab, Hidden]),
    line("output_norm", "gpt_neox.final_layer_norm", &[Hidden]).with_bias(),
    line("output", "embed_out", &[Vocab, Hidden]),
    line("blk.{}.attn_norm", "gpt_neox.layers.{}.input_layernorm", &[Hidden]).with_bias(),
    line("blk.{}.attn_qkv", "gpt_neox.layers.{}.attention.query_key_value", &[Stacked, Hidden]).rows(Rows::SplitByPart).with_bias(),
    line("blk.{}.attn_output", "gpt_neox.layers.{}.attention.dense", &[Hidden, Hidden]).with_bias(),
    line("blk.{}.ffn_norm", "gpt_neox.layers.{}.post_attention_layernorm", &[Hidden]).with_bias(),
    line("blk.{}.ffn_up", "gpt_neox.layers.{}.mlp.dense_h_to_4h", &[Inner, Hidden]).with_bias(),
    line("blk.{}.ffn_down", "gpt_neox.layers.{}.mlp.dense_4h_to_h", &[Hidden, Inner]).with_bias(),
];

fn config(file: &File<'_>) -> Result<Json> {
    let mut config = file.decoder("gpt_neox")?;
    config["hidden_act"] = "gelu".into();
    config["rotary_pct"] = file.rotated_part()?.into();
    config["use_parallel_residual"] = file.metadata().bool(&file.key("use_parallel_residual"))?.unwrap_or(true).into();
    Ok(config)
}
