//! Decoders of classic blocks: embedding, learned positions or none, blocks, final norm, head.

use super::{Network, Positions};
use crate::{
    backend::{Activation, Backend, CacheSpec, Tensor, Weight},
    error::{Error, Result},
    layers::{
        Linear,
        classic::{ClassicBlock, LayerNorm},
    },
};

/// A decoder-only transformer of the classic kind.
pub struct Classic {
    /// Token embeddings.
    pub embed: Weight,
    /// Learned positions.
    pub positions: Option<Weight>,
    /// Blocks.
    pub blocks: Vec<ClassicBlock>,
    /// Before the head.
    pub norm: LayerNorm,
    /// Logits.
    pub head: Linear,
    /// Logits of a position.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub context: usize,
}

/// The activation that a configuration calls `name`.
pub fn activation(name: Option<&str>) -> Result<Activation> {
    match name {
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("silu") => Ok(Activation::Silu),
        other => {
            let name = other.unwrap_or("not given");
            Err(Error::UnsupportedFormat(format!("config.json: activation {name:?}; known: gelu, gelu_new, gelu_pytorch_tanh, silu")))
        }
    }
}

impl Network for Classic {
    fn caches(&self) -> Vec<CacheSpec> {
        let spec = |block: &ClassicBlock| block.attention.spec();
        self.blocks.iter().map(spec).map(|s| CacheSpec { kv_heads: s.kv_heads, head_dim: s.head_dim }).collect()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn forward(&self, b: &mut dyn Backend, positions: Positions) -> Tensor {
        let mut x = b.embed(self.embed);
        if let Some(table) = self.positions {
            let learned = b.embed_positions(table);
            x = b.add(x, learned);
        }
        for block in &self.blocks {
            x = block.forward(b, x);
            x = b.keep(x);
        }
        if positions == Positions::Last {
            x = b.last_row(x);
        }
        let x = self.norm.of(b, x);
        self.head.of(b, x)
    }
}
