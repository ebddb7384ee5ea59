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
    stands_for: <[u8]>::len,
    words: WORDS,
};

/// How a vocabulary is described, true or not.
#[derive(Debug, Clone, Copy, Default, Arbitrary)]
struct Fields {
    kind: u8,
    pre: u8,
    /// So many pairs of tokens are merged.
    merges: u8,
    flags: [Option<bool>; 4],
    ids: [Option<u8>; 6],
    /// Ids are those of tokens, tokens occur once: half of all go on.
    fit: bool,
    types: bool,
}

/// A tokenizer from any metadata: rebuilt, read by `tokenizers`, used.
pub const GGUF_TOKENIZER: Target = Target {
    name: "gguf_tokenizer",
    run: |bytes| {
        let mut source = Unstructured::new(bytes);
        let fields = source.arbitrary().unwrap_or_default();
        let mut metadata = Metadata::default();
        for (key, value) in metadata_of(fields, source.take_rest()) {
            metadata.insert(key, value);
        }
        let (json, _) = gguf_tokenizer::build(&metadata)?;
        // An import is done with its file before the package is read.
        drop(metadata);
        use_tokenizer(&json)
    },
    seeds: || vec![vec![0; 100], (0..=255).cycle().take(700).collect(), vec![2; 400], vec![1; 1000], vec![b'a'; 500]],
    heavy: || vec![(0..=255).cycle().take(4 << 20).collect(), vec![b'a'; 4 << 20], vec![2; 4 << 20], vec![1; 4 << 20], vec![0xff; 4 << 20]],
    stands_for: bytes_of_a_file,
    words: &["abc", "aAbB", "\u{1}\u{1}\u{1}", "\u{0}\u{1}\u{2}\u{3}", "ZZ[", "^_`"],
};

/// What the metadata of `bytes` takes in a file: lengths of eight bytes before strings, numbers of four bytes.
fn bytes_of_a_file(bytes: &[u8]) -> usize {
    let mut source = Unstructured::new(bytes);
    let fields = source.arbitrary().unwrap_or_default();
    let value = |value: Value| match value {
        Value::Strings(strings) => strings.iter().map(|s| 8 + s.len()).sum(),
        Value::Floats(list) => 4 * list.len(),
        Value::Integers(list) => 4 * list.len(),
        Value::String(string) => 8 + string.len(),
        _ => 4,
    };
    metadata_of(fields, source.take_rest()).into_iter().map(|(key, of)| key.len() + 12 + value(of)).sum()
}

/// A plain vocabulary of `count` tokens of the kind `kind`.
fn tokenizer(kind: u8, count: u8) -> Vec<(String, Value)> {
    let tokens: Vec<u8> = (0..count).flat_map(|i| [i, 0xff, 1]).collect();
    metadata_of(Fields { kind, merges: 2, ids: [None, Some(2), None, None, None, None], types: true, ..Fields::default() }, &tokens)
}

/// Metadata with the tokens in `bytes`, three bytes each: two pieces and a type. The first of them also say what is merged.
fn metadata_of(fields: Fields, bytes: &[u8]) -> Vec<(String, Value)> {
    let of = |token: &[u8; 3]| piece(token[0]) + &piece(token[1]);
    let mut seen = HashSet::new();
    let mut tokens = bytes.as_chunks().0.to_vec();
    tokens.retain(|token| !fields.fit || seen.insert(of(token)));
    let text = |i: u8| tokens.get(usize::from(i) % tokens.len().max(1)).map_or_else(String::new, of);
    let merges = bytes.chunks_exact(2).take(fields.merges.into()).map(|pair| format!("{} {}", text(pair[0]), text(pair[1])));
    let pres = ["gpt-2", "default", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "?", "smollm"];
    // SentencePiece has one name only.
    let pre = if fields.fit && fields.kind % 4 == 1 { 1 } else { usize::from(fields.pre % 8) };
    let mut out = vec![
        ("model", Value::String(["gpt2", "llama", "bert", "?"][usize::from(fields.kind % 4)].into())),
        ("pre", Value::String(pres[pre].into())),
        ("merges", Value::Strings(merges.collect())),
        ("scores", Value::Floats(tokens.iter().map(|[.., kind]| f32::from(*kind) - 99.0).collect())),
        ("tokens", Value::Strings(tokens.iter().map(of).collect())),
    ];
    if fields.types {
        out.push(("token_type", Value::Integers(tokens.iter().map(|[.., kind]| i64::from(kind % 8)).collect())));
    }
    let flags = ["add_bos_token", "add_eos_token", "add_space_prefix", "normalizer.lowercase"];
    out.extend(flags.into_iter().zip(fields.flags).filter_map(|(key, flag)| Some((key, Value::Bool(flag?)))));
    let ids = ["bos_token_id", "eos_token_id", "unknown_token_id", "cls_token_id", "seperator_token_id", "padding_token_id"];
    let id = |id: u8| if fields.fit { usize::from(id) % tokens.len().max(1) } else { id.into() };
    out.extend(ids.into_iter().zip(fields.ids).filter_map(|(key, given)| Some((key, Value::Integer(id(given?) as i64)))));
    out.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
}

/// Pieces of tokens: letters, bytes, marks.
fn piece(kind: u8) -> String {
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
