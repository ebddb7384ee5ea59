//! Loading in a worker: policy from [`crate::weights`], bytes from the network into browser storage, weights onto a device.

use std::{cell::Cell, rc::Rc};

use js_sys::Function;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::{
    choose::{Choice, Chosen},
    clock::BrowserClock,
    fetch::BrowserFetch,
    lock::Lock,
    opfs::Opfs,
    values::to_js,
};
use crate::{
    card::Card,
    engine::{LoadOptions, Model},
    error::{Error, Result},
    models,
    weights::{
        abort::Abort,
        download::{self, Clock, Downloader},
        manifest::Manifest,
        package,
        store::{self, Record, Storage, StoreFiles, Usage},
    },
};

/// Progress is told at most this often: a message to the page costs more than a piece of a file.
const TELL_MS: f64 = 50.0;
/// The lock of whoever writes or removes stored files, in any tab.
const STORE: &str = "openweights-store";

/// Options of `load`, as JavaScript writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    backend: Choice,
    context_length: Option<usize>,
    threads: Option<usize>,
}

/// How far loading is, in JavaScript's names.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
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

impl From<download::Progress> for Progress {
    fn from(progress: download::Progress) -> Progress {
        Progress {
            phase: match progress.phase {
                download::Phase::Manifest => "manifest",
                download::Phase::Download => "download",
                download::Phase::Import => "import",
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
struct Teller<'a> {
    page: &'a Function,
    last: Cell<(&'static str, f64)>,
}

impl Teller<'_> {
    fn tell(&self, progress: &Progress) {
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

/// The model of the package at `url`: downloaded, verified and stored unless it is stored, then brought to the device;
/// with the choice of the device.
pub async fn load(url: &str, options: Options, on_progress: &Function) -> Result<(Model, Chosen)> {
    if options.context_length == Some(0) {
        return Err(Error::InvalidInput("contextLength is 0".into()));
    }
    // The device first: a page without WebGPU should hear of it before the download.
    let (backend, chosen) = options.backend.open(options.threads).await?;
    let teller = Teller { page: on_progress, last: Cell::new(("", 0.0)) };
    let storage: Rc<dyn Storage> = Rc::new(Opfs::open().await?);
    let record = download(url, &*storage, &|progress| teller.tell(&progress.into())).await?;
    let files = StoreFiles::new(storage, record.manifest.clone());
    let checkpoint = package::open(&record.manifest, Box::new(files)).await?;
    let mut progress = |loaded, total| teller.tell(&Progress { phase: "load", loaded, total, ..Progress::default() });
    let model = Model::load(&checkpoint, backend, LoadOptions { context_length: options.context_length }, &mut progress).await?;
    Ok((model, chosen))
}

async fn download(url: &str, storage: &dyn Storage, progress: &dyn Fn(download::Progress)) -> Result<Record> {
    if let Some(record) = stored(url, storage).await? {
        return Ok(record);
    }
    // Another tab may be downloading, or a load that was cancelled just now: say that this one began, then wait for its turn.
    progress(download::Progress::BEGUN);
    let _lock = Lock::take(STORE).await?;
    // The worker ends when the page cancels, so nothing here has to.
    let downloader = Downloader { storage, fetch: &BrowserFetch, clock: &BrowserClock, abort: &Abort::default(), progress };
    downloader.load(url, check_known).await
}

fn check_known(manifest: &Manifest) -> Result<()> {
    match models::KNOWN.contains(&manifest.architecture.as_str()) {
        true => Ok(()),
        false => Err(Error::UnsupportedArchitecture(format!("{:?}; known: {}", manifest.architecture, models::KNOWN.join(", ")))),
    }
}

/// The record of the package at `url`, if all of its files are stored.
async fn stored(url: &str, storage: &dyn Storage) -> Result<Option<Record>> {
    store::find_complete(storage, &store::model_id(&download::base_url(url))).await
}

/// What is known of a package before its weights are fetched.
#[derive(Serialize)]
pub struct Inspection {
    id: String,
    card: Card,
    architecture: String,
    bytes: u64,
    stored: bool,
}

/// Reads the manifest at `url`, or the stored one: that works offline too.
pub async fn inspect(url: &str) -> Result<Inspection> {
    let storage = Opfs::open().await?;
    let (manifest, stored) = match stored(url, &storage).await? {
        Some(record) => (record.manifest, true),
        None => {
            let (abort, progress) = (Abort::default(), |_| {});
            let downloader =
                Downloader { storage: &storage, fetch: &BrowserFetch, clock: &BrowserClock, abort: &abort, progress: &progress };
            (downloader.manifest(url).await?, false)
        }
    };
    let bytes = manifest.bytes();
    Ok(Inspection {
        id: store::model_id(&download::base_url(url)),
        card: manifest.card,
        architecture: manifest.architecture,
        bytes,
        stored,
    })
}

/// A model in the store, in JavaScript's names.
#[derive(Serialize)]
pub struct Stored {
    id: String,
    name: String,
    source: String,
    bytes: u64,
}

/// The models that are stored whole.
pub async fn list() -> Result<Vec<Stored>> {
    let storage = Opfs::open().await?;
    let mut models = Vec::new();
    for Record { id, url, manifest } in store::list(&storage).await? {
        if store::is_complete(&storage, &manifest).await? {
            models.push(Stored { id, source: url, bytes: manifest.bytes(), name: manifest.name });
        }
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
