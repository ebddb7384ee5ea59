//! The tokenizer: a thin layer over Hugging Face's `tokenizers`, which reads every publisher's `tokenizer.json`.

use crate::error::{Error, Result};
use crate::text::stream::Pieces;

/// The part of `tokenizer.json` that streaming needs; the rest, megabytes of vocabulary, is skipped.
#[derive(serde::Deserialize)]
struct DecoderOnly {
    #[serde(default)]
    decoder: serde_json::Value,
}

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
        let DecoderOnly { decoder } = serde_json::from_slice(bytes).map_err(|e| bad(&e))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| bad(&e))?;
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
