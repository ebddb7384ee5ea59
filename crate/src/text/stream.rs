//! Tokens to whole characters, as they come.
//!
//! A token may end within a character: byte-level tokens are runs of bytes, not of characters. What is whole is given
//! out, the rest (at most three bytes) waits; so a token costs its own length, whatever the answer's.

use std::{collections::HashMap, rc::Rc, sync::LazyLock};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// How the pieces of a vocabulary are turned into bytes: `tokenizer.json`'s `decoder`, read as a map of single tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Pieces {
    /// Each character stands for a byte (GPT-2's table).
    ByteLevel,
    /// `▁` stands for a space, `<0xE2>` for a byte; the text's first space may have to go.
    SentencePiece { strip_first_space: bool },
}

impl Pieces {
    /// Reads `decoder`; decoders that cannot work token by token are refused by name.
    pub(crate) fn of_decoder(decoder: &Value) -> Result<Self> {
        let steps = match decoder["decoders"].as_array() {
            Some(steps) if decoder["type"] == "Sequence" => steps.as_slice(),
            _ => std::slice::from_ref(decoder),
        };
        let refuse = |step: &Value| Error::UnsupportedFormat(format!("tokenizer.json: decoder {step}"));
        if let [step] = steps
            && step["type"] == "ByteLevel"
        {
            return Ok(Self::ByteLevel);
        }
        let mut strip_first_space = false;
        for step in steps {
            match step["type"].as_str() {
                Some("ByteFallback" | "Fuse") => {}
                Some("Replace") if step["pattern"]["String"] == "▁" && step["content"] == " " => {}
                Some("Strip") if step["content"] == " " && step["start"] == 1 && step["stop"] == 0 => strip_first_space = true,
                _ => return Err(refuse(step)),
            }
        }
        if steps.iter().any(|step| step["type"] == "ByteFallback") {
            Ok(Self::SentencePiece { strip_first_space })
        } else {
            Err(refuse(decoder))
        }
    }

    fn bytes(&self, piece: &str) -> Vec<u8> {
        match self {
            // A piece with a character outside the table is an added token: its own text.
            Self::ByteLevel => piece.chars().map(|c| BYTE_OF.get(&c).copied()).collect::<Option<_>>().unwrap_or_else(|| piece.into()),
            Self::SentencePiece { .. } => match hex_byte(piece) {
                Some(byte) => vec![byte],
                None => piece.replace('▁', " ").into_bytes(),
            },
        }
    }
}

/// GPT-2's table: printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up, in order.
static BYTE_OF: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted = (0..=255).filter(|&b| !printable(b)).zip('\u{100}'..).map(|(b, c)| (c, b));
    (0..=255).filter(|&b| printable(b)).map(|b| (char::from(b), b)).chain(shifted).collect()
});

/// `<0xE2>` as its byte.
fn hex_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Decodes an answer token by token. The texts of all [`push`](Self::push)es and of [`finish`](Self::finish) together
/// are what [`Tokenizer::decode`] makes of all ids at once.
pub struct TextStream {
    tokenizer: Rc<Tokenizer>,
    pieces: Pieces,
    skip_special: bool,
    strip: bool,
    held: Vec<u8>,
}

impl TextStream {
    /// A stream of an answer's text, without special tokens if `skip_special`.
    pub fn new(tokenizer: Rc<Tokenizer>, skip_special: bool) -> Result<Self> {
        let pieces = tokenizer.pieces()?.clone();
        let strip = pieces == (Pieces::SentencePiece { strip_first_space: true });
        Ok(Self { tokenizer, pieces, skip_special, strip, held: Vec::new() })
    }

    /// The characters that `id` completes; often all of its text, sometimes none.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let piece = self.tokenizer.piece(id).ok_or_else(|| self.tokenizer.unknown(id))?;
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        let mut bytes = self.pieces.bytes(&piece);
        if std::mem::take(&mut self.strip) && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        self.held.extend(bytes);
        Ok(take_whole(&mut self.held))
    }

    /// The end: a character that was never completed becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Takes all whole characters out of `held`; bytes that can never become one turn into U+FFFD.
fn take_whole(held: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut from = 0;
    for chunk in held.utf8_chunks() {
        text.push_str(chunk.valid());
        from += chunk.valid().len();
        if chunk.invalid().is_empty() {
            break;
        }
        // The last chunk's rest may be the beginning of a character: `error_len` is none for exactly that case.
        if std::str::from_utf8(&held[from..]).is_err_and(|e| e.error_len().is_none()) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        from += chunk.invalid().len();
    }
    held.drain(..from);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_table_is_gpt2s() {
        assert_eq!(BYTE_OF.len(), 256);
        for (c, b) in [('!', b'!'), ('Ġ', b' '), ('Ċ', b'\n'), ('ĉ', b'\t'), ('Ń', 0xAD), ('ÿ', 0xFF), ('Ā', 0)] {
            assert_eq!(BYTE_OF[&c], b, "{c}");
        }
    }

    #[test]
    fn whole_characters_leave_and_the_rest_waits() {
        let text = "aé€😀\u{fffd}".as_bytes();
        let wild = [text, &[0xF0, 0x9F, b'x', 0xFF, 0xC3], "é".as_bytes(), &[0xE2, 0x82]].concat();
        for step in 1..wild.len() {
            let (mut held, mut out) = (Vec::new(), String::new());
            for bytes in wild.chunks(step) {
                held.extend_from_slice(bytes);
                out.push_str(&take_whole(&mut held));
                assert!(held.len() < 4);
            }
            out.push_str(&String::from_utf8_lossy(&held));
            assert_eq!(out, String::from_utf8_lossy(&wild), "{step} bytes a time");
        }
    }

    #[test]
    fn decoders_are_read_or_refused_by_name() {
        let sp = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},
            {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
        let pieces = Pieces::of_decoder(&serde_json::from_str(sp).unwrap()).unwrap();
        assert_eq!(pieces, Pieces::SentencePiece { strip_first_space: true });
        assert_eq!(pieces.bytes("<0xE2>"), [0xE2]);
        assert_eq!(pieces.bytes("▁the"), b" the");
        let error = Pieces::of_decoder(&serde_json::json!({"type": "WordPiece", "prefix": "##"})).unwrap_err();
        assert_eq!(error.code(), "unsupported_format");
        assert!(error.to_string().contains("WordPiece"), "{error}");
    }
}
