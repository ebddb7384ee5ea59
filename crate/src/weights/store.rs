//! The store: packages kept by content, so that a file is there once and only if it is right.
//!
//! `blobs/<sha256>` are verified files, `models/<id>.json` say which of them make a model, `partial/` holds files on their
//! way. A file becomes a blob in one step after its digest matched; a model's record is written last. So what a
//! crash leaves behind is never mistaken for a model, and what is left of a download is where it goes on.

use std::{collections::BTreeSet, rc::Rc};

use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::{Deserialize, Serialize};

use super::{
    Files,
    files::cut_short,
    manifest::{FileEntry, Manifest, sha256_hex},
};
use crate::error::{Error, Result};

/// Where blobs and records lie: browser storage, or memory. Digests are lower-case hexadecimal SHA-256.
pub trait Storage {
    /// Size of a blob; none if it is not stored.
    fn blob_size<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>>;
    /// Bytes `offset .. offset + len` of a blob; fewer is an `integrity` error.
    fn read<'a>(&'a self, sha256: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>>;
    /// Closes what reading left open.
    fn release(&self) {}
    /// Opens `partial/<name>` with what it holds, for one writer at a time. Its name begins with the digest of the file that is downloaded, or of
    /// what an import is of.
    fn resume<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn Partial>>>;
    /// Names and sizes of all partial files.
    fn partials(&self) -> LocalBoxFuture<'_, Result<Vec<(String, u64)>>>;
    /// Removes a partial file, if it is there; one that is being written stays.
    fn remove_partial<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<()>>;
    /// Removes a blob, if it is there.
    fn remove_blob<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>>;
    /// Digests of all blobs.
    fn blobs(&self) -> LocalBoxFuture<'_, Result<Vec<String>>>;
    /// Ids of all records.
    fn records(&self) -> LocalBoxFuture<'_, Result<Vec<String>>>;
    /// A record's bytes; none if there is no such record.
    fn read_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>>>;
    /// Writes or replaces a record.
    fn write_record<'a>(&'a self, id: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>>;
    /// Removes a record, if it is there.
    fn remove_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>>;
    /// What is used and granted.
    fn usage(&self) -> LocalBoxFuture<'_, Result<Usage>>;

    /// Begins `partial/<name>`, empty, for one writer at a time.
    fn begin<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn Partial>>> {
        async move {
            let mut partial = self.resume(name).await?;
            partial.truncate(0)?;
            Ok(partial)
        }
        .boxed_local()
    }
}

/// A file on its way. Dropped without a commit, it stays a partial file.
pub trait Partial {
    /// Bytes that it holds.
    fn size(&self) -> u64;
    /// Bytes `offset .. offset + len`, which it must hold.
    fn read<'a>(&'a mut self, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>>;
    /// Keeps only the first `size` bytes of those that it holds.
    fn truncate(&mut self, size: u64) -> Result<()>;
    /// Adds bytes at the end. Storage that is full is a `quota` error.
    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>>;
    /// Makes it the blob `sha256`, at once. The caller has computed the digest.
    fn commit(self: Box<Self>, sha256: &str) -> LocalBoxFuture<'static, Result<()>>;
}

/// What storage holds and may hold, in bytes, as the browser estimates it. Their difference can be relied on; `used` alone
/// is padded and lags behind, and [`stored_bytes`] is what our models take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// In use, by everything of this origin.
    pub used: u64,
    /// The most that is granted; none if that is not known.
    pub quota: Option<u64>,
}

impl Usage {
    /// Bytes that may still be written, if that is known.
    pub fn available(&self) -> Option<u64> {
        self.quota.map(|quota| quota.saturating_sub(self.used))
    }
}

/// A stored model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id in the store.
    pub id: String,
    /// The address of the package, or of what it was imported from.
    pub url: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// The manifest as it was published, letter by letter: what digests and signatures are of. An import has none.
    #[serde(default)]
    pub text: Option<String>,
    /// Its `model.sig`, if one was asked for.
    #[serde(default)]
    pub signature: Option<String>,
}

/// The store's id for the package at `url`: readable, safe as a file name, different for different addresses.
pub fn model_id(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name: String = last.chars().take(40).map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    format!("{}-{}", name.trim_start_matches('.'), &sha256_hex(url.as_bytes())[..12])
}

/// The record `id`, if it is there and readable. An unreadable one is as good as none: a new download replaces it.
pub async fn find(storage: &dyn Storage, id: &str) -> Result<Option<Record>> {
    let bytes = storage.read_record(id).await?;
    Ok(bytes.and_then(|bytes| parse(&bytes).ok()))
}

/// The record `id`, if all of its files are stored.
pub async fn find_complete(storage: &dyn Storage, id: &str) -> Result<Option<Record>> {
    match find(storage, id).await? {
        Some(record) if is_complete(storage, &record.manifest).await? => Ok(Some(record)),
        _ => Ok(None),
    }
}

/// Writes a model's record: from here on it counts as stored.
pub async fn write(storage: &dyn Storage, record: &Record) -> Result<()> {
    let bytes = serde_json::to_vec(record).map_err(|e| Error::Storage(format!("cannot write the model's record: {e}")))?;
    storage.write_record(&record.id, &bytes).await
}

/// All models, also those of which files have gone missing.
pub async fn list(storage: &dyn Storage) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in storage.records().await? {
        records.extend(find(storage, &id).await?);
    }
    Ok(records)
}

/// Whether all files of `manifest` are stored.
pub async fn is_complete(storage: &dyn Storage, manifest: &Manifest) -> Result<bool> {
    Ok(missing(storage, &manifest.files).await?.is_empty())
}

/// Those of `files` that are not stored: a browser may evict them, a person clear them.
pub async fn missing<'a>(storage: &dyn Storage, files: &'a [FileEntry]) -> Result<Vec<&'a FileEntry>> {
    let mut missing = Vec::new();
    for file in files {
        if storage.blob_size(&file.sha256).await? != Some(file.size) {
            missing.push(file);
        }
    }
    Ok(missing)
}

/// Bytes of stored files: of models and adapters, and of what none of them needs, downloads that go on included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Needed.
    pub models: u64,
    /// The rest, which [`clean`] removes.
    pub unfinished: u64,
}

/// What the stored files take.
pub async fn stored_bytes(storage: &dyn Storage) -> Result<Bytes> {
    let mut bytes = Bytes { unfinished: storage.partials().await?.iter().map(|(_, size)| size).sum(), ..Bytes::default() };
    let referenced = referenced(storage).await?;
    for sha256 in storage.blobs().await? {
        let size = storage.blob_size(&sha256).await?.unwrap_or(0);
        *(if referenced.contains(&sha256) { &mut bytes.models } else { &mut bytes.unfinished }) += size;
    }
    Ok(bytes)
}

/// Removes a model, and all files that no model needs then.
pub async fn remove(storage: &dyn Storage, id: &str) -> Result<()> {
    if storage.read_record(id).await?.is_none() {
        return Err(Error::NotFound(format!("no stored model has the id {id:?}")));
    }
    storage.remove_record(id).await?;
    clean(storage, |_| false).await
}

/// Removes what no model needs: partial files, and files of downloads that were never completed, but for the `wanted`
/// digests. Only for who may be sure that nobody else is downloading.
pub async fn clean(storage: &dyn Storage, wanted: impl Fn(&str) -> bool) -> Result<()> {
    sweep(storage, &wanted).await?;
    let referenced = referenced(storage).await?;
    for sha256 in storage.blobs().await? {
        if !referenced.contains(&sha256) && !wanted(&sha256) {
            storage.remove_blob(&sha256).await?;
        }
    }
    Ok(())
}

/// Removes partial files that nobody writes and nothing can go on from: all but those of the `resumable` digests, of a download's file or
/// of what an import is of.
pub async fn sweep(storage: &dyn Storage, resumable: impl Fn(&str) -> bool) -> Result<()> {
    for (name, _) in storage.partials().await? {
        let sha256 = name.split('.').next().unwrap_or_default();
        if !is_sha256(sha256) || !resumable(sha256) {
            storage.remove_partial(&name).await?;
        }
    }
    Ok(())
}

/// What is noted of a partial file is in a file of its name and this.
pub(super) const NOTE: &str = ".json";

/// 64 lower-case hexadecimal digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Makes sure that `needed` bytes fit for the model `id`. Where they do not, removes what neither a model nor this load
/// needs: files of downloads that were given up, and of this model as it was published before; not the `wanted` digests.
pub async fn make_room(storage: &dyn Storage, id: &str, needed: u64, wanted: impl Fn(&str) -> bool) -> Result<()> {
    if storage.usage().await?.available().is_none_or(|available| available >= needed) {
        return Ok(());
    }
    // A record of this id is not whole, or nothing would be loaded: what it alone names may go.
    storage.remove_record(id).await?;
    clean(storage, wanted).await?;
    match storage.usage().await?.available() {
        Some(available) if available < needed => Err(no_room(storage, needed, available).await?),
        _ => Ok(()),
    }
}

/// The error of storage that cannot take `needed` bytes: with what the stored models take, which may be removed.
pub async fn no_room(storage: &dyn Storage, needed: u64, available: u64) -> Result<Error> {
    let mut removable = 0;
    for sha256 in referenced(storage).await? {
        removable += storage.blob_size(&sha256).await?.unwrap_or(0);
    }
    // Chromium says that 10 GiB are free whatever it grants: where a write failed, what it says counts only if it is too little.
    let available = if available < needed { available } else { 0 };
    Ok(Error::Quota { needed, available, removable })
}

fn parse(bytes: &[u8]) -> Result<Record> {
    let bad = |e: serde_json::Error| Error::InvalidFile(format!("stored record: {e}"));
    let json: serde_json::Value = serde_json::from_slice(bytes).map_err(bad)?;
    // The manifest is checked as if it had just been fetched.
    Manifest::parse(json["manifest"].to_string().as_bytes())?;
    serde_json::from_value(json).map_err(bad)
}

pub(crate) async fn referenced(storage: &dyn Storage) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for id in storage.records().await? {
        all.extend(storage.read_record(&id).await?.iter().flat_map(|bytes| digests(bytes)));
    }
    Ok(all)
}

/// The digests that a record names, also if a newer engine wrote it.
fn digests(record: &[u8]) -> BTreeSet<String> {
    let json: serde_json::Value = serde_json::from_slice(record).unwrap_or_default();
    let files = json["manifest"]["files"].as_array();
    files.into_iter().flatten().filter_map(|file| Some(file["sha256"].as_str()?.to_string())).collect()
}

/// The files of a stored package, by their names.
pub struct StoreFiles {
    storage: Rc<dyn Storage>,
    files: Vec<FileEntry>,
}

impl StoreFiles {
    /// The files of `manifest` in `storage`.
    pub fn new(storage: Rc<dyn Storage>, manifest: Manifest) -> Self {
        Self::of(storage, manifest.files)
    }

    /// These files in `storage`.
    pub fn of(storage: Rc<dyn Storage>, files: Vec<FileEntry>) -> Self {
        Self { storage, files }
    }
}

impl Files for StoreFiles {
    fn read<'a>(&'a self, file: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let entry = self.files.iter().find(|entry| entry.path == file);
            let entry = entry.ok_or_else(|| Error::NotFound(format!("file {file:?} of the package")))?;
            if offset.checked_add(len as u64).is_none_or(|end| end > entry.size) {
                return Err(cut_short(file, offset, len, entry.size));
            }
            let bytes = self.storage.read(&entry.sha256, offset, len).await?;
            if bytes.len() == len { Ok(bytes) } else { Err(cut_short(file, offset, len, offset + bytes.len() as u64)) }
        }
        .boxed_local()
    }

    fn release(&self) {
        self.storage.release();
    }
}
