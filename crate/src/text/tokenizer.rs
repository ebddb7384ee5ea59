//! The tokenizer: a thin layer over Hugging Face's `tokenizers`, which reads every publisher's `tokenizer.json`.

use std::borrow::Cow;

use serde::Deserialize;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, models::bpe::BPE, tokenizer::TokenizerImpl,
};

use crate::error::{Error, Result};
use crate::json::Count;
use crate::text::stream::Pieces;

mod checks;

/// What is looked at before `tokenizers` reads the file; megabytes of vocabulary are skipped.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(default)]
    normalizer: Count,
    #[serde(default)]
    pre_tokenizer: Count,
    #[serde(default)]
    post_processor: Count,
    #[serde(default)]
    decoder: Count,
    #[serde(borrow)]
    model: Kind<'a>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    name: Option<Cow<'a, str>>,
}

/// Most values of the parts around the vocabulary: `tokenizers` keeps each several times while it reads. Real ones have below 1000.
const MOST_VALUES: usize = 1 << 14;

/// A tokenizer of byte pairs.
type Bpe = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Text to token ids and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Result<Pieces>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let bad = |e: &dyn std::fmt::Display| Error::InvalidFile(format!("tokenizer.json: {e}"));
        let outline: Outline<'_> = serde_json::from_slice(bytes).map_err(|e| bad(&e))?;
        let parts = [outline.normalizer, outline.pre_tokenizer, outline.post_processor, outline.decoder];
        let values: usize = parts.iter().map(|part| part.values).sum();
        if values > MOST_VALUES {
            return Err(bad(&format!("{values} values around the vocabulary; at most {MOST_VALUES} are read")));
        }
        let mut inner = match outline.model.name.as_deref() {
            // A model whose kind is not known beforehand is kept three times over while it is read.
            Some("BPE") => serde_json::from_slice::<Bpe>(bytes).map_err(|e| bad(&e))?.into(),
            _ => tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| bad(&e))?,
        };
        let [processor, decoder] = [serde_json::to_value(inner.get_post_processor()), serde_json::to_value(inner.get_decoder())]
            .map(|part| part.map_err(|e| bad(&e)));
        let decoder = decoder?;
        checks::part(&processor?)?;
        checks::part(&decoder)?;
        // A file may ask to cut or pad every text; both would change a prompt silently.
        inner.with_truncation(None).map_err(|e| bad(&e))?;
        inner.with_padding(None);
        let vocab_size = inner.get_vocab_size(true);
        Ok(Self { inner, pieces: Pieces::of_decoder(&decoder), vocab_size })
    }

    /// Token ids of `text`. Special tokens that occur in the text are recognised. `add_special` also adds what the
    /// model's own template puts around a text (a beginning-of-text token, say); a rendered chat has those already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, add_special).map_err(|e| Error::InvalidInput(format!("cannot encode the text: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`, without the special tokens if `skip_special`. An id that the vocabulary lacks is an error.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.piece(id).is_none()) {
            return Err(self.unknown(*id));
        }
        self.inner.decode(ids, skip_special).map_err(|e| Error::InvalidInput(format!("cannot decode the tokens: {e}")))
    }

    /// The vocabulary's entry `id`, as written there (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the vocabulary's entry `token`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether `id` is a special token, which is not part of an answer's text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// How a token's piece becomes bytes, or why this tokenizer's text cannot be streamed.
    pub(crate) fn pieces(&self) -> Result<&Pieces> {
        self.pieces.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn unknown(&self, id: u32) -> Error {
        Error::InvalidInput(format!("token {id} is not in the vocabulary of {} entries", self.vocab_size))
    }
}
