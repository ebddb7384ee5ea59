//! `generation_config.json`: where generation ends.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::Metadata;
use crate::error::Result;

/// Token types of `tokenizer.ggml.token_type` that are found in a text before it is split.
const ADDED: [i32; 2] = [3, 4];

/// Ends of a turn that chat models know by their text.
const ENDS: [&str; 9] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<|return|>", "<|call|>"];

/// Besides the declared end tokens these are the ends of a turn. A vocabulary in which they are ordinary text does not mark them.
/// Where turns end with `<|return|>` (gpt-oss), `<|end|>` only ends one of an answer's messages.
pub fn config(metadata: &Metadata) -> Result<Json> {
    let mut ends = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ends.extend(metadata.u32(&format!("tokenizer.ggml.{key}_token_id"))?);
    }
    if let (Some(tokens), Some(types)) = (metadata.strings("tokenizer.ggml.tokens")?, metadata.i32s("tokenizer.ggml.token_type")?) {
        let added = || tokens.iter().zip(&types).enumerate().filter(|(_, (_, kind))| ADDED.contains(kind));
        let harmony = added().any(|(_, (token, _))| token == "<|return|>");
        let is_end = |token: &str| ENDS.contains(&token) && !(harmony && token == "<|end|>");
        ends.extend(added().filter(|(_, (token, _))| is_end(token)).map(|(id, _)| id as u32));
    }
    let mut seen = BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    let mut config = json!({});
    if let Some(bos) = metadata.u32("tokenizer.ggml.bos_token_id")? {
        config["bos_token_id"] = bos.into();
    }
    if !ends.is_empty() {
        config["eos_token_id"] = ends.into();
    }
    Ok(config)
}
