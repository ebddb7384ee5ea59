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
        manifest::{Manifest, Source},
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
    write_tensors(&mut input, &header.tensors, &mut model, &mut writer, &mut 0, false).await?;
    let mut source = options.source;
    let stated = source.sha256.take();
    source.publisher_digest = stated.is_some();
    source.sha256 = Some(verified("the file".into(), len, input.finish().await?, stated.as_deref())?.sha256);
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
    writer.note_by(total);
    let (mut rest, mut index, mut before) = (&tensors[..], 0, 0);
    for (number, (file, count)) in files.into_iter().zip(counts).enumerate() {
        let (here, size, was_read) = (rest.split_at(count).0, file.size, number < writer.cursor().read.len());
        let (name, sha256) = (file.name.clone(), file.sha256.clone());
        let mut tell = |read, _| progress(before + read, total);
        let mut input = Input::of(file, &writer, was_read, &mut tell);
        // Of a file that was read before, what the configuration needs is read again.
        write_tensors(&mut input, here, &mut model, &mut writer, &mut index, was_read).await?;
        if !was_read {
            writer.was_read(verified(name, size, input.finish().await?, sha256.as_deref())?);
        }
        (rest, before) = (&rest[count..], before + size);
    }
    if let [file] = &writer.cursor().read[..]
        && single
    {
        (source.file, source.sha256) = (Some(file.path.clone()), Some(file.sha256.clone()));
    }
    source.files.extend(writer.cursor().read.iter().cloned());
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

async fn header(input: &mut Input<'_, '_>) -> Result<Header> {
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

/// Writes one file's tensors, the first as target `index`, or passes over them if that is done.
async fn write_tensors(
    input: &mut Input<'_, '_>,
    tensors: &[Tensor],
    model: &mut Model,
    writer: &mut Writer<'_>,
    index: &mut usize,
    done: bool,
) -> Result<()> {
    for tensor in tensors {
        match model.conversion(tensor)? {
            Some(conversion) if done => *index += conversion.targets.len(),
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
    input: &mut Input<'_, '_>,
    tensor: &Tensor,
    conversion: &Conversion,
    writer: &mut Writer<'_>,
    first: usize,
) -> Result<()> {
    let cols = tensor.shape.last().copied().unwrap_or(1);
    let mut offset = tensor.offset;
    for index in first..first + conversion.targets.len() {
        let target = &writer.targets()[index];
        let row_bytes = tensor.format.ggml_row_bytes(target.cols());
        // A bias is one row whose elements are in the order of the matrix's rows.
        let (units, unit_bytes, in_row) = match tensor.shape.len() {
            1 => (target.cols(), tensor.format.ggml_row_bytes(cols) / cols, target.cols()),
            _ => (target.rows(), row_bytes, 1),
        };
        let step = match tensor.shape.len() {
            1 => units,
            _ => (BLOCK / row_bytes).max(1).next_multiple_of(conversion.order.together()),
        };
        let mut repack = Repack::new(target, tensor.format, conversion.offset);
        let before = input.rows_before(offset, unit_bytes, units);
        repack.pass(before / in_row);
        for first in (before..units).step_by(step) {
            let count = step.min(units - first);
            if !repack.wanted(writer, index, count / in_row) {
                repack.pass(count / in_row);
                continue;
            }
            input.skip_to(offset + (first * unit_bytes) as u64).await?;
            let bytes = input.take((count * unit_bytes) as u64).await?;
            for row in conversion.order.restore(bytes, unit_bytes).chunks_exact(row_bytes) {
                repack.ggml_row(row)?;
            }
            repack.write(writer, index).await?;
            let (taken, hash) = input.position();
            writer.rest(taken, hash).await?;
        }
        offset += (units * unit_bytes) as u64;
    }
    Ok(())
}

/// A small tensor as floats.
async fn read_floats(input: &mut Input<'_, '_>, tensor: &Tensor) -> Result<Vec<f32>> {
    if tensor.len > 1 << 16 || tensor.shape.len() != 1 || tensor.format != Format::F32 {
        let message = format!("GGUF tensor {:?} has shape {:?} and type {}", tensor.name, tensor.shape, tensor.format.name());
        return Err(Error::InvalidFile(message));
    }
    let bytes = input.read(tensor.offset, tensor.len).await?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
