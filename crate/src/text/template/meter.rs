//! What a rendering has left: memory that its values may take at one time, and work that may be done on them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use minijinja::{Error, ErrorKind, Value};

use super::data::weight;

/// Texts up to this length have no memory of their own (unless marked safe): they lie in the value.
const INLINE: usize = 22;
/// What a text takes besides its bytes: counts, the allocator's share, the entry that holds it.
const TEXT: usize = 96;
/// Texts made between two sweeps, at least.
const SWEEP: usize = 1 << 20;

/// Counts for one rendering. Lists and maps give back what they took when they go; minijinja's texts cannot, so the meter
/// holds them too, and sweeps out those that nobody else holds.
#[derive(Debug)]
pub(super) struct Meter {
    live: AtomicUsize,
    limit: usize,
    work: AtomicU64,
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    /// By address, so that none is counted twice.
    held: HashMap<usize, Arc<str>>,
    /// Bytes of the texts that survived the last sweep, and of those since.
    kept: usize,
    since: usize,
}

pub(super) fn refuse(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

impl Meter {
    /// At most `limit` bytes at one time, and `work` units: about as many nanoseconds.
    pub fn new(limit: usize, work: u64) -> Self {
        Self { live: AtomicUsize::new(0), limit, work: AtomicU64::new(work), texts: Mutex::default() }
    }

    /// Takes `units` of work.
    pub fn work(&self, units: usize) -> Result<(), Error> {
        let left = self.work.load(Relaxed).checked_sub(units as u64);
        self.work.store(left.unwrap_or(0), Relaxed);
        left.map(drop).ok_or_else(|| Error::new(ErrorKind::OutOfFuel, "the template does more work than is allowed"))
    }

    /// Whether `bytes` more can be had now.
    pub fn room(&self, bytes: usize) -> Result<(), Error> {
        self.work(bytes / 4)?;
        if self.fits(bytes) {
            return Ok(());
        }
        self.sweep()?;
        if self.fits(bytes) { Ok(()) } else { Err(self.full()) }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.live.load(Relaxed).saturating_add(bytes) <= self.limit
    }

    pub fn full(&self) -> Error {
        Error::new(ErrorKind::OutOfFuel, format!("the template's values would take more than {} bytes", self.limit))
    }

    /// Takes `bytes`, until they are released.
    pub fn charge(&self, bytes: usize) -> Result<(), Error> {
        self.room(bytes)?;
        self.live.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Gives back what was charged.
    pub fn release(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Relaxed);
    }

    /// Counts a text for as long as anyone else holds it.
    pub fn hold(&self, value: &Value) -> Result<(), Error> {
        let Some(text) = value.as_str().filter(|text| text.len() > INLINE || value.is_safe()) else { return Ok(()) };
        let (address, bytes) = (text.as_ptr() as usize, text.len() + TEXT);
        self.work(TEXT / 3)?;
        if self.texts().held.contains_key(&address) {
            return Ok(());
        }
        self.charge(bytes)?;
        let mut texts = self.texts();
        texts.held.insert(address, Arc::try_from(value.clone())?);
        texts.since += bytes;
        if texts.since > texts.kept.max(SWEEP) {
            drop(texts);
            self.sweep()?;
        }
        Ok(())
    }

    fn sweep(&self) -> Result<(), Error> {
        let mut texts = self.texts();
        self.work(16 * texts.held.len())?;
        let mut kept = 0;
        texts.held.retain(|_, text| {
            let bytes = text.len() + TEXT;
            let keep = Arc::strong_count(text) > 1;
            if keep {
                kept += bytes
            } else {
                self.release(bytes)
            }
            keep
        });
        (texts.kept, texts.since) = (kept, 0);
        Ok(())
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are given back when this goes.
#[derive(Debug)]
pub(super) struct Charge {
    pub meter: Arc<Meter>,
    bytes: usize,
}

impl Charge {
    pub fn none(meter: &Arc<Meter>) -> Self {
        Self { meter: meter.clone(), bytes: 0 }
    }

    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.meter.charge(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.release(self.bytes);
    }
}

/// A text in the making, which is refused more than there is room for.
pub(super) struct Text {
    out: String,
    charge: Charge,
}

impl Text {
    pub fn new(meter: &Arc<Meter>) -> Self {
        Self { out: String::new(), charge: Charge::none(meter) }
    }

    /// `value` as it is printed.
    pub fn print(&mut self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.push(text),
            None => {
                self.charge.meter.work(weight(value).saturating_mul(4))?;
                fmt::Write::write_fmt(self, format_args!("{value}")).map_err(|_| self.charge.meter.full())
            }
        }
    }

    pub fn push(&mut self, text: &str) -> Result<(), Error> {
        self.charge.grow(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    pub fn as_str(&self) -> &str {
        &self.out
    }

    pub fn finish(self) -> Result<Value, Error> {
        let Self { out, charge } = self;
        let value = Value::from(out);
        let meter = charge.meter.clone();
        drop(charge);
        meter.hold(&value)?;
        Ok(value)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text).map_err(|_| fmt::Error)
    }
}

impl std::io::Write for Text {
    /// JSON comes in whole characters.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.push(text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
