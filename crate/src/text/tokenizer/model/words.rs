//! WordPiece and whole words.

use super::{Failure, Fields, bad, vocabulary::Vocabulary};
use crate::error::{Error, Result};

/// WordPiece: the longest token that a word begins with, then the longest that its rest does, with a mark before it.
pub struct WordPiece {
    whole: WholeWords,
    prefix: String,
    most_chars: usize,
    /// Bytes of the longest token.
    longest: usize,
}

/// Most characters of a word that is looked up, which takes the cube of them; published models have 100.
const MOST_CHARS: usize = 1000;

impl WordPiece {
    pub(super) fn new(mut fields: Fields<'_>) -> Result<Self> {
        let missing = |field: &str| Error::InvalidFile(format!("tokenizer.json: WordPiece without {field:?}"));
        let prefix = fields.continuing_subword_prefix.take().ok_or_else(|| missing("continuing_subword_prefix"))?;
        let most_chars = fields.max_input_chars_per_word.ok_or_else(|| missing("max_input_chars_per_word"))?;
        if most_chars > MOST_CHARS {
            let message = format!("tokenizer.json: \"max_input_chars_per_word\" is {most_chars}; at most {MOST_CHARS} are looked up");
            return Err(Error::UnsupportedFormat(message));
        }
        let whole = WholeWords::new(fields)?;
        Ok(Self { prefix: prefix.into(), most_chars, longest: whole.vocabulary.longest(), whole })
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.whole.vocabulary
    }

    /// The tokens of a word; of one that has none the unknown one.
    pub fn tokens(&self, word: &str) -> std::result::Result<Vec<u32>, Failure> {
        if word.chars().count() > self.most_chars {
            return Ok(vec![self.whole.unknown()?]);
        }
        let (mut ids, mut at) = (Vec::new(), 0);
        while at < word.len() {
            let prefix = if at > 0 { &*self.prefix } else { "" };
            let mut piece = [prefix, &word[at..]].concat();
            piece.truncate(piece.floor_char_boundary(self.longest));
            let id = loop {
                if piece.len() <= prefix.len() {
                    return Ok(vec![self.whole.unknown()?]);
                }
                if let Some(id) = self.vocabulary().id(&piece) {
                    break id;
                }
                piece.pop();
            };
            ids.push(id);
            at += piece.len() - prefix.len();
        }
        Ok(ids)
    }
}

/// Every word is a token, or unknown.
pub struct WholeWords {
    vocabulary: Vocabulary,
    unknown: Option<u32>,
}

impl WholeWords {
    pub(super) fn new(fields: Fields<'_>) -> Result<Self> {
        let missing = || Error::InvalidFile("tokenizer.json: a model of words without \"unk_token\"".into());
        let unknown = fields.unk_token.ok_or_else(missing)?;
        let vocabulary = Vocabulary::of_map(fields.vocab.get()).map_err(bad("vocab"))?;
        Ok(Self { unknown: vocabulary.id(&unknown), vocabulary })
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn tokens(&self, word: &str) -> std::result::Result<Vec<u32>, Failure> {
        let id = self.vocabulary.id(word).map_or_else(|| self.unknown(), Ok)?;
        Ok(vec![id])
    }

    fn unknown(&self) -> std::result::Result<u32, Failure> {
        self.unknown.ok_or_else(|| "the unknown token is not in the vocabulary".into())
    }
}
