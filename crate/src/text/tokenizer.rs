//! The tokenizer: a thin layer over Hugging Face's `tokenizers`, which reads every publisher's `tokenizer.json`, with a [`model`] of our own.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

use crate::error::{Error, Result};
use crate::text::stream::Pieces;

mod added;
mod checks;
mod model;
mod patterns;

use model::Model;

/// The file, its parts as they are written. It may also ask to cut or to pad every text, which would change a prompt silently.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    added_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

/// Bytes that tables may take beyond four times the file's length, of the 16 MiB that all may.
const MOST: u64 = 10 << 20;

/// Text to token ids and back.
pub struct Tokenizer {
    inner: TokenizerImpl<Model, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>,
    pieces: Result<Pieces>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let bad = |e: String| Error::InvalidFile(format!("tokenizer.json: {e}"));
        if u32::try_from(bytes.len()).is_err() {
            return Err(bad("more than 4 GB".into()));
        }
        let file: File<'_> = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if let Some(version) = file.version.filter(|version| version != "1.0") {
            return Err(bad(format!("version {version:?}; \"1.0\" is read")));
        }
        checks::size(&[file.normalizer, file.pre_tokenizer, file.post_processor, file.decoder])?;
        let mut inner = TokenizerImpl::new(Model::read(file.model.get())?);
        inner.with_normalizer(part::<NormalizerWrapper>("normalizer", file.normalizer)?);
        inner.with_pre_tokenizer(part::<PreTokenizerWrapper>("pre_tokenizer", file.pre_tokenizer)?);
        inner.with_post_processor(part::<PostProcessorWrapper>("post_processor", file.post_processor)?);
        inner.with_decoder(part::<DecoderWrapper>("decoder", file.decoder)?);
        let understood = [
            serde_json::to_value(inner.get_normalizer()),
            serde_json::to_value(inner.get_pre_tokenizer()),
            serde_json::to_value(inner.get_post_processor()),
            serde_json::to_value(inner.get_decoder()),
        ];
        let [normalizer, pre_tokenizer, post_processor, decoder] = understood.map(|part| part.map_err(|e| bad(e.to_string())));
        let (normalizer, decoder) = (normalizer?, decoder?);
        checks::part(&post_processor?)?;
        checks::part(&decoder)?;
        checks::growth(&pre_tokenizer?)?;
        checks::growth(&decoder)?;
        let growth = checks::growth(&normalizer)?;
        let tokens: Vec<AddedToken> = part("added_tokens", file.added_tokens)?.unwrap_or_default();
        let most = (4 * bytes.len() as u64 + MOST).saturating_sub(inner.get_model().bytes() as u64);
        if added::bytes(&tokens, inner.get_normalizer(), growth, most)? > most {
            return Err(bad(format!("its {} added tokens would take more than {most} bytes", tokens.len())));
        }
        inner.add_tokens(&tokens);
        drop(tokens);
        let vocabulary = inner.get_model().vocabulary();
        let others = inner.get_added_vocabulary().get_vocab().keys().filter(|token| vocabulary.id(token).is_none());
        let vocab_size = vocabulary.distinct() + others.count();
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

/// A part of the file, which may be missing.
fn part<T: DeserializeOwned>(name: &str, json: Option<&RawValue>) -> Result<Option<T>> {
    let read = |json: &RawValue| serde_json::from_str(json.get()).map_err(|e| Error::InvalidFile(format!("tokenizer.json: {name:?}: {e}")));
    json.map(read).transpose()
}
