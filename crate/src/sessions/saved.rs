//! Conversations in the store: opening one again computes nothing anew. Who can read the store can read the conversation, from its
//! tokens as from its keys and values.
//!
//! A blob holds, little-endian: the token ids (u32); for each cache, 256 positions at a time, keys then values; for each
//! convolution the rows that the next position sees (all f32). A record says what it belongs to and has the blob's SHA-256,
//! without which nothing of it is used. The layout is the same on every backend.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Parked, chunks};
use crate::{
    backend::{Cache, CacheSpec, Conv, SessionSpec},
    engine::Model,
    error::{Error, Result},
    weights::{
        manifest::{FileEntry, Manifest, hex, sha256_hex},
        store::{self, Storage},
    },
};

/// The layout of blobs and records that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// What a conversation's keys and values depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// [`model_digest`] of what the model was loaded from.
    pub model: String,
    /// Digests and scales of its adapters, in the order in which they act.
    pub adapters: Vec<String>,
    /// The engine's version.
    pub engine: String,
}

/// A saved conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub session: u32,
    /// Its id in the store.
    pub id: String,
    /// What its owner calls it; one of a model has it.
    pub name: String,
    /// What it belongs to.
    pub key: Key,
    /// Tokens that it holds.
    pub tokens: usize,
    /// When it was saved, milliseconds since 1970.
    pub saved_ms: u64,
    /// Its blob, where [`store::clean`] looks for what is needed.
    manifest: Blobs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Blobs {
    files: [FileEntry; 1],
}

impl Record {
    /// Bytes of its blob.
    pub fn bytes(&self) -> u64 {
        self.manifest.files[0].size
    }
}

/// A digest of all files of a package.
pub fn model_digest(manifest: &Manifest) -> String {
    let mut files: Vec<String> = manifest.files.iter().map(|file| format!("{} {}\n", file.sha256, file.path)).collect();
    files.sort();
    sha256_hex(files.concat().as_bytes())
}

/// The store's id of the conversation that is called `name`.
fn record_id(model: &str, name: &str) -> String {
    format!("session-{}", &sha256_hex(format!("{model}\n{name}").as_bytes())[..32])
}

/// All saved conversations with the model that has this digest, or with any.
pub async fn list(storage: &dyn Storage, model: Option<&str>) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in storage.records().await?.iter().filter(|id| id.starts_with("session-")) {
        let record = storage.read_record(id).await?.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        records.extend(record.filter(|record| model.is_none_or(|model| model == record.key.model)));
    }
    records.sort_by_key(|record| record.saved_ms);
    Ok(records)
}

/// Removes a saved conversation and its blob. Nobody else may be writing to the store.
pub async fn remove(storage: &dyn Storage, model: &str, name: &str) -> Result<()> {
    let id = record_id(model, name);
    let Some(bytes) = storage.read_record(&id).await? else { return Err(missing(name)) };
    storage.remove_record(&id).await?;
    drop_blob(storage, &bytes).await
}

/// Removes the blob of a record that is gone, unless another names it.
async fn drop_blob(storage: &dyn Storage, record: &[u8]) -> Result<()> {
    let needed = store::referenced(storage).await?;
    let record = serde_json::from_slice::<Record>(record).ok();
    for file in record.iter().flat_map(|record| &record.manifest.files).filter(|file| !needed.contains(&file.sha256)) {
        storage.remove_blob(&file.sha256).await?;
    }
    Ok(())
}

/// Bytes of a position's keys, or values.
fn row_bytes(cache: &CacheSpec) -> usize {
    4 * cache.kv_heads * cache.head_dim
}

/// Bytes of a blob.
fn blob_bytes(spec: &SessionSpec, tokens: usize) -> u64 {
    let caches: usize = spec.caches.iter().map(|cache| 2 * row_bytes(cache)).sum();
    let convs: usize = spec.convs.iter().map(|conv| 4 * conv.cols * conv.seen(tokens)).sum();
    (4 + caches as u64) * tokens as u64 + convs as u64
}

impl Model {
    /// What the conversations of this model depend on; `model` is the digest of what it was loaded from.
    pub fn session_key(&self, model: &str) -> Key {
        Key { model: model.to_owned(), adapters: self.adapter_digests(), engine: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Saves conversation `id` as `name`, in place of what was called so. Nobody else may be writing to the store.
    pub async fn save_session(&mut self, id: u32, storage: &dyn Storage, model: &str, name: &str, now_ms: u64) -> Result<Record> {
        let (spec, (session, tokens)) = (self.session_spec(), self.session(id)?);
        if tokens.is_empty() {
            return Err(Error::InvalidInput("the session is empty: there is nothing to save".into()));
        }
        let (record_id, size) = (record_id(model, name), blob_bytes(&spec, tokens.len()));
        if let Some(available) = storage.usage().await?.available().filter(|available| *available < size) {
            return Err(store::no_room(storage, size, available).await?);
        }
        let (mut partial, mut hash) = (storage.begin(&record_id).await?, Sha256::new());
        let mut put = async |bytes: &[u8]| {
            hash.update(bytes);
            partial.append(bytes).await
        };
        put(bytemuck::cast_slice(&tokens)).await?;
        for cache in (0..spec.caches.len() as u32).map(Cache) {
            for range in chunks(tokens.len()) {
                let [keys, values] = self.backend.read_cache(session, cache, range).await?;
                put(bytemuck::cast_slice(&keys)).await?;
                put(bytemuck::cast_slice(&values)).await?;
            }
        }
        for conv in (0..spec.convs.len() as u32).map(Conv) {
            let rows = self.backend.read_conv(session, conv).await?;
            put(bytemuck::cast_slice(&rows)).await?;
        }
        let sha256 = hex(&hash.finalize());
        partial.commit(&sha256).await?;
        let files = [FileEntry { path: "session".into(), size, sha256: sha256.clone() }];
        let (key, tokens) = (self.session_key(model), tokens.len());
        let record = Record { session: FORMAT, id: record_id, name: name.into(), key, tokens, saved_ms: now_ms, manifest: Blobs { files } };
        let bytes = serde_json::to_vec(&record).map_err(|e| Error::Storage(format!("cannot write the session's record: {e}")))?;
        let before = storage.read_record(&record.id).await?;
        storage.write_record(&record.id, &bytes).await?;
        if let Some(before) = before {
            drop_blob(storage, &before).await?;
        }
        Ok(record)
    }

    /// Opens the conversation saved as `name`; returns its number. One that belongs to another model, other adapters or another
    /// engine, or that is not as it was saved, is refused: then the conversation is computed anew from its text.
    pub async fn restore_session(&mut self, storage: &dyn Storage, model: &str, name: &str) -> Result<u32> {
        let Some(bytes) = storage.read_record(&record_id(model, name)).await? else { return Err(missing(name)) };
        let record = self.check_record(&bytes, model)?;
        let id = self.open_session()?;
        let restored = self.fill_session(id, storage, &record).await;
        if restored.is_err() {
            self.close_session(id)?;
        }
        restored.map(|()| id)
    }

    /// The record, if this model may go on from it.
    fn check_record(&self, bytes: &[u8], model: &str) -> Result<Record> {
        let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if json["session"] != FORMAT {
            return Err(Error::UnsupportedFormat(format!("a saved session of format {}; this engine reads {FORMAT}", json["session"])));
        }
        let record: Record = serde_json::from_value(json).map_err(|e| Error::InvalidFile(format!("a saved session's record: {e}")))?;
        let key = self.session_key(model);
        if record.key.engine != key.engine {
            let (saved, ours) = (&record.key.engine, &key.engine);
            return Err(Error::UnsupportedFormat(format!("the session was saved by version {saved} of the engine, this is {ours}")));
        }
        if record.key != key {
            return Err(Error::InvalidInput("the session was saved with another model, or other adapters or scales of them".into()));
        }
        if record.tokens > self.context() {
            return Err(Error::ContextOverflow { tokens: record.tokens, context: self.context() });
        }
        if record.bytes() != blob_bytes(&self.session_spec(), record.tokens) {
            let (bytes, tokens) = (record.bytes(), record.tokens);
            return Err(Error::InvalidFile(format!("a saved session of {tokens} tokens with {bytes} bytes, which is not what they take")));
        }
        Ok(record)
    }

    /// Reads the blob into a conversation. Nothing is computed from it before its digest is right.
    async fn fill_session(&mut self, id: u32, storage: &dyn Storage, record: &Record) -> Result<()> {
        let (spec, (session, _), blob) = (self.session_spec(), self.session(id)?, &record.manifest.files[0]);
        let (mut hash, mut offset) = (Sha256::new(), 0);
        let mut take = async |bytes: usize| -> Result<Vec<u8>> {
            let read = storage.read(&blob.sha256, offset, bytes).await?;
            if read.len() != bytes {
                return Err(Error::Integrity(format!("saved session {:?} is cut short", record.name)));
            }
            hash.update(&read);
            offset += bytes as u64;
            Ok(read)
        };
        let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(&take(4 * record.tokens).await?);
        self.backend.resume(session, tokens.len())?;
        for (cache, of) in (0..).map(Cache).zip(&spec.caches) {
            for range in chunks(tokens.len()) {
                let keys: Vec<f32> = bytemuck::pod_collect_to_vec(&take(range.len() * row_bytes(of)).await?);
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(&take(range.len() * row_bytes(of)).await?);
                self.backend.write_cache(session, cache, range.start, &keys, &values);
            }
        }
        for (conv, of) in (0..).map(Conv).zip(&spec.convs) {
            let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&take(4 * of.cols * of.seen(tokens.len())).await?);
            self.backend.write_conv(session, conv, &rows);
        }
        if hex(&hash.finalize()) != blob.sha256 {
            return Err(Error::Integrity(format!("saved session {:?} is not what was saved", record.name)));
        }
        self.check_tokens(&tokens)?;
        self.backend.flush().await?;
        self.sessions.parked.insert(id, Parked { session, tokens });
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::NotFound(format!("no session of this model is saved as {name:?}"))
}
