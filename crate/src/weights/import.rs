//! Publishers' files become packages: a GGUF in one pass from its first byte to its last, a checkpoint tensor by tensor.
//!
//! Memory: the header, and a block of rows. Nothing is committed here: the manifest is the last
//! file that the sink gets, and it gets none if anything is wrong.

mod gguf;
mod input;
mod rows;
mod shards;
mod turned;

pub use gguf::{gguf, gguf_header, gguf_parts, inspect_gguf};
pub use input::Open;
pub use shards::{SourceFile, shards};

use rows::{Repack, check_values};
use serde_json::Value;
use turned::Turned;

use super::{
    Checkpoint, Sink, TensorInfo,
    layout::Target,
    manifest::{Manifest, Source},
    writer::{Facts, Writer},
};
use crate::{
    card::{Card, Declared},
    error::{Error, Result},
    quant::{Format, Plane},
};

/// Bytes of source rows that are converted at once.
const BLOCK: usize = 1 << 20;

/// What matrices become. Norms, biases and routers always stay as they are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantize {
    /// 4 bits with a minimum ([`Format::Q4_1`]: a smaller error than Q4_0 on weights); embeddings and output head 8 bits.
    Q4,
    /// 8 bits ([`Format::Q8_0`]).
    Q8,
    /// Half floats.
    F16,
    /// As stored.
    #[default]
    Keep,
}

impl Quantize {
    /// The choice called `name`: `q4`, `q8`, `f16` or `keep`.
    pub fn parse(name: &str) -> Result<Quantize> {
        match name {
            "q4" => Ok(Quantize::Q4),
            "q8" => Ok(Quantize::Q8),
            "f16" => Ok(Quantize::F16),
            "keep" => Ok(Quantize::Keep),
            _ => Err(Error::InvalidInput(format!("quantize {name:?}: choose q4, q8, f16 or keep"))),
        }
    }

    /// The name that [`Quantize::parse`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Quantize::Q4 => "q4",
            Quantize::Q8 => "q8",
            Quantize::F16 => "f16",
            Quantize::Keep => "keep",
        }
    }

    /// What it packs matrices in.
    fn packed(self) -> Option<Format> {
        match self {
            Quantize::Q4 => Some(Format::Q4_1),
            Quantize::Q8 => Some(Format::Q8_0),
            Quantize::F16 | Quantize::Keep => None,
        }
    }

    /// What the tensor `name` of a checkpoint becomes.
    pub(super) fn target(self, config: &Value, name: &str, info: &TensorInfo) -> Result<Target> {
        if let (Some(packed), Some(turned)) = (self.packed(), turned_of(config, name, info)) {
            return turned::target(turned, packed);
        }
        Ok(Target { name: name.to_owned(), format: self.format(name, info.format, &info.shape), shape: info.shape.clone() })
    }

    /// The format of the tensor `name`, stored as `format` now.
    pub(super) fn format(self, name: &str, format: Format, shape: &[usize]) -> Format {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        // Experts are stacked, as matrices or as biases; other tensors of three dimensions are something else.
        let matrix = shape.len() == 2 || shape.len() == 3 && name.contains(".experts.");
        // A router is small, and what it chooses matters.
        let small = ends(&[".bias", "_bias", ".gate.weight", ".router.weight"]);
        let table = ["embed", "lm_head", "wte.", "wpe."].iter().any(|part| name.contains(part));
        let chosen = match self {
            _ if !matrix || small || format == Format::Mxfp4 => format,
            Quantize::Keep => format,
            Quantize::F16 => Format::F16,
            Quantize::Q4 if !table => Format::Q4_1,
            Quantize::Q4 | Quantize::Q8 => Format::Q8_0,
        };
        // A package has no 16-bit rows of odd length.
        if chosen.bits() == 16 && shape.last().is_none_or(|cols| cols % 2 == 1) { Format::F32 } else { chosen }
    }
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What matrices become.
    pub quantize: Quantize,
    /// Where the source comes from. A `sha256` given here is the publisher's digest, with which the file must agree.
    pub source: Source,
}

/// What a tensor would become if it were turned, where its elements can be moved: floats that are published transposed.
fn turned_of(config: &Value, name: &str, info: &TensorInfo) -> Option<(String, Vec<usize>)> {
    turned::turned(config, name, &info.shape).filter(|_| !info.format.is_quantised())
}

/// How the rows of one tensor become what is kept.
enum Converting {
    Rows(Repack),
    Turned(Turned),
}

impl Converting {
    /// From the tensor `name` of `config`'s model.
    fn new(target: &Target, config: &Value, name: &str, info: &TensorInfo) -> Converting {
        match target.format.is_quantised() && turned_of(config, name, info).is_some() {
            true => Converting::Turned(Turned::new(target, info.format)),
            false => Converting::Rows(Repack::new(target, info.format, 0.0)),
        }
    }

    /// Passes over `count` rows, as they are published.
    fn pass(&mut self, count: usize) {
        match self {
            Converting::Rows(rows) => rows.pass(count),
            Converting::Turned(turned) => turned.pass(count),
        }
    }

    /// Whether `writer` lacks any of what the next `count` rows become.
    fn wanted(&self, writer: &Writer<'_>, index: usize, count: usize) -> bool {
        match self {
            Converting::Rows(rows) => rows.wanted(writer, index, count),
            Converting::Turned(turned) => turned.wanted(writer, index),
        }
    }

    /// Whether all that was added is written, after [`write`](Self::write).
    fn rests(&self) -> bool {
        match self {
            Converting::Rows(_) => true,
            Converting::Turned(turned) => turned.rests(),
        }
    }

    /// Adds `count` rows, as they are published.
    fn rows(&mut self, values: &[u8], scales: &[u8], count: usize) -> Result<()> {
        match self {
            Converting::Rows(rows) => rows.rows(values, scales, count),
            Converting::Turned(turned) => turned.add(values),
        }
    }

    /// Writes what is whole and was not yet.
    async fn write(&mut self, writer: &mut Writer<'_>, index: usize) -> Result<()> {
        match self {
            Converting::Rows(rows) => rows.write(writer, index).await,
            Converting::Turned(turned) => turned.write(writer, index).await,
        }
    }
}

/// What the file declares of its origin goes first, then what the caller says.
pub(super) fn with_origin(mut card: Card, source: &Source) -> Card {
    if card.origin.is_none() && !source.origin.is_empty() {
        card.origin = Some(Declared { value: source.origin.clone(), source: "where it was read".into() });
    }
    card
}

/// Writes an open checkpoint as a package. `progress` is told bytes of weights read and bytes in all.
pub async fn checkpoint(
    checkpoint: &Checkpoint,
    options: Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    let targets = checkpoint.tensors.iter().map(|(name, info)| options.quantize.target(&checkpoint.config, name, info));
    let facts = Facts {
        generation_config: checkpoint.generation_config.clone(),
        tokenizer: checkpoint.tokenizer.clone(),
        tokenizer_config: checkpoint.tokenizer_config.clone(),
        card: with_origin(checkpoint.card.clone(), &options.source),
    };
    let mut writer = Writer::begin(sink, targets.collect::<Result<_>>()?, facts).await?;
    let (mut done, total) = (0, checkpoint.tensors.values().flat_map(|t| t.values.iter().chain(&t.scales)).map(|p| p.len).sum());
    for (index, (name, info)) in checkpoint.tensors.iter().enumerate() {
        let mut repack = Converting::new(&writer.targets()[index], &checkpoint.config, name, info);
        let row_bytes = info.format.row_bytes(Plane::Values, info.cols());
        let step = (BLOCK / row_bytes).max(1);
        for first in (0..info.rows()).step_by(step) {
            let rows = step.min(info.rows() - first);
            let values = checkpoint.read_rows(info, Plane::Values, first, rows).await?;
            let scales = checkpoint.read_rows(info, Plane::Scales, first, rows).await?;
            repack.rows(&values, &scales, rows)?;
            repack.write(&mut writer, index).await?;
            done += (values.len() + scales.len()) as u64;
            progress(done, total);
        }
    }
    writer.finish(&turned::config(&checkpoint.config, options.quantize), options.source).await
}
