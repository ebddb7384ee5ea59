//! Download: a package's files, several at a time, checked while they stream in, into the store.
//!
//! Everything that can go wrong on the way ends in an error with a code, and with nothing stored that is not whole and
//! right. A model that is stored already is given back without asking the network anything.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{
    abort::Abort,
    manifest::{FileEntry, MANIFEST, Manifest, hex},
    network::{Failed, Network},
    progress::Meter,
    store::{self, Record, Storage},
};
pub use super::{
    network::{Clock, Fetch, Headers, Request, Response},
    progress::{Phase, Progress},
};
use crate::error::{Error, Result};

/// Files that are fetched at the same time.
const PARALLEL: usize = 4;
/// Largest manifest that is read.
const MAX_MANIFEST: usize = 16 << 20;

/// What a download works with.
#[derive(Clone, Copy)]
pub struct Downloader<'a> {
    /// Where files go.
    pub storage: &'a dyn Storage,
    /// Where they come from.
    pub fetch: &'a dyn Fetch,
    /// For back-off, stalls and speed.
    pub clock: &'a dyn Clock,
    /// The caller's wish to stop.
    pub abort: &'a Abort,
    /// Told of every piece that arrives.
    pub progress: &'a dyn Fn(Progress),
}

impl Downloader<'_> {
    /// The model at `url`, the address of a package: from the store if it is there, else downloaded if its manifest
    /// passes `check`.
    pub async fn load(&self, url: &str, check: impl Fn(&Manifest) -> Result<()>) -> Result<Record> {
        let base = base_url(url);
        let id = store::model_id(&base);
        if let Some(record) = store::find_complete(self.storage, &id).await? {
            return Ok(record);
        }
        let manifest = self.manifest(&base).await?;
        check(&manifest)?;
        self.fetch_package(&base, id, base.clone(), manifest).await
    }

    /// Fetches what is not stored of the package that holds what `manifest` says. Its files lie at `{base}{file}`; `id` and
    /// `url` are for its record.
    pub async fn fetch_package(&self, base: &str, id: String, url: String, manifest: Manifest) -> Result<Record> {
        let fetched = self.files(base, &id, &manifest).await;
        // Also after a failure: what other downloads are writing stays, what this one dropped goes.
        self.storage.sweep().await?;
        fetched?;
        let record = Record { id, url, manifest };
        store::write(self.storage, &record).await?;
        Ok(record)
    }

    /// What the package at `url` holds, before any of its weights is fetched.
    pub async fn manifest(&self, url: &str) -> Result<Manifest> {
        let base = base_url(url);
        self.find_manifest(&base).await?.ok_or_else(|| Error::NotFound(format!("{base}{MANIFEST}")))
    }

    /// The same; none where there is no package.
    pub async fn find_manifest(&self, base: &str) -> Result<Option<Manifest>> {
        (self.progress)(Progress::BEGUN);
        let bytes = self.network().read(&format!("{base}{MANIFEST}"), MAX_MANIFEST).await?;
        bytes.map(|bytes| Manifest::parse(&bytes)).transpose()
    }

    fn network(&self) -> Network<'_> {
        Network { fetch: self.fetch, clock: self.clock, abort: self.abort }
    }

    /// Fetches all files that are not stored.
    async fn files(&self, base: &str, id: &str, manifest: &Manifest) -> Result<()> {
        let mut wanted: BTreeMap<&str, &FileEntry> = BTreeMap::new();
        for file in &manifest.files {
            if let Some(twin) = wanted.insert(&file.sha256, file)
                && twin.size != file.size
            {
                let (a, b) = (&twin.path, &file.path);
                return Err(Error::InvalidFile(format!("{MANIFEST}: {a:?} and {b:?} have one digest and two sizes")));
            }
        }
        let total = wanted.values().map(|file| file.size).sum();
        let mut missing = Vec::new();
        for file in manifest.files.iter().filter(|file| std::ptr::eq(wanted[file.sha256.as_str()], *file)) {
            if self.storage.blob_size(&file.sha256).await? != Some(file.size) {
                missing.push(file);
            }
        }
        let needed: u64 = missing.iter().map(|file| file.size).sum();
        store::make_room(self.storage, id, needed, |sha256| wanted.contains_key(sha256)).await?;
        let (network, meter) = (self.network(), Meter::new(self.clock, self.progress, Phase::Download, total - needed, total));
        let fetches = stream::iter(missing).map(|file| {
            let (network, meter) = (&network, &meter);
            network.persistently(async move || self.file(base, file, meter).await)
        });
        let fetched = fetches.buffer_unordered(PARALLEL).try_collect::<()>().await;
        match fetched {
            // Storage that filled up on the way: say what the whole download still needed.
            Err(Error::Quota { available, .. }) => Err(Error::Quota { needed: total - meter.loaded.get(), available }),
            other => other,
        }
    }

    /// One attempt at a file: stream, hash, store, compare, commit.
    async fn file(&self, base: &str, file: &FileEntry, meter: &Meter<'_>) -> Result<(), Failed> {
        let mut arrived = Arrived { meter, bytes: 0 };
        let (url, name) = (format!("{base}{}", file.path), &file.path);
        let network = self.network();
        let mut body = network.answer(Request::new(&url)).await?.body;
        let mut partial = self.storage.begin(&file.sha256).await?;
        let mut hash = Sha256::new();
        while let Some(chunk) = network.patiently(&url, body.next()).await? {
            let chunk = chunk?;
            if chunk.len() as u64 > file.size - arrived.bytes {
                return Err(Error::Integrity(format!("{name:?} is longer than the {} bytes that the manifest says", file.size)).into());
            }
            hash.update(&chunk);
            self.abort.or(partial.append(&chunk)).await?;
            arrived.add(chunk.len() as u64, name);
        }
        if arrived.bytes != file.size {
            let (found, expected) = (arrived.bytes, file.size);
            return Err(Error::Integrity(format!("{name:?} is cut short: expected {expected} bytes, found {found}")).into());
        }
        let (expected, found) = (&file.sha256, hex(&hash.finalize()));
        if *expected != found {
            return Err(Error::Integrity(format!("{name:?} is not what was published: expected sha256 {expected}, found {found}")).into());
        }
        partial.commit(&file.sha256).await?;
        arrived.keep();
        Ok(())
    }
}

/// A package's address with its closing slash; the manifest's own address will do too.
pub fn base_url(url: &str) -> String {
    let base = url.strip_suffix(MANIFEST).unwrap_or(url);
    format!("{}/", base.trim_end_matches('/'))
}

/// What an attempt has brought; taken back from the meter if the attempt fails.
struct Arrived<'m, 'a> {
    meter: &'m Meter<'a>,
    bytes: u64,
}

impl Arrived<'_, '_> {
    fn add(&mut self, bytes: u64, file: &str) {
        self.bytes += bytes;
        self.meter.add(bytes, file);
    }

    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Arrived<'_, '_> {
    fn drop(&mut self) {
        self.meter.loaded.set(self.meter.loaded.get() - self.bytes);
    }
}
