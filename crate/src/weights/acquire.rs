//! From what a person names to a model in the store: found there, downloaded if it is a package, imported if it is a
//! publisher's GGUF or checkpoint.
//!
//! Everything that can be refused is refused from configuration and headers, before any weight is asked for; a record is
//! written last. An import that ends early leaves no model behind.

use serde::Serialize;

use super::{
    abort::Abort,
    download::Downloader,
    import::{Quantize, with_origin},
    layout::Layout,
    local,
    manifest::{FileEntry, Manifest, Source as Provenance},
    network::{Clock, Fetch, Network},
    opener::{Opened, Opener, Weights},
    progress::Progress,
    signing::SIGNATURE,
    source::{Access, LOCAL, Source},
    store::{self, Record, Storage},
    trust::Trust,
    verify::{Verified, Verifier},
};
use crate::{
    card::Card,
    error::{Error, Result},
};

mod import;

pub use super::opener::Checks;

/// What a load works with.
#[derive(Clone, Copy)]
pub struct Acquire<'a> {
    /// Where models are kept.
    pub storage: &'a dyn Storage,
    /// Where they come from.
    pub fetch: &'a dyn Fetch,
    /// For back-off, stalls and speed.
    pub clock: &'a dyn Clock,
    /// The caller's wish to stop.
    pub abort: &'a Abort,
    /// Told of every piece that arrives.
    pub progress: &'a dyn Fn(Progress),
    /// What runs here.
    pub checks: Checks,
    /// What is demanded of a package.
    pub trust: Trust<'a>,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Ours.
    Package,
    /// A GGUF file, perhaps split.
    Gguf,
    /// A Hugging Face checkpoint.
    Checkpoint,
}

/// What is known of a model before its weights are read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Its id in the store; a person's own files have one once they are stored.
    pub id: Option<String>,
    /// What it is; a stored model is a package, whatever it was made from.
    pub kind: Kind,
    /// What is declared of it.
    pub card: Card,
    /// `model_type`.
    pub architecture: String,
    /// Bytes to read.
    pub bytes: u64,
    /// Bytes that it takes in the store.
    pub storage: u64,
    /// Whether it is there already.
    pub stored: bool,
}

enum Found<'a> {
    Package(Box<(Manifest, String)>),
    Import(Box<Opened<'a>>),
}

impl<'a> Acquire<'a> {
    /// The model at `source`, from the store if it is there.
    pub async fn load(&self, mut source: Source, quantize: Option<Quantize>) -> Result<Record> {
        if let Some(record) = self.stored(&source, quantize).await? {
            return Ok(record);
        }
        if let Some(record) = self.mended(&source, quantize.unwrap_or_default()).await? {
            return Ok(record);
        }
        let key = source.clone();
        match self.find(&mut source, quantize).await? {
            Found::Package(found) => {
                let (manifest, text) = *found;
                (self.checks.known)(&manifest.architecture)?;
                let ((id, url), base) = (package_id(&key, &manifest), source.base());
                // Who chose it among files of their own wants to keep it; a server is not asked for what nobody wants.
                let wanted = self.trust.signer.is_some() || key.local.as_ref().is_some_and(|files| files.contains_key(SIGNATURE));
                let signature = if wanted { self.downloader().find_signature(&base).await? } else { None };
                let record = Record { id, url, manifest, text: Some(text), signature };
                self.trust.check(&record).await?;
                self.downloader().fetch_package(&base, record).await
            }
            Found::Import(_) if !self.trust.is_none() => Err(Error::InvalidInput(format!(
                "integrity and signedBy are for packages, whose manifest holds all digests; {} is none",
                source.origin
            ))),
            Found::Import(mut opened) => {
                self.opener().digests(&source, &mut opened.files).await?;
                self.import(&key, *opened, quantize.unwrap_or_default()).await
            }
        }
    }

    /// What the model at `source` is, from its headers alone; from the store if it is there.
    pub async fn inspect(&self, mut source: Source, quantize: Option<Quantize>) -> Result<Inspection> {
        if let Some(Record { id, manifest, .. }) = self.stored(&source, quantize).await? {
            return Ok(inspection(Some(id), manifest, true));
        }
        let key = source.clone();
        match self.find(&mut source, quantize).await? {
            Found::Package(found) => Ok(inspection(Some(package_id(&key, &found.0).0), found.0, false)),
            Found::Import(opened) => {
                let quantize = quantize.unwrap_or_default();
                let storage = plan(&opened, quantize)?;
                let id = key.local.is_none().then(|| store::model_id(&key.key(quantize, "")));
                let kind = match opened.weights {
                    Weights::Gguf(_) => Kind::Gguf,
                    Weights::Safetensors => Kind::Checkpoint,
                };
                let Opened { checkpoint, files, .. } = *opened;
                let mut card = with_origin(checkpoint.card, &Provenance { origin: key.origin, ..Provenance::default() });
                card.bytes = files.iter().map(|file| file.remote.size).sum();
                let architecture = checkpoint.config["model_type"].as_str().unwrap_or_default().to_owned();
                Ok(Inspection { id, kind, bytes: card.bytes, card, architecture, storage, stored: false })
            }
        }
    }

    /// The record of the model at `source`, if it is stored whole. The network is asked nothing.
    pub async fn stored(&self, source: &Source, quantize: Option<Quantize>) -> Result<Option<Record>> {
        if let Some(id) = &source.stored {
            if let Some(quantize) = quantize.filter(|quantize| *quantize != Quantize::Keep) {
                return Err(Error::InvalidInput(format!("quantize {:?}: a stored model is loaded as it is", quantize.name())));
            }
            let found = store::find(self.storage, id).await?;
            let record = found.ok_or_else(|| Error::NotFound(format!("no stored model has the id {id:?}")))?;
            if let Some(gone) = store::missing(self.storage, &record.manifest.files).await?.first() {
                let (path, url) = (&gone.path, &record.url);
                return Err(Error::NotFound(format!("{path:?} of the stored model {id:?} is gone: load it from {url} again")));
            }
            return self.trust.check(&record).await.map(|()| Some(record));
        }
        if source.local.is_some() {
            return self.trusted(local::stored(self, source, quantize.unwrap_or_default()).await?).await;
        }
        for id in ids(source, quantize.unwrap_or_default()) {
            if let Some(record) = self.trusted(store::find_complete(self.storage, &id).await?).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// A stored model of which files are gone, and how many bytes these had: the browser evicts, a person clears.
    pub async fn lost(&self, source: &Source, quantize: Option<Quantize>) -> Result<u64> {
        for id in ids(source, quantize.unwrap_or_default()) {
            if let Some(record) = store::find(self.storage, &id).await? {
                return Ok(store::missing(self.storage, &record.manifest.files).await?.iter().map(|file| file.size).sum());
            }
        }
        Ok(0)
    }

    /// A stored package that is not what is demanded may have been published anew: then it counts as not stored.
    async fn trusted(&self, record: Option<Record>) -> Result<Option<Record>> {
        let Some(record) = record else { return Ok(None) };
        match self.trust.check(&record).await {
            Err(Error::Integrity(_)) => Ok(None),
            checked => checked.map(|()| Some(record)),
        }
    }

    /// Hashes all files of the stored model `id`. Those that are wrong or gone are fetched again, or made again of as much of the
    /// publisher's files as they need; `access` is for the hub that has these.
    pub async fn verify(&self, id: &str, access: &Access) -> Result<Verified> {
        let record = store::find(self.storage, id).await?.ok_or_else(|| Error::NotFound(format!("no stored model has the id {id:?}")))?;
        let verifier = Verifier { storage: self.storage, clock: self.clock, abort: self.abort, progress: self.progress };
        let verified = verifier.check(&record.manifest.files).await?;
        if verified.repaired {
            return Ok(verified);
        }
        // Files of a person's own only they can give again.
        if let Some(name) = record.url.strip_prefix(LOCAL) {
            return Ok(verified.unless(format!(
                "it was made from your own files ({name}), which only you can open: load them again, and what is missing is stored anew"
            )));
        }
        match record.text.is_some() {
            true => {
                let base = record.url.clone();
                self.downloader().fetch_package(&base, record).await?;
            }
            false => {
                let bad: Vec<&FileEntry> = record.manifest.files.iter().filter(|file| verified.bad.contains(&file.path)).collect();
                self.repair(&record, &bad, access).await?;
            }
        }
        Ok(Verified { repaired: true, ..verified })
    }

    async fn find(&self, source: &mut Source, quantize: Option<Quantize>) -> Result<Found<'a>> {
        (self.progress)(Progress::BEGUN);
        let opener = self.opener();
        if let Some(names) = source.gguf.clone() {
            return Ok(Found::Import(Box::new(opener.gguf(source, &names).await?)));
        }
        if let Some(found) = self.downloader().find_manifest(&source.base()).await? {
            return match quantize {
                None | Some(Quantize::Keep) => Ok(Found::Package(Box::new(found))),
                Some(other) => Err(Error::InvalidInput(format!(
                    "quantize {:?} is for GGUF files and checkpoints; {} is a package, which is loaded as it was made",
                    other.name(),
                    source.origin
                ))),
            };
        }
        Ok(Found::Import(Box::new(opener.checkpoint(source).await?)))
    }

    fn opener(&self) -> Opener<'a> {
        Opener { network: self.network(), checks: self.checks }
    }

    pub(super) fn network(&self) -> Network<'a> {
        Network { fetch: self.fetch, clock: self.clock, abort: self.abort }
    }

    pub(super) fn downloader(&self) -> Downloader<'a> {
        Downloader { storage: self.storage, fetch: self.fetch, clock: self.clock, abort: self.abort, progress: self.progress }
    }
}

/// The ids that a model at an address may have: a directory may hold a package, which is as it is, or a checkpoint.
fn ids(source: &Source, quantize: Quantize) -> Vec<String> {
    let package = (source.gguf.is_none() && quantize == Quantize::Keep).then(|| store::model_id(&source.base()));
    package.into_iter().chain([store::model_id(&source.key(quantize, ""))]).collect()
}

/// A package's id and address: on the web they follow from where it lies, for a person's own files from what it holds.
fn package_id(source: &Source, manifest: &Manifest) -> (String, String) {
    match source.local {
        None => (store::model_id(&source.base()), source.base()),
        Some(_) => (local::package_id(manifest), format!("{LOCAL}{}", source.origin)),
    }
}

/// Bytes that the package will have, but for a few small files.
fn plan(opened: &Opened<'_>, quantize: Quantize) -> Result<u64> {
    Ok(Layout::plan(&opened.targets(quantize)?)?.bytes() + opened.small.iter().map(|file| file.size).sum::<u64>())
}

fn inspection(id: Option<String>, manifest: Manifest, stored: bool) -> Inspection {
    let bytes = manifest.bytes();
    Inspection { id, kind: Kind::Package, card: manifest.card, architecture: manifest.architecture, bytes, storage: bytes, stored }
}
