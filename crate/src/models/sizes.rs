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
