//! Publishers' files become packages: a GGUF in one pass from its first byte to its last, a checkpoint tensor by tensor.
//!
//! Memory: the header, and a block of rows. Nothing is committed here: the manifest is the last
//! file that the sink gets, and it gets none if anything is wrong.

mod gguf;
mod input;
mod rows;
mod shards;

pub use gguf::{gguf, gguf_header, gguf_parts, inspect_gguf};
pub(super) use shards::published;
pub use shards::{SourceFile, shards};

use rows::Repack;

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
    /// 4 bits with a minimum ([`Format::Q4_1`]: a smaller error than Q4_0 on weights); token embeddings and output head 8 bits.
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

    /// The format of the tensor `name`, stored as `format` now.
    pub(super) fn format(self, name: &str, format: Format, shape: &[usize]) -> Format {
        // Rows of stacked experts are rows; other tensors of three dimensions are something else, or transposed.
        let matrix = shape.len() == 2 || shape.len() == 3 && name.contains(".experts.") && name.ends_with(".weight");
        // A router is small, and what it chooses matters.
        let router = [".gate.weight", ".router.weight"].iter().any(|end| name.ends_with(end));
        let chosen = match self {
            _ if !matrix || router => format,
            Quantize::Keep => format,
            Quantize::F16 => Format::F16,
            Quantize::Q4 if !name.contains("embed_tokens") && !name.contains("lm_head") => Format::Q4_1,
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
    let target = |(name, info): (&String, &TensorInfo)| Target {
        name: name.clone(),
        format: options.quantize.format(name, info.format, &info.shape),
        shape: info.shape.clone(),
    };
    let facts = Facts {
        generation_config: checkpoint.generation_config.clone(),
        tokenizer: checkpoint.tokenizer.clone(),
        tokenizer_config: checkpoint.tokenizer_config.clone(),
        card: with_origin(checkpoint.card.clone(), &options.source),
    };
    let mut writer = Writer::begin(sink, checkpoint.tensors.iter().map(target).collect(), facts).await?;
    let (mut done, total) = (0, checkpoint.tensors.values().flat_map(|t| t.values.iter().chain(&t.scales)).map(|p| p.len).sum());
    for (index, info) in checkpoint.tensors.values().enumerate() {
        let mut repack = Repack::new(&writer.targets()[index], info.format, 0.0);
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
    writer.finish(&checkpoint.config, options.source).await
}
