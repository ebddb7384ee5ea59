//! `llama`: SentencePiece's BPE with scores and byte fallback. Of two neighbours those are merged whose union has the highest score;
//! `tokenizers` wants that as a list of pairs, which is made as transformers makes it.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    Model, Parts, begin_and_end,
    merges::Merges,
    vocabulary::{BYTE, NORMAL, Vocabulary},
};
use crate::error::{Error, Result};
use crate::weights::gguf::Metadata;

pub(super) fn parts<'a>(metadata: &'a Metadata, vocabulary: &'a Vocabulary<'a>) -> Result<Parts<'a>> {
    refuse_what_is_not_known(metadata)?;
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = vocabulary.named(metadata, "unknown")?.map(|(_, token)| token);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefix {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}),
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    decoders.extend(prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})));
    Ok(Parts {
        normalizer,
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: Model::Bpe {
            dropout: Value::Null,
            unk_token: unknown,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: true,
            byte_fallback: vocabulary.types.contains(&BYTE),
            ignore_merges: false,
            vocab: vocabulary,
            merges: merges(metadata, vocabulary)?,
        },
        around: begin_and_end(metadata, true)?,
    })
}

fn refuse_what_is_not_known(metadata: &Metadata) -> Result<()> {
    let refuse = |key: &str, what: &str| Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} {what}")));
    match metadata.string("tokenizer.ggml.pre")? {
        None | Some("default") => {}
        Some(other) => return refuse("tokenizer.ggml.pre", &format!("is {other:?}; SentencePiece's is \"default\"")),
    }
    if metadata.bool("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return refuse("tokenizer.ggml.remove_extra_whitespaces", "is true");
    }
    match metadata.get("tokenizer.ggml.precompiled_charsmap") {
        Some(_) => refuse("tokenizer.ggml.precompiled_charsmap", "is there: a normaliser that is not read"),
        None => Ok(()),
    }
}

/// Bytes that pairs of tokens may take as text, besides twice what the vocabulary takes in the file.
const MOST_PAIRS: usize = 4 << 20;

/// Every way to make a token of two, the tokens of the highest score first, then the longest left part. Tokens of other types than
/// ordinary ones are found in the text before, as a whole, and take no part.
fn merges<'a>(metadata: &Metadata, vocabulary: &'a Vocabulary<'a>) -> Result<Merges<'a>> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.f32s(key)?.ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {key:?} is missing")))?;
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|s| s.is_nan()) {
        let (tokens, scores) = (vocabulary.tokens.len(), scores.len());
        return Err(Error::InvalidFile(format!("GGUF tokenizer: {tokens} tokens and {scores} scores, which must be numbers")));
    }
    let ordinary = vocabulary.tokens.iter().zip(&vocabulary.types).enumerate().filter(|(_, (_, kind))| **kind == NORMAL);
    // Every part of every token is looked up. Real vocabularies stay far below.
    if ordinary.clone().map(|(_, (token, _))| token.len().saturating_mul(token.len())).fold(0, usize::saturating_add) > 1 << 28 {
        return Err(Error::InvalidFile("GGUF tokenizer: the tokens are too long".into()));
    }
    let part = |text: &str| vocabulary.id(text).filter(|id| vocabulary.types[*id as usize] == NORMAL);
    let mut all: Vec<(f32, [u32; 2])> = Vec::new();
    // A token of n characters may have n pairs: what they come to as text is bounded by what the vocabulary takes in the file. Real ones come to
    // 1.5 times that.
    let most = 2 * vocabulary.tokens.iter().map(|token| token.len() + 16).sum::<usize>() + MOST_PAIRS;
    let mut text = 0_usize;
    for (id, (token, _)) in ordinary {
        let first = all.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left), Some(right)) = (part(left), part(right)) {
                all.push((scores[id], [left, right]));
                text += token.len() + 8;
            }
        }
        if text > most {
            return Err(Error::InvalidFile(format!(
                "GGUF tokenizer: tokens can be made of two others in ways that take more than {most} bytes"
            )));
        }
        all[first..].sort_by_key(|(_, ids)| *ids);
    }
    let length = |id: u32| Reverse(vocabulary.tokens.get(id as usize).map_or(0, |token| token.chars().count()));
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.map(length).cmp(&b.1.map(length))));
    Ok(Merges::Pairs(vocabulary.tokens, all.into_iter().map(|(_, ids)| ids).collect()))
}
