//! Everything that loading a model touches, as fakes: what a page named, a host, a store.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
};

use futures_util::FutureExt;
use openweights::{
    Error, Result, engine, models,
    weights::{
        Checkpoint,
        abort::Abort,
        acquire::{Acquire, Checks, Inspection},
        import::Quantize,
        network::Authorized,
        package,
        progress::{Phase, Progress},
        source::{Access, LOCAL, Source},
        store::{Record, Storage, StoreFiles},
        store_memory::MemoryStorage,
        trust::Trust,
        verify::Verified,
    },
};

use crate::{
    fake::{FakeClock, Host},
    virtual_clock::VirtualClock,
};

/// The hub's address.
pub const HUB: &str = "https://hub.example";

/// A browser's world: a host with files, a store, and what a page says besides a source.
pub struct World {
    /// What can be asked for.
    pub host: Host,
    /// What is stored.
    pub storage: MemoryStorage,
    /// Hub, revision and token.
    pub access: Access,
    /// What matrices become.
    pub quantize: Option<Quantize>,
    /// Whether the person gave up.
    pub abort: Abort,
    /// Gives up when an import has read so many bytes.
    pub abort_at: Option<u64>,
    /// The page dies after so many steps, which reads as `aborted`.
    pub crash_after: Option<usize>,
    /// Steps that the latest visit took.
    pub steps: Cell<usize>,
    /// Progress that was told.
    pub seen: RefCell<Vec<Progress>>,
}

impl World {
    /// With files at addresses; the hub is [`HUB`].
    pub fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> World {
        World {
            host: Host { files: files.into_iter().collect(), ..Host::default() },
            storage: MemoryStorage::default(),
            access: Access { hub: Some(HUB.into()), ..Access::default() },
            quantize: None,
            abort: Abort::default(),
            abort_at: None,
            crash_after: None,
            steps: Cell::default(),
            seen: RefCell::default(),
        }
    }

    /// Runs a question about `source`.
    pub fn with<T>(&self, source: &Source, run: impl AsyncFnOnce(Acquire<'_>, Source) -> Result<T>) -> Result<T> {
        let progress = |p: Progress| {
            assert!(p.loaded <= p.total, "{p:?}");
            if self.abort_at.is_some_and(|at| p.loaded >= at && p.phase == Phase::Import) {
                self.abort.set();
            }
            self.seen.borrow_mut().push(p);
        };
        let fetch = Authorized { fetch: &self.host, origin: HUB.into(), token: self.access.token.clone() };
        let known = |model_type: &str| match models::KNOWN.contains(&model_type) {
            true => Ok(()),
            false => Err(Error::UnsupportedArchitecture(model_type.into())),
        };
        let acquire = Acquire {
            storage: &self.storage,
            fetch: &fetch,
            clock: &FakeClock::default(),
            abort: &self.abort,
            progress: &progress,
            checks: Checks { known, check: |checkpoint| engine::check(checkpoint).boxed_local() },
            trust: Trust::default(),
        };
        self.steps.set(0);
        let mut work = pin!(run(acquire, source.clone()));
        let counted = poll_fn(|cx| {
            self.steps.set(self.steps.get() + 1);
            work.as_mut().poll(cx)
        });
        VirtualClock::default().run(counted, self.crash_after).unwrap_or(Err(Error::Aborted))
    }

    /// What a page named.
    pub fn source(&self, text: &str) -> Source {
        Source::parse(text, &self.access).unwrap()
    }

    /// Loads into the store.
    pub fn load_source(&self, source: &Source) -> Result<Record> {
        self.with(source, async |acquire, source| acquire.load(source, self.quantize).await)
    }

    /// Loads what `text` names into the store.
    pub fn load(&self, text: &str) -> Result<Record> {
        self.load_source(&self.source(text))
    }

    /// Asks what `text` names.
    pub fn inspect(&self, text: &str) -> Result<Inspection> {
        self.with(&self.source(text), async |acquire, source| acquire.inspect(source, self.quantize).await)
    }

    /// Hashes what is stored, and repairs it.
    pub fn verify(&self, id: &str) -> Result<Verified> {
        self.with(&self.source("store:any"), async |acquire, _| acquire.verify(id, &self.access).await)
    }

    /// Opens what is stored.
    pub fn open(&self, record: &Record) -> Checkpoint {
        let files = StoreFiles::new(Rc::new(self.storage.clone()), record.manifest.clone());
        pollster::block_on(package::open(&record.manifest, Box::new(files))).unwrap()
    }

    /// Nothing is left of a load that failed.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(pollster::block_on(self.storage.records()).unwrap(), Vec::<String>::new());
        assert_eq!(pollster::block_on(self.storage.blobs()).unwrap(), Vec::<String>::new());
        assert_eq!(pollster::block_on(self.storage.partials()).unwrap(), []);
    }
}

/// A person's own files, and the world that has them.
pub fn own(files: &BTreeMap<String, Vec<u8>>) -> (World, Source) {
    let world = World::new(files.iter().map(|(name, bytes)| (format!("{LOCAL}{name}"), bytes.clone())));
    let source = Source::files(files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()).unwrap();
    (world, source)
}
