//! The blocks of the classics (GPT-2, NeoX, Phi 1 and 2): layer norms, an MLP without gate, biases everywhere, attention and MLP one
//! after the other or side by side.

use super::{Linear, SelfAttention};
use crate::{
    backend::{Activation, Backend, Tensor, Weight},
    error::Result,
    weights::loader::Loader,
};

/// Layer norm.
pub struct LayerNorm {
    weight: Weight,
    bias: Weight,
    eps: f32,
}

impl LayerNorm {
    /// `prefix.weight` and `prefix.bias`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, width: usize, eps: f32) -> Result<LayerNorm> {
        let weight = loader.vector(&format!("{prefix}.weight"), width, 0.0).await?;
        Ok(LayerNorm { weight, bias: loader.vector(&format!("{prefix}.bias"), width, 0.0).await?, eps })
    }

    /// The norm of each row.
    pub fn of(&self, b: &mut dyn Backend, x: Tensor) -> Tensor {
        b.layer_norm(x, self.weight, Some(self.bias), self.eps)
    }
}

/// Attention and MLP in a residual stream.
pub struct ClassicBlock {
    /// Before attention.
    pub attention_norm: LayerNorm,
    /// Attention.
    pub attention: SelfAttention,
    /// Before the MLP; `None`: it reads what attention reads.
    pub mlp_norm: Option<LayerNorm>,
    /// To the MLP's width.
    pub up: Linear,
    /// Between.
    pub activation: Activation,
    /// And back.
    pub down: Linear,
    /// The MLP reads the block's input, not attention's result.
    pub parallel: bool,
}

impl ClassicBlock {
    /// `x` with attention and MLP added.
    pub fn forward(&self, b: &mut dyn Backend, x: Tensor) -> Tensor {
        let normed = self.attention_norm.of(b, x);
        let attended = self.attention.add_to(b, normed, x);
        let input = match &self.mlp_norm {
            Some(norm) => norm.of(b, if self.parallel { x } else { attended }),
            None => normed,
        };
        let y = self.up.of(b, input);
        let y = b.activate(y, self.activation);
        self.down.add_to(b, y, attended)
    }
}
