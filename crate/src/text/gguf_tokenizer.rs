//! Rebuilds `tokenizer.json` and `tokenizer_config.json` from a GGUF's metadata.
//!
//! A GGUF names its pre-tokeniser (`tokenizer.ggml.pre`) but does not describe it. A wrong one encodes almost everything
//! right and quietly makes the model worse, so a name that is not in the table is refused.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::weights::gguf::Metadata;

/// How a model splits text before merging, by its name in GGUF files.
struct PreTokenizer {
    name: &'static str,
    pre_tokenizer: fn() -> Value,
    /// Words of the vocabulary are taken whole, merges are for the others.
    ignore_merges: bool,
    /// Whether texts begin with the beginning-of-text token where the file does not say.
    add_bos: bool,
}

const PRE_TOKENIZERS: [PreTokenizer; 4] = [
    PreTokenizer { name: "gpt-2", pre_tokenizer: || byte_level(true), ignore_merges: false, add_bos: false },
    PreTokenizer {
        name: "smollm",
        pre_tokenizer: || sequence([json!({"type": "Digits", "individual_digits": true}), byte_level(true)]),
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { name: "llama-bpe", pre_tokenizer: || split("{1,3}"), ignore_merges: true, add_bos: true },
    PreTokenizer { name: "qwen2", pre_tokenizer: || split(""), ignore_merges: false, add_bos: false },
];

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(steps: [Value; 2]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// The words of Llama 3 and Qwen 2, which differ in how many digits make a number.
fn split(digits: &str) -> Value {
    let regex = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    sequence([json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}), byte_level(false)])
}

/// `tokenizer.json` and `tokenizer_config.json` for a GGUF with this metadata.
pub fn build(metadata: &Metadata) -> Result<(Vec<u8>, Value)> {
    let vocabulary = Vocabulary::read(metadata)?;
    let pre = pre_tokenizer(metadata)?;
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.add_bos);
    let bos = vocabulary.named(metadata, "bos")?;
    let begin = if add_bos { bos } else { None };
    let end = if metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false) { vocabulary.named(metadata, "eos")? } else { None };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added_tokens(),
        "normalizer": null,
        "pre_tokenizer": (pre.pre_tokenizer)(),
        "post_processor": template_processing(begin, end),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": vocabulary.ids()?,
            "merges": merges(metadata)?,
        },
    });
    let tokenizer = serde_json::to_vec(&tokenizer).map_err(|e| Error::InvalidFile(format!("GGUF tokenizer: {e}")))?;
    Ok((tokenizer, config(metadata, &vocabulary, add_bos)?))
}

fn pre_tokenizer(metadata: &Metadata) -> Result<&'static PreTokenizer> {
    let required = |key: &str| {
        let value = metadata.string(key)?;
        value.ok_or_else(|| Error::UnsupportedFormat(format!("GGUF metadata {key:?} is missing: the tokenizer cannot be rebuilt")))
    };
    let model = required("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(Error::UnsupportedFormat(format!("GGUF tokenizer model {model:?}: only \"gpt2\" (byte-level BPE) is read")));
    }
    let name = required("tokenizer.ggml.pre")?;
    PRE_TOKENIZERS.iter().find(|pre| pre.name == name).ok_or_else(|| {
        let known: Vec<_> = PRE_TOKENIZERS.iter().map(|pre| pre.name).collect();
        Error::UnsupportedFormat(format!("GGUF pre-tokenizer {name:?}: known are {}", known.join(", ")))
    })
}

/// The token list with its types.
struct Vocabulary<'a> {
    tokens: &'a [String],
    types: Vec<i32>,
}

/// Token types of `tokenizer.ggml.token_type`; 1 is an ordinary token, 5 an unused one.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self> {
        let missing = || Error::InvalidFile("GGUF metadata \"tokenizer.ggml.tokens\" is missing".into());
        let tokens = metadata.strings("tokenizer.ggml.tokens")?.ok_or_else(missing)?;
        let types = metadata.i32s("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(Error::InvalidFile(format!("GGUF tokenizer: {} tokens and {} token types", tokens.len(), types.len())));
        }
        Ok(Self { tokens, types })
    }

    /// Token to id; a token that occurs twice has no one id.
    fn ids(&self) -> Result<Map<String, Value>> {
        let mut ids = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token.clone(), id.into()) {
                return Err(Error::InvalidFile(format!("GGUF tokenizer: tokens {first} and {id} are both {token:?}")));
            }
        }
        Ok(ids)
    }

    /// Tokens that are found in a text before it is split; control tokens are no part of an answer's text.
    fn added_tokens(&self) -> Vec<Value> {
        let added = self.types.iter().enumerate().filter(|(_, kind)| matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED));
        let describe = |(id, &kind): (usize, &i32)| {
            json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != USER_DEFINED})
        };
        added.map(describe).collect()
    }

    /// Id and text of the token that `tokenizer.ggml.<role>_token_id` names.
    fn named(&self, metadata: &Metadata, role: &str) -> Result<Option<(u32, &'a str)>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = metadata.u32(&key)? else { return Ok(None) };
        let token = self.tokens.get(id as usize);
        let token = token
            .ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {key:?} is {id}, the vocabulary has {} tokens", self.tokens.len())))?;
        Ok(Some((id, token)))
    }
}

/// Pairs of tokens in the order in which they are merged.
fn merges(metadata: &Metadata) -> Result<Vec<Value>> {
    let key = "tokenizer.ggml.merges";
    let merges = metadata.strings(key)?.ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {key:?} is missing")))?;
    let pair = |(at, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => Ok(json!([left, right])),
        _ => Err(Error::InvalidFile(format!("GGUF metadata {key:?}: entry {at} is {merge:?}, not two tokens"))),
    };
    merges.iter().enumerate().map(pair).collect()
}

/// Puts the beginning- and end-of-text tokens around a text, where the model wants them.
fn template_processing(begin: Option<(u32, &str)>, end: Option<(u32, &str)>) -> Value {
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let around = |id: &str, kind: u32| {
        let special = |token: Option<(u32, &str)>| token.map(|(_, name)| json!({"SpecialToken": {"id": name, "type_id": kind}}));
        [special(begin), Some(text(id, kind)), special(end)].into_iter().flatten()
    };
    let used = [begin, end].into_iter().flatten();
    let special_tokens: Map<_, _> = used.map(|(id, name)| (name.to_string(), json!({"id": name, "ids": [id], "tokens": [name]}))).collect();
    json!({
        "type": "TemplateProcessing",
        "single": around("A", 0).collect::<Vec<_>>(),
        "pair": around("A", 0).chain(around("B", 1)).collect::<Vec<_>>(),
        "special_tokens": special_tokens,
    })
}

fn config(metadata: &Metadata, vocabulary: &Vocabulary, add_bos: bool) -> Result<Value> {
    let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": add_bos, "clean_up_tokenization_spaces": false});
    for (name, role) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        if let Some((_, token)) = vocabulary.named(metadata, role)? {
            config[format!("{name}_token")] = token.into();
        }
    }
    if let Some(template) = metadata.string("tokenizer.chat_template")? {
        config["chat_template"] = template.into();
    }
    Ok(config)
}
