//! A GGUF becomes a package while it streams in: one file, or several if it is split.

use serde_json::Value;

use super::{BLOCK, Options, Quantize, Repack, Sink, SourceFile, input::Input, input::verified, with_origin};
use crate::{
    card::Card,
    error::{Error, Result},
    quant::Format,
    text::gguf_tokenizer,
    weights::{
        gguf::{
            self, Header, Model, Parsed, Tensor,
            model::Conversion,
            split::{Parts, join},
        },
        layout::Target,
        manifest::{FileEntry, Manifest, Source},
        network::ByteStream,
        writer::{Facts, Writer},
    },
};

/// Imports the one GGUF file that `stream` yields, `len` bytes in all. `progress` is told bytes read and bytes in all.
pub async fn gguf(
    stream: ByteStream<'_>,
    len: u64,
    options: Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    let mut input = Input::new(stream, len, progress);
    let Parts { header, .. } = join(vec![header(&mut input).await?])?;
    let (mut writer, mut model) = begin(&header, &options, sink).await?;
    write_tensors(&mut input, &header.tensors, &mut model, &mut writer, &mut 0).await?;
    let mut source = options.source;
    let sha256 = verified(input.finish().await?, source.sha256.as_deref(), "the file")?;
    source.publisher_digest = source.sha256.is_some();
    source.sha256 = Some(sha256);
    writer.finish(&model.config, source).await
}

/// Imports the GGUF whose headers are `parts`, from its files.
pub async fn gguf_parts(
    parts: Parts,
    files: Vec<SourceFile<'_>>,
    options: Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    let (mut writer, mut model) = begin(&parts.header, &options, sink).await?;
    let (tensors, counts) = (parts.header.tensors, parts.counts);
    let mut source = options.source;
    source.publisher_digest = files.iter().all(|file| file.sha256.is_some());
    let (single, total) = (files.len() == 1, files.iter().map(|file| file.size).sum());
    let (mut rest, mut index, mut before) = (&tensors[..], 0, 0);
    for (file, count) in files.into_iter().zip(counts) {
        let here;
        (here, rest) = rest.split_at(count);
        let mut tell = |read, _| progress(before + read, total);
        let mut input = Input::new(file.stream, file.size, &mut tell);
        write_tensors(&mut input, here, &mut model, &mut writer, &mut index).await?;
        let sha256 = verified(input.finish().await?, file.sha256.as_deref(), &file.name)?;
        before += file.size;
        if single {
            (source.file, source.sha256) = (Some(file.name.clone()), Some(sha256.clone()));
        }
        source.files.push(FileEntry { path: file.name, size: file.size, sha256 });
    }
    writer.finish(&model.config, source).await
}

/// What the headers say: configuration, card with counts, and the tensors as they would be kept.
pub fn inspect_gguf(Parts { header, .. }: &Parts) -> Result<(Value, Card, Vec<Target>)> {
    let model = Model::new(header)?;
    let targets = targets(header, &model, Quantize::Keep)?;
    let mut card = Card::from_gguf(&header.metadata);
    card.count(targets.iter().map(|t| (t.format, t.shape.as_slice())), header.tensors.iter().map(|t| t.len).sum());
    Ok((model.config, card, targets))
}

/// Reads the header of the file that `stream` yields, as far as it must.
pub async fn gguf_header(stream: ByteStream<'_>, len: u64) -> Result<Header> {
    header(&mut Input::new(stream, len, &mut |_, _| {})).await
}

async fn header(input: &mut Input<'_>) -> Result<Header> {
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

/// Checks all that can be known before the weights are read: a tokenizer that cannot be rebuilt should not cost a download.
async fn begin<'a>(header: &Header, options: &Options, sink: &'a mut dyn Sink) -> Result<(Writer<'a>, Model)> {
    let model = Model::new(header)?;
    let facts = facts(header, &options.source)?;
    Ok((Writer::begin(sink, targets(header, &model, options.quantize)?, facts).await?, model))
}

fn facts(header: &Header, source: &Source) -> Result<Facts> {
    let metadata = &header.metadata;
    let mut facts = Facts { generation_config: gguf::generation::config(metadata)?, ..Facts::default() };
    if metadata.string("tokenizer.ggml.model")?.is_some() {
        let (tokenizer, config) = gguf_tokenizer::build(metadata)?;
        (facts.tokenizer, facts.tokenizer_config) = (Some(tokenizer), config);
    }
    facts.card = with_origin(Card::from_gguf(metadata), source);
    Ok(facts)
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

/// Writes one file's tensors, the first as target `index`.
async fn write_tensors(
    input: &mut Input<'_>,
    tensors: &[Tensor],
    model: &mut Model,
    writer: &mut Writer<'_>,
    index: &mut usize,
) -> Result<()> {
    for tensor in tensors {
        input.skip_to(tensor.offset).await?;
        match model.conversion(tensor)? {
            Some(conversion) => {
                write_tensor(input, tensor, conversion, writer, *index).await?;
                *index += conversion.targets.len();
            }
            None => {
                let factors = read_floats(input, tensor).await?;
                model.set_rope_factors(&tensor.name, &factors)?;
            }
        }
    }
    Ok(())
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
