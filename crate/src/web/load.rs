//! Loading in a worker: policy from [`crate::weights`], bytes from the network into browser storage, weights onto a device.

use std::{cell::Cell, rc::Rc};

use futures_util::FutureExt;
use js_sys::Function;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::{
    choose::{Choice, Chosen},
    clock::BrowserClock,
    lock::Lock,
    named::Named,
    opfs::Opfs,
    values::to_js,
};
use crate::{
    backend::{Backend, Precision},
    engine::{self, LoadOptions, Model},
    error::{Error, Result},
    models,
    sessions::saved,
    weights::{
        Checkpoint, Files,
        abort::Abort,
        acquire::{Acquire, Checks, Inspection},
        adapter::fetch,
        import::Quantize,
        manifest::Manifest,
        network::Clock,
        package, progress,
        source::Access,
        store::{self, Record, Storage, StoreFiles, Usage},
    },
};

/// Progress is told at most this often: a message to the page costs more than a piece of a file.
const TELL_MS: f64 = 50.0;
/// The lock of whoever writes or removes stored files, in any tab.
const STORE: &str = "openweights-store";

/// A model, what computes and why, its checkpoint, and the digest of its files.
pub(super) type Loaded = (Model, Chosen, Checkpoint, String);
/// What computes, and why that.
type Device = (Box<dyn Backend>, Chosen);

/// Options of `load`, as JavaScript writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    backend: Choice,
    context_length: Option<usize>,
    threads: Option<usize>,
    precision: Precision,
    quantize: Option<String>,
    hub: Option<String>,
    revision: Option<String>,
    token: Option<String>,
}

impl Options {
    pub(super) fn quantize(&self) -> Result<Option<Quantize>> {
        self.quantize.as_deref().map(Quantize::parse).transpose()
    }

    pub(super) fn access(&self) -> Access {
        Access { hub: self.hub.clone(), revision: self.revision.clone(), token: self.token.clone() }
    }

    /// What computes.
    pub(super) async fn open_device(&self) -> Result<Device> {
        if self.context_length == Some(0) {
            return Err(Error::InvalidInput("contextLength is 0".into()));
        }
        self.backend.open(self.threads, self.precision).await
    }
}

/// How far loading is, in JavaScript's names.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    phase: &'static str,
    loaded: u64,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<f64>,
}

impl From<progress::Progress> for Progress {
    fn from(progress: progress::Progress) -> Progress {
        Progress {
            phase: match progress.phase {
                progress::Phase::Manifest => "manifest",
                progress::Phase::Download => "download",
                progress::Phase::Import => "import",
            },
            loaded: progress.loaded,
            total: progress.total,
            file: progress.file,
            bytes_per_second: Some(progress.bytes_per_second).filter(|&speed| speed > 0.0),
            eta_seconds: progress.eta_seconds,
        }
    }
}

/// Tells the page how far loading is: each phase's beginning and end, and now and then between.
pub(super) struct Teller<'a> {
    page: &'a Function,
    last: Cell<(&'static str, f64)>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(page: &'a Function) -> Teller<'a> {
        Teller { page, last: Cell::new(("", 0.0)) }
    }

    pub(super) fn tell(&self, progress: &Progress) {
        let now = BrowserClock.now_ms();
        let (phase, last) = self.last.get();
        if phase == progress.phase && progress.loaded < progress.total && now - last < TELL_MS {
            return;
        }
        self.last.set((progress.phase, now));
        if let Ok(value) = to_js(progress) {
            // What the page does with it is not the load's business.
            let _ = self.page.call1(&JsValue::NULL, &value);
        }
    }
}

/// The model at `source`: downloaded or imported, verified and stored unless it is stored, then brought to the device;
/// with the choice of the device, its checkpoint, and the digest of its files.
pub async fn load(source: JsValue, options: Options, on_progress: &Function) -> Result<Loaded> {
    let (named, quantize) = (Named::new(source, &options.access()).await?, options.quantize()?);
    // The device first: a page without WebGPU should hear of it before the download.
    let device = options.open_device().await?;
    let teller = Teller::new(on_progress);
    let storage: Rc<dyn Storage> = Rc::new(Opfs::open().await?);
    let record = acquire(&named, quantize, &*storage, &|progress| teller.tell(&progress.into())).await?;
    let files = StoreFiles::new(storage, record.manifest.clone());
    onto_device(&record.manifest, Box::new(files), device, &options, &teller).await
}

/// The package's weights, brought to the device.
pub(super) async fn onto_device(
    manifest: &Manifest,
    files: Box<dyn Files>,
    (backend, chosen): Device,
    options: &Options,
    teller: &Teller<'_>,
) -> Result<Loaded> {
    let mut checkpoint = package::open(manifest, files).await?;
    let mut progress = |loaded, total| teller.tell(&Progress { phase: "load", loaded, total, ..Progress::default() });
    let model = Model::load(&checkpoint, backend, LoadOptions { context_length: options.context_length }, &mut progress).await?;
    checkpoint.files.release();
    // The model has its own; the rest is small and stays for adapters.
    checkpoint.tokenizer = None;
    Ok((model, chosen, checkpoint, saved::model_digest(manifest)))
}

/// Waits until nobody else writes or removes stored files.
pub async fn lock_store() -> Result<Lock> {
    Lock::take(STORE).await
}

/// The record of what `named` names, once it is stored whole.
pub(super) async fn acquire(
    named: &Named,
    quantize: Option<Quantize>,
    storage: &dyn Storage,
    progress: &dyn Fn(progress::Progress),
) -> Result<Record> {
    let (fetch, abort) = (named.fetch(), Abort::default());
    // The worker ends when the page cancels, so nothing here has to.
    let acquire = Acquire { storage, fetch: &fetch, clock: &BrowserClock, abort: &abort, progress, checks: CHECKS };
    if let Some(record) = acquire.stored(&named.source, quantize).await? {
        return Ok(record);
    }
    // Another tab may be downloading, or a load that was cancelled just now: say that this one began, then wait for its turn.
    progress(progress::Progress::BEGUN);
    let _lock = Lock::take(STORE).await?;
    acquire.load(named.source.clone(), quantize).await
}

/// What runs here.
const CHECKS: Checks = Checks {
    known: |model_type| match models::KNOWN.contains(&model_type) {
        true => Ok(()),
        false => Err(Error::UnsupportedArchitecture(format!("{model_type:?}; known: {}", models::KNOWN.join(", ")))),
    },
    check: |checkpoint| engine::check(checkpoint).boxed_local(),
};

/// What is known of the model at `source` before its weights are read; of a stored one that works offline too.
pub async fn inspect(source: JsValue, options: Options) -> Result<Inspection> {
    let (named, quantize) = (Named::new(source, &options.access()).await?, options.quantize()?);
    let (storage, fetch, abort) = (Opfs::open().await?, named.fetch(), Abort::default());
    let acquire = Acquire { storage: &storage, fetch: &fetch, clock: &BrowserClock, abort: &abort, progress: &|_| {}, checks: CHECKS };
    acquire.inspect(named.source.clone(), quantize).await
}

/// A model in the store, in JavaScript's names.
#[derive(Serialize)]
pub struct Stored {
    id: String,
    kind: &'static str,
    name: Option<String>,
    source: String,
    bytes: u64,
}

/// The models and adapters that are stored whole, and saved conversations.
pub async fn list() -> Result<Vec<Stored>> {
    let storage = Opfs::open().await?;
    let mut models = Vec::new();
    for Record { id, url, manifest } in store::list(&storage).await? {
        if store::is_complete(&storage, &manifest).await? {
            models.push(Stored { id, kind: "model", source: url, bytes: manifest.bytes(), name: Some(manifest.name) });
        }
    }
    for fetch::Record { id, url, files } in fetch::list(&storage).await? {
        models.push(Stored { id, kind: "adapter", source: url, bytes: files.iter().map(|file| file.size).sum(), name: None });
    }
    for record in saved::list(&storage, None).await? {
        let bytes = record.bytes();
        models.push(Stored { id: record.id, kind: "session", source: String::new(), bytes, name: Some(record.name) });
    }
    Ok(models)
}

/// Removes a model, and what no model needs: no download may be under way.
pub async fn remove(id: &str) -> Result<()> {
    let _lock = Lock::take(STORE).await?;
    store::remove(&Opfs::open().await?, id).await
}

/// Bytes used and granted.
pub async fn usage() -> Result<Usage> {
    Opfs::open().await?.usage().await
}
