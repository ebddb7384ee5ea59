//! What makes tokens of words: `tokenizer.json`'s `model`, in tables that take less memory than the file's text. The models of `tokenizers`
//! take up to twelve times as much while they are made; in all else these are equal to them (`tests/tests/tokenizer_models.rs`).

mod byte_pairs;
mod read;
mod unigram;
mod vocabulary;
mod words;

use std::{borrow::Cow, collections::HashMap, path::Path};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenizers::{Token, models::wordlevel::WordLevelTrainer};

use self::{
    byte_pairs::BytePairs,
    unigram::Unigram,
    vocabulary::Vocabulary,
    words::{WholeWords, WordPiece},
};
use crate::error::{Error, Result};

/// Why a word cannot be encoded.
type Failure = tokenizers::Error;

/// The fields of all kinds of model; the large ones as they are written.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    vocab: &'a RawValue,
    #[serde(borrow)]
    merges: Option<&'a RawValue>,
    dropout: Option<f32>,
    #[serde(borrow)]
    unk_token: Option<Cow<'a, str>>,
    unk_id: Option<u32>,
    #[serde(borrow)]
    continuing_subword_prefix: Option<Cow<'a, str>>,
    #[serde(borrow)]
    end_of_word_suffix: Option<Cow<'a, str>>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    max_input_chars_per_word: Option<usize>,
}

/// Most bytes of what is put before or after a word's characters: each character costs as much.
const MOST_AFFIX: usize = 64;

impl Fields<'_> {
    /// The kind of model; the oldest files do not name theirs.
    fn kind(&self) -> &str {
        match &self.kind {
            Some(kind) => kind,
            None if self.merges.is_some() => "BPE",
            None if self.vocab.get().starts_with('[') => "Unigram",
            None if self.max_input_chars_per_word.is_some() => "WordPiece",
            None => "WordLevel",
        }
    }
}

/// What is wrong with a part of the file. Lines and columns are those of the part.
fn bad(part: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |e| Error::InvalidFile(format!("tokenizer.json: {part:?}: {e}"))
}

/// A model, by its kind.
pub(super) enum Model {
    BytePairs(BytePairs),
    WordPiece(WordPiece),
    WholeWords(WholeWords),
    Unigram(Unigram),
}

impl Model {
    /// Reads `model`.
    pub fn read(json: &str) -> Result<Self> {
        let fields: Fields<'_> = serde_json::from_str(json).map_err(bad("model"))?;
        for affix in [&fields.continuing_subword_prefix, &fields.end_of_word_suffix].into_iter().flatten() {
            if affix.len() > MOST_AFFIX {
                return Err(Error::InvalidFile(format!(
                    "tokenizer.json: a prefix or suffix of {} bytes; at most {MOST_AFFIX} are read",
                    affix.len()
                )));
            }
        }
        match fields.kind() {
            "BPE" => BytePairs::new(fields).map(Self::BytePairs),
            "WordPiece" => WordPiece::new(fields).map(Self::WordPiece),
            "WordLevel" => WholeWords::new(fields).map(Self::WholeWords),
            "Unigram" => Unigram::new(fields).map(Self::Unigram),
            other => Err(Error::UnsupportedFormat(format!(
                "tokenizer.json: a model of the kind {other:?}: \"BPE\", \"WordPiece\", \"WordLevel\" and \"Unigram\" are read"
            ))),
        }
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        match self {
            Self::BytePairs(model) => model.vocabulary(),
            Self::WordPiece(model) => model.vocabulary(),
            Self::WholeWords(model) => model.vocabulary(),
            Self::Unigram(model) => model.vocabulary(),
        }
    }

    /// Bytes that its tables take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::BytePairs(model) => model.bytes(),
            Self::Unigram(model) => model.bytes(),
            _ => self.vocabulary().bytes(),
        }
    }

    fn tokens(&self, word: &str) -> std::result::Result<Vec<u32>, Failure> {
        match self {
            Self::BytePairs(_) if word.is_empty() => Ok(Vec::new()),
            Self::BytePairs(model) => model.tokens(word),
            Self::WordPiece(model) => model.tokens(word),
            Self::WholeWords(model) => model.tokens(word),
            Self::Unigram(model) => model.tokens(word),
        }
    }
}

impl tokenizers::Model for Model {
    // Never asked for: nothing is trained here.
    type Trainer = WordLevelTrainer;

    /// Tokens without their text and place, which nobody asks for: [`encode_fast`](tokenizers::TokenizerImpl::encode_fast) drops them.
    fn tokenize(&self, word: &str) -> std::result::Result<Vec<Token>, Failure> {
        Ok(self.tokens(word)?.into_iter().map(|id| Token::new(id, String::new(), (0, 0))).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary().id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary().text(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        let vocabulary = self.vocabulary();
        (0..vocabulary.len() as u32).map(|entry| (vocabulary.piece(entry).to_owned(), vocabulary.id_of(entry))).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary().len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> std::result::Result<Vec<std::path::PathBuf>, Failure> {
        Err("a tokenizer is not written".into())
    }

    fn get_trainer(&self) -> WordLevelTrainer {
        WordLevelTrainer::default()
    }
}
