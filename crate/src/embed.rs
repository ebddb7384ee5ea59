//! Embeddings: a text becomes one vector. An encoder sees the whole text at once, so a text is one step.

use crate::{
    backend::Input,
    engine::Model,
    error::{Error, Result},
    models::Positions,
};

impl Model {
    /// The embedding of a text's tokens, of length 1. Forgets the conversation of a model that has one.
    pub async fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut embedding = self.hidden(ids, true).await?;
        let length = embedding.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(Error::Device("the embedding is not of numbers: weights or driver are faulty".into()));
        }
        embedding.iter_mut().for_each(|v| *v = (f64::from(*v) / length.max(1e-12)) as f32);
        Ok(embedding)
    }

    /// An encoder's last hidden states, a row for each token.
    pub async fn hidden_states(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.hidden(ids, false).await
    }

    async fn hidden(&mut self, ids: &[u32], pooled: bool) -> Result<Vec<f32>> {
        if self.network.pooling().is_none() {
            let architecture = &self.info().architecture;
            return Err(Error::InvalidInput(format!("{architecture:?} is loaded to generate text: embeddings are for encoders")));
        }
        self.check_tokens(ids)?;
        if ids.is_empty() {
            return Err(Error::InvalidInput("there are no tokens to embed".into()));
        }
        if ids.len() > self.context() {
            return Err(Error::ContextOverflow { tokens: ids.len(), context: self.context() });
        }
        self.forget();
        let result = self.encoder_step(ids, pooled).await;
        self.forget();
        result
    }

    async fn encoder_step(&mut self, ids: &[u32], pooled: bool) -> Result<Vec<f32>> {
        let Model { backend, network, session, .. } = self;
        backend.begin(*session, Input::Tokens(ids))?;
        let mut result = network.forward(backend.as_mut(), Positions::All);
        if let Some(pooling) = network.pooling().filter(|_| pooled) {
            result = pooling.of(backend.as_mut(), result);
        }
        backend.end()?;
        backend.read(result).await
    }

    /// That there are logits.
    pub(crate) fn need_generator(&self) -> Result<()> {
        match self.network.pooling() {
            Some(_) => {
                let architecture = &self.info().architecture;
                Err(Error::InvalidInput(format!(
                    "{architecture:?} is an encoder: it gives embeddings (`embeddings.create`, `embed`), not text"
                )))
            }
            None => Ok(()),
        }
    }
}
