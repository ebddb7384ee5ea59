//! Tokenizers of real models: published files that the scripts fetch, and what GGUF's converter makes of them.

use std::{collections::HashMap, io::Read, path::Path};

use openweights::weights::gguf::{self, Metadata, Parsed, Value};
use serde_json::Value as Json;

/// A published `tokenizer.json` or `tokenizer_config.json`, from `.cache/tokenizers`.
pub fn published(file: &str) -> Vec<u8> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/tokenizers")).join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; scripts/test fetches it", path.display()))
}

/// The metadata of a GGUF file, from its first bytes.
pub fn metadata(path: &Path) -> Metadata {
    let mut file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let len = file.metadata().expect("a length").len();
    let mut prefix = Vec::new();
    file.by_ref().take(32 << 20).read_to_end(&mut prefix).expect("the first bytes");
    parsed(&prefix, len)
}

/// The metadata in a GGUF file's first bytes.
pub fn parsed(prefix: &[u8], len: u64) -> Metadata {
    match gguf::parse(prefix, len).expect("a GGUF header") {
        Parsed::Header(header) => header.metadata,
        Parsed::NeedMore(bytes) => panic!("the header has {bytes} bytes"),
    }
}

/// A `tokenizer.json` in GGUF's terms, as llama.cpp's converter would have it; `pre` is byte-level BPE's pre-tokeniser.
pub fn as_gguf(tokenizer: &Json, pre: Option<&str>) -> Metadata {
    let (model, added) = (&tokenizer["model"], tokenizer["added_tokens"].as_array().expect("added tokens"));
    let vocab = model["vocab"].as_object().expect("a vocabulary");
    let id = |v: &Json| v.as_u64().expect("an id") as usize;
    let size = 1 + vocab.values().map(id).chain(added.iter().map(|t| id(&t["id"]))).max().expect("tokens");
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![5; size];
    for (token, at) in vocab {
        let byte = pre.is_none() && token.len() == 6 && token.starts_with("<0x");
        (tokens[id(at)], types[id(at)]) = (token.clone(), if byte { 6 } else { 1 });
    }
    for token in added {
        let (at, content) = (id(&token["id"]), token["content"].as_str().expect("content"));
        types[at] = if token["special"] == true { 3 } else { 4 };
        // SentencePiece's user-defined tokens are matched in the text as it is.
        tokens[at] = if pre.is_none() && types[at] == 4 { content.replace('▁', " ") } else { content.into() };
    }
    let pairs: Vec<[&str; 2]> = model["merges"].as_array().expect("merges").iter().map(pair).collect();
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value: Value| assert!(metadata.insert(format!("tokenizer.ggml.{key}"), value));
    if let Some(pre) = pre {
        set("model", Value::String("gpt2".into()));
        set("pre", Value::String(pre.into()));
        set("merges", Value::Strings(pairs.iter().map(|pair| pair.join(" ")).collect()));
    } else {
        // A token's score is higher the earlier its first merge comes.
        let mut ranks = HashMap::new();
        for (rank, pair) in pairs.iter().enumerate() {
            ranks.entry(pair.concat()).or_insert(rank);
        }
        let score = |token: &String| ranks.get(token).map_or(-1e9, |rank| -(*rank as f32));
        set("model", Value::String("llama".into()));
        set("scores", Value::Floats(tokens.iter().map(score).collect()));
        set("add_space_prefix", Value::Bool(tokenizer["normalizer"].to_string().contains("Prepend")));
        let unknown = tokens.iter().position(|t| *t == "<unk>").expect("an unknown token");
        set("unknown_token_id", Value::Integer(unknown as i64));
    }
    let begin = tokenizer["post_processor"].to_string();
    let begin = tokens.iter().enumerate().find(|(id, token)| types[*id] == 3 && begin.contains(&format!("\"id\":\"{token}\"")));
    set("add_bos_token", Value::Bool(begin.is_some()));
    if let Some((id, _)) = begin {
        set("bos_token_id", Value::Integer(id as i64));
    }
    set("tokens", Value::Strings(tokens.iter().collect()));
    set("token_type", Value::Integers(types));
    metadata
}

/// A merge, in either spelling.
fn pair(merge: &Json) -> [&str; 2] {
    match merge {
        Json::String(both) => both.split_once(' ').expect("two tokens").into(),
        list => [&list[0], &list[1]].map(|t| t.as_str().expect("a token")),
    }
}
