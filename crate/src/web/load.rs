//! Loading in a worker: policy from [`crate::weights`], bytes from the network into browser storage, weights onto a device.

use std::cell::Cell;

use futures_util::FutureExt;
use js_sys::Function;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::{
    choose::{Choice, Chosen},
    clock::BrowserClock,
    key::Key,
    lock::Lock,
    named::Named,
    storage::{self, Kept},
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
        import::Quantize,
        manifest::Manifest,
        network::Clock,
        package, progress,
        source::Access,
        store::{Record, Storage, StoreFiles},
        trust::{Signer, Trust, parse_integrity},
    },
};

/// Progress is told at most this often: a message to the page costs more than a piece of a file.
const TELL_MS: f64 = 50.0;
/// The lock of whoever writes or removes stored files, in any tab.
const STORE: &str = "openweights-store";

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
    integrity: Option<String>,
    offline: bool,
}

impl Options {
    fn quantize(&self) -> Result<Option<Quantize>> {
        self.quantize.as_deref().map(Quantize::parse).transpose()
    }

    fn access(&self) -> Access {
        Access { hub: self.hub.clone(), revision: self.revision.clone(), token: self.token.clone() }
    }

    /// What `source` names, with these options.
    pub(super) async fn named(&self, source: JsValue) -> Result<Named> {
        Named::new(source, &self.access(), self.offline).await
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
    #[serde(skip_serializing_if = "Option::is_none")]
    restarted: Option<String>,
}

impl From<progress::Progress> for Progress {
    fn from(progress: progress::Progress) -> Progress {
        Progress {
            phase: match progress.phase {
                progress::Phase::Manifest => "manifest",
                progress::Phase::Download => "download",
                progress::Phase::Import => "import",
                progress::Phase::Verify => "verify",
            },
            loaded: progress.loaded,
            total: progress.total,
            file: progress.file,
            bytes_per_second: Some(progress.bytes_per_second).filter(|&speed| speed > 0.0),
            eta_seconds: progress.eta_seconds,
            restarted: progress.restarted,
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
        if phase == progress.phase && progress.loaded < progress.total && progress.restarted.is_none() && now - last < TELL_MS {
            return;
        }
        self.last.set((progress.phase, now));
        if let Ok(value) = to_js(progress) {
            // What the page does with it is not the load's business.
            let _ = self.page.call1(&JsValue::NULL, &value);
        }
    }
}

/// A loaded model, and what is said of it.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// What it runs on.
    pub chosen: Chosen,
    /// What it was loaded from, without tokenizer: an adapter may need the base's weights.
    pub base: Checkpoint,
    /// Of its files.
    pub digest: String,
    /// Where it is kept.
    pub place: Place,
}

/// Where a model is kept, and what is known of its bytes, in JavaScript's names.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    storage: String,
    storage_reason: Option<String>,
    verification: String,
    restored: u64,
}

/// The model at `source`: downloaded or imported, verified and stored unless it is stored, then brought to the device. `key` checks
/// signatures.
pub async fn load(source: JsValue, options: Options, on_progress: &Function, key: Option<Function>) -> Result<Loaded> {
    let named = options.named(source).await?;
    // The device first: a page without WebGPU should hear of it before the download.
    let device = options.open_device().await?;
    let teller = Teller::new(on_progress);
    let (kept, record, place) = obtain(&named, &options, &teller, key).await?;
    let files = StoreFiles::new(kept.storage, record.manifest.clone());
    onto_device(&record.manifest, Box::new(files), device, &options, &teller, place).await
}

/// The store, and in it the record of what `named` names, downloaded or imported and verified unless it was there.
pub(super) async fn obtain(named: &Named, options: &Options, teller: &Teller<'_>, key: Option<Function>) -> Result<(Kept, Record, Place)> {
    let (quantize, key) = (options.quantize()?, key.map(Key));
    let manifest = options.integrity.as_deref().map(parse_integrity).transpose()?;
    let trust = Trust { manifest: manifest.as_deref(), signer: key.as_ref().map(|key| key as &dyn Signer) };
    let kept = storage::open().await?;
    let (record, restored) = acquire(named, quantize, trust, &*kept.storage, &|progress| teller.tell(&progress.into())).await?;
    let (storage, storage_reason) = (kept.kind().to_owned(), kept.reason.clone());
    let place = Place { storage, storage_reason, verification: trust.statement(&record), restored };
    Ok((kept, record, place))
}

/// The package's weights, brought to the device.
pub(super) async fn onto_device(
    manifest: &Manifest,
    files: Box<dyn Files>,
    (backend, chosen): Device,
    options: &Options,
    teller: &Teller<'_>,
    place: Place,
) -> Result<Loaded> {
    let mut base = package::open(manifest, files).await?;
    let mut progress = |loaded, total| teller.tell(&Progress { phase: "load", loaded, total, ..Progress::default() });
    let model = Model::load(&base, backend, LoadOptions { context_length: options.context_length }, &mut progress).await?;
    base.files.release();
    // The model has its own; the rest is small and stays for adapters.
    base.tokenizer = None;
    Ok(Loaded { model, chosen, base, digest: saved::model_digest(manifest), place })
}

/// Waits until nobody else writes or removes stored files.
pub async fn lock_store() -> Result<Lock> {
    Lock::take(STORE).await
}

/// The record of what `named` names, once it is stored whole; and how many bytes of it were stored before and are gone.
async fn acquire(
    named: &Named,
    quantize: Option<Quantize>,
    trust: Trust<'_>,
    storage: &dyn Storage,
    progress: &dyn Fn(progress::Progress),
) -> Result<(Record, u64)> {
    let (fetch, abort) = (named.fetch(), Abort::default());
    // The worker ends when the page cancels, so nothing here has to.
    let acquire = Acquire { storage, fetch: &fetch, clock: &BrowserClock, abort: &abort, progress, checks: CHECKS, trust };
    if let Some(record) = acquire.stored(&named.source, quantize).await? {
        return Ok((record, 0));
    }
    let lost = acquire.lost(&named.source, quantize).await?;
    // Another tab may be downloading, or a load that was cancelled just now: say that this one began, then wait for its turn.
    progress(progress::Progress::BEGUN);
    let _lock = Lock::take(STORE).await?;
    Ok((acquire.load(named.source.clone(), quantize).await?, lost))
}

/// What runs here.
pub(super) const CHECKS: Checks = Checks {
    known: |model_type| match models::KNOWN.contains(&model_type) {
        true => Ok(()),
        false => Err(Error::UnsupportedArchitecture(format!("{model_type:?}; known: {}", models::KNOWN.join(", ")))),
    },
    check: |checkpoint| engine::check(checkpoint).boxed_local(),
};

/// What is known of the model at `source` before its weights are read; of a stored one that works offline too.
pub async fn inspect(source: JsValue, options: Options) -> Result<Inspection> {
    let (named, quantize) = (options.named(source).await?, options.quantize()?);
    let (kept, fetch, abort) = (storage::open().await?, named.fetch(), Abort::default());
    let acquire = Acquire {
        storage: &*kept.storage,
        fetch: &fetch,
        clock: &BrowserClock,
        abort: &abort,
        progress: &|_| {},
        checks: CHECKS,
        trust: Trust::default(),
    };
    acquire.inspect(named.source.clone(), quantize).await
}
