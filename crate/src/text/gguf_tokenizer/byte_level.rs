//! `gpt2`: byte-level BPE. Merges are in the file; how a text is split into words is known by name.

use serde_json::{Value, json};

use super::{Model, Parts, begin_and_end, merges::Merges, required, vocabulary::Vocabulary};
use crate::error::{Error, Result};
use crate::weights::gguf::Metadata;

/// How models split text before merging.
struct PreTokenizer {
    /// Names in GGUF files.
    names: &'static [&'static str],
    /// Patterns whose matches become words, one after the other; numbers of single digits, if any, come first.
    patterns: &'static [&'static str],
    /// Every digit is a word.
    digits: bool,
    /// What the patterns leave is split by GPT-2's own.
    gpt2: bool,
    /// Words of the vocabulary are taken whole, merges are for the others.
    ignore_merges: bool,
    /// Whether texts begin with the beginning-of-text token where the file does not say.
    add_bos: bool,
}

const PLAIN: PreTokenizer = PreTokenizer { names: &[], patterns: &[], digits: false, gpt2: false, ignore_merges: false, add_bos: false };

/// Llama 3's words: at most three digits together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's words: digits alone.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken: words begin where small letters are followed by capital ones.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with contractions, and at most three digits together: gpt-oss, Phi 4 mini.
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek Coder's steps; its digits come last.
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"];
/// DeepSeek 3's steps.
const DEEPSEEK3: &[&str] = &[
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer { names: &["gpt-2", "phi-2", "mpt", "olmo"], gpt2: true, ..PLAIN },
    PreTokenizer { names: &["smollm", "starcoder", "refact"], digits: true, gpt2: true, ..PLAIN },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "lfm2", "falcon3"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    PreTokenizer { names: &["qwen2", "deepseek-r1-qwen"], patterns: &[QWEN2], ..PLAIN },
    PreTokenizer { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    PreTokenizer { names: &["gpt-4o"], patterns: &[GPT_4O], ignore_merges: true, ..PLAIN },
    PreTokenizer { names: &["deepseek-coder"], patterns: DEEPSEEK_CODER, ..PLAIN },
    PreTokenizer { names: &["deepseek-v3"], patterns: DEEPSEEK3, ..PLAIN },
];

impl PreTokenizer {
    fn steps(&self, add_prefix_space: bool) -> Value {
        let digits = self.digits.then(|| json!({"type": "Digits", "individual_digits": true}));
        let split = |regex: &&str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": self.gpt2});
        let mut steps: Vec<Value> = digits.into_iter().chain(self.patterns.iter().map(split)).chain([bytes]).collect();
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }
}

pub(super) fn parts<'a>(metadata: &'a Metadata, vocabulary: &'a Vocabulary<'a>) -> Result<Parts<'a>> {
    let name = required(metadata, "tokenizer.ggml.pre")?;
    let pre = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        let known: Vec<_> = PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied().collect();
        Error::UnsupportedFormat(format!("GGUF pre-tokenizer {name:?}: known are {}", known.join(", ")))
    })?;
    let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
    Ok(Parts {
        normalizer: Value::Null,
        pre_tokenizer: pre.steps(prefix),
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: Model::Bpe {
            dropout: Value::Null,
            unk_token: None,
            continuing_subword_prefix: Some(""),
            end_of_word_suffix: Some(""),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: pre.ignore_merges,
            vocab: vocabulary,
            merges: merges(metadata)?,
        },
        around: begin_and_end(metadata, pre.add_bos)?,
    })
}

/// Pairs of tokens in the order in which they are merged.
fn merges(metadata: &Metadata) -> Result<Merges<'_>> {
    let key = "tokenizer.ggml.merges";
    let merges = metadata.strings(key)?.ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {key:?} is missing")))?;
    let pair = |(at, merge): (usize, &str)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => Ok(()),
        _ => Err(Error::InvalidFile(format!("GGUF metadata {key:?}: entry {at} is {merge:?}, not two tokens"))),
    };
    merges.iter().enumerate().try_for_each(pair)?;
    Ok(Merges::Lines(merges))
}
