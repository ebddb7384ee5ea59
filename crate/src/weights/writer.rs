//! Writes a package from rows that arrive in order. Nothing is held: two shards grow at a time, one of values and one of
//! scales, and what small files there are is written before the first weight.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Sink,
    layout::{Layout, Target, plane_index},
    manifest::{FORMAT, FileEntry, MANIFEST, Manifest, Source, TensorEntry, hex, sha256_hex},
};
use crate::{card::Card, error::Result, quant::Plane};

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

/// A shard that grows.
#[derive(Default)]
struct Growing {
    written: usize,
    hash: Sha256,
}

/// Takes tensors row by row, in the order of the plan.
pub struct Writer<'a> {
    sink: &'a mut dyn Sink,
    targets: Vec<Target>,
    layout: Layout,
    growing: BTreeMap<usize, Growing>,
    card: Card,
    files: Vec<FileEntry>,
}

impl<'a> Writer<'a> {
    /// Plans a package of `targets`, and writes what is known of it: the files need no memory while the weights stream.
    pub async fn begin(sink: &'a mut dyn Sink, targets: Vec<Target>, facts: Facts) -> Result<Writer<'a>> {
        let layout = Layout::plan(&targets)?;
        let mut writer = Writer { sink, targets, layout, growing: BTreeMap::new(), card: facts.card, files: Vec::new() };
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

    /// Writes `bytes` at byte `at` of a tensor's plane. Tensors come in order, and the rows of each plane.
    pub async fn write(&mut self, tensor: usize, plane: Plane, at: usize, bytes: &[u8]) -> Result<()> {
        let (mut at, mut bytes) = (at, bytes);
        while !bytes.is_empty() {
            let pieces = &self.layout.pieces[tensor][plane_index(plane)];
            let piece = pieces.iter().find(|p| (p.start..p.start + p.len).contains(&at)).expect("a row lies within its plane");
            let (here, rest) = bytes.split_at(bytes.len().min(piece.start + piece.len - at));
            self.grow(piece.shard, piece.offset + at - piece.start, here).await?;
            (at, bytes) = (at + here.len(), rest);
        }
        Ok(())
    }

    async fn grow(&mut self, shard: usize, at: usize, bytes: &[u8]) -> Result<()> {
        let (plan, path) = (&self.layout.shards[shard], self.layout.file_name(shard));
        let growing = self.growing.entry(shard).or_default();
        for bytes in [if growing.written == 0 { &plan.header } else { &[][..] }, bytes] {
            self.sink.append(&path, bytes).await?;
            growing.hash.update(bytes);
            growing.written += bytes.len();
        }
        assert_eq!(growing.written, at + bytes.len(), "rows come in order");
        if growing.written == plan.size {
            let sha256 = hex(&self.growing.remove(&shard).expect("it grew just now").hash.finalize());
            self.sink.close(&path, &sha256).await?;
            self.files.push(FileEntry { path, size: plan.size as u64, sha256 });
        }
        Ok(())
    }

    /// Writes the configuration and, last, the manifest.
    pub async fn finish(mut self, config: &Value, source: Source) -> Result<Manifest> {
        assert!(self.growing.is_empty(), "every plane is written before the package is finished");
        self.put("config.json", &pretty(config)).await?;
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut card = self.card;
        let shards = self.files.iter().filter(|f| f.path.ends_with(".safetensors")).map(|f| f.size);
        card.count(self.targets.iter().map(|t| (t.format, t.shape.as_slice())), shards.sum());
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
            files: self.files,
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
        self.sink.append(path, bytes).await?;
        self.sink.close(path, &sha256).await?;
        self.files.push(FileEntry { path: path.to_owned(), size: bytes.len() as u64, sha256 });
        Ok(())
    }
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
