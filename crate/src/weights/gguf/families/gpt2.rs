//! GPT-2. Publishers have its maps as `[in, out]`, files as `[out, in]`: blocks cannot be transposed, so they stay as they are and the
//! configuration says so.

use serde_json::{Value as Json, json};

use crate::{
    error::Result,
    weights::gguf::{
        architecture::{
            Architecture,
            Dim::{Context, Hidden, Inner, Stacked, Vocab},
            LAYER_NORM, Line, SIZES, line,
        },
        file::{File, Sizes},
    },
};

pub(super) const GPT2: Architecture =
    Architecture { name: "gpt2", experts: false, encoder: false, keys: &[SIZES, LAYER_NORM], tensors: &[TENSORS], config };

const TENSORS: &[Line] = &[
    line("token_embd", "transformer.wte", &[Vocab, Hidden]),
    line("position_embd", "transformer.wpe", &[Context, Hidden]),
    line("output_norm", "transformer.ln_f", &[Hidden]).with_bias(),
    line("output", "lm_head", &[Vocab, Hidden]).optional(),
    line("blk.{}.attn_norm", "transformer.h.{}.ln_1", &[Hidden]).with_bias(),
    line("blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn", &[Stacked, Hidden]).with_bias(),
    line("blk.{}.attn_output", "transformer.h.{}.attn.c_proj", &[Hidden, Hidden]).with_bias(),
    line("blk.{}.ffn_norm", "transformer.h.{}.ln_2", &[Hidden]).with_bias(),
    line("blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc", &[Inner, Hidden]).with_bias(),
    line("blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj", &[Hidden, Inner]).with_bias(),
];

fn config(file: &File<'_>) -> Result<Json> {
    let Sizes { vocab, hidden, inner, layers, heads, context, .. } = file.sizes;
    let mut config = json!({
        "model_type": "gpt2",
        "vocab_size": vocab,
        "n_positions": context,
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": heads,
        "n_inner": inner,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": file.need_number("attention.layer_norm_epsilon")?,
        // Older converters wrote the embedding again as the head, in a format of its own.
        "tie_word_embeddings": !file.has("output.weight"),
        "transposed_weights": false,
    });
    file.special_tokens(&mut config)?;
    Ok(config)
}
