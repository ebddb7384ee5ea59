//! A checkpoint's weight files become a package while they stream in, each from its first byte to its last.

use serde_json::Value;

use super::{
    BLOCK, Converting, Options, Quantize, Sink,
    input::{Input, Open, verified},
    turned, with_origin,
};
use crate::{
    error::{Error, Result},
    quant::Plane,
    weights::{
        Checkpoint, Part, TensorInfo,
        layout::Target,
        manifest::Manifest,
        writer::{Facts, Writer},
    },
};

/// A publisher's file, about to be read.
pub struct SourceFile<'a> {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// SHA-256, as its publisher states it.
    pub sha256: Option<String>,
    /// Its bytes.
    pub open: Open<'a>,
    /// Whether it can be opened anywhere at no cost.
    pub ranges: bool,
}

/// A plane of a tensor, as it lies in a file.
struct Piece<'c> {
    /// Number of the file.
    file: usize,
    part: &'c Part,
    /// Number of the tensor.
    tensor: usize,
    plane: Plane,
    name: &'c str,
    info: &'c TensorInfo,
}

/// Imports the tensors that `checkpoint` lists, from `files`; those that are quantised already stay as they are. `progress` is
/// told bytes read and bytes in all.
pub async fn shards(
    mut checkpoint: Checkpoint,
    files: Vec<SourceFile<'_>>,
    options: Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    let facts = Facts {
        generation_config: checkpoint.generation_config.take(),
        tokenizer: checkpoint.tokenizer.take(),
        tokenizer_config: checkpoint.tokenizer_config.take(),
        card: with_origin(checkpoint.card.clone(), &options.source),
    };
    let (targets, pieces) = in_order(&checkpoint, &files, options.quantize)?;
    let mut writer = Writer::begin(sink, targets, facts).await?;
    let mut source = options.source;
    source.publisher_digest = files.iter().all(|file| file.sha256.is_some());
    let total = files.iter().map(|file| file.size).sum();
    writer.note_by(total);
    let mut before = 0;
    for (number, file) in files.into_iter().enumerate() {
        let size = file.size;
        if number >= writer.cursor().read.len() {
            let (name, sha256) = (file.name.clone(), file.sha256.clone());
            let mut tell = |read, _| progress(before + read, total);
            let mut input = Input::of(file, &writer, false, &mut tell);
            for piece in pieces.iter().filter(|piece| piece.file == number) {
                match piece.info.format.is_quantised() {
                    true => copy_plane(&mut input, piece, &mut writer).await?,
                    false => write_floats(&mut input, piece, &checkpoint.config, &mut writer).await?,
                }
            }
            writer.was_read(verified(name, size, input.finish().await?, sha256.as_deref())?);
        }
        before += size;
    }
    source.files.extend(writer.cursor().read.iter().cloned());
    writer.finish(&turned::config(&checkpoint.config, options.quantize), source).await
}

/// What the tensors become, and their planes in the order in which they arrive, which is the order of both planes' shards.
fn in_order<'c>(checkpoint: &'c Checkpoint, files: &[SourceFile<'_>], quantize: Quantize) -> Result<(Vec<Target>, Vec<Piece<'c>>)> {
    let place = |name: &str, parts: &'c [Part]| match parts {
        [part] => match files.iter().position(|file| file.name == part.file) {
            Some(file) => Ok((file, part)),
            None => Err(Error::InvalidFile(format!("tensor {name:?} lies in {:?}, which is not read", part.file))),
        },
        _ => Err(Error::UnsupportedFormat(format!("tensor {name:?} is in pieces, as of a package"))),
    };
    let mut tensors = Vec::new();
    for (name, info) in &checkpoint.tensors {
        let scales = if info.format.is_quantised() { Some(place(name, &info.scales)?) } else { None };
        tensors.push((place(name, &info.values)?, scales, name, info));
    }
    tensors.sort_by_key(|((file, part), ..)| (*file, part.offset));
    let (mut targets, mut pieces, mut last) = (Vec::new(), Vec::new(), None);
    for (tensor, ((file, part), scales, name, info)) in tensors.into_iter().enumerate() {
        targets.push(quantize.published(&checkpoint.config, name, info)?);
        pieces.push(Piece { file, part, tensor, plane: Plane::Values, name, info });
        if let Some((file, part)) = scales {
            if last.replace((file, part.offset)) > Some((file, part.offset)) {
                return Err(Error::UnsupportedFormat(format!("the scales of {name:?} come before those of the tensor before it")));
            }
            pieces.push(Piece { file, part, tensor, plane: Plane::Scales, name, info });
        }
    }
    pieces.sort_by_key(|piece| (piece.file, piece.part.offset));
    Ok((targets, pieces))
}

impl Quantize {
    /// What a tensor becomes as its publisher has it: one that is quantised already stays as it is.
    pub(in crate::weights) fn published(self, config: &Value, name: &str, info: &TensorInfo) -> Result<Target> {
        let quantize = if info.format.is_quantised() { Quantize::Keep } else { self };
        quantize.target(config, name, info)
    }
}

async fn write_floats(input: &mut Input<'_, '_>, piece: &Piece<'_>, config: &Value, writer: &mut Writer<'_>) -> Result<()> {
    let info = piece.info;
    let mut repack = Converting::new(&writer.targets()[piece.tensor], config, piece.name, info);
    let row_bytes = info.format.row_bytes(Plane::Values, info.cols());
    let step = (BLOCK / row_bytes).max(1);
    let before = input.rows_before(piece.part.offset, row_bytes, info.rows());
    repack.pass(before);
    for first in (before..info.rows()).step_by(step) {
        let rows = step.min(info.rows() - first);
        if !repack.wanted(writer, piece.tensor, rows) {
            repack.pass(rows);
            continue;
        }
        input.skip_to(piece.part.offset + (first * row_bytes) as u64).await?;
        let values = input.take((rows * row_bytes) as u64).await?;
        repack.rows(&values, &[], rows)?;
        repack.write(writer, piece.tensor).await?;
        if repack.rests() {
            let (taken, hash) = input.position();
            writer.rest(taken, hash).await?;
        }
    }
    Ok(())
}

async fn copy_plane(input: &mut Input<'_, '_>, piece: &Piece<'_>, writer: &mut Writer<'_>) -> Result<()> {
    let all = piece.part.len as usize;
    for at in (input.rows_before(piece.part.offset, 1, all)..all).step_by(BLOCK) {
        let len = BLOCK.min(all - at);
        if !writer.wants(piece.tensor, piece.plane, at, len) {
            continue;
        }
        input.skip_to(piece.part.offset + at as u64).await?;
        let bytes = input.take(len as u64).await?;
        writer.write(piece.tensor, piece.plane, at, &bytes).await?;
        let (taken, hash) = input.position();
        writer.rest(taken, hash).await?;
    }
    Ok(())
}
