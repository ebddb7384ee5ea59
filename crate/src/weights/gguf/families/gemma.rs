//! Gemma 1, 2 and 3. The converter adds 1 to the weights of all norms. What scores are divided by is not in the files: it is the
//! root of the head's size, and in the models of 27B parameters (by their number of layers) the root of `hidden / heads`.

use serde_json::{Value as Json, json};

use super::{
    bert,
    llama::{ATTENTION, MLP, QUERY_KEY},
};
use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{Head, Hidden, Vocab},
            Line, RMS, ROPE, SIZES, line,
        },
        file::File,
    },
};

pub(super) const GEMMA: Architecture = Architecture {
    name: "gemma",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE],
    tensors: &[OUTSIDE, NORMS, QUERY_KEY, ATTENTION, MLP],
    config: gemma,
};

pub(super) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, WINDOW, &["attn_logit_softcapping", "final_logit_softcapping"]],
    tensors: &[OUTSIDE, NORMS_AROUND, QUERY_KEY, ATTENTION, MLP],
    config: gemma2,
};

pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    experts: false,
    encoder: false,
    keys: &[SIZES, RMS, ROPE, WINDOW, &["rope.freq_base_swa", "final_logit_softcapping"]],
    tensors: &[OUTSIDE, NORMS_AROUND, QUERY_KEY, QK_NORMS, ATTENTION, MLP],
    config: gemma3,
};

/// EmbeddingGemma. Its dense layers after pooling, which a converter may leave out, are not read.
pub(super) const GEMMA_EMBEDDING: Architecture = Architecture {
    name: "gemma-embedding",
    experts: false,
    encoder: true,
    keys: &[SIZES, RMS, ROPE, WINDOW, &["rope.freq_base_swa", "pooling_type"]],
    tensors: &[OUTSIDE, NORMS_AROUND, QUERY_KEY, QK_NORMS, ATTENTION, MLP],
    config: embedding,
};

const WINDOW: &[&str] = &["attention.sliding_window", "attention.sliding_window_pattern"];

const OUTSIDE: &[Line] = &[
    line("token_embd", "model.embed_tokens", &[Vocab, Hidden]),
    line("output_norm", "model.norm", &[Hidden]).minus_one(),
    line("output", "lm_head", &[Vocab, Hidden]).optional(),
];

const NORMS: &[Line] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Hidden]).minus_one(),
    line("blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm", &[Hidden]).minus_one(),
];

const NORMS_AROUND: &[Line] = &[
    line("blk.{}.attn_norm", "model.layers.{}.input_layernorm", &[Hidden]).minus_one(),
    line("blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm", &[Hidden]).minus_one(),
    line("blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm", &[Hidden]).minus_one(),
    line("blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm", &[Hidden]).minus_one(),
];

const QK_NORMS: &[Line] = &[
    line("blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", &[Head]).minus_one(),
    line("blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", &[Head]).minus_one(),
];

fn gemma(file: &File<'_>) -> Result<Json> {
    file.whole_rope()?;
    let mut config = file.decoder("gemma")?;
    config["head_dim"] = file.sizes.head_dim.into();
    config["hidden_act"] = "gelu_pytorch_tanh".into();
    Ok(config)
}

fn gemma2(file: &File<'_>) -> Result<Json> {
    let mut config = gemma(file)?;
    config["model_type"] = "gemma2".into();
    config["query_pre_attn_scalar"] = scores_divisor(file, 46);
    config["sliding_window"] = file.size("attention.sliding_window")?.unwrap_or(4096).into();
    config["layer_types"] = file.layer_types(2)?;
    config["attn_logit_softcapping"] = file.need_number("attn_logit_softcapping")?;
    config["final_logit_softcapping"] = file.need_number("final_logit_softcapping")?;
    Ok(config)
}

fn gemma3(file: &File<'_>) -> Result<Json> {
    let mut config = gemma(file)?;
    config["model_type"] = "gemma3_text".into();
    config["query_pre_attn_scalar"] = scores_divisor(file, 62);
    config["rope_local_base_freq"] = file.number("rope.freq_base_swa")?.unwrap_or(json!(10000.0));
    match file.metadata().u32(&file.key("attention.sliding_window"))?.unwrap_or(0) {
        // Without a window all layers are full, and so is their rope.
        0 => config["layer_types"] = vec!["full_attention"; file.sizes.layers as usize].into(),
        window => {
            config["sliding_window"] = window.into();
            config["layer_types"] = file.layer_types(6)?;
        }
    }
    if let Some(cap) = file.number("final_logit_softcapping")? {
        config["final_logit_softcapping"] = cap;
    }
    Ok(config)
}

fn embedding(file: &File<'_>) -> Result<Json> {
    let mut config = gemma3(file)?;
    config["query_pre_attn_scalar"] = file.sizes.head_dim.into();
    config["use_bidirectional_attention"] = true.into();
    bert::pooling(file, &mut config)?;
    Ok(config)
}

/// `query_pre_attn_scalar`.
fn scores_divisor(file: &File<'_>, layers_of_27b: u64) -> Json {
    let sizes = file.sizes;
    if sizes.layers == layers_of_27b { (sizes.hidden / sizes.heads).into() } else { sizes.head_dim.into() }
}
