//! What a page asks of the store: what is there, what it takes, whether it is right; removing, and a file to take along.

use js_sys::{Array, Function, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use web_sys::Blob;

use super::{
    clock::BrowserClock,
    fetch::BrowserFetch,
    load::{CHECKS, Teller, lock_store},
    storage,
};
use crate::{
    error::{Error, Result},
    sessions::saved,
    weights::{
        abort::Abort,
        acquire::Acquire,
        adapter::fetch,
        manifest::FileEntry,
        network::{Authorized, origin},
        owpkg::{self, Piece},
        source::{self, HUB},
        store::{self, Record},
        trust::Trust,
        verify::{Verified, Verifier},
    },
};

/// What is in the store, in JavaScript's names.
#[derive(Serialize)]
pub struct Stored {
    id: String,
    kind: &'static str,
    name: Option<String>,
    source: String,
    bytes: u64,
    missing: u64,
}

/// The models and adapters that are stored, also those of which files are gone; and saved conversations.
pub async fn list() -> Result<Vec<Stored>> {
    let storage = storage::open().await?.storage;
    let mut models = Vec::new();
    for Record { id, url, manifest, .. } in store::list(&*storage).await? {
        let missing = store::missing(&*storage, &manifest.files).await?.iter().map(|file| file.size).sum();
        models.push(Stored { id, kind: "model", source: url, bytes: manifest.bytes(), missing, name: Some(manifest.name) });
    }
    for fetch::Record { id, url, files } in fetch::list(&*storage).await? {
        let bytes = files.iter().map(|file| file.size).sum();
        models.push(Stored { id, kind: "adapter", source: url, bytes, missing: 0, name: None });
    }
    for record in saved::list(&*storage, None).await? {
        let bytes = record.bytes();
        models.push(Stored { id: record.id, kind: "session", source: String::new(), bytes, missing: 0, name: Some(record.name) });
    }
    Ok(models)
}

/// Removes a model, and what no model needs: no download may be under way.
pub async fn remove(id: &str) -> Result<()> {
    let _lock = lock_store().await?;
    store::remove(&*storage::open().await?.storage, id).await
}

/// Removes what no model needs, once no download is under way; says how many bytes that were.
pub async fn clean() -> Result<u64> {
    let _lock = lock_store().await?;
    let storage = storage::open().await?.storage;
    let before = store::stored_bytes(&*storage).await?.unfinished;
    store::clean(&*storage, |_| false).await?;
    Ok(before - store::stored_bytes(&*storage).await?.unfinished)
}

/// Bytes used and granted, and where.
#[derive(Serialize)]
pub struct Usage {
    kind: &'static str,
    reason: Option<String>,
    #[serde(flatten)]
    total: store::Usage,
    #[serde(flatten)]
    bytes: store::Bytes,
}

/// Bytes used and granted, and where.
pub async fn usage() -> Result<Usage> {
    let kept = storage::open().await?;
    let (total, bytes) = (kept.storage.usage().await?, store::stored_bytes(&*kept.storage).await?);
    Ok(Usage { kind: kept.kind(), reason: kept.reason, total, bytes })
}

/// What fetching again may need.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    hub: Option<String>,
    token: Option<String>,
}

/// Hashes a stored model, and fetches again what is wrong.
pub async fn verify(id: &str, access: Access, on_progress: &Function) -> Result<Verified> {
    let _lock = lock_store().await?;
    let storage = storage::open().await?.storage;
    let teller = Teller::new(on_progress);
    let (abort, progress) = (Abort::default(), |progress: crate::weights::progress::Progress| teller.tell(&progress.into()));
    if let Some(adapter) = fetch::list(&*storage).await?.into_iter().find(|adapter| adapter.id == id) {
        let verifier = Verifier { storage: &*storage, clock: &BrowserClock, abort: &abort, progress: &progress };
        let url = &adapter.url;
        return Ok(verifier.check(&adapter.files).await?.unless(format!("load the adapter again, from {url}")));
    }
    let hub = origin(access.hub.as_deref().unwrap_or(HUB)).unwrap_or_default().to_owned();
    let fetch = Authorized { fetch: &BrowserFetch, origin: hub, token: access.token };
    let acquire = Acquire {
        storage: &*storage,
        fetch: &fetch,
        clock: &BrowserClock,
        abort: &abort,
        progress: &progress,
        checks: CHECKS,
        trust: Trust::default(),
    };
    acquire.verify(id, &source::Access { hub: access.hub, ..source::Access::default() }).await
}

/// A stored model as one file. Its contents stay where they are until they are read.
pub async fn export(id: &str) -> Result<Blob> {
    let kept = storage::open().await?;
    let missing = |what: &str| Error::NotFound(format!("{what} with the id {id:?}"));
    let record = store::find(&*kept.storage, id).await?.ok_or_else(|| missing("a stored model"))?;
    if !store::is_complete(&*kept.storage, &record.manifest).await? {
        return Err(missing("all files of the stored model"));
    }
    let parts = Array::new();
    for piece in owpkg::pieces(&record)? {
        parts.push(&match piece {
            Piece::Bytes(bytes) => Uint8Array::from(&bytes[..]).into(),
            Piece::Stored(FileEntry { sha256, size, .. }) => match &kept.files {
                Some(files) => JsValue::from(files.blob(&sha256).await?),
                None => Uint8Array::from(&kept.storage.read(&sha256, 0, size as usize).await?[..]).into(),
            },
        });
    }
    Blob::new_with_u8_array_sequence(&parts).map_err(|_| Error::Storage("the browser made no file of the model".into()))
}
