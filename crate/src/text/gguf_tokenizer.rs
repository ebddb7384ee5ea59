//! Rebuilds `tokenizer.json` and `tokenizer_config.json` from a GGUF's metadata.
//!
//! A GGUF names its kind of tokenizer (`tokenizer.ggml.model`) and, for byte-level BPE, its pre-tokeniser (`tokenizer.ggml.pre`), but
//! describes neither. A wrong one encodes almost everything right and quietly makes the model worse, so a name that is not known
//! is refused.

mod byte_level;
mod merges;
mod sentencepiece;
mod vocabulary;
mod wordpiece;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use self::{merges::Merges, vocabulary::Vocabulary, wordpiece::Published};

use crate::error::{Error, Result};
use crate::weights::gguf::Metadata;

/// `tokenizer.json`, as Hugging Face's `tokenizers` reads it. Vocabularies and merges are borrowed: they are large.
#[derive(Serialize)]
struct Tokenizer<'a> {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Model<'a> {
    #[serde(rename = "BPE")]
    Bpe {
        dropout: Value,
        unk_token: Option<&'a str>,
        continuing_subword_prefix: Option<&'static str>,
        end_of_word_suffix: Option<&'static str>,
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: &'a Vocabulary<'a>,
        merges: Merges<'a>,
    },
    WordPiece {
        unk_token: &'a str,
        continuing_subword_prefix: &'static str,
        max_input_chars_per_word: usize,
        vocab: Published<'a>,
    },
}

/// What a kind of tokenizer decides.
struct Parts<'a> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Model<'a>,
    /// The special tokens around a text, by their roles: before and after.
    around: [Option<&'static str>; 2],
}

/// `tokenizer.json` and `tokenizer_config.json` for a GGUF with this metadata.
pub fn build(metadata: &Metadata) -> Result<(Vec<u8>, Value)> {
    let vocabulary = Vocabulary::read(metadata)?;
    let parts = match required(metadata, "tokenizer.ggml.model")? {
        "gpt2" => byte_level::parts(metadata, &vocabulary)?,
        "llama" => sentencepiece::parts(metadata, &vocabulary)?,
        "bert" => wordpiece::parts(metadata, &vocabulary)?,
        other => {
            let message = format!(
                "GGUF tokenizer model {other:?}: \"gpt2\" (byte-level BPE), \"llama\" (SentencePiece) and \"bert\" (WordPiece) are read"
            );
            return Err(Error::UnsupportedFormat(message));
        }
    };
    let [begin, end] = parts.around;
    let named = |role: Option<&str>| role.map_or(Ok(None), |role| vocabulary.named(metadata, role));
    let tokenizer = Tokenizer {
        version: "1.0",
        truncation: Value::Null,
        padding: Value::Null,
        added_tokens: vocabulary.added_tokens(),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        post_processor: template_processing(named(begin)?, named(end)?),
        decoder: parts.decoder,
        model: parts.model,
    };
    Ok((written(&tokenizer)?, config(metadata, &vocabulary, begin.is_some())?))
}

/// The file's bytes, counted first: while it grows a vector takes three times its length.
fn written(tokenizer: &Tokenizer<'_>) -> Result<Vec<u8>> {
    struct Counter(usize);
    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bad = |e| Error::InvalidFile(format!("GGUF tokenizer: {e}"));
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, tokenizer).map_err(bad)?;
    let mut bytes = Vec::with_capacity(counter.0);
    serde_json::to_writer(&mut bytes, tokenizer).map_err(bad)?;
    Ok(bytes)
}

fn required<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a str> {
    let value = metadata.string(key)?;
    value.ok_or_else(|| Error::UnsupportedFormat(format!("GGUF metadata {key:?} is missing: the tokenizer cannot be rebuilt")))
}

/// Whether texts begin and end with special tokens, as the file says or else by default.
fn begin_and_end(metadata: &Metadata, begin: bool) -> Result<[Option<&'static str>; 2]> {
    let begin = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begin);
    let end = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok([begin.then_some("bos"), end.then_some("eos")])
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

fn config(metadata: &Metadata, vocabulary: &Vocabulary<'_>, add_bos: bool) -> Result<Value> {
    let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": add_bos, "clean_up_tokenization_spaces": false});
    let roles = ["bos", "eos", "unknown", "padding", "cls", "seperator", "mask"];
    for (name, role) in ["bos", "eos", "unk", "pad", "cls", "sep", "mask"].into_iter().zip(roles) {
        if let Some((_, token)) = vocabulary.named(metadata, role)? {
            config[format!("{name}_token")] = token.into();
        }
    }
    if let Some(template) = metadata.string("tokenizer.chat_template")? {
        config["chat_template"] = template.into();
    }
    Ok(config)
}
