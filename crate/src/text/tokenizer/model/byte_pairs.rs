//! Byte-pair encoding: a word's characters are tokens; of two neighbours that may be merged those of the lowest rank are, the first
//! ones first, until none may. Equal to that of `tokenizers` in every option that is read, at 4 times a file's length and less.

use std::{borrow::Cow, cell::RefCell, cmp::Reverse, collections::BinaryHeap};

use super::{
    Failure, Fields, bad,
    read::{self, Merge},
    vocabulary::Vocabulary,
};
use crate::error::{Error, Result};
use crate::text::index::Index;

/// A model of byte pairs.
pub struct BytePairs {
    vocabulary: Vocabulary,
    /// Left, right and merged token, by rank.
    merges: Vec<[u32; 3]>,
    /// Ranks by pairs.
    ranks: Index,
    /// What stands for a character that is no token, and its id.
    unknown: Option<(String, Option<u32>)>,
    fuse_unknown: bool,
    /// The tokens of bytes that stand for a character that is no token.
    bytes: Option<Box<[Option<u32>; 256]>>,
    ignore_merges: bool,
    /// Before every character but a word's first, and after its last.
    prefix: String,
    suffix: String,
    words: RefCell<Words>,
}

impl BytePairs {
    pub(super) fn new(fields: Fields<'_>) -> Result<Self> {
        if let Some(dropout) = fields.dropout.filter(|p| *p != 0.0) {
            return Err(Error::UnsupportedFormat(format!("tokenizer.json: \"dropout\" is {dropout}: texts would be encoded at random")));
        }
        let vocabulary = Vocabulary::of_map(fields.vocab.get()).map_err(bad("vocab"))?;
        let prefix = fields.continuing_subword_prefix.unwrap_or_default();
        let json = fields.merges.ok_or_else(|| Error::InvalidFile("tokenizer.json: a model of byte pairs without \"merges\"".into()))?;
        let (merges, ranks) = merges(&vocabulary, prefix.len(), json.get()).map_err(bad("merges"))?;
        Ok(Self {
            merges,
            ranks,
            unknown: fields.unk_token.map(|token| (token.to_string(), vocabulary.id(&token))),
            fuse_unknown: fields.fuse_unk.unwrap_or(false),
            bytes: fields.byte_fallback.unwrap_or(false).then(|| vocabulary.bytes_of()),
            ignore_merges: fields.ignore_merges.unwrap_or(false),
            prefix: prefix.into(),
            suffix: fields.end_of_word_suffix.unwrap_or_default().into(),
            words: RefCell::default(),
            vocabulary,
        })
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn bytes(&self) -> usize {
        self.vocabulary.bytes() + self.merges.capacity() * size_of::<[u32; 3]>() + self.ranks.bytes()
    }

    /// The tokens of a word.
    pub fn tokens(&self, word: &str) -> std::result::Result<Vec<u32>, Failure> {
        if self.ignore_merges
            && let Some(id) = self.vocabulary.id(word)
        {
            return Ok(vec![id]);
        }
        if let Some(ids) = self.words.borrow().get(word) {
            return Ok(ids.to_vec());
        }
        let mut symbols = self.symbols(word)?;
        self.merge(&mut symbols);
        let ids: Vec<u32> = symbols.iter().filter(|s| !s.gone).map(|s| s.id).collect();
        self.words.borrow_mut().put(word, &ids);
        Ok(ids)
    }

    /// The tokens of a word's characters.
    fn symbols(&self, word: &str) -> std::result::Result<Vec<Symbol>, Failure> {
        if word.len() >= NONE as usize {
            return Err("a word of more than 4 GB".into());
        }
        let mut ids = Vec::with_capacity(word.len());
        // Unknown characters are held back, since several may become one; those that bytes stand for overtake them, as they do in `tokenizers`.
        let mut held = None;
        for (at, c) in word.char_indices() {
            let end = at + c.len_utf8();
            let (prefix, suffix) = (if at > 0 { &*self.prefix } else { "" }, if end == word.len() { &*self.suffix } else { "" });
            let decorated = match (prefix, suffix) {
                ("", "") => Cow::Borrowed(&word[at..end]),
                _ => Cow::Owned([prefix, &word[at..end], suffix].concat()),
            };
            let character = &*decorated;
            if let Some(id) = self.vocabulary.id(character) {
                ids.extend(held.take());
                ids.push(id);
            } else if let Some(bytes) = self.bytes_of(character) {
                ids.extend(bytes);
            } else if let Some((token, id)) = &self.unknown {
                if !self.fuse_unknown {
                    ids.extend(held.take());
                }
                held = Some(id.ok_or_else(|| format!("the unknown token {token:?} is not in the vocabulary"))?);
            }
        }
        ids.extend(held);
        let last = ids.len().wrapping_sub(1);
        let link = |at: usize, end: usize, to: usize| if at == end { NONE } else { to as u32 };
        let symbol =
            |(at, id): (usize, u32)| Symbol { id, before: link(at, 0, at.wrapping_sub(1)), after: link(at, last, at + 1), gone: false };
        Ok(ids.into_iter().enumerate().map(symbol).collect())
    }

    /// The tokens of the bytes of `text`, if all of them have one.
    fn bytes_of(&self, text: &str) -> Option<Vec<u32>> {
        let bytes = self.bytes.as_ref()?;
        text.bytes().map(|byte| bytes[usize::from(byte)]).collect()
    }

    /// The rank of a pair.
    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.ranks.get((left, right), |rank| self.merges[rank as usize][..2] == [left, right])
    }

    /// Merges neighbours. In the queue are ranks with the place of the left one; some of them no longer hold.
    fn merge(&self, symbols: &mut [Symbol]) {
        let rank = |symbols: &[Symbol], left: u32, right: u32| {
            let rank = self.rank(symbols.get(left as usize)?.id, symbols.get(right as usize)?.id)?;
            Some(Reverse((rank, left)))
        };
        let first: Vec<_> = (1..symbols.len() as u32).filter_map(|right| rank(symbols, right - 1, right)).collect();
        let mut queue = BinaryHeap::from(first);
        while let Some(Reverse((queued, at))) = queue.pop() {
            let Symbol { id, before, after, gone } = symbols[at as usize];
            let merged = self.merges[queued as usize][2];
            if gone || after == NONE {
                continue;
            }
            // What was queued for others that were here before may be done for these, if it comes to the same.
            let right = symbols[after as usize];
            if self.rank(id, right.id).is_none_or(|rank| self.merges[rank as usize][2] != merged) {
                continue;
            }
            symbols[at as usize] = Symbol { id: merged, before, after: right.after, gone: false };
            symbols[after as usize].gone = true;
            if let Some(next) = symbols.get_mut(right.after as usize) {
                next.before = at;
            }
            queue.extend(rank(symbols, before, at));
            queue.extend(rank(symbols, at, right.after));
        }
    }
}

/// No symbol: a word's end.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    before: u32,
    after: u32,
    /// Merged into the one before.
    gone: bool,
}

/// The merges in `json`, and their ranks. Of a pair that occurs twice the last rank counts.
fn merges(vocabulary: &Vocabulary, prefix: usize, json: &str) -> serde_json::Result<(Vec<[u32; 3]>, Index)> {
    let mut count = 0;
    read::list(json, |_: serde::de::IgnoredAny| {
        count += 1;
        Ok(())
    })?;
    let (mut merges, mut ranks) = (Vec::with_capacity(count), Index::with_room(count));
    let mut both = String::new();
    read::list(json, |merge: Merge<'_>| {
        let (left, right) = match &merge {
            Merge::Pair(left, right) => (&*left.0, &*right.0),
            Merge::Line(line) if line.starts_with("#version") => return Ok(()),
            Merge::Line(line) => line
                .split_once(' ')
                .filter(|(_, right)| !right.contains(' '))
                .ok_or_else(|| format!("merge {line:?} is not of two tokens"))?,
        };
        both.clear();
        both.push_str(left);
        both.push_str(right.get(prefix..).ok_or_else(|| format!("merge of {right:?}, which is shorter than the prefix"))?);
        let id = |token: &str| vocabulary.id(token).ok_or_else(|| format!("merge of {token:?}, which is not in the vocabulary"));
        let (left, right) = (id(left)?, id(right)?);
        ranks.put((left, right), merges.len() as u32, |rank| {
            let [l, r, _]: [u32; 3] = merges[rank as usize];
            (l, r) == (left, right)
        });
        merges.push([left, right, id(&both)?]);
        Ok(())
    })?;
    Ok((merges, ranks))
}

/// The words that were last encoded, each in the one place that its hash gives: that saves a tenth of a usual text's time.
#[derive(Default)]
struct Words {
    places: Vec<Option<Word>>,
    hasher: ahash::RandomState,
}

/// A word and its tokens.
type Word = (Box<str>, Box<[u32]>);

/// Places for words, and the longest one: 2 MB at most.
const PLACES: usize = 4096;
const LONGEST_WORD: usize = 64;

impl Words {
    fn place(&self, word: &str) -> usize {
        self.hasher.hash_one(word) as usize % PLACES
    }

    fn get(&self, word: &str) -> Option<&[u32]> {
        let (kept, ids) = self.places.get(self.place(word))?.as_ref()?;
        (**kept == *word).then_some(ids)
    }

    fn put(&mut self, word: &str, ids: &[u32]) {
        if word.len() <= LONGEST_WORD && ids.len() <= LONGEST_WORD {
            self.places.resize_with(PLACES, || None);
            let place = self.place(word);
            self.places[place] = Some((word.into(), ids.into()));
        }
    }
}
