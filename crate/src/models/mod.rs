//! Architectures: one short file each, and the registry.

use crate::{
    backend::{Backend, CacheSpec, Tensor},
    error::{Error, Result},
    weights::loader::Loader,
};

pub mod config;
pub mod llama;
pub mod rotary;

use config::Config;

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

    /// Logits of a position.
    fn vocab(&self) -> usize;

    /// Positions that the model was made for.
    fn context(&self) -> usize;

    /// Records the forward pass of the step that was begun; returns the logits.
    fn forward(&self, backend: &mut dyn Backend, positions: Positions) -> Tensor;
}

/// The values of `model_type` that [`load`] knows.
pub const KNOWN: &[&str] = &["llama"];

/// The network that `config` describes, its weights from `loader`. Every tensor must be used.
pub async fn load(config: Config<'_>, mut loader: Loader<'_>) -> Result<Box<dyn Network>> {
    let network: Box<dyn Network> = match config.model_type()? {
        "llama" => Box::new(llama::Llama::load(config, &mut loader).await?),
        other => return Err(Error::UnsupportedArchitecture(format!("{other:?}; known: {}", KNOWN.join(", ")))),
    };
    loader.finish()?;
    Ok(network)
}
