//! Writes a package from rows that arrive in order, holding the open shards only: one, and a second while a split plane's
//! scales wait for its values.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Sink,
    layout::{Layout, Target, plane_index},
    manifest::{FORMAT, FileEntry, MANIFEST, Manifest, Source, TensorEntry, sha256_hex},
};
use crate::{card::Card, error::Result, quant::Plane};

/// The package's small files and facts, once they are known.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Value,
    /// `tokenizer.json`, verbatim.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: Value,
    /// What is declared of the model; counts are filled in.
    pub card: Card,
    /// What the package is made from.
    pub source: Source,
}

struct OpenShard {
    bytes: Vec<u8>,
    /// Bytes not yet written.
    missing: usize,
}

/// Takes tensors row by row, in the order of the plan.
pub struct Writer<'a> {
    sink: &'a mut dyn Sink,
    targets: Vec<Target>,
    layout: Layout,
    open: BTreeMap<usize, OpenShard>,
    files: Vec<FileEntry>,
}

impl<'a> Writer<'a> {
    /// Plans a package of `targets`.
    pub fn new(sink: &'a mut dyn Sink, targets: Vec<Target>) -> Result<Writer<'a>> {
        let layout = Layout::plan(&targets)?;
        Ok(Writer { sink, targets, layout, open: BTreeMap::new(), files: Vec::new() })
    }

    /// The tensors, in order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Writes `bytes` at byte `at` of a tensor's plane. Every byte of every plane must be written once; shards that are
    /// full go to the sink.
    pub async fn write(&mut self, tensor: usize, plane: Plane, at: usize, bytes: &[u8]) -> Result<()> {
        let (mut at, mut bytes) = (at, bytes);
        while !bytes.is_empty() {
            let pieces = &self.layout.pieces[tensor][plane_index(plane)];
            let piece = pieces.iter().find(|p| (p.start..p.start + p.len).contains(&at)).expect("a row lies within its plane");
            let (here, rest) = bytes.split_at(bytes.len().min(piece.start + piece.len - at));
            let (shard, start) = (piece.shard, piece.offset + at - piece.start);
            let plan = &self.layout.shards[shard];
            let open = self.open.entry(shard).or_insert_with(|| {
                let mut bytes = plan.header.clone();
                bytes.resize(plan.size, 0);
                OpenShard { bytes, missing: plan.size - plan.header.len() }
            });
            open.bytes[start..start + here.len()].copy_from_slice(here);
            open.missing -= here.len();
            if open.missing == 0 {
                let full = self.open.remove(&shard).expect("just written");
                self.put(self.layout.file_name(shard), full.bytes).await?;
            }
            (at, bytes) = (at + here.len(), rest);
        }
        Ok(())
    }

    /// Writes the small files and, last, the manifest.
    pub async fn finish(mut self, facts: Facts) -> Result<Manifest> {
        assert!(self.open.is_empty(), "every plane is written before the package is finished");
        self.put("model.safetensors.index.json".into(), pretty(&self.index())).await?;
        self.put("config.json".into(), pretty(&facts.config)).await?;
        self.put("generation_config.json".into(), pretty(&facts.generation_config)).await?;
        self.put("tokenizer_config.json".into(), pretty(&facts.tokenizer_config)).await?;
        if let Some(tokenizer) = facts.tokenizer {
            self.put("tokenizer.json".into(), tokenizer).await?;
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut card = facts.card;
        let shards = self.files.iter().filter(|f| f.path.ends_with(".safetensors")).map(|f| f.size);
        card.count(self.targets.iter().map(|t| (t.format, t.shape.as_slice())), shards.sum());
        let manifest = Manifest {
            format: FORMAT,
            name: card.name.as_ref().map_or_else(|| facts.source.origin.clone(), |n| n.value.clone()),
            architecture: facts.config["model_type"].as_str().unwrap_or_default().to_owned(),
            quantization: card.quantisation.clone(),
            parameters: card.parameters,
            engine: concat!("openweights/", env!("CARGO_PKG_VERSION")).into(),
            source: facts.source,
            card,
            tensors: self.targets.iter().map(entry).collect(),
            files: self.files,
        };
        self.sink.put(MANIFEST, manifest.to_bytes()).await?;
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

    async fn put(&mut self, path: String, bytes: Vec<u8>) -> Result<()> {
        let (size, sha256) = (bytes.len() as u64, sha256_hex(&bytes));
        self.sink.put(&path, bytes).await?;
        self.files.push(FileEntry { path, size, sha256 });
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
