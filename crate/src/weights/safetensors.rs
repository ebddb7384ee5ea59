//! Hugging Face checkpoints: `config.json` with safetensors files, one or sharded; and the headers of safetensors files,
//! which packages share.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, Metadata};
use serde_json::{Map, Value, json};

mod mxfp4;

use super::{Checkpoint, Files, Part, TensorInfo, files::Listing, manifest, schemes, sentence};
use crate::{
    card::Card,
    error::{Error, Result},
    json,
    quant::Format,
};

/// Most bytes of a JSON file: tokenizers of 260,000 tokens have 35 MB.
const MAX_JSON: u64 = 128 << 20;

/// Bytes of a weight file that are read first.
pub(super) const FIRST_READ: u64 = 32 << 10;

/// Bytes up to the end of the header, from the beginning of a file; as many as there are where that is no good header.
pub(super) fn header_bytes(prefix: &[u8]) -> u64 {
    let len = prefix.first_chunk().map(|b| u64::from_le_bytes(*b)).filter(|len| *len <= MAX_JSON);
    (prefix.len() as u64).max(len.unwrap_or(0) + 8)
}

/// A tensor in a file's header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub part: Part,
}

/// The tensors of one safetensors file of `size` bytes.
pub(super) async fn read_header(files: &dyn Files, file: &str, size: u64) -> Result<BTreeMap<String, Entry>> {
    let bad = |what: String| Error::InvalidFile(format!("{file:?}: {what}"));
    if size < 8 {
        return Err(Error::Integrity(format!("{file:?} is cut short: a safetensors file has at least 8 bytes, this one {size}")));
    }
    // One read serves most headers.
    let mut prefix = files.read(file, 0, size.min(FIRST_READ) as usize).await?;
    let len = prefix.first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or_else(|| bad("could not be read".into()))?;
    let data_start = match len.checked_add(8) {
        Some(end) if len <= MAX_JSON && end <= size => end,
        Some(end) if len <= MAX_JSON => {
            return Err(Error::Integrity(format!("{file:?} is cut short: its header ends at byte {end}, the file has {size} bytes")));
        }
        _ => return Err(bad(format!("not a safetensors file: its first 8 bytes give a header of {len} bytes"))),
    };
    let have = prefix.len() as u64;
    if have < data_start {
        prefix.extend(files.read(file, have, (data_start - have) as usize).await?);
    }
    let metadata: Metadata = json::parse(&format!("{file:?}: safetensors header"), &prefix[8..data_start as usize], json::HEADER)?;
    let end = data_start + metadata.data_len() as u64;
    if end != size {
        return Err(Error::Integrity(format!("{file:?}: its tensors end at byte {end}, the file has {size} bytes")));
    }
    let entry = |info: &safetensors::tensor::TensorInfo| {
        let (start, end) = info.data_offsets;
        let part = Part { file: file.to_owned(), offset: data_start + start as u64, len: (end - start) as u64 };
        Entry { dtype: info.dtype, shape: info.shape.clone(), part }
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect())
}

/// Opens a checkpoint whose files are listed in `listing`. Tensors are read in place; the card's origin is left open.
pub async fn open(files: Box<dyn Files>, listing: &Listing) -> Result<Checkpoint> {
    let mut config = read_json(&*files, listing, "config.json")
        .await?
        .ok_or_else(|| Error::NotFound("config.json: a checkpoint directory must have one".into()))?;
    schemes::refuse(&config)?;
    let mut tensors = read_tensors(&*files, listing).await?;
    sentence::join(&*files, listing, &mut config, &mut tensors).await?;
    let readme = match listing.get("README.md") {
        Some(&size) => String::from_utf8_lossy(&files.read("README.md", 0, size.min(1 << 20) as usize).await?).into_owned(),
        None => String::new(),
    };
    let mut card = Card::from_readme(&readme);
    card.count_tensors(&tensors);
    let mut checkpoint = Checkpoint { config, tensors, card, ..small_files(&*files, listing).await? };
    checkpoint.files = files;
    Ok(checkpoint)
}

/// A checkpoint with only the optional small files filled in; its `files` is empty.
pub(super) async fn small_files(files: &dyn Files, listing: &Listing) -> Result<Checkpoint> {
    let tokenizer = match listing.get("tokenizer.json") {
        Some(&size) => Some(read_small(files, "tokenizer.json", size).await?),
        None => None,
    };
    // Tens of thousands of added tokens, of some models, are in `tokenizer.json`, too.
    let mut tokenizer_config = match listing.get("tokenizer_config.json") {
        Some(&size) => {
            let text = read_small(files, "tokenizer_config.json", size).await?;
            json::parse_without("tokenizer_config.json", &text, "added_tokens_decoder")?
        }
        None => Map::new(),
    };
    if let Some(&size) = listing.get("chat_template.jinja") {
        let template = String::from_utf8(read_small(files, "chat_template.jinja", size).await?)
            .map_err(|_| Error::InvalidFile("chat_template.jinja is not UTF-8".into()))?;
        tokenizer_config.insert("chat_template".into(), template.into());
    }
    Ok(Checkpoint {
        config: Value::Null,
        generation_config: read_json(files, listing, "generation_config.json").await?.unwrap_or_else(|| json!({})),
        tokenizer,
        tokenizer_config: tokenizer_config.into(),
        card: Card::default(),
        tensors: BTreeMap::new(),
        files: Box::new(super::files::Memory::default()),
    })
}

/// The JSON object in a file, or none if the file is not listed.
pub(super) async fn read_json(files: &dyn Files, listing: &Listing, name: &str) -> Result<Option<Value>> {
    match read_json_value(files, listing, name).await? {
        Some(value) if !value.is_object() => Err(Error::InvalidFile(format!("{name}: not a JSON object"))),
        value => Ok(value),
    }
}

/// The JSON value in a file, or none if the file is not listed.
pub(super) async fn read_json_value(files: &dyn Files, listing: &Listing, name: &str) -> Result<Option<Value>> {
    let Some(&size) = listing.get(name) else { return Ok(None) };
    let bytes = read_small(files, name, size).await?;
    json::parse(name, &bytes, json::ANY).map(Some)
}

pub(super) async fn read_small(files: &dyn Files, name: &str, size: u64) -> Result<Vec<u8>> {
    if size > MAX_JSON {
        return Err(Error::InvalidFile(format!("{name} has {size} bytes; at most {MAX_JSON} are read")));
    }
    files.read(name, 0, size as usize).await
}

/// The tensors of `model.safetensors`, or of the shards that the index names.
async fn read_tensors(files: &dyn Files, listing: &Listing) -> Result<BTreeMap<String, TensorInfo>> {
    const INDEX: &str = "model.safetensors.index.json";
    if let Some(&size) = listing.get("model.safetensors") {
        return tensors(read_header(files, "model.safetensors", size).await?);
    }
    let Some(index) = read_json(files, listing, INDEX).await? else {
        return Err(Error::NotFound(format!("model.safetensors or {INDEX}: a checkpoint directory must have one of them")));
    };
    let bad = |what: String| Error::InvalidFile(format!("{INDEX}: {what}"));
    let map = index.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("no \"weight_map\"".into()))?;
    let mut entries = BTreeMap::new();
    let mut shards: BTreeMap<&str, BTreeMap<String, Entry>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(|| bad(format!("the file of {name:?} is not a string")))?;
        if !shards.contains_key(file) {
            manifest::check_file_name(file)?;
            let size = *listing.get(file).ok_or_else(|| Error::NotFound(format!("{file:?}, which {INDEX} names")))?;
            shards.insert(file, read_header(files, file, size).await?);
        }
        let entry = shards.get_mut(file).and_then(|s| s.remove(name));
        let entry = entry.ok_or_else(|| Error::InvalidFile(format!("tensor {name:?} is missing in {file:?}, where {INDEX} puts it")))?;
        entries.insert(name.clone(), entry);
    }
    match shards.iter().find_map(|(file, rest)| rest.keys().next().map(|name| (file, name))) {
        Some((file, name)) => Err(bad(format!("tensor {name:?} of {file:?} is not listed"))),
        None => tensors(entries),
    }
}

fn tensors(mut entries: BTreeMap<String, Entry>) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = mxfp4::take_pairs(&mut entries)?;
    for (name, entry) in entries {
        tensors.insert(name.clone(), tensor(&name, entry)?);
    }
    Ok(tensors)
}

/// What a header says of a tensor.
pub(super) fn tensor(name: &str, entry: Entry) -> Result<TensorInfo> {
    let format = match entry.dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::Bf16,
        other => {
            return Err(schemes::refused_tensor(name, other, &entry.part.file));
        }
    };
    manifest::check_shape(name, &entry.shape)?;
    let info = TensorInfo { format, shape: entry.shape, values: vec![entry.part], scales: Vec::new() };
    if format.bits() == 16 && info.cols() % 2 == 1 {
        let message = format!("tensor {name:?} has rows of {} 16-bit elements, an odd number", info.cols());
        return Err(Error::UnsupportedFormat(message));
    }
    Ok(info)
}
