//! Fuzzing of everything that reads bytes of others, on stable Rust: `files`, `gguf` and `text` hold the targets, [`mutate`] bends inputs,
//! [`driver`] runs them and watches time, allocations and panics.
//!
//! A target's outcome is its error's message without names and numbers: an input with a new one is a new way through the parser, and is bent further. That
//! takes the place of coverage counters, which would need a build of their own.

pub mod driver;
pub mod files;
pub mod gguf;
pub mod mutate;
pub mod text;

use openweights::Result;

/// A parser that is fuzzed.
pub struct Target {
    /// Its name, and that of its corpus's folder.
    pub name: &'static str,
    /// Reads the bytes and uses what they are; every error is a good answer.
    pub run: fn(&[u8]) -> Result<()>,
    /// Good inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Texts that mean something to the parser.
    pub words: &'static [&'static str],
}

/// All of them but [`text::TEMPLATE`], which does not hold yet: see `docs/fuzzing.md`.
pub const TARGETS: &[Target] = &[
    files::SAFETENSORS,
    files::SAFETENSORS_FIELDS,
    files::MANIFEST,
    files::CONFIG,
    files::PEFT,
    files::OWPKG,
    files::SIGNATURE,
    gguf::GGUF,
    gguf::GGUF_LORA,
    gguf::GGUF_TOKENIZER,
    text::TOKENIZER_JSON,
];
