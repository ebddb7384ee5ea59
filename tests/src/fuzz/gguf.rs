//! Targets: GGUF models, adapters, and the tokenizers rebuilt from their metadata.

use arbitrary::Arbitrary;
use arbitrary::Unstructured;
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::{
    Result,
    quant::Format,
    text::gguf_tokenizer,
    weights::{
        Sink,
        files::Memory,
        gguf::{Metadata, Value},
        import::{self, Options},
    },
};

use super::{Target, files::use_adapter, text::use_tokenizer};
use crate::gguf_writer::{Gguf, GgufTensor, tiny_llama};

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn append<'a>(&'a mut self, _: &'a str, _: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }

    fn close<'a>(&'a mut self, _: &'a str, _: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed_local()
    }
}

const WORDS: &[&str] = &[
    "GGUF",
    "general.architecture",
    "general.alignment",
    "general.type",
    "adapter",
    "llama",
    "gemma3",
    "phi3",
    "gpt-oss",
    "bert",
    "lfm2",
    "split.count",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "rope_freqs.weight",
    ".lora_a",
    ".lora_b",
    "\u{0}\u{0}\u{0}\u{0}",
];

/// A whole import: header, configuration, tokenizer, tensors.
pub const GGUF: Target = Target {
    name: "gguf",
    run: |bytes| {
        let chunks: Vec<Result<Vec<u8>>> = bytes.chunks(64 << 10).map(|c| Ok(c.to_vec())).collect();
        let stream = stream::iter(chunks).boxed_local();
        pollster::block_on(import::gguf(stream, bytes.len() as u64, Options::default(), &mut Nowhere, &mut |_, _| {})).map(drop)
    },
    seeds: || {
        let whole = tiny_llama().gguf;
        let mut with_tokenizer = whole.clone();
        for (key, value) in tokenizer(0, 40) {
            with_tokenizer.set(&key, value);
        }
        let mut short = whole.clone();
        short.tensors.truncate(1);
        [whole, with_tokenizer, short].iter().map(|gguf| gguf.to_bytes().1).collect()
    },
    words: WORDS,
};

/// An adapter.
pub const GGUF_LORA: Target = Target {
    name: "gguf_lora",
    run: |bytes| use_adapter(Memory { files: [("a.gguf".to_owned(), bytes.to_vec())].into() }),
    seeds: || {
        let text = |s: &str| Value::String(s.into());
        let metadata = [
            ("general.architecture", text("llama")),
            ("general.type", text("adapter")),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::Float(16.0)),
        ];
        let tensor = |which: &str, shape: [u64; 2], format: Format, bytes: usize| GgufTensor {
            name: format!("blk.0.attn_q.weight.lora_{which}"),
            shape: shape.to_vec(),
            kind: format.ggml().id,
            data: vec![1; bytes],
        };
        let of = |tensors| Gguf { version: 3, metadata: metadata.clone().map(|(k, v)| (k.to_owned(), v)).to_vec(), tensors };
        let floats = of(vec![tensor("a", [2, 4], Format::F32, 32), tensor("b", [4, 2], Format::F16, 16)]);
        let quantised = of(vec![tensor("a", [2, 32], Format::Q8_0, 68), tensor("b", [4, 2], Format::F32, 32)]);
        vec![floats.to_bytes().1, quantised.to_bytes().1]
    },
    words: WORDS,
};

/// A vocabulary of any tokens, with types, scores and merges that may or may not fit.
#[derive(Debug, Arbitrary)]
struct Fields {
    kind: u8,
    pre: u8,
    tokens: Vec<Token>,
    merges: Vec<(u8, u8)>,
    flags: [Option<bool>; 4],
    ids: [Option<u8>; 6],
    other: Option<String>,
    types: bool,
}

#[derive(Debug, Arbitrary)]
struct Token {
    text: String,
    base: u8,
    kind: u8,
    score: f32,
}

/// A tokenizer from any metadata: rebuilt, read by `tokenizers`, used.
pub const GGUF_TOKENIZER: Target = Target {
    name: "gguf_tokenizer",
    run: |bytes| {
        let fields: Fields = Unstructured::new(bytes).arbitrary().unwrap_or_else(|_| Fields {
            kind: bytes.first().copied().unwrap_or(0),
            pre: 0,
            tokens: Vec::new(),
            merges: Vec::new(),
            flags: [None; 4],
            ids: [None; 6],
            other: None,
            types: false,
        });
        let mut metadata = Metadata::default();
        for (key, value) in metadata_of(fields) {
            metadata.insert(key, value);
        }
        let (json, config) = gguf_tokenizer::build(&metadata)?;
        openweights::text::ChatTemplate::from_config(&config)?;
        use_tokenizer(&json)
    },
    seeds: || vec![vec![0; 100], (0..=255).cycle().take(700).collect(), vec![2; 400], vec![1; 1000], vec![b'a'; 500]],
    words: &["▁", "##", "<0x0A>", "[UNK]", "Ġ", " ", "<|im_end|>", "\u{10ffff}"],
};

/// A plain vocabulary of `count` tokens of the kind `kind`.
fn tokenizer(kind: u8, count: u8) -> Vec<(String, Value)> {
    let tokens = (0..count).map(|i| Token { text: String::new(), base: i, kind: 1, score: 0.0 }).collect();
    metadata_of(Fields {
        kind,
        pre: 0,
        tokens,
        merges: vec![(0, 1), (2, 3)],
        flags: [None; 4],
        ids: [None, Some(2), None, None, None, None],
        other: None,
        types: true,
    })
}

fn metadata_of(fields: Fields) -> Vec<(String, Value)> {
    let texts: Vec<String> = fields.tokens.iter().map(|t| base(t.base) + &t.text).collect();
    let text = |i: u8| texts.get(usize::from(i) % texts.len().max(1)).cloned().unwrap_or_default();
    let merges = fields.merges.iter().map(|&(a, b)| format!("{} {}", text(a), text(b))).collect();
    let pres = ["gpt-2", "default", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "?", "smollm"];
    let mut out = vec![
        ("model", Value::String(["gpt2", "llama", "bert", "?"][usize::from(fields.kind % 4)].into())),
        ("pre", Value::String(pres[usize::from(fields.pre % 8)].into())),
        ("merges", Value::Strings(merges)),
        ("scores", Value::Floats(fields.tokens.iter().map(|t| t.score).collect())),
        ("tokens", Value::Strings(texts)),
    ];
    if fields.types {
        out.push(("token_type", Value::Integers(fields.tokens.iter().map(|t| i64::from(t.kind % 8)).collect())));
    }
    let flags = ["add_bos_token", "add_eos_token", "add_space_prefix", "normalizer.lowercase"];
    out.extend(flags.into_iter().zip(fields.flags).filter_map(|(key, flag)| Some((key, Value::Bool(flag?)))));
    let ids = ["bos_token_id", "eos_token_id", "unknown_token_id", "cls_token_id", "seperator_token_id", "padding_token_id"];
    out.extend(ids.into_iter().zip(fields.ids).filter_map(|(key, id)| Some((key, Value::Integer(id?.into())))));
    let mut out: Vec<_> = out.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    out.extend(fields.other.map(|template| ("tokenizer.chat_template".to_owned(), Value::String(template))));
    out
}

/// Beginnings of tokens: letters, bytes, marks.
fn base(kind: u8) -> String {
    match kind {
        0..26 => char::from(b'a' + kind).to_string(),
        26..52 => format!("▁{}", char::from(b'a' + kind - 26)),
        52..78 => format!("{}{}", char::from(b'a' + kind - 52), char::from(b'a' + kind % 5)),
        78..90 => format!("<0x{kind:02X}>"),
        90 => "▁".into(),
        91 => "Ġ".into(),
        92 => "[UNK]".into(),
        93 => "##a".into(),
        _ => String::new(),
    }
}
