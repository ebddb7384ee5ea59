//! `bert`: WordPiece. Files mark the beginning of a word (`▁the`), publishers its continuation (`##ing`).

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    Model, Parts,
    vocabulary::{CONTROL, Vocabulary},
};
use crate::error::{Error, Result};
use crate::text::index::Index;
use crate::weights::gguf::Metadata;

pub(super) fn parts<'a>(metadata: &'a Metadata, vocabulary: &'a Vocabulary<'a>) -> Result<Parts<'a>> {
    let missing = || Error::InvalidFile("GGUF metadata \"tokenizer.ggml.unknown_token_id\" is missing".into());
    let (_, unknown) = vocabulary.named(metadata, "unknown")?.ok_or_else(missing)?;
    let vocab = Published(vocabulary);
    let mut ids = Index::with_room(vocabulary.tokens.len());
    for (id, token) in vocab.tokens().enumerate() {
        if let Some(first) = ids.put(&*token, id as u32, |other| vocab.token(other as usize) == Some(Cow::Borrowed(&*token))) {
            return Err(Error::InvalidFile(format!("GGUF tokenizer: tokens {first} and {id} are both {token:?}")));
        }
    }
    let lowercase = lowercase(metadata, vocabulary)?;
    let accents = metadata.bool("tokenizer.ggml.normalizer.strip_accents")?;
    Ok(Parts {
        normalizer: json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": accents, "lowercase": lowercase}),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: Model::WordPiece { unk_token: unknown, continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab },
        around: [Some("cls"), Some("seperator")],
    })
}

/// Tokens as publishers write them.
pub(super) struct Published<'a>(&'a Vocabulary<'a>);

impl Published<'_> {
    fn token(&self, id: usize) -> Option<Cow<'_, str>> {
        let (token, kind) = (self.0.tokens.get(id)?, self.0.types[id]);
        Some(match token.strip_prefix('▁') {
            Some(word) => word.into(),
            // Older files leave these as they are.
            None if kind == CONTROL || token.starts_with("[unused") => token.into(),
            None => format!("##{token}").into(),
        })
    }

    fn tokens(&self) -> impl Iterator<Item = Cow<'_, str>> {
        (0..self.0.tokens.len()).filter_map(|id| self.token(id))
    }
}

/// Token to id.
impl Serialize for Published<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.tokens().zip(0_u32..))
    }
}

/// Newer files say it. Older ones are of models without capital letters, and then their vocabulary has none.
fn lowercase(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let key = "tokenizer.ggml.normalizer.lowercase";
    if let Some(lowercase) = metadata.bool(key)? {
        return Ok(lowercase.into());
    }
    let capitals = |(token, kind): (&str, &i32)| *kind != CONTROL && token.chars().any(|c| c.is_ascii_uppercase());
    match vocabulary.tokens.iter().zip(&vocabulary.types).find(|pair| capitals(*pair)) {
        Some((token, _)) => Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} is missing, and a token is {token:?}"))),
        None => Ok(true.into()),
    }
}
