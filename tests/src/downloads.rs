//! A package, the server that has it, and a store: what tests of downloads begin with.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use openweights::{
    Error, Result,
    weights::{
        Files,
        abort::Abort,
        download::{Downloader, Progress},
        manifest::{FORMAT, FileEntry, MANIFEST, Manifest, sha256_hex},
        store::{self, Record, Storage, StoreFiles},
        store_memory::MemoryStorage,
    },
};

use crate::{
    faults::{Fault, FaultServer},
    virtual_clock::VirtualClock,
};

/// Where the package lies.
pub const URL: &str = "https://host.example/models/tiny/";

/// Everything that a download touches.
pub struct World {
    /// The network.
    pub server: FaultServer,
    /// The store.
    pub storage: MemoryStorage,
    /// Time.
    pub clock: VirtualClock,
    /// The wish to stop.
    pub abort: Abort,
    /// Stop after so many reports of progress.
    pub abort_after: Option<usize>,
    /// Storage is full after so many.
    pub full_after: Option<usize>,
    /// The page dies after so many steps.
    pub crash_after: Option<usize>,
    /// Whether it did.
    pub crashed: Cell<bool>,
    /// Why the manifest is refused.
    pub refused: Option<fn(&Manifest) -> Error>,
    /// All progress.
    pub seen: RefCell<Vec<Progress>>,
}

impl World {
    /// A package of files with these contents.
    pub fn new(contents: &[(&str, Vec<u8>)]) -> World {
        let manifest = manifest(contents);
        let mut files: BTreeMap<_, _> = contents.iter().map(|(path, bytes)| (path.to_string(), bytes.clone())).collect();
        files.insert(MANIFEST.into(), manifest.to_bytes());
        let (clock, storage) = (VirtualClock::default(), MemoryStorage::default());
        World {
            server: FaultServer::new(URL, files, clock.clone(), storage.clone()),
            storage,
            clock,
            abort: Abort::default(),
            abort_after: None,
            full_after: None,
            crash_after: None,
            crashed: Cell::default(),
            refused: None,
            seen: RefCell::default(),
        }
    }

    /// What the next answers for a file do wrong.
    pub fn fault(&self, path: &str, faults: &[Fault]) {
        self.server.faults.borrow_mut().insert(path.into(), faults.iter().copied().collect());
    }

    /// Loads the package, to an end or until the page dies, which reads as `aborted`.
    pub fn load(&self) -> Result<Record> {
        self.load_from(URL)
    }

    /// The same, by another address.
    pub fn load_from(&self, url: &str) -> Result<Record> {
        let progress = |p: Progress| {
            assert!(p.loaded <= p.total && p.bytes_per_second >= 0.0, "{p:?}");
            self.seen.borrow_mut().push(p);
            if self.abort_after.is_some_and(|n| self.seen.borrow().len() > n) {
                self.abort.set();
            }
            if self.full_after == Some(self.seen.borrow().len()) {
                self.storage.set_quota(Some(0));
            }
        };
        let downloader =
            Downloader { storage: &self.storage, fetch: &self.server, clock: &self.clock, abort: &self.abort, progress: &progress };
        let load = downloader.load(url, |manifest| self.refused.as_ref().map_or(Ok(()), |why| Err(why(manifest))));
        let loaded = self.clock.run(load, self.crash_after);
        self.crashed.set(loaded.is_none());
        loaded.unwrap_or(Err(Error::Aborted))
    }

    /// Whatever happened: blobs are what their names say, a record has all its files.
    pub fn check(&self) {
        pollster::block_on(async {
            for sha256 in self.storage.blobs().await.unwrap() {
                let size = self.storage.blob_size(&sha256).await.unwrap().unwrap();
                assert_eq!(sha256_hex(&self.storage.read(&sha256, 0, size as usize).await.unwrap()), sha256);
            }
            for record in store::list(&self.storage).await.unwrap() {
                assert!(store::is_complete(&self.storage, &record.manifest).await.unwrap());
            }
        });
    }

    /// All files read back through the store are the published ones, and nothing half-written is left.
    pub fn check_files(&self, record: &Record) {
        let files = StoreFiles::new(Rc::new(self.storage.clone()), record.manifest.clone());
        for (path, bytes) in self.server.files.iter().filter(|(path, _)| *path != MANIFEST) {
            assert_eq!(&pollster::block_on(files.read(path, 0, bytes.len())).unwrap(), bytes);
            assert_eq!(pollster::block_on(files.read(path, 1, bytes.len())).unwrap_err().code(), "integrity");
        }
        assert_eq!(pollster::block_on(files.read("other", 0, 0)).unwrap_err().code(), "not_found");
        let left = |sha256: &str| self.partials().iter().any(|(name, _)| name.starts_with(sha256));
        assert!(!record.manifest.files.iter().any(|file| left(&file.sha256)), "{:?}", self.partials());
    }

    /// Names and sizes of partial files.
    pub fn partials(&self) -> Vec<(String, u64)> {
        pollster::block_on(self.storage.partials()).unwrap()
    }
}

/// The manifest of a package of these files.
pub fn manifest(contents: &[(&str, Vec<u8>)]) -> Manifest {
    let entry = |(path, bytes): &(&str, Vec<u8>)| FileEntry { path: path.to_string(), size: bytes.len() as u64, sha256: sha256_hex(bytes) };
    Manifest {
        format: FORMAT,
        name: "tiny".into(),
        architecture: "llama".into(),
        quantization: "q4_1".into(),
        parameters: 1,
        engine: "test".into(),
        source: Default::default(),
        card: Default::default(),
        tensors: BTreeMap::new(),
        files: contents.iter().map(entry).collect(),
    }
}

/// Bytes that follow from a seed.
pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i as u8).wrapping_mul(31) ^ seed).wrapping_add((i / 256) as u8)).collect()
}

/// A configuration and a shard.
pub fn two_files() -> World {
    World::new(&[("config.json", bytes(1, 300)), ("model-1.safetensors", bytes(2, 10_500))])
}
