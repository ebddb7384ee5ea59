//! Writes a package from rows that arrive in order. Nothing is held: two shards grow at a time, one of values and one of
//! scales, and what small files there are is written before the first weight.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::{
    Sink,
    layout::{Layout, Piece, Target, plane_index},
    manifest::{FORMAT, FileEntry, MANIFEST, Manifest, Source, TensorEntry, sha256_hex},
    resume::{Already, Cursor, Prefix, State},
};
use crate::{
    card::Card,
    error::{Error, Result},
    quant::Plane,
};

/// An import notes how far it is when it has read so much more, or a part of what it reads in all.
const NOTE_EVERY: u64 = 8 << 20;
const NOTES: u64 = 128;

/// What is known of a package before its weights: the small files, and what is declared.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `generation_config.json`.
    pub generation_config: Value,
    /// `tokenizer.json`, verbatim.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: Value,
    /// What is declared of the model; counts are filled in.
    pub card: Card,
}

/// Takes tensors row by row, in the order of the plan.
pub struct Writer<'a> {
    sink: &'a mut dyn Sink,
    targets: Vec<Target>,
    layout: Layout,
    /// Bytes of each shard that are not wanted: they are there already.
    have: Vec<usize>,
    /// Shards that grow: what is written.
    growing: BTreeMap<usize, Prefix>,
    card: Card,
    shards: Vec<FileEntry>,
    small: Vec<FileEntry>,
    /// The only files that are wanted.
    only: Option<BTreeSet<String>>,
    cursor: Cursor,
    /// Bytes to read between two notes, and since the last one.
    step: u64,
    unnoted: u64,
}

impl<'a> Writer<'a> {
    /// Plans a package of `targets`, and writes what is known of it: the files need no memory while the weights stream.
    pub async fn begin(sink: &'a mut dyn Sink, targets: Vec<Target>, facts: Facts) -> Result<Writer<'a>> {
        let layout = Layout::plan(&targets)?;
        let Already { only, cursor, whole, growing } = sink.already();
        let mut have: Vec<usize> = match &only {
            Some(only) => {
                layout.shards.iter().enumerate().map(|(i, s)| if only.contains(&layout.file_name(i)) { 0 } else { s.size }).collect()
            }
            None => vec![0; layout.shards.len()],
        };
        let number = |path: &str, fits: &dyn Fn(usize) -> bool| {
            let found = (0..layout.shards.len()).find(|&i| layout.file_name(i) == path && fits(layout.shards[i].size));
            found.ok_or_else(|| misplaced(path))
        };
        for file in &whole {
            let shard = number(&file.path, &|size| file.size == size as u64)?;
            have[shard] = layout.shards[shard].size;
        }
        let mut begun = BTreeMap::new();
        for (path, prefix) in growing {
            let shard = number(&path, &|size| prefix.len < size)?;
            have[shard] = prefix.len;
            begun.insert(shard, prefix);
        }
        let (card, growing, shards, small) = (facts.card, begun, whole, Vec::new());
        let mut writer = Writer { sink, targets, layout, have, growing, card, shards, small, only, cursor, step: NOTE_EVERY, unnoted: 0 };
        writer.put("model.safetensors.index.json", &pretty(&writer.index())).await?;
        writer.put("generation_config.json", &pretty(&facts.generation_config)).await?;
        writer.put("tokenizer_config.json", &pretty(&facts.tokenizer_config)).await?;
        if let Some(tokenizer) = facts.tokenizer {
            writer.put("tokenizer.json", &tokenizer).await?;
        }
        Ok(writer)
    }

    /// The tensors, in order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Where reading begins: not at the beginning, where an import goes on.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether only some files are wanted, not all that follow from what is read.
    pub fn is_partial(&self) -> bool {
        self.only.is_some()
    }

    /// Whether any of bytes `at .. at + len` of a tensor's plane are not there yet.
    pub fn wants(&self, tensor: usize, plane: Plane, at: usize, len: usize) -> bool {
        let wanted = |piece: &Piece| {
            let end = (piece.start + piece.len).min(at + len);
            end > piece.start.max(at) && piece.offset + end - piece.start > self.have[piece.shard]
        };
        self.layout.pieces[tensor][plane_index(plane)].iter().any(wanted)
    }

    /// Notes are made so often that less than a hundredth of `total` bytes is read again after the last one.
    pub fn note_by(&mut self, total: u64) {
        self.step = (total / NOTES).min(NOTE_EVERY);
    }

    /// All that was read up to here is written: byte `taken` of the file that is read, of the digest `hash`.
    pub async fn rest(&mut self, taken: u64, hash: &Sha256) -> Result<()> {
        self.unnoted += taken.saturating_sub(self.cursor.taken);
        (self.cursor.taken, self.cursor.hash) = (taken, hash.clone());
        if self.unnoted >= self.step && !self.is_partial() { self.note().await } else { Ok(()) }
    }

    /// The publisher's `file` was read to its end.
    pub fn was_read(&mut self, file: FileEntry) {
        self.cursor.read.push(file);
        (self.cursor.taken, self.cursor.hash) = Default::default();
    }

    async fn note(&mut self) -> Result<()> {
        let entry = |(shard, prefix): (&usize, &Prefix)| FileEntry {
            path: self.layout.file_name(*shard),
            size: prefix.len as u64,
            sha256: prefix.sha256(),
        };
        self.unnoted = 0;
        self.sink.note(State::new(&self.cursor, self.shards.clone(), self.growing.iter().map(entry).collect())).await
    }

    /// Writes `bytes` at byte `at` of a tensor's plane, but for those that are there. Tensors come in order, and the rows of each plane.
    pub async fn write(&mut self, tensor: usize, plane: Plane, at: usize, bytes: &[u8]) -> Result<()> {
        let (mut at, mut bytes) = (at, bytes);
        while !bytes.is_empty() {
            let pieces = &self.layout.pieces[tensor][plane_index(plane)];
            let piece = pieces.iter().find(|p| (p.start..p.start + p.len).contains(&at)).ok_or_else(|| misplaced("a plane"))?;
            let (here, rest) = bytes.split_at(bytes.len().min(piece.start + piece.len - at));
            self.grow(piece.shard, piece.offset + at - piece.start, here).await?;
            (at, bytes) = (at + here.len(), rest);
        }
        Ok(())
    }

    async fn grow(&mut self, shard: usize, at: usize, bytes: &[u8]) -> Result<()> {
        let there = self.have[shard].saturating_sub(at).min(bytes.len());
        let (at, bytes) = (at + there, &bytes[there..]);
        if bytes.is_empty() {
            return Ok(());
        }
        let (plan, path) = (&self.layout.shards[shard], self.layout.file_name(shard));
        let growing = self.growing.entry(shard).or_default();
        let end = if growing.len == 0 { plan.header.len() } else { growing.len };
        if at != end {
            return Err(misplaced(&path));
        }
        for bytes in [if growing.len == 0 { &plan.header } else { &[][..] }, bytes] {
            self.sink.append(&path, bytes).await?;
            growing.add(bytes);
        }
        if growing.len == plan.size {
            let (size, sha256) = (plan.size as u64, self.growing.remove(&shard).expect("it grew just now").sha256());
            self.shards.push(FileEntry { path: path.clone(), size, sha256: sha256.clone() });
            // Before it is put away: wherever it is found, it is known to be whole.
            if !self.is_partial() {
                self.note().await?;
            }
            self.sink.close(&path, &sha256).await?;
        }
        Ok(())
    }

    /// Writes the configuration and, last, the manifest.
    pub async fn finish(mut self, config: &Value, source: Source) -> Result<Manifest> {
        if !self.growing.is_empty() || (self.only.is_none() && self.shards.len() < self.layout.shards.len()) {
            return Err(misplaced("the package"));
        }
        self.put("config.json", &pretty(config)).await?;
        let mut card = self.card;
        card.count(self.targets.iter().map(|t| (t.format, t.shape.as_slice())), self.shards.iter().map(|f| f.size).sum());
        let mut files = self.small;
        files.extend(self.shards);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            format: FORMAT,
            name: card.name.as_ref().map_or_else(|| source.origin.clone(), |n| n.value.clone()),
            architecture: config["model_type"].as_str().unwrap_or_default().to_owned(),
            quantization: card.quantisation.clone(),
            parameters: card.parameters,
            engine: concat!("openweights/", env!("CARGO_PKG_VERSION")).into(),
            source,
            card,
            tensors: self.targets.iter().map(entry).collect(),
            files,
        };
        let bytes = manifest.to_bytes();
        self.sink.append(MANIFEST, &bytes).await?;
        self.sink.close(MANIFEST, &sha256_hex(&bytes)).await?;
        Ok(manifest)
    }

    /// `model.safetensors.index.json`, as the Hub has it.
    fn index(&self) -> Value {
        let (mut map, mut total) = (BTreeMap::new(), 0);
        for piece in self.layout.pieces.iter().flatten().flatten() {
            map.insert(piece.name.clone(), self.layout.file_name(piece.shard));
            total += piece.len;
        }
        let weight_map: Map<String, Value> = map.into_iter().map(|(name, file)| (name, file.into())).collect();
        json!({ "metadata": { "total_size": total }, "weight_map": weight_map })
    }

    async fn put(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let sha256 = sha256_hex(bytes);
        if self.only.as_ref().is_none_or(|only| only.contains(path)) {
            self.sink.append(path, bytes).await?;
            self.sink.close(path, &sha256).await?;
        }
        self.small.push(FileEntry { path: path.to_owned(), size: bytes.len() as u64, sha256 });
        Ok(())
    }
}

/// Rows come in order, and all of them, unless an import goes on from a note that is wrong.
fn misplaced(path: &str) -> Error {
    Error::Integrity(format!("what an import that did not end left of {path} does not fit what follows: load it again"))
}

fn entry(target: &Target) -> (String, TensorEntry) {
    (target.name.clone(), TensorEntry { format: target.format.name().into(), shape: target.shape.clone() })
}

fn pretty(value: &Value) -> Vec<u8> {
    let value = if value.is_null() { &json!({}) } else { value };
    let mut bytes = serde_json::to_vec_pretty(value).expect("JSON values have string keys");
    bytes.push(b'\n');
    bytes
}
