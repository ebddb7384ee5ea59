//! How far a load is, and how fast.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use serde::Serialize;

use super::network::Clock;

/// Time over which the speed is measured.
const SPEED_WINDOW_MS: f64 = 5_000.0;

/// What a load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading what the package holds.
    Manifest,
    /// Fetching, checking and storing files.
    Download,
    /// Reading a publisher's files and storing them as a package.
    Import,
    /// Hashing what is stored.
    Verify,
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
    /// Why what was there of an import is of no use, so that it begins again; said once.
    pub restarted: Option<String>,
}

impl Progress {
    /// Nothing is known yet.
    pub const BEGUN: Progress =
        Progress { phase: Phase::Manifest, loaded: 0, total: 0, file: None, bytes_per_second: 0.0, eta_seconds: None, restarted: None };
}

/// Counts bytes and tells the caller.
pub(super) struct Meter<'a> {
    clock: &'a dyn Clock,
    progress: &'a dyn Fn(Progress),
    phase: Phase,
    total: u64,
    pub loaded: Cell<u64>,
    /// Bytes that came over the network at moments of the last seconds; bytes of attempts that failed later count too.
    samples: RefCell<VecDeque<(f64, u64)>>,
    received: Cell<u64>,
}

impl<'a> Meter<'a> {
    pub fn new(clock: &'a dyn Clock, progress: &'a dyn Fn(Progress), phase: Phase, loaded: u64, total: u64) -> Self {
        let samples = RefCell::new(VecDeque::from([(clock.now_ms(), 0)]));
        let meter = Self { clock, progress, phase, total, loaded: Cell::new(loaded), samples, received: Cell::new(0) };
        meter.tell(None);
        meter
    }

    pub fn add(&self, bytes: u64, file: &str) {
        self.loaded.set(self.loaded.get() + bytes);
        self.received.set(self.received.get() + bytes);
        self.tell(Some(file));
    }

    /// Bytes that were there have to come again.
    pub fn take_back(&self, bytes: u64) {
        self.loaded.set(self.loaded.get().saturating_sub(bytes));
    }

    /// All of the first `loaded` bytes are there.
    pub fn reach(&self, loaded: u64) {
        self.received.set(self.received.get() + loaded.saturating_sub(self.loaded.get()));
        self.loaded.set(loaded.min(self.total));
        self.tell(None);
    }

    fn tell(&self, file: Option<&str>) {
        let bytes_per_second = self.speed();
        let left = (self.total - self.loaded.get()) as f64;
        (self.progress)(Progress {
            phase: self.phase,
            loaded: self.loaded.get(),
            total: self.total,
            file: file.map(str::to_string),
            bytes_per_second,
            eta_seconds: (bytes_per_second > 0.0).then(|| left / bytes_per_second),
            restarted: None,
        });
    }

    fn speed(&self) -> f64 {
        let (now, received) = (self.clock.now_ms(), self.received.get());
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
