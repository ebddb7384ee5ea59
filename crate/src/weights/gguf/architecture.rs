//! How an architecture is described: a table of tensors and a few lines of configuration, in `families/`.
//!
//! A line of a table says what a tensor of the file becomes in the publisher's checkpoint: its name there, its shape in terms of
//! the model's sizes, and what llama.cpp's converter did to its rows, which is undone. `{}` stands for the layer.

use serde_json::Value as Json;

use super::{families::ARCHITECTURES, file::File};
use crate::error::Result;

/// An architecture that GGUF files name.
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Whether its MLPs are mixtures of experts (`<name>.expert_count`); one name may have both kinds.
    pub experts: bool,
    /// Whether attention sees both directions.
    pub encoder: bool,
    /// Keys below `<name>.` that are understood. Any other one changes the computation in a way that is not known here.
    pub keys: &'static [&'static [&'static str]],
    /// The tensors.
    pub tensors: &'static [&'static [Line]],
    /// `config.json` in transformers' terms.
    pub config: fn(&File<'_>) -> Result<Json>,
}

/// Keys that say how large the model is.
pub const SIZES: &[&str] = &[
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.causal",
    "expert_count",
    "expert_used_count",
];

/// The constant of an RMS norm.
pub const RMS: &[&str] = &["attention.layer_norm_rms_epsilon"];

/// The constant of a layer norm.
pub const LAYER_NORM: &[&str] = &["attention.layer_norm_epsilon"];

/// Keys of rotary positions.
pub const ROPE: &[&str] = &[
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.attn_factor",
];

/// A size that shapes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// Tokens.
    Vocab,
    /// Width of the residual stream.
    Hidden,
    /// Width of the MLP.
    Inner,
    /// Gate and up in one matrix.
    GateUp,
    /// All query heads together.
    Query,
    /// All key/value heads together.
    KeyValue,
    /// Queries, keys and values in one matrix.
    Stacked,
    /// A head.
    Head,
    /// Positions that the model was made for.
    Context,
    /// Query heads.
    Heads,
    /// Experts of a layer.
    Experts,
    /// Width of an expert.
    ExpertInner,
    /// Taps of a short convolution.
    Taps,
    /// What goes into a short convolution: two gates and the input.
    Gated,
    /// Parts of a text that have embeddings.
    Parts,
    /// 1.
    One,
}

/// What llama.cpp's converter did to a tensor's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Nothing.
    AsPublished,
    /// The two halves of each head's rows are interleaved: `w.reshape(heads, 2, head_dim / 2, ...).swapaxes(1, 2)`.
    Interleaved,
    /// Published as q, k, v of the first head, then of the second, ...; stored as all of q, all of k, all of v.
    SplitByPart,
}

/// What a tensor of the file becomes. Names are without `.weight` and `.bias`.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub(super) file: &'static str,
    pub(super) name: &'static str,
    pub(super) shape: &'static [Dim],
    /// The tensor may be missing.
    pub(super) optional: bool,
    /// There may be, or must be, a bias with one element a row.
    pub(super) bias: Option<Bias>,
    pub(super) rows: Rows,
    /// Added to each element.
    pub(super) offset: f32,
    /// The publisher's shape, where it is another one with the same rows.
    pub(super) published: Option<&'static [Dim]>,
    /// The publisher's name has no `.weight`.
    pub(super) bare: bool,
    /// Publishers have it as several matrices: their names, and their rows.
    pub(super) parts: &'static [(&'static str, Dim)],
}

/// Whether a bias must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    May,
    Must,
}

/// The tensor `file` becomes `name`.
pub const fn line(file: &'static str, name: &'static str, shape: &'static [Dim]) -> Line {
    let (rows, published) = (Rows::AsPublished, None);
    Line { file, name, shape, optional: false, bias: None, rows, offset: 0.0, published, bare: false, parts: &[] }
}

/// The tensor `file` is cut by rows into several.
pub const fn cut(file: &'static str, parts: &'static [(&'static str, Dim)], shape: &'static [Dim]) -> Line {
    Line { parts, ..line(file, "", shape) }
}

impl Line {
    /// It may be missing.
    pub const fn optional(self) -> Line {
        Line { optional: true, ..self }
    }

    /// It may have a bias.
    pub const fn may_have_bias(self) -> Line {
        Line { bias: Some(Bias::May), ..self }
    }

    /// It has a bias.
    pub const fn with_bias(self) -> Line {
        Line { bias: Some(Bias::Must), ..self }
    }

    /// Its rows were re-ordered.
    pub const fn rows(self, rows: Rows) -> Line {
        Line { rows, ..self }
    }

    /// The publisher's shape is this one.
    pub const fn published(self, shape: &'static [Dim]) -> Line {
        Line { published: Some(shape), ..self }
    }

    /// The publisher's name has no `.weight`.
    pub const fn bare(self) -> Line {
        Line { bare: true, ..self }
    }

    /// The converter added 1 to every element.
    pub const fn minus_one(self) -> Line {
        Line { offset: -1.0, ..self }
    }
}

/// What publishers call the matrix `file` of an architecture, both without `.weight`, and the order of its rows. `None` where
/// there is no such matrix, or where publishers have several for it.
pub fn published(architecture: &str, file: &str) -> Option<(String, Rows)> {
    let of_name = ARCHITECTURES.iter().filter(|a| a.name == architecture);
    let mut lines = of_name.flat_map(|a| a.tensors.iter().copied().flatten()).filter(|line| line.shape.len() == 2 && line.parts.is_empty());
    lines.find_map(|line| match line.file.split_once("{}") {
        None => (line.file == file).then(|| (line.name.to_owned(), line.rows)),
        Some((before, after)) => {
            let layer = file.strip_prefix(before)?.strip_suffix(after)?;
            layer.parse::<u32>().ok()?;
            Some((line.name.replace("{}", layer), line.rows))
        }
    })
}
