//! An adapter at an address: fetched into the store once, by content. While it is there, the network is asked nothing.
//!
//! No publisher states digests of adapters; what is stored is named by the digest of what came.

use std::rc::Rc;

use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Adapter, CONFIG, WEIGHTS, config::Lora, open};
use crate::{
    error::{Error, Result},
    weights::{
        files::Listing,
        manifest::{FileEntry, hex},
        network::Network,
        remote::Remote,
        source::{Access, Source},
        store::{self, Storage, StoreFiles},
    },
};

/// Most bytes of a configuration.
const MOST_CONFIG: usize = 1 << 20;

/// An adapter in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id there.
    pub id: String,
    /// What it was named as.
    pub url: String,
    /// Its files.
    pub files: Vec<FileEntry>,
}

/// Where an adapter's files lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    source: Source,
    files: Vec<String>,
}

impl Address {
    /// A directory with PEFT's two files, a `.safetensors` file beside its configuration, or a GGUF file; by address, or by a
    /// hub's id.
    pub fn parse(text: &str, access: &Access) -> Result<Address> {
        let (place, weights) = match text.rsplit_once('/') {
            Some((folder, name)) if name.ends_with(".safetensors") => (folder, name),
            _ => (text, WEIGHTS),
        };
        let source = Source::parse(place, access)?;
        let files = match &source.gguf {
            None => vec![CONFIG.into(), weights.into()],
            Some(names) if names.len() == 1 => names.clone(),
            Some(names) => return Err(Error::UnsupportedFormat(format!("{:?}: an adapter in several files", names[0]))),
        };
        Ok(Address { source, files })
    }

    /// The last part of the address, for people.
    pub fn name(&self) -> &str {
        let last = self.source.origin.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        last.split('@').next().unwrap_or_default()
    }

    fn id(&self) -> String {
        let weights = self.files.last().map(String::as_str).unwrap_or_default();
        format!("adapter-{}", store::model_id(&if weights == WEIGHTS { self.source.origin.clone() } else { self.source.address(weights) }))
    }
}

/// The adapter at `address`, if it is stored whole.
pub async fn stored(storage: &Rc<dyn Storage>, address: &Address) -> Result<Option<Adapter>> {
    match find(&**storage, &address.id()).await? {
        Some(record) => open_stored(storage, &record.files).await.map(Some),
        None => Ok(None),
    }
}

/// Fetches the adapter at `address` into the store and opens it. One that cannot be opened is not kept. Nobody else may be writing.
pub async fn fetch(storage: &Rc<dyn Storage>, mut network: Network<'_>, address: &Address) -> Result<Adapter> {
    let (mut added, mut files) = (Vec::new(), Vec::new());
    let mut work = async || {
        for name in &address.files {
            files.push(fetch_file(&**storage, &mut network, address, name, &mut added).await?);
        }
        let adapter = open_stored(storage, &files).await?;
        let record = json!({ "id": address.id(), "url": address.source.origin, "adapter": true, "manifest": { "files": files } });
        storage.write_record(&address.id(), record.to_string().as_bytes()).await?;
        Ok(adapter)
    };
    let result = work().await;
    if result.is_err() {
        let needed = store::referenced(&**storage).await?;
        for sha256 in added.iter().filter(|sha256| !needed.contains(*sha256)) {
            storage.remove_blob(sha256).await?;
        }
    }
    result
}

/// All adapters that are stored whole.
pub async fn list(storage: &dyn Storage) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for id in storage.records().await? {
        records.extend(find(storage, &id).await?);
    }
    Ok(records)
}

async fn fetch_file(
    storage: &dyn Storage,
    network: &mut Network<'_>,
    address: &Address,
    name: &str,
    added: &mut Vec<String>,
) -> Result<FileEntry> {
    let url = address.source.address(name);
    let missing = || Error::NotFound(format!("{url}: an adapter is a directory with {CONFIG} and {WEIGHTS}, or a GGUF file"));
    let remote = Remote::open(*network, url.clone()).await?.ok_or_else(missing)?;
    let size = remote.size;
    if name == CONFIG && size > MOST_CONFIG as u64 {
        return Err(Error::InvalidFile(format!("{url} has {size} bytes; at most {MOST_CONFIG} are read")));
    }
    store::make_room(storage, &address.id(), size, |sha256| added.iter().any(|a| a == sha256)).await?;
    let mut partial = storage.begin(&format!("{}-{name}", address.id())).await?;
    let (mut body, mut hash, mut config) = (remote.into_open()(0), Sha256::new(), Vec::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        hash.update(&chunk);
        if name == CONFIG {
            config.extend_from_slice(&chunk);
        }
        partial.append(&chunk).await?;
    }
    if name == CONFIG {
        // What is refused by its configuration is refused before its weights are asked for.
        Lora::parse(&config)?;
    }
    let sha256 = hex(&hash.finalize());
    if storage.blob_size(&sha256).await?.is_none() {
        partial.commit(&sha256).await?;
        added.push(sha256.clone());
    }
    Ok(FileEntry { path: name.to_owned(), size, sha256 })
}

async fn open_stored(storage: &Rc<dyn Storage>, files: &[FileEntry]) -> Result<Adapter> {
    let listing: Listing = files.iter().map(|file| (file.path.clone(), file.size)).collect();
    open(Box::new(StoreFiles::of(Rc::clone(storage), files.to_vec())), &listing).await
}

/// The record `id`, if it is an adapter's, and all of its files are stored.
async fn find(storage: &dyn Storage, id: &str) -> Result<Option<Record>> {
    let Some(bytes) = storage.read_record(id).await? else { return Ok(None) };
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let files: Vec<FileEntry> = serde_json::from_value(json["manifest"]["files"].clone()).unwrap_or_default();
    let (Some(url), true) = (json["url"].as_str(), json["adapter"] == true && !files.is_empty()) else { return Ok(None) };
    for file in &files {
        if storage.blob_size(&file.sha256).await? != Some(file.size) {
            return Ok(None);
        }
    }
    Ok(Some(Record { id: id.to_owned(), url: url.to_owned(), files }))
}
