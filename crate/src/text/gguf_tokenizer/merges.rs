//! Pairs of tokens in the order in which they are merged, written as they are in the GGUF or made of its tokens.

use serde::{Serialize, Serializer};

use crate::weights::gguf::Strings;

/// Lines of two tokens, or the numbers of two.
pub(super) enum Merges<'a> {
    Lines(&'a Strings),
    Pairs(&'a Strings, Vec<[u32; 2]>),
}

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Lines(lines) => serializer.collect_seq(lines.iter().filter_map(|line| line.split_once(' '))),
            Self::Pairs(tokens, pairs) => serializer.collect_seq(pairs.iter().map(|pair| pair.map(|id| tokens.get(id as usize)))),
        }
    }
}
