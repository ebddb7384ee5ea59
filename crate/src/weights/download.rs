//! Download: a package's files, several at a time, checked while they stream in, into the store.
//!
//! Everything that can go wrong on the way ends in an error with a code, and with no blob that is not whole and right; what
//! has arrived of a file stays for the next attempt. A model that is stored already is given back without asking the network anything.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    abort::Abort,
    manifest::{FileEntry, MANIFEST, Manifest},
    network::Network,
    progress::Meter,
    signing,
    store::{self, Record, Storage},
    transfer::Transfer,
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
        let (manifest, text) = self.find_manifest(&base).await?.ok_or_else(|| Error::NotFound(format!("{base}{MANIFEST}")))?;
        check(&manifest)?;
        self.fetch_package(&base, Record { id, url: base.clone(), manifest, text: Some(text), signature: None }).await
    }

    /// Fetches what is not stored of the package whose `record` is to be written. Its files lie at `{base}{file}`.
    pub async fn fetch_package(&self, base: &str, record: Record) -> Result<Record> {
        self.files(base, &record.id, &record.manifest).await?;
        store::write(self.storage, &record).await?;
        Ok(record)
    }

    /// What the package at `base` holds, before any of its weights is fetched: its manifest, and that letter by letter. None
    /// where there is no package.
    pub async fn find_manifest(&self, base: &str) -> Result<Option<(Manifest, String)>> {
        (self.progress)(Progress::BEGUN);
        let Some(bytes) = self.network().read(&format!("{base}{MANIFEST}"), MAX_MANIFEST).await? else { return Ok(None) };
        let manifest = Manifest::parse(&bytes)?;
        // JSON is UTF-8, or it would not have been read.
        Ok(String::from_utf8(bytes).ok().map(|text| (manifest, text)))
    }

    /// The signature beside the package at `base`, if there is one.
    pub async fn find_signature(&self, base: &str) -> Result<Option<String>> {
        let bytes = self.network().read(&format!("{base}{}", signing::SIGNATURE), signing::MOST).await?;
        bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| Error::Integrity(format!("{}: no text", signing::SIGNATURE)))).transpose()
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
        let partials: BTreeMap<String, u64> = self.storage.partials().await?.into_iter().collect();
        let (mut missing, mut needed) = (Vec::new(), 0);
        for file in manifest.files.iter().filter(|file| std::ptr::eq(wanted[file.sha256.as_str()], *file)) {
            if self.storage.blob_size(&file.sha256).await? != Some(file.size) {
                let arrived = partials.get(&file.sha256).filter(|arrived| **arrived <= file.size);
                needed += file.size - arrived.unwrap_or(&0);
                missing.push(file);
            }
        }
        store::make_room(self.storage, id, needed, |sha256| wanted.contains_key(sha256)).await?;
        let (network, meter) = (self.network(), Meter::new(self.clock, self.progress, Phase::Download, total - needed, total));
        let fetches = stream::iter(missing).map(|file| {
            let transfer = Transfer { network, storage: self.storage, meter: &meter, file };
            async move { transfer.run(&format!("{base}{}", file.path)).await }
        });
        let fetched = fetches.buffer_unordered(PARALLEL).try_collect::<()>().await;
        match fetched {
            // Storage that filled up on the way: say what the whole download still needed.
            Err(Error::Quota { available, .. }) => Err(store::no_room(self.storage, total - meter.loaded.get(), available).await?),
            other => other,
        }
    }
}

/// A package's address with its closing slash; the manifest's own address will do too.
pub fn base_url(url: &str) -> String {
    let base = url.strip_suffix(MANIFEST).unwrap_or(url);
    format!("{}/", base.trim_end_matches('/'))
}
