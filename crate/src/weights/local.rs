//! A person's own files, and whether they are in the store already.
//!
//! Two models may have files of the same names and sizes (a fine-tuned model and its base do), so only contents count: every
//! file is read and hashed before a stored model is taken for it. That is done only where a stored model was imported from
//! files of these names and sizes.

use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::{
    acquire::Acquire,
    files::Listing,
    import::Quantize,
    manifest::{FileEntry, MANIFEST, Manifest, hex, sha256_hex},
    network::Request,
    opener::{SMALL, WEIGHTS},
    progress::{Meter, Phase},
    source::{LOCAL, Source},
    store::{self, Record},
};
use crate::error::{Error, Result};

/// The stored model that was imported from these very files.
pub(super) async fn stored(acquire: &Acquire<'_>, source: &Source, quantize: Quantize) -> Result<Option<Record>> {
    let Some(listing) = &source.local else { return Ok(None) };
    if listing.contains_key(MANIFEST) {
        if quantize != Quantize::Keep {
            return Ok(None); // a package is as it is: refused when it is read
        }
        let manifest = acquire.downloader().find_manifest(&source.base()).await?;
        let (manifest, _) = manifest.ok_or_else(|| Error::NotFound(MANIFEST.into()))?;
        return store::find_complete(acquire.storage, &package_id(&manifest)).await;
    }
    for record in store::list(acquire.storage).await? {
        let made = &record.manifest.source;
        let candidate = record.url.starts_with(LOCAL) && made.quantize.as_deref() == Some(quantize.name());
        if candidate
            && same_names_and_sizes(&made.files, listing, source)
            && store::is_complete(acquire.storage, &record.manifest).await?
            && same_contents(acquire, &made.files, source).await?
        {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The id of a package among a person's own files: its manifest holds the digests of all others.
pub(super) fn package_id(manifest: &Manifest) -> String {
    store::model_id(&format!("{}#{}", manifest.name, sha256_hex(&manifest.to_bytes())))
}

/// What an import's id is made from.
pub(super) fn digests(files: &[FileEntry]) -> String {
    files.iter().map(|file| format!("#{}:{}", file.path, file.sha256)).collect()
}

/// Whether an import of `listing` would read `files`: all are there, and no other that it would read.
fn same_names_and_sizes(files: &[FileEntry], listing: &Listing, source: &Source) -> bool {
    let read = |name: &str| files.iter().any(|file| file.path == name);
    let optional = SMALL.iter().chain([&WEIGHTS]).all(|name| source.gguf.is_some() || read(name) == listing.contains_key(*name));
    let names = source.gguf.iter().flatten().all(|name| read(name));
    !files.is_empty() && optional && names && files.iter().all(|file| listing.get(&file.path) == Some(&file.size))
}

async fn same_contents(acquire: &Acquire<'_>, files: &[FileEntry], source: &Source) -> Result<bool> {
    let network = acquire.network();
    let meter = Meter::new(acquire.clock, acquire.progress, Phase::Import, 0, files.iter().map(|file| file.size).sum());
    for file in files {
        let url = source.address(&file.path);
        let mut body = network.answer(Request::new(&url)).await.map_err(|failed| failed.error)?.body;
        let mut hash = Sha256::new();
        while let Some(chunk) = network.patiently(&url, body.next()).await? {
            let chunk = chunk?;
            hash.update(&chunk);
            meter.add(chunk.len() as u64, &file.path);
        }
        if hex(&hash.finalize()) != file.sha256 {
            return Ok(false);
        }
    }
    match files.iter().map(|file| file.size).sum::<u64>() == meter.loaded.get() {
        true => Ok(true),
        false => Err(Error::Integrity("the files changed while they were read: choose them again".into())),
    }
}
