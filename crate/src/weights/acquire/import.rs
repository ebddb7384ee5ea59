//! A publisher's files on their way into the store, from where an attempt before ended; and the repair of what came of them.

use serde_json::json;

use super::{Acquire, plan};
use crate::{
    error::{Error, Result},
    weights::{
        import::{self, Options, Quantize},
        local,
        manifest::{FileEntry, Manifest, Source as Provenance, sha256_hex},
        opener::{Opened, Opening, Weights},
        progress::{Meter, Phase, Progress},
        source::{Access, LOCAL, Source},
        store::{self, Record},
        store_sink::{Identity, StoreSink},
    },
};

impl<'a> Acquire<'a> {
    /// Imports what was `opened` at `key`, a model of which all is known but its weights.
    pub(super) async fn import(&self, key: &Source, opened: Opened<'a>, quantize: Quantize) -> Result<Record> {
        let needed = plan(&opened, quantize)?;
        let id = store::model_id(&key.key(quantize, ""));
        let mut sink = StoreSink::new(self.storage, &key.key(quantize, ""));
        let mut there = 0;
        if let Some(identity) = identity(key, &opened, quantize)? {
            let found = sink.resume(identity, self.abort).await?;
            there = found.bytes;
            if let Some(why) = found.restarted {
                (self.progress)(Progress { phase: Phase::Import, restarted: Some(why), ..Progress::BEGUN });
            }
        }
        store::make_room(self.storage, &id, needed.saturating_sub(there), |sha256| sink.needs(sha256)).await?;
        let written = match self.write(key, opened, quantize, &mut sink).await {
            Ok(record) => store::write(self.storage, &record).await.map(|()| record),
            Err(error) => Err(error),
        };
        match written {
            Ok(record) => sink.done().await.map(|()| record),
            Err(error) => {
                if !(sink.can_go_on() && another_may_end(&error)) {
                    sink.undo().await?;
                }
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
        let mut manifest = self.convert(&key.origin, opened, quantize, sink).await?;
        manifest.source.files.sort_by(|a, b| a.path.cmp(&b.path));
        let (digests, url) = match key.local.is_some() {
            true => (local::digests(&manifest.source.files), format!("{LOCAL}{}", key.origin)),
            false => (String::new(), key.origin.clone()),
        };
        Ok(Record { id: store::model_id(&key.key(quantize, &digests)), url, manifest, text: None, signature: None })
    }

    async fn convert(&self, origin: &str, opened: Opened<'a>, quantize: Quantize, sink: &mut StoreSink<'_>) -> Result<Manifest> {
        let Opened { checkpoint, files, weights, small, revision, .. } = opened;
        let total = files.iter().map(|file| file.remote.size).sum();
        let meter = Meter::new(self.clock, self.progress, Phase::Import, 0, total);
        let mut progress = |read: u64, _| meter.reach(read);
        let source = Provenance {
            origin: origin.to_owned(),
            revision,
            quantize: Some(quantize.name().into()),
            files: small,
            ..Provenance::default()
        };
        let options = Options { quantize, source };
        let files = files.into_iter().map(Opening::into_source).collect();
        match weights {
            Weights::Safetensors => import::shards(checkpoint, files, options, sink, &mut progress).await,
            Weights::Gguf(parts) => import::gguf_parts(parts, files, options, sink, &mut progress).await,
        }
    }

    /// The import of `source` of which files are gone, once these are made again; none where there is no such import, or its source is not what
    /// it was.
    pub(super) async fn mended(&self, source: &Source, quantize: Quantize) -> Result<Option<Record>> {
        let Some(record) = store::find(self.storage, &store::model_id(&source.key(quantize, ""))).await? else { return Ok(None) };
        if source.local.is_some() || record.text.is_some() || !self.trust.is_none() {
            return Ok(None);
        }
        let gone = store::missing(self.storage, &record.manifest.files).await?;
        let access = Access { hub: Some(source.hub.clone()), ..Access::default() };
        match self.repair(&record, &gone, &access).await {
            Err(Error::Integrity(_) | Error::NotFound(_)) => Ok(None),
            mended => mended.map(|()| Some(record)),
        }
    }

    /// Makes the `bad` files of an import again, from as much of its publisher's files as these need. `access` is for the hub.
    pub(super) async fn repair(&self, record: &Record, bad: &[&FileEntry], access: &Access) -> Result<()> {
        let made = &record.manifest.source;
        let quantize = made.quantize.as_deref().map(Quantize::parse).transpose()?.unwrap_or_default();
        let mut source = Source::again(&record.url, made.revision.as_deref(), access)?;
        let mut opened = match source.gguf.clone() {
            Some(names) => self.opener().gguf(&mut source, &names).await?,
            None => self.opener().checkpoint(&mut source).await?,
        };
        self.opener().digests(&source, &mut opened.files).await?;
        for file in &opened.files {
            let same = |before: &&FileEntry| {
                before.path == file.name && before.size == file.remote.size && file.sha256.as_ref().is_none_or(|now| *now == before.sha256)
            };
            if !made.files.iter().any(|before| same(&before)) {
                return Err(Error::Integrity(format!(
                    "{:?} has changed since {} was imported: what is bad cannot be made again; remove the model and load it again",
                    file.name, record.url
                )));
            }
        }
        let mut sink = StoreSink::repair(self.storage, &record.id, bad);
        let made = self.convert(&made.origin, opened, quantize, &mut sink).await;
        match &made {
            Ok(_) => sink.done().await?,
            Err(_) => sink.undo().await?,
        }
        made.map(drop)
    }
}

/// Whether what is there may be of use to another attempt: the source was not found to be wrong.
fn another_may_end(error: &Error) -> bool {
    matches!(error, Error::Aborted | Error::Network(_) | Error::Offline(_) | Error::Quota { .. } | Error::Storage(_))
}

/// What is imported, and what becomes of it. None where nothing tells that a file is still the same at another time: a server that tells no
/// version, or a person's own files, which are known by all that they hold.
fn identity(key: &Source, opened: &Opened<'_>, quantize: Quantize) -> Result<Option<Identity>> {
    let version = |file: &Opening<'_>| file.sha256.clone().or_else(|| file.remote.headers.validator().map(str::to_owned));
    let files = opened.files.iter().map(|file| Some((file.name.clone(), file.remote.size, version(file)?)));
    let Some(files) = files.collect::<Option<Vec<_>>>().filter(|_| key.local.is_none()) else { return Ok(None) };
    let targets = opened.targets(quantize)?;
    let targets: Vec<_> = targets.iter().map(|target| (&target.name, target.format.name(), &target.shape)).collect();
    let plan =
        json!([env!("CARGO_PKG_VERSION"), key.origin, quantize.name(), opened.revision, opened.checkpoint.config, opened.small, targets]);
    Ok(Some(Identity { plan: sha256_hex(plan.to_string().as_bytes()), files }))
}
