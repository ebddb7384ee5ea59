//! Weights: where they come from, how they are checked, kept and read.
//!
//! A publisher's files (`gguf`, `safetensors`) and our own package (`package`) all become a [`Checkpoint`]: a
//! configuration plus a table of tensors whose planes lie in files that can be read by range. After that there is one
//! loader.

pub mod loader;

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::LocalBoxFuture};

use resume::{Already, State};

use crate::{
    error::{Error, Result},
    quant::{Format, Plane},
};

pub mod abort;
pub mod acquire;
pub mod adapter;
pub mod download;
pub mod files;
pub mod gguf;
pub mod import;
pub mod layout;
mod local;
pub mod manifest;
pub mod network;
#[cfg(not(target_arch = "wasm32"))]
mod open;
mod opener;
pub mod owpkg;
pub mod package;
pub mod progress;
pub mod remote;
pub mod resume;
mod retry;
pub mod safetensors;
pub mod schemes;
pub(crate) mod sentence;
pub mod signing;
pub mod source;
pub mod store;
pub mod store_memory;
pub mod store_sink;
mod transfer;
pub mod trust;
pub mod verify;
pub mod writer;

#[cfg(not(target_arch = "wasm32"))]
pub use open::{Inspection, convert, inspect, open, open_adapter, verify};

/// Random access to the files of a checkpoint: a directory, browser storage, or memory in tests.
pub trait Files {
    /// Bytes `offset .. offset + len` of `file`; fewer than `len` is an `integrity` error.
    fn read<'a>(&'a self, file: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>>;
    /// Closes what reading left open; it may go on later.
    fn release(&self) {}
}

/// Where a package is written to, each file from its first byte to its last; the manifest comes last.
pub trait Sink {
    /// Adds `bytes` at the end of the file `path`, which begins empty. Two files grow at a time, at most.
    fn append<'a>(&'a mut self, path: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>>;
    /// The file `path` is whole, and this is its digest.
    fn close<'a>(&'a mut self, path: &'a str, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>>;
    /// What is there already: asked before the first file is written.
    fn already(&mut self) -> Already {
        Already::default()
    }
    /// Keeps `state` for another attempt, should this one not end.
    fn note<'a>(&'a mut self, state: State) -> LocalBoxFuture<'a, Result<()>> {
        drop(state);
        async { Ok(()) }.boxed_local()
    }
}

/// A consecutive piece of a plane: whole rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The file's name within the checkpoint.
    pub file: String,
    /// First byte within the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A tensor of a checkpoint: publisher's name, shape and order (`[out, in]`), its format and where its planes lie.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// How the elements are stored.
    pub format: Format,
    /// Dimensions as published; one for norms and biases, two for matrices.
    pub shape: Vec<usize>,
    /// Pieces of the values plane, in order.
    pub values: Vec<Part>,
    /// Pieces of the scales plane, in order; empty for floats.
    pub scales: Vec<Part>,
}

impl TensorInfo {
    /// Rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Elements of a row: the last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The pieces of `plane`.
    pub fn parts(&self, plane: Plane) -> &[Part] {
        match plane {
            Plane::Values => &self.values,
            Plane::Scales => &self.scales,
        }
    }
}

/// A model as it lies on a disk, in browser storage or in memory: ready to be read by an architecture.
pub struct Checkpoint {
    /// `config.json`, in transformers' terms whatever the source was.
    pub config: serde_json::Value,
    /// `generation_config.json` or an empty object.
    pub generation_config: serde_json::Value,
    /// `tokenizer.json`, as Hugging Face's `tokenizers` reads it; none if the checkpoint has none.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json` or an empty object; its `chat_template` is filled from `chat_template.jinja` where that is the source.
    pub tokenizer_config: serde_json::Value,
    /// What is declared of the model: licence, publisher, lineage.
    pub card: crate::card::Card,
    /// All tensors by the publisher's names.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where the planes are read from.
    pub files: Box<dyn Files>,
}

impl Checkpoint {
    /// The tensor called `name`, or an error that says so.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::InvalidFile(format!("tensor {name:?} is missing")))
    }

    /// The bytes of `rows` rows of a tensor's plane, from row `first` on; none where the format has no such plane.
    pub async fn read_rows(&self, tensor: &TensorInfo, plane: Plane, first: usize, rows: usize) -> Result<Vec<u8>> {
        let row_bytes = tensor.format.row_bytes(plane, tensor.cols()) as u64;
        let (mut at, end) = (first as u64 * row_bytes, (first + rows) as u64 * row_bytes);
        let (mut bytes, mut start) = (Vec::new(), 0);
        for part in tensor.parts(plane) {
            if at < end && at < start + part.len {
                let len = (start + part.len - at).min(end - at);
                bytes.extend(self.files.read(&part.file, part.offset + at - start, len as usize).await?);
                at += len;
            }
            start += part.len;
        }
        if at < end { Err(Error::InvalidFile("a tensor's parts are shorter than its shape".into())) } else { Ok(bytes) }
    }
}
