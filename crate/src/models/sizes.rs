//! The sizes that nearly all decoders name alike.

use super::config::Config;
use crate::{
    backend::Attention,
    error::{Error, Result},
};

/// Sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Logits of a position.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Of the norms.
    pub eps: f32,
    /// Heads, scaled by `1 / sqrt(head_dim)`.
    pub attention: Attention,
}

/// The most that a size may be: several times what any model has, and little enough to allocate in proportion to.
pub(super) fn most(key: &str) -> u64 {
    match key {
        "num_hidden_layers" | "n_layer" | "num_attention_heads" | "num_key_value_heads" | "n_head" | "head_dim" => 1 << 10,
        "num_local_experts" | "num_experts" | "num_experts_per_tok" => 1 << 12,
        "hidden_size"
        | "intermediate_size"
        | "n_embd"
        | "n_inner"
        | "moe_intermediate_size"
        | "block_ff_dim"
        | "in_features"
        | "out_features" => 1 << 18,
        _ => (1 << 24) - 1,
    }
}

impl Config<'_> {
    /// The heads of a residual stream `hidden` wide; `head_dim` defaults to `hidden / heads`.
    pub fn attention(self, hidden: usize) -> Result<Attention> {
        let heads = self.size("num_attention_heads")?;
        let kv_heads = self.size_or_none("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = self.size_or_none("head_dim")?.unwrap_or(hidden / heads);
        if head_dim == 0 || head_dim > 1024 || heads > 1024 || !heads.is_multiple_of(kv_heads) {
            let message = format!("config.json: {heads} heads, {kv_heads} key/value heads, {head_dim} elements a head");
            return Err(Error::InvalidFile(message));
        }
        Ok(Attention::new(heads, kv_heads, head_dim))
    }

    /// Sizes.
    pub fn sizes(self) -> Result<Sizes> {
        let hidden = self.size("hidden_size")?;
        Ok(Sizes {
            hidden,
            intermediate: self.size("intermediate_size")?,
            layers: self.size("num_hidden_layers")?,
            vocab: self.size("vocab_size")?,
            context: self.size("max_position_embeddings")?,
            eps: self.need_number("rms_norm_eps")? as f32,
            attention: self.attention(hidden)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_that_no_model_has_are_refused_by_name() {
        for (key, most) in [("num_hidden_layers", 1024), ("num_experts", 4096), ("n_embd", 262_144), ("vocab_size", 16_777_215)] {
            let config = json!({ key: most });
            assert_eq!(Config(&config).size(key), Ok(most));
            let config = json!({ key: most + 1 });
            let error = Config(&config).size(key).unwrap_err().to_string();
            assert!(error.contains(&format!("{key:?} is {}; at most {most} are read", most + 1)), "{error}");
        }
    }
}
