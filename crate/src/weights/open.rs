//! Sources on a disk: a package (a directory or one file), a checkpoint directory or a GGUF file, told apart by what they hold.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use futures_util::stream::{self, LocalBoxStream, StreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Checkpoint, Files, Sink,
    adapter::{self, Adapter},
    files::{Directory, Listing, Memory, failed},
    gguf::split::{Parts, join},
    import,
    manifest::{FileEntry, MANIFEST, Manifest, Source, TensorEntry, hex},
    owpkg::{Archive, is_archive},
    package, safetensors,
    source::split_names,
};
use crate::{
    card::{Card, Declared},
    error::{Error, Result},
};

/// What a path holds.
enum Kind {
    Package(Box<dyn Files>, Box<Manifest>),
    Checkpoint(Directory),
    /// All files of a GGUF, in order.
    Gguf(Vec<PathBuf>),
}

fn kind(path: &Path) -> Result<Kind> {
    let metadata = std::fs::metadata(path).map_err(|e| failed(path, e))?;
    if metadata.is_file() && is_archive(&last_name(path)) {
        let directory = Directory::new(path.parent().unwrap_or(Path::new("")));
        let archive = pollster::block_on(Archive::open(directory, &last_name(path), metadata.len()))?;
        let listing = archive.listing();
        return package(Box::new(archive), &listing, path);
    }
    if metadata.is_file() {
        let parts = split_names(&last_name(path));
        return Ok(Kind::Gguf(match parts.len() {
            1 => vec![path.to_owned()],
            _ => parts.iter().map(|name| path.with_file_name(name)).collect(),
        }));
    }
    let directory = Directory::new(path);
    let manifest = path.join(MANIFEST);
    if !manifest.exists() {
        return Ok(Kind::Checkpoint(directory));
    }
    let listing = directory.listing()?;
    package(Box::new(directory), &listing, path)
}

fn package(files: Box<dyn Files>, listing: &Listing, path: &Path) -> Result<Kind> {
    let size = listing.get(MANIFEST).copied().unwrap_or(0);
    let manifest = Manifest::parse(&pollster::block_on(files.read(MANIFEST, 0, size as usize))?)?;
    for file in &manifest.files {
        match listing.get(&file.path) {
            Some(&size) if size == file.size => {}
            Some(size) => {
                let message = format!("{:?} has {size} bytes, the manifest says {}: fetch it again", file.path, file.size);
                return Err(Error::Integrity(message));
            }
            None => return Err(Error::NotFound(format!("{:?}, which the manifest of {} lists", file.path, path.display()))),
        }
    }
    Ok(Kind::Package(files, Box::new(manifest)))
}

/// Opens a package directory, a checkpoint directory or a GGUF file. A GGUF is read as a package in memory.
pub fn open(path: &Path) -> Result<Checkpoint> {
    pollster::block_on(async {
        match kind(path)? {
            Kind::Package(files, manifest) => package::open(&manifest, files).await,
            Kind::Checkpoint(directory) => open_checkpoint(directory, path).await,
            Kind::Gguf(paths) => {
                let mut memory = Memory::default();
                let manifest = import_gguf(&paths, import::Options::default(), &mut memory, &mut |_, _| {}).await?;
                package::open(&manifest, Box::new(memory)).await
            }
        }
    })
}

/// Opens an adapter: PEFT's directory, one of its safetensors files beside `adapter_config.json`, or a GGUF file.
pub fn open_adapter(path: &Path) -> Result<Adapter> {
    let directory = if path.is_file() { path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")) } else { path };
    let directory = Directory::new(directory);
    let mut listing = directory.listing()?;
    if path.is_file() {
        let name = last_name(path);
        listing.retain(|file, _| *file == name || (file.ends_with(".json") && !name.ends_with(".gguf")));
    }
    pollster::block_on(adapter::open(Box::new(directory), &listing))
}

async fn open_checkpoint(directory: Directory, path: &Path) -> Result<Checkpoint> {
    let listing = directory.listing()?;
    let mut checkpoint = safetensors::open(Box::new(directory), &listing).await?;
    checkpoint.card.origin.get_or_insert_with(|| origin(path));
    Ok(checkpoint)
}

fn origin(path: &Path) -> Declared {
    Declared { value: last_name(path), source: "where it was read".into() }
}

/// The last part of a path: where a file lay on somebody's disk is nobody else's business.
fn last_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Converts whatever is at `path` into a package.
pub fn convert(path: &Path, mut options: import::Options, sink: &mut dyn Sink, progress: &mut dyn FnMut(u64, u64)) -> Result<Manifest> {
    if options.source.origin.is_empty() {
        options.source.origin = last_name(path);
    }
    pollster::block_on(async {
        match kind(path)? {
            Kind::Gguf(paths) => import_gguf(&paths, options, sink, progress).await,
            Kind::Package(..) => import::checkpoint(&open(path)?, options, sink, progress).await,
            Kind::Checkpoint(directory) => {
                let checkpoint = open_checkpoint(directory, path).await?;
                let mut names: Vec<&str> = checkpoint.tensors.values().flat_map(|t| &t.values).map(|part| part.file.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                let files = names.iter().map(|name| source_file(&path.join(name), name)).collect::<Result<_>>()?;
                import::shards(checkpoint, files, options, sink, progress).await
            }
        }
    })
}

async fn import_gguf(
    paths: &[PathBuf],
    mut options: import::Options,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest> {
    if options.source.origin.is_empty() {
        options.source.origin = last_name(&paths[0]);
    }
    let parts = gguf_parts(paths).await?;
    let files = paths.iter().map(|path| source_file(path, &last_name(path))).collect::<Result<_>>()?;
    import::gguf_parts(parts, files, options, sink, progress).await
}

async fn gguf_parts(paths: &[PathBuf]) -> Result<Parts> {
    let mut headers = Vec::new();
    for path in paths {
        let (stream, len) = read_file(path)?;
        headers.push(import::gguf_header(stream, len).await?);
    }
    join(headers)
}

fn source_file(path: &Path, name: &str) -> Result<import::SourceFile<'static>> {
    let (stream, size) = read_file(path)?;
    // It is read once, from its beginning.
    let mut stream = Some(stream);
    let open = Box::new(move |_| stream.take().unwrap_or_else(|| stream::empty().boxed_local()));
    Ok(import::SourceFile { name: name.to_owned(), size, sha256: None, open, ranges: false })
}

/// A file's bytes in blocks, and its length.
fn read_file(path: &Path) -> Result<(LocalBoxStream<'static, Result<Vec<u8>>>, u64)> {
    const BLOCK: usize = 1 << 20;
    let mut file = File::open(path).map_err(|e| failed(path, e))?;
    let len = file.metadata().map_err(|e| failed(path, e))?.len();
    let path = path.to_owned();
    let blocks = std::iter::from_fn(move || {
        let mut block = vec![0; BLOCK];
        match file.read(&mut block) {
            Ok(0) => None,
            Ok(n) => {
                block.truncate(n);
                Some(Ok(block))
            }
            Err(e) => Some(Err(failed(&path, e))),
        }
    });
    Ok((stream::iter(blocks).boxed_local(), len))
}

/// What a source is, without its weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// What is declared of the model; `None` means not declared.
    pub card: Card,
    /// `model_type` of the configuration.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// The format of most parameters.
    pub quantization: String,
    /// What a package was made from; none for publishers' own files.
    pub source: Option<Source>,
    /// All tensors, by transformers' names.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// The files with their digests: as the manifest states them, or as computed now from a publisher's files.
    pub files: Vec<FileEntry>,
}

/// Says what is at `path`.
pub fn inspect(path: &Path) -> Result<Inspection> {
    match kind(path)? {
        Kind::Package(_, manifest) => Ok(Inspection {
            parameters: manifest.parameters,
            architecture: manifest.architecture,
            quantization: manifest.quantization,
            card: manifest.card,
            source: Some(manifest.source),
            tensors: manifest.tensors,
            files: manifest.files,
        }),
        Kind::Checkpoint(directory) => {
            let files = directory.listing()?.keys().map(|name| digest(&path.join(name), name)).collect::<Result<_>>()?;
            inspection(pollster::block_on(open_checkpoint(directory, path))?, files)
        }
        Kind::Gguf(paths) => {
            let (config, mut card, targets) = import::inspect_gguf(&pollster::block_on(gguf_parts(&paths))?)?;
            let files: Vec<FileEntry> = paths.iter().map(|path| digest(path, &last_name(path))).collect::<Result<_>>()?;
            card.bytes = files.iter().map(|file| file.size).sum();
            card.origin.get_or_insert_with(|| origin(path));
            let entry = |t: super::layout::Target| (t.name, TensorEntry { format: t.format.name().into(), shape: t.shape });
            Ok(Inspection {
                architecture: config["model_type"].as_str().unwrap_or_default().into(),
                parameters: card.parameters,
                quantization: card.quantisation.clone(),
                card,
                source: None,
                tensors: targets.into_iter().map(entry).collect(),
                files,
            })
        }
    }
}

fn inspection(checkpoint: Checkpoint, files: Vec<FileEntry>) -> Result<Inspection> {
    let entry = |(name, info): (String, super::TensorInfo)| (name, TensorEntry { format: info.format.name().into(), shape: info.shape });
    Ok(Inspection {
        architecture: checkpoint.config["model_type"].as_str().unwrap_or_default().into(),
        parameters: checkpoint.card.parameters,
        quantization: checkpoint.card.quantisation.clone(),
        card: checkpoint.card,
        source: None,
        tensors: checkpoint.tensors.into_iter().map(entry).collect(),
        files,
    })
}

fn digest(path: &Path, name: &str) -> Result<FileEntry> {
    let (mut stream, size) = read_file(path)?;
    let mut hash = Sha256::new();
    while let Some(block) = pollster::block_on(stream.next()) {
        hash.update(block?);
    }
    Ok(FileEntry { path: name.into(), size, sha256: hex(&hash.finalize()) })
}

/// Reads every file of the package at `path` and compares its digest with the manifest's.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Manifest> {
    match kind(path)? {
        Kind::Package(files, manifest) => {
            pollster::block_on(package::verify(&manifest, &*files, progress))?;
            Ok(*manifest)
        }
        _ => Err(Error::InvalidInput(format!("{} is no package: it has no {MANIFEST}", path.display()))),
    }
}
