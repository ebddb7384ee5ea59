//! The token list of a GGUF with its types and scores.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::text::index::Index;
use crate::weights::gguf::{Metadata, Strings};

/// Token types of `tokenizer.ggml.token_type`; 5 is an unused one.
pub(super) const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
pub(super) const BYTE: i32 = 6;

/// Tokens by id.
pub(super) struct Vocabulary<'a> {
    pub tokens: &'a Strings,
    pub types: Vec<i32>,
    ids: Index,
}

impl<'a> Vocabulary<'a> {
    pub fn read(metadata: &'a Metadata) -> Result<Self> {
        let missing = || Error::InvalidFile("GGUF metadata \"tokenizer.ggml.tokens\" is missing".into());
        let tokens = metadata.strings("tokenizer.ggml.tokens")?.ok_or_else(missing)?;
        let types = metadata.i32s("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(Error::InvalidFile(format!("GGUF tokenizer: {} tokens and {} token types", tokens.len(), types.len())));
        }
        // A token that occurs twice has no one id.
        let mut ids = Index::with_room(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = ids.put(token, id as u32, |other| tokens.get(other as usize) == Some(token)) {
                return Err(Error::InvalidFile(format!("GGUF tokenizer: tokens {first} and {id} are both {token:?}")));
            }
        }
        Ok(Self { tokens, types, ids })
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token, |id| self.tokens.get(id as usize) == Some(token))
    }

    /// Tokens that are found in a text before it is split; control tokens are no part of an answer's text.
    pub fn added_tokens(&self) -> Vec<Value> {
        let added = self.types.iter().enumerate().filter(|(_, kind)| matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED));
        let describe = |(id, &kind): (usize, &i32)| {
            json!({"id": id, "content": self.tokens.get(id), "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != USER_DEFINED})
        };
        added.map(describe).collect()
    }

    /// Id and text of the token that `tokenizer.ggml.<role>_token_id` names.
    pub fn named(&self, metadata: &Metadata, role: &str) -> Result<Option<(u32, &'a str)>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = metadata.u32(&key)? else { return Ok(None) };
        let token = self.tokens.get(id as usize);
        let token = token
            .ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {key:?} is {id}, the vocabulary has {} tokens", self.tokens.len())))?;
        Ok(Some((id, token)))
    }
}

/// Token to id.
impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.tokens.iter().zip(0_u32..))
    }
}
