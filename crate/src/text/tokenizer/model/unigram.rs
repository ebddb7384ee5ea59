//! SentencePiece's Unigram: of all ways to make a text of tokens the one with the highest sum of scores.

use super::{Failure, Fields, bad, vocabulary::Vocabulary};
use crate::error::{Error, Result};

/// What a character that is no token scores less than the lowest token.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Bytes of the longest token that is read: at each character of a text so many are looked at. Published ones have below 100.
const LONGEST: usize = 1024;

/// A model of tokens with scores.
pub struct Unigram {
    vocabulary: Vocabulary,
    scores: Vec<f64>,
    /// Ids in the order of their texts.
    sorted: Vec<u32>,
    unknown: Option<u32>,
    unknown_score: f64,
    bytes: Option<Box<[Option<u32>; 256]>>,
}

/// The best way to the end of a token: its score, where the token begins, and its id.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    from: usize,
    id: u32,
}

impl Unigram {
    pub(super) fn new(fields: Fields<'_>) -> Result<Self> {
        let (vocabulary, scores) = Vocabulary::of_list(fields.vocab.get()).map_err(bad("vocab"))?;
        let (unknown, tokens) = (fields.unk_id, vocabulary.len());
        if let Some(id) = unknown.filter(|id| *id as usize >= tokens) {
            return Err(Error::InvalidFile(format!("tokenizer.json: \"unk_id\" is {id}, the vocabulary has {tokens} tokens")));
        }
        if let Some(id) = (0..tokens as u32).find(|id| vocabulary.piece(*id).len() > LONGEST) {
            return Err(Error::UnsupportedFormat(format!(
                "tokenizer.json: token {id} has more than {LONGEST} bytes, in a model that tries all of them"
            )));
        }
        let mut sorted: Vec<u32> = (0..tokens as u32).collect();
        sorted.sort_unstable_by_key(|id| (vocabulary.piece(*id), *id));
        let bytes = fields.byte_fallback.unwrap_or(false).then(|| vocabulary.bytes_of());
        let unknown_score = scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY;
        Ok(Self { vocabulary, scores, sorted, unknown, unknown_score, bytes })
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn bytes(&self) -> usize {
        self.vocabulary.bytes() + 8 * self.scores.capacity() + 4 * self.sorted.capacity()
    }

    /// The tokens of a text.
    pub fn tokens(&self, text: &str) -> std::result::Result<Vec<u32>, Failure> {
        let mut ids = Vec::new();
        for (from, to) in self.pieces(text)? {
            let piece = &text[from..to];
            let bytes = || -> Option<Vec<u32>> {
                let bytes = self.bytes.as_ref()?;
                piece.bytes().map(|byte| bytes[usize::from(byte)]).collect()
            };
            match self.vocabulary.id(piece) {
                Some(id) => ids.push(id),
                None => match bytes() {
                    Some(bytes) => ids.extend(bytes),
                    None => ids.push(self.unknown()?),
                },
            }
        }
        Ok(ids)
    }

    fn unknown(&self) -> std::result::Result<u32, Failure> {
        self.unknown.ok_or_else(|| "a character is no token, and \"unk_id\" is missing".into())
    }

    /// Beginnings and ends of the best way's tokens; unknown characters that follow each other are one.
    fn pieces(&self, text: &str) -> std::result::Result<Vec<(usize, usize)>, Failure> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (from, c) in text.char_indices() {
            let before = best[from].map_or(0.0, |b| b.score);
            let mut known = false;
            let better = |at: Option<Best>, score: f64| at.is_none_or(|b| score > b.score);
            self.beginnings(&text.as_bytes()[from..], |len, id| {
                let (score, at) = (self.scores[id as usize] + before, &mut best[from + len]);
                if better(*at, score) {
                    *at = Some(Best { score, from, id });
                }
                known |= len == c.len_utf8();
            });
            let (score, at) = (self.unknown_score + before, &mut best[from + c.len_utf8()]);
            if !known && better(*at, score) {
                *at = Some(Best { score, from, id: self.unknown()? });
            }
        }
        let (mut pieces, mut to) = (Vec::<(usize, usize)>::new(), text.len());
        let mut fuses = false;
        // Each character's end has been reached, at least as that of an unknown one.
        while let Some(Best { from, id, .. }) = best[to].filter(|_| to > 0) {
            let unknown = Some(id) == self.unknown;
            match pieces.last_mut() {
                Some(last) if fuses && unknown => last.0 = from,
                _ => pieces.push((from, to)),
            }
            (fuses, to) = (unknown, from);
        }
        pieces.reverse();
        Ok(pieces)
    }

    /// The tokens that `text` begins with, short ones first: their lengths and ids. Byte by byte, fewer of the sorted tokens agree.
    fn beginnings(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut agree = &self.sorted[..];
        for (at, byte) in text.iter().enumerate() {
            let byte_of = |id: &u32| self.vocabulary.piece(*id).as_bytes().get(at);
            agree = &agree[agree.partition_point(|id| byte_of(id) < Some(byte))..];
            agree = &agree[..agree.partition_point(|id| byte_of(id) == Some(byte))];
            let ends = |id: &u32| self.vocabulary.piece(*id).len() == at + 1;
            if !agree.first().is_some_and(ends) {
                if agree.is_empty() {
                    return;
                }
                continue;
            }
            // Of the same text the last one counts.
            found(at + 1, agree[agree.partition_point(ends) - 1]);
        }
    }
}
