//! BERT as an encoder.

use serde_json::{Value as Json, json};

use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{Context, Hidden, Inner, KeyValue, Parts, Query, Vocab},
            LAYER_NORM, Line, SIZES, line,
        },
        file::File,
    },
};

pub(super) const BERT: Architecture = Architecture {
    name: "bert",
    experts: false,
    encoder: true,
    keys: &[SIZES, LAYER_NORM, &["pooling_type"]],
    tensors: &[TENSORS],
    config,
};

const TENSORS: &[Line] = &[
    line("token_embd", "embeddings.word_embeddings", &[Vocab, Hidden]),
    line("position_embd", "embeddings.position_embeddings", &[Context, Hidden]),
    line("token_types", "embeddings.token_type_embeddings", &[Parts, Hidden]),
    line("token_embd_norm", "embeddings.LayerNorm", &[Hidden]).with_bias(),
    line("blk.{}.attn_q", "encoder.layer.{}.attention.self.query", &[Query, Hidden]).with_bias(),
    line("blk.{}.attn_k", "encoder.layer.{}.attention.self.key", &[KeyValue, Hidden]).with_bias(),
    line("blk.{}.attn_v", "encoder.layer.{}.attention.self.value", &[KeyValue, Hidden]).with_bias(),
    line("blk.{}.attn_output", "encoder.layer.{}.attention.output.dense", &[Hidden, Query]).with_bias(),
    line("blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm", &[Hidden]).with_bias(),
    line("blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense", &[Inner, Hidden]).with_bias(),
    line("blk.{}.ffn_down", "encoder.layer.{}.output.dense", &[Hidden, Inner]).with_bias(),
    line("blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm", &[Hidden]).with_bias(),
];

fn config(file: &File<'_>) -> Result<Json> {
    let mut config = file.decoder("bert")?;
    // Its positions are learned.
    config.as_object_mut().and_then(|config| config.remove("rope_theta"));
    config["hidden_act"] = "gelu".into();
    config["layer_norm_eps"] = file.need_number("attention.layer_norm_epsilon")?;
    config["type_vocab_size"] = file.metadata().u32("tokenizer.ggml.token_type_count")?.unwrap_or(0).into();
    pooling(file, &mut config)?;
    Ok(config)
}

/// What Sentence Transformers' `modules.json` would say, from llama.cpp's number.
pub(super) fn pooling(file: &File<'_>, config: &mut Json) -> Result<()> {
    let mode = match file.metadata().u32(&file.key("pooling_type"))? {
        None => return Ok(()),
        Some(1) => "mean",
        Some(2) => "cls",
        Some(3) => "lasttoken",
        Some(other) => return Err(file.unsupported("pooling_type", &format!("is {other}; 1 (mean), 2 (cls) and 3 (last) are read"))),
    };
    config["sentence_transformers"] = json!([{ "type": "Transformer" }, { "type": "Pooling", "pooling_mode": mode }]);
    Ok(())
}
