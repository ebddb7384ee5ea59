//! Downloads against a network and a storage with scripted faults: every run ends in verified weights or in an error with
//! the right code, and nothing corrupt is ever stored.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::weights::{
    Files,
    abort::Abort,
    download::{Clock, Downloader, Fetch, Headers, Phase, Progress, Request, Response},
    manifest::{FORMAT, FileEntry, MANIFEST, Manifest, sha256_hex},
    store::{self, Record, Storage, StoreFiles},
    store_memory::MemoryStorage,
};
use openweights::{Error, Result};
use openweights_tests::fake::{FakeClock, yields};
use serde_json::json;

const URL: &str = "https://host.example/models/tiny/";

/// What goes wrong in one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Status(u16),
    Refused,
    Broken(usize),
    Stalled(usize),
    CutShort(usize),
    Longer(usize),
    Flipped(usize),
}

/// Serves files; each answer for a file takes the next fault of its script, then all is well.
#[derive(Default)]
struct Server {
    files: BTreeMap<String, Vec<u8>>,
    faults: RefCell<BTreeMap<String, VecDeque<Fault>>>,
    asked: RefCell<Vec<String>>,
    chunk: usize,
    down: Cell<bool>,
}

impl Fetch for Server {
    fn get<'a>(&'a self, Request { url, range, token }: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        assert!(range.is_none() && token.is_none() && !self.down.get(), "{url} was asked for");
        let path = url.strip_prefix(URL).expect(url);
        self.asked.borrow_mut().push(path.to_string());
        let fault = self.faults.borrow_mut().get_mut(path).and_then(VecDeque::pop_front);
        let mut bytes = self.files.get(path).cloned();
        let mut status = if bytes.is_some() { 200 } else { 404 };
        let (mut end, len) = (None, bytes.as_ref().map_or(0, Vec::len));
        match (fault, &mut bytes) {
            (Some(Fault::Refused), _) => return async { Err(Error::Network("refused".into())) }.boxed_local(),
            (Some(Fault::Status(code)), _) => status = code,
            (Some(fault @ (Fault::Broken(at) | Fault::Stalled(at) | Fault::CutShort(at))), Some(bytes)) => {
                bytes.truncate(at % len.max(1));
                end = Some(fault);
            }
            (Some(Fault::Longer(by)), Some(bytes)) => bytes.extend(vec![7; by]),
            (Some(Fault::Flipped(at)), Some(bytes)) if len > 0 => bytes[at % len] ^= 1 << (at % 8),
            _ => {}
        }
        let chunks: Vec<_> = bytes.unwrap_or_default().chunks(self.chunk).map(|c| Ok(c.to_vec())).collect();
        let body = stream::iter(chunks).then(|chunk| async {
            yields(2).await;
            chunk
        });
        let body = match end {
            Some(Fault::Broken(_)) => body.chain(stream::iter([Err(Error::Network("broken".into()))])).boxed_local(),
            Some(Fault::Stalled(_)) => body.chain(stream::pending()).boxed_local(),
            _ => body.boxed_local(),
        };
        async move {
            yields(1).await;
            Ok(Response { status, headers: Headers::default(), body })
        }
        .boxed_local()
    }
}

struct World {
    server: Server,
    storage: MemoryStorage,
    clock: FakeClock,
    abort: Abort,
    abort_after: Option<usize>,
    full_after: Option<usize>,
    refused: Option<fn(&Manifest) -> Error>,
    seen: RefCell<Vec<Progress>>,
}

impl World {
    /// A package of files with these contents.
    fn new(contents: &[(&str, Vec<u8>)]) -> World {
        let entry =
            |(path, bytes): &(&str, Vec<u8>)| FileEntry { path: path.to_string(), size: bytes.len() as u64, sha256: sha256_hex(bytes) };
        let manifest = Manifest {
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
        };
        let mut files: BTreeMap<_, _> = contents.iter().map(|(path, bytes)| (path.to_string(), bytes.clone())).collect();
        files.insert(MANIFEST.into(), manifest.to_bytes());
        World {
            server: Server { files, chunk: 1000, ..Server::default() },
            storage: MemoryStorage::default(),
            clock: FakeClock::default(),
            abort: Abort::default(),
            abort_after: None,
            full_after: None,
            refused: None,
            seen: RefCell::default(),
        }
    }

    fn fault(&self, path: &str, faults: &[Fault]) {
        self.server.faults.borrow_mut().insert(path.into(), faults.iter().copied().collect());
    }

    fn load(&self) -> Result<Record> {
        self.load_from(URL)
    }

    fn load_from(&self, url: &str) -> Result<Record> {
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
        pollster::block_on(downloader.load(url, |manifest| self.refused.as_ref().map_or(Ok(()), |why| Err(why(manifest)))))
    }

    /// Whatever happened: blobs are what their names say, a record has all its files, nothing half-written is left.
    fn check(&self) {
        pollster::block_on(async {
            for sha256 in self.storage.blobs().await.unwrap() {
                let size = self.storage.blob_size(&sha256).await.unwrap().unwrap();
                assert_eq!(sha256_hex(&self.storage.read(&sha256, 0, size as usize).await.unwrap()), sha256);
            }
            for record in store::list(&self.storage).await.unwrap() {
                assert!(store::is_complete(&self.storage, &record.manifest).await.unwrap());
            }
            assert_eq!(self.storage.partials(), Vec::<String>::new());
        });
    }

    /// All files read back through the store are the published ones.
    fn check_files(&self, record: &Record) {
        let files = StoreFiles::new(Rc::new(self.storage.clone()), record.manifest.clone());
        for (path, bytes) in self.server.files.iter().filter(|(path, _)| *path != MANIFEST) {
            assert_eq!(&pollster::block_on(files.read(path, 0, bytes.len())).unwrap(), bytes);
            assert_eq!(pollster::block_on(files.read(path, 1, bytes.len())).unwrap_err().code(), "integrity");
        }
        assert_eq!(pollster::block_on(files.read("other", 0, 0)).unwrap_err().code(), "not_found");
    }
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect()
}

fn two_files() -> World {
    World::new(&[("config.json", bytes(1, 300)), ("model-1.safetensors", bytes(2, 10_500))])
}

#[test]
fn a_stored_model_asks_the_network_nothing() {
    let world = two_files();
    let record = world.load().unwrap();
    world.check_files(&record);
    assert_eq!(record.id, store::model_id(URL));
    let seen = world.seen.take();
    assert_eq!(seen[0].phase, Phase::Manifest);
    let last = seen.last().unwrap();
    assert_eq!((last.phase, last.loaded, last.total), (Phase::Download, 10_800, 10_800));
    assert_eq!(world.server.asked.take().len(), 3);

    world.server.down.set(true);
    assert_eq!(world.load().unwrap(), record);
    assert_eq!(world.load_from(URL.trim_end_matches('/')).unwrap(), record);
    assert_eq!(world.load_from(&format!("{URL}{MANIFEST}")).unwrap(), record);
    assert_eq!(world.seen.take(), []);
    world.check();
}

#[test]
fn only_what_is_missing_is_fetched() {
    let world = two_files();
    let record = world.load().unwrap();
    world.server.asked.take();
    pollster::block_on(world.storage.remove_blob(&record.manifest.files[1].sha256)).unwrap();
    world.load().unwrap();
    assert_eq!(world.server.asked.take(), [MANIFEST, "model-1.safetensors"]);
    world.check_files(&record);
}

#[test]
fn files_with_one_content_are_fetched_once() {
    let world = World::new(&[("a", bytes(1, 5000)), ("b", bytes(1, 5000)), ("empty", vec![])]);
    let record = world.load().unwrap();
    assert_eq!(world.server.asked.borrow().len(), 3);
    world.check_files(&record);
}

#[test]
fn wrong_bytes_are_named_and_never_stored() {
    let shard = "model-1.safetensors";
    for (fault, says) in [
        (Fault::Flipped(9_999), "sha256"),
        (Fault::CutShort(10_499), "expected 10500 bytes, found 10499"),
        (Fault::CutShort(0), "found 0"),
        (Fault::Longer(1), "longer than the 10500 bytes"),
    ] {
        let world = two_files();
        world.fault(shard, &[fault]);
        let error = world.load().unwrap_err();
        assert_eq!(error.code(), "integrity", "{fault:?}: {error}");
        assert!(error.to_string().contains(shard) && error.to_string().contains(says), "{error}");
        world.check();
        assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap(), []);
        // The server has recovered: the next load is whole.
        let record = world.load().unwrap();
        world.check_files(&record);
    }
}

#[test]
fn the_server_s_answers_have_codes() {
    let always = |fault| [fault; 9];
    for (file, faults, code, asked) in [
        ("model-1.safetensors", always(Fault::Status(404)), "not_found", 1),
        (MANIFEST, always(Fault::Status(404)), "not_found", 1),
        ("model-1.safetensors", always(Fault::Status(403)), "network", 1),
        ("model-1.safetensors", always(Fault::Status(500)), "network", 4),
        (MANIFEST, always(Fault::Status(503)), "network", 4),
        ("model-1.safetensors", always(Fault::Refused), "network", 4),
        ("model-1.safetensors", always(Fault::Broken(5000)), "network", 4),
        ("model-1.safetensors", always(Fault::Stalled(5000)), "network", 4),
        (MANIFEST, always(Fault::CutShort(100)), "invalid_file", 1),
    ] {
        let world = two_files();
        world.fault(file, &faults);
        let error = world.load().unwrap_err();
        assert_eq!(error.code(), code, "{file} {:?}: {error}", faults[0]);
        assert_eq!(world.server.asked.borrow().iter().filter(|path| *path == file).count(), asked, "{file} {:?}", faults[0]);
        world.check();
    }
}

#[test]
fn a_server_that_recovers_is_asked_again_later_and_later() {
    let world = two_files();
    world.fault("model-1.safetensors", &[Fault::Broken(7000), Fault::Status(503), Fault::Refused]);
    let record = world.load().unwrap();
    assert_eq!(world.clock.now_ms(), 500.0 + 1000.0 + 2000.0);
    world.check_files(&record);
    world.check();
    assert_eq!(world.seen.borrow().last().unwrap().loaded, 10_800, "the broken attempt's bytes do not count twice");
}

#[test]
fn space_is_checked_before_any_weight() {
    let world = two_files();
    world.storage.set_quota(Some(10_799));
    assert_eq!(world.load().unwrap_err(), Error::Quota { needed: 10_800, available: 10_799 });
    assert_eq!(world.server.asked.take(), [MANIFEST]);
    world.check();
}

#[test]
fn a_manifest_that_is_refused_costs_no_file() {
    let mut world = two_files();
    world.refused = Some(|manifest| Error::UnsupportedArchitecture(manifest.architecture.clone()));
    assert_eq!(world.load().unwrap_err(), Error::UnsupportedArchitecture("llama".into()));
    assert_eq!(world.server.asked.take(), [MANIFEST]);
    world.check();
}

#[test]
fn space_is_made_by_removing_what_nobody_needs() {
    let mut world = two_files();
    let first = world.load().unwrap();
    // Another model that is stored whole, files that a download left which was given up, and one that is wanted now.
    let (kept, left, shared) = (bytes(3, 1000), bytes(4, 2000), bytes(5, 3000));
    let digests: Vec<String> = [&kept, &left, &shared].map(|bytes| sha256_hex(bytes)).into();
    pollster::block_on(async {
        for (sha256, bytes) in digests.iter().zip([&kept, &left, &shared]) {
            let mut partial = world.storage.begin(sha256).await.unwrap();
            partial.append(bytes).await.unwrap();
            partial.commit(sha256).await.unwrap();
        }
        let mut other = first.clone();
        other.id = "other".into();
        other.manifest.files = vec![FileEntry { path: "kept".into(), size: 1000, sha256: digests[0].clone() }];
        world.storage.write_record("other", &serde_json::to_vec(&other).unwrap()).await.unwrap();
        // The package was published anew, and one of the old files is damaged.
        world.storage.remove_blob(&first.manifest.files[0].sha256).await.unwrap();
    });
    let anew = World::new(&[("model-1.safetensors", bytes(6, 9000)), ("shared", shared.clone())]);
    world.server.files = anew.server.files;
    world.server.asked.take();

    let storage = world.storage.clone();
    let blobs = || pollster::block_on(storage.blobs()).unwrap();
    let used = || pollster::block_on(storage.usage()).unwrap().used;
    assert_eq!(blobs().len(), 4);
    // The old shard and what was left may go: with that, 100 bytes are too few for the records, and then all fits.
    let records = used() - 10_500 - 6000;
    world.storage.set_quota(Some(4000 + 9000 + 100));
    assert!(matches!(world.load().unwrap_err(), Error::Quota { needed: 9000, available: ..9000 }), "{records}");
    world.storage.set_quota(Some(4000 + 9000 + records));
    let record = world.load().unwrap();
    assert_eq!(world.server.asked.take(), [MANIFEST, MANIFEST, "model-1.safetensors"], "a stored file is not fetched again");
    let mut expected: Vec<String> = record.manifest.files.iter().map(|file| file.sha256.clone()).collect();
    expected.push(digests[0].clone());
    expected.sort();
    assert_eq!(blobs(), expected);
    world.check();
    world.check_files(&record);
}

#[test]
fn with_space_a_given_up_download_is_kept_until_a_model_is_removed() {
    let world = two_files();
    world.fault("model-1.safetensors", &[Fault::Flipped(1)]);
    world.load().unwrap_err();
    let other = World::new(&[("other", bytes(9, 500))]);
    let left = pollster::block_on(world.storage.blobs()).unwrap();
    assert_eq!(left.len(), 1);
    let whole = World { storage: world.storage.clone(), ..other };
    let record = whole.load().unwrap();
    assert!(pollster::block_on(world.storage.blobs()).unwrap().contains(&left[0]));
    pollster::block_on(store::remove(&world.storage, &record.id)).unwrap();
    assert_eq!(pollster::block_on(world.storage.usage()).unwrap().used, 0);
}

#[test]
fn storage_that_fills_up_on_the_way_is_a_quota_error() {
    // While a file is written, and when there is room for the files but not for the record.
    for (quota, full_after) in [(None, Some(5)), (Some(10_900), None)] {
        let mut world = two_files();
        world.full_after = full_after;
        world.storage.set_quota(quota);
        let error = world.load().unwrap_err();
        assert!(matches!(error, Error::Quota { needed: 500.., available: ..200 }), "{error}");
        assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap(), []);
        world.check();
    }
}

#[test]
fn a_newer_manifest_is_refused() {
    let mut world = two_files();
    let mut manifest: serde_json::Value = serde_json::from_slice(&world.server.files[MANIFEST]).unwrap();
    manifest["format"] = json!(FORMAT + 1);
    world.server.files.insert(MANIFEST.into(), manifest.to_string().into_bytes());
    assert_eq!(world.load().unwrap_err().code(), "unsupported_format");
}

#[test]
fn removing_a_model_keeps_what_others_need() {
    let world = two_files();
    let record = world.load().unwrap();
    let mut other = record.clone();
    other.id = "other".into();
    other.manifest.files.remove(1);
    pollster::block_on(async {
        let storage = &world.storage;
        storage.write_record("other", &serde_json::to_vec(&other).unwrap()).await.unwrap();
        assert_eq!(store::list(storage).await.unwrap().len(), 2);
        assert_eq!(store::stored_bytes(storage).await.unwrap(), 10_800);
        store::remove(storage, &record.id).await.unwrap();
        assert_eq!(store::list(storage).await.unwrap(), [other.clone()]);
        assert_eq!(storage.blobs().await.unwrap(), [record.manifest.files[0].sha256.clone()]);
        store::remove(storage, "other").await.unwrap();
        assert_eq!(storage.usage().await.unwrap().used, 0);
        assert_eq!(store::remove(storage, "other").await.unwrap_err().code(), "not_found");
    });
}

#[test]
fn cleaning_removes_what_no_model_needs() {
    let world = two_files();
    world.fault("model-1.safetensors", &[Fault::Flipped(1)]);
    world.load().unwrap_err();
    pollster::block_on(async {
        assert_eq!(world.storage.blobs().await.unwrap().len(), 1, "a whole file of a failed download is kept for the next");
        store::clean(&world.storage, |_| false).await.unwrap();
        assert_eq!(world.storage.usage().await.unwrap().used, 0);
        drop(world.storage.begin("00").await.unwrap());
        let record = world.load().unwrap();
        store::clean(&world.storage, |_| false).await.unwrap();
        assert!(store::is_complete(&world.storage, &record.manifest).await.unwrap());
    });
    world.check();
}

#[test]
fn a_damaged_record_is_downloaded_again() {
    let world = two_files();
    let record = world.load().unwrap();
    for damage in [&b"{"[..], b"{}", br#"{"id":"x","url":"y","manifest":{"format":1}}"#] {
        pollster::block_on(world.storage.write_record(&record.id, damage)).unwrap();
        assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap(), []);
        assert_eq!(world.load().unwrap(), record);
    }
}

#[test]
fn a_stalled_transfer_can_be_aborted() {
    let mut world = two_files();
    world.fault("model-1.safetensors", &[Fault::Stalled(5000)]);
    world.abort_after = Some(6);
    assert_eq!(world.load().unwrap_err(), Error::Aborted);
    assert_eq!(world.clock.now_ms(), 0.0);
    world.check();
}

#[test]
fn addresses_become_ids() {
    let id = store::model_id("https://host.example/a b/Ünï/../m?x=1/");
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !id.starts_with('.'), "{id}");
    assert_ne!(store::model_id("https://a.example/m/"), store::model_id("https://b.example/m/"));
}

#[test]
fn hundreds_of_seeded_mishaps() {
    let (mut loaded, mut codes) = (0, BTreeMap::<&str, usize>::new());
    for seed in 0..600u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let names: Vec<String> = (0..1 + random(9)).map(|i| format!("file-{i}")).collect();
        let contents: Vec<_> = names.iter().map(|name| (name.as_str(), bytes(random(5) as u8, random(20_000)))).collect();
        let mut world = World::new(&contents);
        world.server.chunk = 1 + random(5000);
        let mut allowed = Vec::new();
        for _ in 0..random(3) {
            let path = if random(8) == 0 { MANIFEST } else { names[random(names.len())].as_str() };
            let at = random(20_000);
            let fault = [
                Fault::Status([400, 404, 429, 500, 503][random(5)]),
                Fault::Refused,
                Fault::Broken(at),
                Fault::Stalled(at),
                Fault::CutShort(at),
                Fault::Longer(1 + at),
                Fault::Flipped(at),
            ][random(7)];
            world.fault(path, &vec![fault; 1 + random(6)]);
            allowed.extend(match fault {
                Fault::Status(404) => vec!["not_found"],
                Fault::Status(_) | Fault::Refused | Fault::Broken(_) | Fault::Stalled(_) => vec!["network"],
                // A manifest has no digest: damage shows as JSON that makes no sense, or as files that are not as it says.
                _ if path == MANIFEST => vec!["invalid_file", "integrity", "not_found", "unsupported_format"],
                _ => vec!["integrity"],
            });
        }
        if random(6) == 0 {
            world.storage.set_quota(Some(random(120_000) as u64));
            allowed.push("quota");
        }
        if random(6) == 0 {
            world.abort_after = Some(random(30));
            allowed.push("aborted");
        }
        match world.load() {
            Ok(_) => loaded += 1,
            Err(error) => {
                assert!(allowed.contains(&error.code()), "seed {seed}: {error}; allowed: {allowed:?}");
                *codes.entry(error.code()).or_default() += 1;
            }
        }
        world.check();

        // All is well again: the model comes, from then on without the network.
        (world.abort, world.abort_after) = (Abort::default(), None);
        world.server.faults.take();
        world.storage.set_quota(None);
        let record = world.load().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        world.server.down.set(true);
        assert_eq!(world.load().unwrap(), record);
        world.check_files(&record);
        world.check();
    }
    assert!(loaded > 100, "{loaded}");
    for code in ["not_found", "network", "integrity", "quota", "aborted"] {
        assert!(codes.get(code).is_some_and(|&n| n >= 5), "{code}: {codes:?}");
    }
}
