//! A request as JavaScript writes it: OpenAI's names and defaults, and what we add to them.

use serde::Deserialize;

use crate::{
    backend::Sampling,
    error::{Error, Result},
    generate::{Params, Speculation},
    text::Message,
};

/// Parameters of a chat or a completion. A name that is not here is refused: nobody should believe that it had an effect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Texts>,
    ignore_eos: Option<bool>,
    reuse_prefix: Option<bool>,
    speculative: Option<bool>,
    /// The conversation that it belongs to; the model's first one unless said.
    pub session: Option<u32>,
}

/// One text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Vec<String> {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

/// Parameters of embeddings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedding {
    input: Option<Texts>,
}

impl Embedding {
    /// The texts to embed.
    pub fn texts(self) -> Result<Vec<String>> {
        let texts: Vec<String> = self.input.map(Texts::into).unwrap_or_default();
        if texts.is_empty() { Err(Error::InvalidInput("input is missing: a text, or a list of texts".into())) } else { Ok(texts) }
    }
}

impl Request {
    /// The conversation of a chat.
    pub fn messages(&self) -> Result<&[Message]> {
        self.messages.as_deref().ok_or_else(|| Error::InvalidInput("messages is missing".into()))
    }

    /// The text of a completion.
    pub fn prompt(&self) -> Result<&str> {
        self.prompt.as_deref().ok_or_else(|| Error::InvalidInput("prompt is missing".into()))
    }

    /// The engine's parameters; `random` is the seed where the request has none.
    pub fn params(self, random: u64) -> Params {
        let neutral = Sampling::default();
        Params {
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k.unwrap_or(neutral.top_k),
                top_p: self.top_p.unwrap_or(neutral.top_p),
                min_p: self.min_p.unwrap_or(neutral.min_p),
                repetition_penalty: self.repetition_penalty.unwrap_or(neutral.repetition_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(neutral.frequency_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(neutral.presence_penalty),
                seed: self.seed.unwrap_or(random),
            },
            max_tokens: self.max_tokens,
            stop: self.stop.map(Texts::into).unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            reuse_prefix: self.reuse_prefix.unwrap_or(true),
            speculation: if self.speculative.unwrap_or(true) { Speculation::Auto } else { Speculation::Off },
            prediction: Vec::new(),
        }
    }
}
