//! Targets: GGUF models, and the tokenizers rebuilt from their metadata.

use std::collections::HashSet;

use arbitrary::{Arbitrary, Unstructured};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::{
    Result,
    text::gguf_tokenizer,
    weights::{
        self, Sink,
        gguf::{Metadata, Value},
        import::{self, Options},
    },
};

use super::{Target, text::use_tokenizer};
use crate::{
    converter::to_gguf,
    fixture,
    gguf_writer::{GgufTensor, tiny_llama},
};

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

pub(super) const WORDS: &[&str] = &[
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
        let stream = stream::iter(bytes.chunks(64 << 10).map(|c| Ok(c.to_vec()))).boxed_local();
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
        let families = ["gemma3", "gpt2", "lfm2_conv", "mixtral_moe", "phi3_partial", "qwen2_tied", "bert_mean"].map(|name| {
            let path = fixture(&format!("tiny/{name}"));
            to_gguf(&weights::open(&path).unwrap_or_else(|e| panic!("{name}: {e}")))
        });
        [whole, with_tokenizer, short].iter().chain(&families).map(|gguf| gguf.to_bytes().1).collect()
    },
    heavy: || {
        let with = |values: Vec<(String, Value)>| {
            let mut gguf = tiny_llama().gguf;
            gguf.metadata.extend(values);
            gguf.to_bytes().1
        };
        let entries = |n: usize| with((0..n).map(|i| (format!("{i:x}"), Value::Bool(true))).collect());
        let one = |value: Value| with(vec![("x".into(), value)]);
        let tensors = |n: usize| {
            let mut gguf = tiny_llama().gguf;
            let tensor = |i: usize| GgufTensor { name: format!("{i:x}"), shape: vec![1], kind: 0, data: vec![0; 4] };
            gguf.tensors.extend((0..n).map(tensor));
            gguf.to_bytes().1
        };
        let lists = [1 << 20, 2 << 20].into_iter().flat_map(|n| {
            [
                Value::Bools(vec![true; n]),
                Value::Integers(vec![1; n]),
                Value::Floats(vec![1.0; n]),
                Value::Strings((0..n).map(|_| "").collect()),
            ]
        });
        let counted = [20_000, 80_000, 400_000].into_iter().flat_map(|n| [entries(n), tensors(n)]);
        counted.chain(lists.map(one)).collect()
    },
    factor: 4,
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
    /// Tokens that occur twice are left out.
    distinct: bool,
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
            distinct: true,
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
    heavy: Vec::new,
    // As of `tokenizer.json`, which is made here.
    factor: 12,
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
        distinct: true,
    })
}

fn metadata_of(mut fields: Fields) -> Vec<(String, Value)> {
    if fields.distinct {
        let mut seen = HashSet::new();
        fields.tokens.retain(|t| seen.insert(base(t.base) + &t.text));
    }
    let texts: Vec<String> = fields.tokens.iter().map(|t| base(t.base) + &t.text).collect();
    let text = |i: u8| texts.get(usize::from(i) % texts.len().max(1)).cloned().unwrap_or_default();
    let merges = fields.merges.iter().map(|&(a, b)| format!("{} {}", text(a), text(b))).collect();
    let pres = ["gpt-2", "default", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "?", "smollm"];
    let mut out = vec![
        ("model", Value::String(["gpt2", "llama", "bert", "?"][usize::from(fields.kind % 4)].into())),
        ("pre", Value::String(pres[usize::from(fields.pre % 8)].into())),
        ("merges", Value::Strings(merges)),
        ("scores", Value::Floats(fields.tokens.iter().map(|t| t.score).collect())),
        ("tokens", Value::Strings(texts.iter().collect())),
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
