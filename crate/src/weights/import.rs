//! Publishers' files become packages: a GGUF in one pass from its first byte to its last, a checkpoint tensor by tensor.
//!
//! Memory: the header, and a block of rows. Nothing is committed here: the manifest is the last
//! file that the sink gets, and it gets none if anything is wrong.

use futures_util::stream::LocalBoxStream;

mod input;
mod rows;

use input::Input;
use rows::Repack;

use super::{
    Checkpoint, Sink, TensorInfo,
    gguf::{self, Header, Model, Parsed, Tensor, model::Conversion},
    layout::Target,
    manifest::{Manifest, Source},
    writer::{Facts, Writer},
};
use crate::{
    card::{Card, Declared},
    error::{Error, Result},
    quant::{Format, Plane},
    text::gguf_tokenizer,
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
    fn format(self, name: &str, format: Format, shape: &[usize]) -> Format {
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

/// Imports the GGUF file that `stream` yields, `len` bytes in all. `progress` is told bytes read and bytes in all.
pub async fn gguf(
    stream: LocalBoxStream<'_, Result<Vec<u8>>>,
    len: u64,
    options: Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    let mut input = Input::new(stream, len, progress);
    let header = read_header(&mut input).await?;
    let mut model = Model::new(&header)?;
    // Built before the weights are read: a tokenizer that cannot be rebuilt should not cost a download.
    let facts = gguf_facts(&header, &options.source)?;
    let mut writer = Writer::begin(sink, targets(&header, &model, options.quantize)?, facts).await?;
    let mut index = 0;
    for tensor in &header.tensors {
        input.skip_to(tensor.offset).await?;
        match model.conversion(tensor)? {
            Some(conversion) => {
                write_tensor(&mut input, tensor, conversion, &mut writer, index).await?;
                index += conversion.targets.len();
            }
            None => {
                let factors = read_floats(&mut input, tensor).await?;
                model.set_rope_factors(&tensor.name, &factors)?;
            }
        }
    }
    let mut source = options.source;
    let sha256 = input.finish().await?;
    match &source.sha256 {
        Some(stated) if *stated != sha256 => {
            return Err(Error::Integrity(format!("the file has sha256 {sha256}, its publisher states {stated}: fetch it again")));
        }
        stated => source.publisher_digest = stated.is_some(),
    }
    source.sha256 = Some(sha256);
    writer.finish(&model.config, source).await
}

/// What the header of a GGUF file says: configuration, card with counts, and the tensors as they would be kept.
pub async fn inspect_gguf(stream: LocalBoxStream<'_, Result<Vec<u8>>>, len: u64) -> Result<(serde_json::Value, Card, Vec<Target>)> {
    let header = read_header(&mut Input::new(stream, len, &mut |_, _| {})).await?;
    let model = Model::new(&header)?;
    let targets = targets(&header, &model, Quantize::Keep)?;
    let mut card = Card::from_gguf(&header.metadata);
    card.count(targets.iter().map(|t| (t.format, t.shape.as_slice())), header.tensors.iter().map(|t| t.len).sum());
    Ok((model.config, card, targets))
}

async fn read_header(input: &mut Input<'_>) -> Result<Header> {
    let (mut wanted, len) = (4, input.len());
    loop {
        let prefix = input.peek(wanted).await?;
        match gguf::parse(prefix, len)? {
            Parsed::Header(header) => return Ok(header),
            // At least doubling keeps the repeated parsing linear.
            Parsed::NeedMore(bytes) => wanted = bytes.max(2 * prefix.len() as u64).min(len),
        }
    }
}

fn gguf_facts(header: &Header, source: &Source) -> Result<Facts> {
    let metadata = &header.metadata;
    let mut facts = Facts { generation_config: gguf::generation::config(metadata)?, ..Facts::default() };
    if metadata.string("tokenizer.ggml.model")?.is_some() {
        let (tokenizer, config) = gguf_tokenizer::build(metadata)?;
        (facts.tokenizer, facts.tokenizer_config) = (Some(tokenizer), config);
    }
    facts.card = with_origin(Card::from_gguf(metadata), source);
    Ok(facts)
}

/// What the file declares of its origin goes first, then what the caller says.
fn with_origin(mut card: Card, source: &Source) -> Card {
    if card.origin.is_none() && !source.origin.is_empty() {
        card.origin = Some(Declared { value: source.origin.clone(), source: "where it was read".into() });
    }
    card
}

fn targets(header: &Header, model: &Model, quantize: Quantize) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for tensor in &header.tensors {
        for (name, shape) in model.conversion(tensor)?.map_or(&[][..], |c| &c.targets) {
            targets.push(Target { name: name.clone(), format: quantize.format(name, tensor.format, shape), shape: shape.clone() });
        }
    }
    Ok(targets)
}

/// Reads a tensor in blocks of whole rows (of as many as are re-ordered together) and writes it as target `first` and those after it.
async fn write_tensor(
    input: &mut Input<'_>,
    tensor: &Tensor,
    conversion: &Conversion,
    writer: &mut Writer<'_>,
    first: usize,
) -> Result<()> {
    let cols = tensor.shape.last().copied().unwrap_or(1);
    for index in first..first + conversion.targets.len() {
        let target = &writer.targets()[index];
        let row_bytes = tensor.format.ggml_row_bytes(target.cols());
        // A bias is one row whose elements are in the order of the matrix's rows.
        let (units, unit_bytes) = match tensor.shape.len() {
            1 => (target.cols(), tensor.format.ggml_row_bytes(cols) / cols),
            _ => (target.rows(), row_bytes),
        };
        let step = match tensor.shape.len() {
            1 => units,
            _ => (BLOCK / row_bytes).max(1).next_multiple_of(conversion.order.together()),
        };
        let mut repack = Repack::new(target, tensor.format, conversion.offset);
        for first in (0..units).step_by(step) {
            let bytes = input.take((step.min(units - first) * unit_bytes) as u64).await?;
            for row in conversion.order.restore(bytes, unit_bytes).chunks_exact(row_bytes) {
                repack.ggml_row(row)?;
            }
            repack.write(writer, index).await?;
        }
    }
    Ok(())
}

/// A small tensor as floats.
async fn read_floats(input: &mut Input<'_>, tensor: &Tensor) -> Result<Vec<f32>> {
    if tensor.len > 1 << 16 || tensor.shape.len() != 1 || tensor.format != Format::F32 {
        let message = format!("GGUF tensor {:?} has shape {:?} and type {}", tensor.name, tensor.shape, tensor.format.name());
        return Err(Error::InvalidFile(message));
    }
    let bytes = input.take(tensor.len).await?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
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
