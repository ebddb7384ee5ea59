//! Fuzzing of everything that reads bytes of others, on stable Rust: `checkpoint`, `package`, `adapter`, `gguf` and `text` hold the
//! targets, [`mutate`] bends inputs, [`driver`] runs them and watches time, allocations and panics.
//!
//! A target's outcome is its error's message without names and numbers: an input with a new one is a new way through the parser, and
//! is bent further. That takes the place of coverage counters, which would need a build of their own.

pub mod adapter;
pub mod checkpoint;
pub mod driver;
pub mod gguf;
pub mod mutate;
pub mod package;
pub mod text;

use openweights::{Result, weights::files::Memory};

/// A parser that is fuzzed.
pub struct Target {
    /// Its name, and that of its corpus's folder.
    pub name: &'static str,
    /// Reads the bytes and uses what they are; every error is a good answer.
    pub run: fn(&[u8]) -> Result<()>,
    /// Good inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of megabytes that need as much memory as any: run once, not bent.
    pub heavy: fn() -> Vec<Vec<u8>>,
    /// Texts that mean something to the parser.
    pub words: &'static [&'static str],
    /// Bytes of the file that an input stands for: its own, unless structure is made of it.
    pub stands_for: fn(&[u8]) -> usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    checkpoint::SAFETENSORS,
    checkpoint::SAFETENSORS_FIELDS,
    package::MANIFEST,
    checkpoint::CONFIG,
    adapter::PEFT,
    package::OWPKG,
    package::SIGNATURE,
    gguf::GGUF,
    adapter::GGUF_LORA,
    gguf::GGUF_TOKENIZER,
    text::TOKENIZER_JSON,
    text::TEMPLATE,
];

fn memory(files: &[(&str, &[u8])]) -> Memory {
    Memory { files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect() }
}

/// How often a piece is repeated to make an input heavy: what is just read, and what is refused.
const OFTEN: [usize; 5] = [20_000, 46_000, 80_000, 160_000, 1_000_000];

/// JSON lists and maps as long as that, put where `around` says.
fn long_json(around: impl Fn(&str) -> String) -> Vec<Vec<u8>> {
    let member = |i: usize| format!("\"{i:x}\":0");
    let map = |n: usize| format!("{{{}}}", (0..n).map(member).collect::<Vec<_>>().join(","));
    let list = |unit: &str, n: usize| format!("[{}{unit}]", format!("{unit},").repeat(n));
    let lists = ["0", "[0]", "{\"\":0}", "\"\""].map(|unit| OFTEN.map(|n| list(unit, n)));
    lists.into_iter().flatten().chain(OFTEN.map(map)).map(|text| around(&text).into_bytes()).collect()
}

/// A safetensors file with this header and so many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}
