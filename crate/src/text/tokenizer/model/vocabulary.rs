//! Tokens and their ids. All texts are one; a token takes its text and 9 to 23 bytes.

use serde::de::IgnoredAny;

use super::read::{self, Text};
use crate::text::index::Index;

/// Tokens by text and by id.
pub struct Vocabulary {
    texts: String,
    /// Where the text of each entry ends.
    ends: Vec<u32>,
    /// Ids of the entries; none if they are the entries' numbers.
    ids: Vec<u32>,
    /// The entries by their ids, likewise.
    by_id: Vec<u32>,
    index: Index,
    distinct: usize,
}

impl Vocabulary {
    fn with_room(entries: usize, bytes: usize) -> Self {
        let (texts, ends) = (String::with_capacity(bytes), Vec::with_capacity(entries));
        Self { texts, ends, ids: Vec::new(), by_id: Vec::new(), index: Index::with_room(entries), distinct: 0 }
    }

    /// The map from tokens to ids in `json`. Of a token that occurs twice the last id counts.
    pub fn of_map(json: &str) -> serde_json::Result<Self> {
        let (mut entries, mut bytes) = (0, 0);
        read::map(json, |text, _: IgnoredAny| {
            (entries, bytes) = (entries + 1, bytes + text.len());
            Ok(())
        })?;
        let mut all = Self::with_room(entries, bytes);
        all.ids.reserve_exact(entries);
        read::map(json, |text, id| {
            let (entry, Self { texts, ends, .. }) = (all.ends.len() as u32, &all);
            match all.index.get(text, |e| piece(texts, ends, e) == text) {
                Some(first) => all.ids[first as usize] = id,
                None => {
                    all.append(text, entry);
                    all.ids.push(id);
                }
            }
            Ok(())
        })?;
        if all.ids.iter().zip(0..).all(|(id, entry)| *id == entry) {
            all.ids = Vec::new();
        } else {
            all.by_id = (0..all.ends.len() as u32).collect();
            // Of tokens with the same id the first in the file is its text.
            all.by_id.sort_unstable_by_key(|entry| (all.ids[*entry as usize], *entry));
        }
        Ok(all)
    }

    /// The list of tokens and scores in `json`; ids are places. Of a token that occurs twice the last place counts.
    pub fn of_list(json: &str) -> serde_json::Result<(Self, Vec<f64>)> {
        let (mut entries, mut bytes) = (0, 0);
        read::list(json, |(Text(text), _): (Text<'_>, IgnoredAny)| {
            (entries, bytes) = (entries + 1, bytes + text.len());
            Ok(())
        })?;
        let (mut all, mut scores) = (Self::with_room(entries, bytes), Vec::with_capacity(entries));
        read::list(json, |(Text(text), score): (Text<'_>, f64)| {
            all.append(&text, all.ends.len() as u32);
            scores.push(score);
            Ok(())
        })?;
        Ok((all, scores))
    }

    fn append(&mut self, text: &str, entry: u32) {
        let Self { texts, ends, index, .. } = self;
        self.distinct += usize::from(index.put(text, entry, |e| piece(texts, ends, e) == text).is_none());
        self.texts.push_str(text);
        self.ends.push(self.texts.len() as u32);
    }

    /// The entry of `text`.
    pub fn entry(&self, text: &str) -> Option<u32> {
        self.index.get(text, |entry| self.piece(entry) == text)
    }

    /// The id of `text`.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.entry(text).map(|entry| self.id_of(entry))
    }

    pub fn id_of(&self, entry: u32) -> u32 {
        self.ids.get(entry as usize).copied().unwrap_or(entry)
    }

    /// The text of the entry.
    pub fn piece(&self, entry: u32) -> &str {
        piece(&self.texts, &self.ends, entry)
    }

    /// The text of the token `id`.
    pub fn text(&self, id: u32) -> Option<&str> {
        let entry = if self.ids.is_empty() {
            Some(id).filter(|id| (*id as usize) < self.ends.len())
        } else {
            let at = self.by_id.partition_point(|entry| self.id_of(*entry) < id);
            self.by_id.get(at).copied().filter(|entry| self.id_of(*entry) == id)
        };
        entry.map(|entry| self.piece(entry))
    }

    /// Entries, which may have the same text if they are of a list.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Different texts.
    pub fn distinct(&self) -> usize {
        self.distinct
    }

    /// Bytes of the longest text.
    pub fn longest(&self) -> usize {
        (0..self.len() as u32).map(|entry| self.piece(entry).len()).max().unwrap_or(0)
    }

    /// Ids of the tokens that stand for bytes: `<0x00>` to `<0xFF>`.
    pub fn bytes_of(&self) -> Box<[Option<u32>; 256]> {
        Box::new(std::array::from_fn(|byte| self.id(&format!("<0x{byte:02X}>"))))
    }

    /// What it takes.
    pub fn bytes(&self) -> usize {
        self.texts.capacity() + 4 * (self.ends.capacity() + self.ids.capacity() + self.by_id.capacity()) + self.index.bytes()
    }
}

fn piece<'a>(texts: &'a str, ends: &[u32], entry: u32) -> &'a str {
    let from = if entry == 0 { 0 } else { ends[entry as usize - 1] };
    &texts[from as usize..ends[entry as usize] as usize]
}
