//! From what a person names to a model in the store: found there, downloaded if it is a package, imported if it is a
//! publisher's GGUF or checkpoint.
//!
//! Everything that can be refused is refused from configuration and headers, before any weight is asked for; a record is
//! written last. An import that ends early leaves no model behind.

use serde::Serialize;

use super::{
    abort::Abort,
    download::Downloader,
    import::{self, Options, Quantize},
    layout::Layout,
    local,
    manifest::{Manifest, Source as Provenance},
    network::{Clock, Fetch, Network},
    opener::{Opened, Opener, Weights},
    progress::{Meter, Phase, Progress},
    source::{LOCAL, Source},
    store::{self, Record, Storage},
    store_sink::StoreSink,
};
use crate::{
    card::Card,
    error::{Error, Result},
};

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
    Package(Box<Manifest>),
    Import(Box<Opened<'a>>),
}

impl<'a> Acquire<'a> {
    /// The model at `source`, from the store if it is there.
    pub async fn load(&self, mut source: Source, quantize: Option<Quantize>) -> Result<Record> {
        if let Some(record) = self.stored(&source, quantize).await? {
            return Ok(record);
        }
        let key = source.clone();
        match self.find(&mut source, quantize).await? {
            Found::Package(manifest) => {
                (self.checks.known)(&manifest.architecture)?;
                let (id, url) = package_id(&key, &manifest);
                self.downloader().fetch_package(&source.base(), id, url, *manifest).await
            }
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
            Found::Package(manifest) => Ok(inspection(Some(package_id(&key, &manifest).0), *manifest, false)),
            Found::Import(opened) => {
                let quantize = quantize.unwrap_or_default();
                let storage = plan(&opened, quantize)?;
                let id = key.local.is_none().then(|| store::model_id(&key.key(quantize, "")));
                let kind = match opened.weights {
                    Weights::Gguf(_) => Kind::Gguf,
                    Weights::Safetensors => Kind::Checkpoint,
                };
                let Opened { checkpoint, files, .. } = *opened;
                let mut card = import::with_origin(checkpoint.card, &Provenance { origin: key.origin, ..Provenance::default() });
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
            let found = store::find_complete(self.storage, id).await?;
            return found.map(Some).ok_or_else(|| Error::NotFound(format!("no stored model has the id {id:?}")));
        }
        if source.local.is_some() {
            return local::stored(self, source, quantize.unwrap_or_default()).await;
        }
        // A directory may hold a package, which is as it is, or a checkpoint.
        let package = (source.gguf.is_none() && quantize.unwrap_or_default() == Quantize::Keep).then(|| store::model_id(&source.base()));
        for id in package.into_iter().chain([store::model_id(&source.key(quantize.unwrap_or_default(), ""))]) {
            if let Some(record) = store::find_complete(self.storage, &id).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    async fn find(&self, source: &mut Source, quantize: Option<Quantize>) -> Result<Found<'a>> {
        (self.progress)(Progress::BEGUN);
        let opener = self.opener();
        if let Some(names) = source.gguf.clone() {
            return Ok(Found::Import(Box::new(opener.gguf(source, &names).await?)));
        }
        if let Some(manifest) = self.downloader().find_manifest(&source.base()).await? {
            return match quantize {
                None | Some(Quantize::Keep) => Ok(Found::Package(Box::new(manifest))),
                Some(other) => Err(Error::InvalidInput(format!(
                    "quantize {:?} is for GGUF files and checkpoints; {} is a package, which is loaded as it was made",
                    other.name(),
                    source.origin
                ))),
            };
        }
        Ok(Found::Import(Box::new(opener.checkpoint(source).await?)))
    }

    async fn import(&self, key: &Source, opened: Opened<'a>, quantize: Quantize) -> Result<Record> {
        let needed = plan(&opened, quantize)?;
        let id = store::model_id(&key.key(quantize, ""));
        store::make_room(self.storage, &id, needed, |_| false).await?;
        let mut sink = StoreSink::new(self.storage);
        let written = match self.write(key, opened, quantize, &mut sink).await {
            Ok(record) => store::write(self.storage, &record).await.map(|()| record),
            Err(error) => Err(error),
        };
        match written {
            Ok(record) => store::sweep(self.storage, |_| true).await.map(|()| record),
            Err(error) => {
                sink.undo().await?;
                match error {
                    // Storage that filled up on the way: say what the whole model needs.
                    Error::Quota { available, .. } => Err(store::no_room(self.storage, needed, available).await?),
                    other => Err(other),
                }
            }
        }
    }

    /// Reads and converts the weights; returns the record that makes a model of what was written.
    async fn write(&self, key: &Source, opened: Opened<'a>, quantize: Quantize, sink: &mut StoreSink<'_>) -> Result<Record> {
        let Opened { checkpoint, files, weights, small, revision, .. } = opened;
        let total = files.iter().map(|file| file.remote.size).sum();
        let meter = Meter::new(self.clock, self.progress, Phase::Import, 0, total);
        let mut progress = |read: u64, _| meter.reach(read);
        let source = Provenance {
            origin: key.origin.clone(),
            revision,
            quantize: Some(quantize.name().into()),
            files: small,
            ..Provenance::default()
        };
        let options = Options { quantize, source };
        let files = files.into_iter().map(|file| file.stream()).collect();
        let mut manifest = match weights {
            Weights::Safetensors => import::shards(checkpoint, files, options, sink, &mut progress).await?,
            Weights::Gguf(parts) => import::gguf_parts(parts, files, options, sink, &mut progress).await?,
        };
        manifest.source.files.sort_by(|a, b| a.path.cmp(&b.path));
        match key.local.is_some() {
            true => {
                let id = store::model_id(&key.key(quantize, &local::digests(&manifest.source.files)));
                Ok(Record { id, url: format!("{LOCAL}{}", key.origin), manifest })
            }
            false => Ok(Record { id: store::model_id(&key.key(quantize, "")), url: key.origin.clone(), manifest }),
        }
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
