//! Download: a package's files, several at a time, checked while they stream in, into the store.
//!
//! Everything that can go wrong on the way ends in an error with a code, and with nothing stored that is not whole and
//! right. A model that is stored already is given back without asking the network anything.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    ops::Range,
    pin::pin,
};

use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{Either, LocalBoxFuture, select},
    stream::{self, LocalBoxStream},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    abort::Abort,
    manifest::{FileEntry, MANIFEST, Manifest, hex},
    store::{self, Record, Storage},
};
use crate::error::{Error, Result};

/// Files that are fetched at the same time.
const PARALLEL: usize = 4;
/// Attempts for a file while the server is unwell or the connection breaks.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled before each further one.
const BACK_OFF_MS: f64 = 500.0;
/// A connection without a byte for this long counts as broken.
const STALL_MS: f64 = 30_000.0;
/// Largest manifest that is read.
const MAX_MANIFEST: usize = 16 << 20;
/// Time over which the speed is measured.
const SPEED_WINDOW_MS: f64 = 5_000.0;

/// The network.
pub trait Fetch {
    /// Asks for `url`, or for a range of its bytes. A server's answer of any status is a response; a connection that
    /// fails is a `network` error, or `offline` where that is known. Dropping the response ends the transfer.
    fn get<'a>(&'a self, url: &'a str, range: Option<Range<u64>>) -> LocalBoxFuture<'a, Result<Response>>;
}

/// A server's answer.
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Length`, if given; of the transfer, which may be compressed.
    pub length: Option<u64>,
    /// `ETag`, if given.
    pub etag: Option<String>,
    /// The body as it comes; a broken connection is a `network` error.
    pub body: LocalBoxStream<'static, Result<Vec<u8>>>,
}

/// Time, so that tests need none.
pub trait Clock {
    /// Milliseconds since any fixed moment.
    fn now_ms(&self) -> f64;
    /// Waits.
    fn sleep(&self, ms: f64) -> LocalBoxFuture<'_, ()>;
}

/// What a load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading what the package holds.
    Manifest,
    /// Fetching, checking and storing files.
    Download,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that are there, of `total`; what was stored before counts.
    pub loaded: u64,
    /// Bytes of the package; 0 until that is known.
    pub total: u64,
    /// The file that made the latest progress.
    pub file: Option<String>,
    /// Speed over the last seconds; 0 until there is one.
    pub bytes_per_second: f64,
    /// Time to go at that speed.
    pub eta_seconds: Option<f64>,
}

impl Progress {
    /// Nothing is known yet.
    pub const BEGUN: Progress =
        Progress { phase: Phase::Manifest, loaded: 0, total: 0, file: None, bytes_per_second: 0.0, eta_seconds: None };
}

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

/// A failed attempt, and whether another may help.
struct Failed {
    error: Error,
    again: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let again = matches!(error, Error::Network(_));
        Self { error, again }
    }
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
        let fetched = self.files(&base, &manifest).await;
        // Also after a failure: what other downloads are writing stays, what this one dropped goes.
        self.storage.sweep().await?;
        fetched?;
        let record = Record { id, url: base, manifest };
        let bytes = serde_json::to_vec(&record).map_err(|e| Error::Storage(format!("cannot write the model's record: {e}")))?;
        self.storage.write_record(&record.id, &bytes).await?;
        Ok(record)
    }

    /// What the package at `url` holds, before any of its weights is fetched.
    pub async fn manifest(&self, url: &str) -> Result<Manifest> {
        let url = format!("{}{MANIFEST}", base_url(url));
        (self.progress)(Progress::BEGUN);
        let bytes = self.persistently(|| self.small_file(&url)).await?;
        Manifest::parse(&bytes)
    }

    async fn small_file(&self, url: &str) -> Result<Vec<u8>, Failed> {
        let mut body = self.open(url).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.patiently(url, body.next()).await? {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > MAX_MANIFEST {
                return Err(Error::InvalidFile(format!("{url} is longer than {MAX_MANIFEST} bytes: not a manifest")).into());
            }
        }
        Ok(bytes)
    }

    /// Fetches all files that are not stored.
    async fn files(&self, base: &str, manifest: &Manifest) -> Result<()> {
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
        if !self.has_room(needed).await? {
            self.make_room(base, needed, &wanted).await?;
        }
        let meter = Meter::new(*self, total - needed, total);
        let fetches = stream::iter(missing).map(|file| {
            let meter = &meter;
            self.persistently(move || self.file(base, file, meter))
        });
        let fetched = fetches.buffer_unordered(PARALLEL).try_collect::<()>().await;
        match fetched {
            // Storage that filled up on the way: say what the whole download still needed.
            Err(Error::Quota { available, .. }) => Err(Error::Quota { needed: total - meter.loaded.get(), available }),
            other => other,
        }
    }

    async fn has_room(&self, needed: u64) -> Result<bool> {
        Ok(self.storage.usage().await?.available().is_none_or(|available| available >= needed))
    }

    /// Removes what neither a model nor this download needs: files of downloads that were given up, and of a package that
    /// was published anew since.
    async fn make_room(&self, base: &str, needed: u64, wanted: &BTreeMap<&str, &FileEntry>) -> Result<()> {
        // A record of the same address is not whole, or nothing would be downloaded: what it alone names may go.
        self.storage.remove_record(&store::model_id(base)).await?;
        store::clean(self.storage, |sha256| wanted.contains_key(sha256)).await?;
        match self.storage.usage().await?.available() {
            Some(available) if available < needed => Err(Error::Quota { needed, available }),
            _ => Ok(()),
        }
    }

    /// One attempt at a file: stream, hash, store, compare, commit.
    async fn file(&self, base: &str, file: &FileEntry, meter: &Meter<'_>) -> Result<(), Failed> {
        let mut arrived = Arrived { meter, bytes: 0 };
        let (url, name) = (format!("{base}{}", file.path), &file.path);
        let mut body = self.open(&url).await?;
        let mut partial = self.storage.begin(&file.sha256).await?;
        let mut hash = Sha256::new();
        while let Some(chunk) = self.patiently(&url, body.next()).await? {
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
        partial.commit().await?;
        arrived.keep();
        Ok(())
    }

    /// Asks for `url` and reads the status.
    async fn open(&self, url: &str) -> Result<LocalBoxStream<'static, Result<Vec<u8>>>, Failed> {
        let response = self.patiently(url, self.fetch.get(url, None)).await??;
        match response.status {
            200 => Ok(response.body),
            404 | 410 => Err(Error::NotFound(url.to_string()).into()),
            status => {
                let error = Error::Network(format!("{url}: the server answered with status {status}"));
                Err(Failed { error, again: matches!(status, 408 | 429 | 500..=599) })
            }
        }
    }

    /// Repeats `attempt` while that may help, waiting longer each time.
    async fn persistently<T, F: Future<Output = Result<T, Failed>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let mut wait = BACK_OFF_MS;
        for _ in 1..ATTEMPTS {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(failed) if !failed.again => return Err(failed.error),
                Err(_) => self.abort.or(self.clock.sleep(wait).map(Ok)).await?,
            }
            wait *= 2.0;
        }
        attempt().await.map_err(|failed| failed.error)
    }

    /// What `work` gives, unless it takes too long or the caller wants to stop.
    async fn patiently<T>(&self, url: &str, work: impl Future<Output = T>) -> Result<T> {
        let (work, stall) = (pin!(work), self.clock.sleep(STALL_MS));
        let first = select(work, stall).map(|first| match first {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Error::Network(format!("{url}: nothing came for {} s", STALL_MS / 1000.0))),
        });
        self.abort.or(first).await
    }
}

/// A package's address with its closing slash; the manifest's own address will do too.
pub fn base_url(url: &str) -> String {
    let base = url.strip_suffix(MANIFEST).unwrap_or(url);
    format!("{}/", base.trim_end_matches('/'))
}

/// Counts bytes and tells the caller.
struct Meter<'a> {
    downloader: Downloader<'a>,
    total: u64,
    loaded: Cell<u64>,
    /// Bytes that came over the network at moments of the last seconds; bytes of attempts that failed later count too.
    samples: RefCell<VecDeque<(f64, u64)>>,
    received: Cell<u64>,
}

impl<'a> Meter<'a> {
    fn new(downloader: Downloader<'a>, loaded: u64, total: u64) -> Self {
        let samples = RefCell::new(VecDeque::from([(downloader.clock.now_ms(), 0)]));
        let meter = Self { downloader, total, loaded: Cell::new(loaded), samples, received: Cell::new(0) };
        meter.tell(None);
        meter
    }

    fn add(&self, bytes: u64, file: &str) {
        self.loaded.set(self.loaded.get() + bytes);
        self.received.set(self.received.get() + bytes);
        self.tell(Some(file));
    }

    fn tell(&self, file: Option<&str>) {
        let bytes_per_second = self.speed();
        let left = (self.total - self.loaded.get()) as f64;
        (self.downloader.progress)(Progress {
            phase: Phase::Download,
            loaded: self.loaded.get(),
            total: self.total,
            file: file.map(str::to_string),
            bytes_per_second,
            eta_seconds: (bytes_per_second > 0.0).then(|| left / bytes_per_second),
        });
    }

    fn speed(&self) -> f64 {
        let (now, received) = (self.downloader.clock.now_ms(), self.received.get());
        let mut samples = self.samples.borrow_mut();
        while samples.len() > 1 && samples[1].0 < now - SPEED_WINDOW_MS {
            samples.pop_front();
        }
        // A sample each tenth of a second is enough.
        if samples.back().is_none_or(|last| now - last.0 >= SPEED_WINDOW_MS / 50.0) {
            samples.push_back((now, received));
        }
        let (then, before) = samples[0];
        if now > then { (received - before) as f64 * 1000.0 / (now - then) } else { 0.0 }
    }
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
