//! Architectures: one short file each, and the registry.

use crate::{
    backend::{Backend, CacheSpec, ConvSpec, Tensor},
    error::{Error, Result},
    weights::loader::Loader,
};

mod bert;
mod classic;
pub mod config;
pub mod decoder;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod longrope;
mod mistral;
mod mixtral;
mod olmo2;
mod phi;
mod phi3;
pub mod pooling;
mod qwen2;
mod qwen3;
mod qwen3_moe;
pub mod rotary;
pub mod sizes;
mod smollm3;

use config::Config;
use pooling::Pooling;

/// Which positions of a step get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// All of them: scoring.
    All,
    /// The last: generation.
    Last,
}

/// A network whose weights are on a backend.
pub trait Network {
    /// One per attention layer.
    fn caches(&self) -> Vec<CacheSpec>;

    /// One per convolution layer.
    fn convs(&self) -> Vec<ConvSpec> {
        Vec::new()
    }

    /// Logits of a position.
    fn vocab(&self) -> usize;

    /// Positions that the model was made for.
    fn context(&self) -> usize;

    /// What makes an embedding of hidden states; a network without gives logits.
    fn pooling(&self) -> Option<&Pooling> {
        None
    }

    /// Records the forward pass of the step that was begun; returns the logits, or for an embedding the hidden states of all
    /// positions.
    fn forward(&self, backend: &mut dyn Backend, positions: Positions) -> Tensor;
}

macro_rules! registry {
    ($($model_type:literal => $module:ident),* $(,)?) => {
        /// The values of `model_type` that [`load`] knows.
        pub const KNOWN: &[&str] = &[$($model_type),*];

        async fn dispatch(config: Config<'_>, loader: &mut Loader<'_>) -> Result<Box<dyn Network>> {
            match config.model_type()? {
                $($model_type => Ok(Box::new($module::load(config, loader).await?)),)*
                other => Err(Error::UnsupportedArchitecture(format!("{other:?}; known: {}", KNOWN.join(", ")))),
            }
        }
    };
}

// One line per architecture.
registry! {
    "bert" => bert,
    "gemma" => gemma,
    "gemma2" => gemma2,
    "gemma3_text" => gemma3,
    "gpt2" => gpt2,
    "gpt_neox" => gpt_neox,
    "gpt_oss" => gpt_oss,
    "granite" => granite,
    "lfm2" => lfm2,
    "llama" => llama,
    "mistral" => mistral,
    "mixtral" => mixtral,
    "olmo2" => olmo2,
    "phi" => phi,
    "phi3" => phi3,
    "qwen2" => qwen2,
    "qwen3" => qwen3,
    "qwen3_moe" => qwen3_moe,
    "smollm3" => smollm3,
}

/// The network that `config` describes, its weights from `loader`. Every tensor must be used.
pub async fn load(config: Config<'_>, mut loader: Loader<'_>) -> Result<Box<dyn Network>> {
    let network = dispatch(config, &mut loader).await?;
    loader.finish()?;
    Ok(network)
}
