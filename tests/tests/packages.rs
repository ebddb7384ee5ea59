//! Packages from a server, a person's own files or one archive: who vouches for them, whether what is stored is right, what is
//! there without a network, and that a hostile archive is refused.

use std::{cell::RefCell, collections::BTreeMap};

use futures_util::{FutureExt, future::LocalBoxFuture};
use openweights::{
    Error, Result,
    weights::{
        self, Files,
        abort::Abort,
        acquire::{Acquire, Checks},
        files::{Listing, Memory},
        manifest::{MANIFEST, sha256_hex},
        network::{Fetch, NoNetwork},
        owpkg::{self, Archive, Piece},
        progress::Phase,
        signing::SIGNATURE,
        source::{Access, Source},
        store::{self, Record, Storage},
        store_memory::MemoryStorage,
        trust::{Signer, Trust},
        verify::Verified,
    },
};
use openweights_tests::{
    fake::{FakeClock, Host},
    fixture,
    rng::Rng,
    virtual_clock::VirtualClock,
};

const URL: &str = "https://host.example/package/";
const SHARD: &str = "model-00001-of-00001.safetensors";

/// Contents by name.
type Contents = BTreeMap<String, Vec<u8>>;

/// Files of the signed package.
fn package() -> Contents {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    std::fs::read_dir(fixture("signing/package")).unwrap().map(file).collect()
}

/// Files of a checkpoint.
fn checkpoint() -> Contents {
    let read = |name: &str| (name.to_owned(), std::fs::read(fixture("tiny/llama_plain").join(name)).unwrap());
    ["config.json", "model.safetensors"].map(read).into()
}

/// A key that says what it is told to, and notes what it was asked.
struct Key {
    says: bool,
    asked: RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
}

fn key(says: bool) -> Key {
    Key { says, asked: RefCell::default() }
}

impl Signer for Key {
    fn signed<'a>(&'a self, message: &'a [u8], signature: &'a [u8]) -> LocalBoxFuture<'a, Result<bool>> {
        self.asked.borrow_mut().push((message.to_vec(), signature.to_vec()));
        async { Ok(self.says) }.boxed_local()
    }
}

struct World {
    host: Host,
    storage: MemoryStorage,
    abort: Abort,
    phases: RefCell<Vec<Phase>>,
}

impl World {
    /// The files of `package` at `base`.
    fn new(base: &str, package: Contents) -> World {
        let files = package.into_iter().map(|(name, bytes)| (format!("{base}{name}"), bytes)).collect();
        let host = Host { files, chunk: 500, ..Host::default() };
        World { host, storage: MemoryStorage::default(), abort: Abort::default(), phases: RefCell::default() }
    }

    fn with<T>(&self, fetch: &dyn Fetch, trust: Trust<'_>, run: impl AsyncFnOnce(Acquire<'_>) -> Result<T>) -> Result<T> {
        let progress = |p: weights::progress::Progress| self.phases.borrow_mut().push(p.phase);
        let acquire = Acquire {
            storage: &self.storage,
            fetch,
            clock: &FakeClock::default(),
            abort: &self.abort,
            progress: &progress,
            checks: Checks { known: |_| Ok(()), check: |_| async { Ok(()) }.boxed_local() },
            trust,
        };
        pollster::block_on(run(acquire))
    }

    fn load_as(&self, trust: Trust<'_>) -> Result<Record> {
        self.with(&self.host, trust, async |acquire| acquire.load(source(URL), None).await)
    }

    fn load(&self) -> Result<Record> {
        self.load_as(Trust::default())
    }

    fn load_offline(&self) -> Result<Record> {
        self.with(&NoNetwork, Trust::default(), async |acquire| acquire.load(source(URL), None).await)
    }

    fn verify(&self, id: &str) -> Result<Verified> {
        self.with(&self.host, Trust::default(), async |acquire| acquire.verify(id, &Access::default()).await)
    }

    fn blobs(&self) -> usize {
        pollster::block_on(self.storage.blobs()).unwrap().len()
    }
}

fn source(text: &str) -> Source {
    Source::parse(text, &Access::default()).unwrap()
}

fn signed_by(key: &Key) -> Trust<'_> {
    Trust { signer: Some(key), ..Trust::default() }
}

fn digest<'a>(record: &'a Record, path: &str) -> &'a str {
    &record.manifest.file(path).unwrap().sha256
}

#[test]
fn a_signed_package_is_what_was_signed() {
    let (world, yes) = (World::new(URL, package()), key(true));
    let record = world.load_as(signed_by(&yes)).unwrap();
    let (message, signature) = yes.asked.take().remove(0);
    assert!(message.starts_with(b"DSSEv1 28 application/vnd.in-toto+json 1619 {"), "{:?}", String::from_utf8_lossy(&message[..60]));
    assert_eq!(signature.len(), 64);
    assert_eq!(signed_by(&yes).statement(&record), "digests match the manifest; signed by the given key");
    assert_eq!(Trust::default().statement(&record), "digests match the manifest; signer not verified");

    // It is stored with its signature; another key is as good as none, whatever is stored.
    world.host.urls();
    world.load_as(signed_by(&yes)).unwrap();
    assert_eq!(world.host.urls(), Vec::<String>::new());
    let error = world.load_as(signed_by(&key(false))).unwrap_err();
    assert!(error.code() == "integrity" && error.to_string().contains("key"), "{error}");
}

#[test]
fn what_was_not_signed_is_refused_before_any_weight() {
    let refused = |change: &dyn Fn(&mut Contents), says: &str| {
        let mut files = package();
        change(&mut files);
        let world = World::new(URL, files);
        let error = world.load_as(signed_by(&key(true))).unwrap_err();
        assert!(error.code() == "integrity" && error.to_string().contains(says), "{says}: {error}");
        assert_eq!(world.blobs(), 0);
        assert!(!world.host.urls().iter().any(|url| url.ends_with("safetensors")));
    };
    let text = |files: &Contents, name: &str| String::from_utf8(files[name].clone()).unwrap();
    refused(&|files| drop(files.remove(SIGNATURE)), "there is no model.sig");
    refused(&|files| drop(files.insert(SIGNATURE.into(), b"{}".into())), "model.sig");
    // Another manifest: of other files, and of the same.
    refused(
        &|files| {
            let manifest = text(files, MANIFEST).replace(&sha256_hex(&files["config.json"]), &sha256_hex(b"other"));
            files.insert(MANIFEST.into(), manifest.into_bytes());
        },
        "\"config.json\" is not the file that was signed",
    );
    refused(&|files| files.get_mut(MANIFEST).unwrap().push(b' '), "\"openweights.json\" is not the file");
    refused(
        &|files| {
            let manifest = text(files, MANIFEST).replace("\"path\": \"config.json\"", "\"path\": \"other.json\"");
            files.insert(MANIFEST.into(), manifest.into_bytes());
        },
        "\"other.json\" was not signed",
    );
}

#[test]
fn a_damaged_signature_never_passes_for_another() {
    let (files, mut rng, mut refused) = (package(), Rng::new(1), 0);
    for _ in 0..500 {
        let mut bundle = files[SIGNATURE].clone();
        let at = rng.below(bundle.len());
        bundle[at] ^= 1 << rng.below(7);
        let Ok(text) = String::from_utf8(bundle) else { continue };
        let manifest = weights::manifest::Manifest::parse(&files[MANIFEST]).unwrap();
        let manifest_text = std::str::from_utf8(&files[MANIFEST]).unwrap();
        let key = key(true);
        let result = pollster::block_on(weights::signing::verify(&text, manifest_text, &manifest, &key));
        refused += usize::from(result.is_err());
    }
    // A key that always says yes lets pass what it alone could tell: the signature itself, and what is beside the envelope.
    assert!(refused > 300, "{refused}");
}

#[test]
fn a_pinned_manifest_is_that_or_none() {
    let world = World::new(URL, package());
    let right = sha256_hex(&package()[MANIFEST]);
    let pinned = |manifest: &str| world.load_as(Trust { manifest: Some(manifest), ..Trust::default() });
    assert_eq!(pinned(&"0".repeat(64)).unwrap_err().code(), "integrity");
    assert_eq!(world.host.urls(), [format!("{URL}{MANIFEST}")]);
    let record = pinned(&right).unwrap();
    let trust = Trust { manifest: Some(&right), ..Trust::default() };
    assert_eq!(trust.statement(&record), "digests match the manifest, and the manifest its pinned digest; signer not verified");
    world.host.urls();
    pinned(&right).unwrap();
    assert_eq!(world.host.urls(), Vec::<String>::new());
    // A stored model of another digest may have been published anew.
    assert_eq!(pinned(&"0".repeat(64)).unwrap_err().code(), "integrity");
    assert_eq!(world.host.urls(), [format!("{URL}{MANIFEST}")]);
    world.load().unwrap();
}

#[test]
fn what_is_no_package_has_no_manifest_to_demand() {
    let world = World::new(URL, checkpoint());
    let yes = key(true);
    for trust in [signed_by(&yes), Trust { manifest: Some("00"), ..Trust::default() }] {
        assert_eq!(world.load_as(trust).unwrap_err().code(), "invalid_input");
        assert_eq!(world.blobs(), 0);
    }
    let record = world.load().unwrap();
    assert_eq!(Trust::default().statement(&record), "digests were noted while reading; no publisher digest; signer not verified");
    assert_eq!(world.load_as(signed_by(&yes)).unwrap_err().code(), "invalid_input", "nor when it is stored");

    // What an import has stored is hashed, too; what is wrong is made again (`import_resume.rs`), or comes with the next import.
    world.storage.damage(digest(&record, SHARD), |bytes| bytes[9] ^= 1);
    let verified = world.verify(&record.id).unwrap();
    assert_eq!((verified.bad, verified.repaired), (vec![SHARD.to_owned()], true));
    world.storage.damage(digest(&record, SHARD), |bytes| bytes[9] ^= 1);
    assert_eq!(
        world.with(&NoNetwork, Trust::default(), async |acquire| acquire.verify(&record.id, &Access::default()).await).unwrap_err().code(),
        "offline"
    );
    assert_eq!(world.load().unwrap(), record);
    assert!(world.verify(&record.id).unwrap().repaired);
}

#[test]
fn offline_is_what_is_stored_or_an_error() {
    let world = World::new(URL, package());
    let error = world.load_offline().unwrap_err();
    assert!(error.code() == "offline" && error.to_string().contains(MANIFEST), "{error}");
    let record = world.load().unwrap();
    assert_eq!(world.load_offline().unwrap(), record);
    pollster::block_on(world.storage.remove_blob(digest(&record, SHARD))).unwrap();
    assert_eq!(world.load_offline().unwrap_err().code(), "offline");
}

#[test]
fn what_was_evicted_is_noticed_and_fetched_again() {
    let world = World::new(URL, package());
    let lost = || world.with(&NoNetwork, Trust::default(), async |acquire| acquire.lost(&source(URL), None).await).unwrap();
    assert_eq!(lost(), 0);
    let record = world.load().unwrap();
    assert_eq!(lost(), 0);
    pollster::block_on(world.storage.remove_blob(digest(&record, SHARD))).unwrap();
    assert_eq!(lost(), record.manifest.file(SHARD).unwrap().size);
    let named =
        world.with(&world.host, Trust::default(), async |acquire| acquire.load(source(&format!("store:{}", record.id)), None).await);
    let error = named.unwrap_err();
    assert!(error.code() == "not_found" && error.to_string().contains(URL), "it says where it was from: {error}");
    world.host.urls();
    world.load().unwrap();
    assert_eq!(world.host.urls(), [format!("{URL}{MANIFEST}"), format!("{URL}{SHARD}")]);
}

#[test]
fn verifying_fetches_what_is_bad_and_nothing_else() {
    let world = World::new(URL, package());
    let record = world.load().unwrap();
    world.host.urls();
    world.phases.take();
    let right = world.verify(&record.id).unwrap();
    assert_eq!(right, Verified { bytes: record.manifest.bytes(), bad: vec![], repaired: true, unrepaired: None });
    assert_eq!(world.host.urls(), Vec::<String>::new());
    assert!(world.phases.take().iter().all(|phase| *phase == Phase::Verify));

    // generation_config.json and tokenizer_config.json are one blob.
    world.storage.damage(digest(&record, SHARD), |bytes| bytes[90_000] ^= 1);
    world.storage.damage(digest(&record, "config.json"), |bytes| bytes.truncate(5));
    let mended = world.verify(&record.id).unwrap();
    assert_eq!((mended.bad, mended.repaired), (vec!["config.json".to_owned(), SHARD.to_owned()], true));
    let mut asked = world.host.urls();
    asked.sort();
    assert_eq!(asked, [format!("{URL}config.json"), format!("{URL}{SHARD}")]);
    assert_eq!(world.verify(&record.id).unwrap().bad, Vec::<String>::new());

    // A network that is away leaves nothing wrong behind, and the next load mends.
    world.storage.damage(digest(&record, SHARD), |bytes| bytes[7] ^= 1);
    let away = world.with(&NoNetwork, Trust::default(), async |acquire| acquire.verify(&record.id, &Access::default()).await);
    assert_eq!(away.unwrap_err().code(), "offline");
    world.load().unwrap();
    assert!(world.verify(&record.id).unwrap().bad.is_empty());
    assert_eq!(world.verify("other").unwrap_err().code(), "not_found");
    world.abort.set();
    assert_eq!(world.verify(&record.id).unwrap_err(), Error::Aborted);
}

#[test]
fn what_a_killed_import_left_can_be_cleaned() {
    let (world, clock) = (World::new(URL, checkpoint()), VirtualClock::default());
    let load = |crash_after| {
        let acquire = Acquire {
            storage: &world.storage,
            fetch: &world.host,
            clock: &clock,
            abort: &world.abort,
            progress: &|_| {},
            checks: Checks { known: |_| Ok(()), check: |_| async { Ok(()) }.boxed_local() },
            trust: Trust::default(),
        };
        clock.run(acquire.load(source(URL), None), crash_after)
    };
    let left = || pollster::block_on(store::stored_bytes(&world.storage)).unwrap();
    for steps in 1.. {
        let ended = load(Some(steps));
        assert!(ended.is_none(), "it ended before it left anything: {:?}", ended.map(|loaded| loaded.map(|record| record.id)));
        if left().unfinished > 0 && world.blobs() > 0 {
            break;
        }
    }
    assert_eq!(left().models, 0);
    pollster::block_on(store::clean(&world.storage, |_| false)).unwrap();
    assert_eq!(left(), store::Bytes::default());
    load(None).unwrap().unwrap();
}

/// A stored model as the bytes of an archive.
fn exported(storage: &dyn Storage, record: &Record) -> Vec<u8> {
    let mut archive = Vec::new();
    for piece in owpkg::pieces(record).unwrap() {
        match piece {
            Piece::Bytes(bytes) => archive.extend(bytes),
            Piece::Stored(file) => archive.extend(pollster::block_on(storage.read(&file.sha256, 0, file.size as usize)).unwrap()),
        }
    }
    archive
}

fn opened(archive: &[u8]) -> Result<Archive<Memory>> {
    let files = Memory { files: BTreeMap::from([("x.owpkg".to_owned(), archive.to_vec())]) };
    pollster::block_on(Archive::open(files, "x.owpkg", archive.len() as u64))
}

#[test]
fn an_archive_goes_out_and_comes_back() {
    let (world, yes) = (World::new(URL, package()), key(true));
    let record = world.load_as(signed_by(&yes)).unwrap();
    let bytes = exported(&world.storage, &record);
    assert_eq!(bytes.len() % 512, 0);

    // On another machine: files of a person's own, verified like a download.
    let archive = opened(&bytes).unwrap();
    let listing: Listing = archive.listing();
    let read = |name: &String| pollster::block_on(archive.read(name, 0, listing[name] as usize)).unwrap();
    let files: Contents = listing.keys().map(|name| (name.clone(), read(name))).collect();
    assert_eq!(files, package());
    let other = World::new("file:", files.clone());
    let from = Source::files(listing.clone()).unwrap();
    let stored = other.with(&other.host, signed_by(&yes), async |acquire| acquire.load(from.clone(), None).await).unwrap();
    assert_eq!(exported(&other.storage, &stored), bytes, "one package is one archive");

    // A wrong byte in a weight is found on the way in.
    let mut wrong = files;
    wrong.get_mut(SHARD).unwrap()[50_000] ^= 1;
    let other = World::new("file:", wrong);
    let error = other.with(&other.host, Trust::default(), async |acquire| acquire.load(from.clone(), None).await).unwrap_err();
    assert_eq!(error.code(), "integrity");
}

#[test]
fn the_command_line_reads_archives() {
    let world = World::new(URL, package());
    let record = world.load().unwrap();
    let path = std::env::temp_dir().join(format!("openweights-{}.owpkg", std::process::id()));
    std::fs::write(&path, exported(&world.storage, &record)).unwrap();
    let inspection = weights::inspect(&path).unwrap();
    assert_eq!((inspection.architecture.as_str(), inspection.files.len()), ("llama", record.manifest.files.len()));
    assert_eq!(weights::verify(&path, &mut |_, _| {}).unwrap(), record.manifest);
    let (whole, archived) = (weights::open(&fixture("signing/package")).unwrap(), weights::open(&path).unwrap());
    assert_eq!(whole.tensors, archived.tensors);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_hostile_archive_is_refused() {
    let world = World::new(URL, package());
    let bytes = exported(&world.storage, &world.load().unwrap());
    let second = 512 + bytes[512..].chunks(512).position(|block| &block[257..262] == b"ustar").unwrap() * 512;
    // Changes the header at `at`, and writes its sum anew.
    let bent = |at: usize, change: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        let header = &mut bytes[at..at + 512];
        change(header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        opened(&bytes).map(drop)
    };
    let name = |name: &'static str| {
        move |header: &mut [u8]| {
            header[..100].fill(0);
            header[..name.len()].copy_from_slice(name.as_bytes());
        }
    };
    bent(second, &|_| {}).unwrap();
    for bad in ["../config.json", "/etc/passwd", "a/b", "..", ".hidden", "", "c:\\x", "openweights.json", "a\nb"] {
        assert_eq!(bent(second, &name(bad)).unwrap_err().code(), "invalid_file", "{bad:?}");
    }
    assert_eq!(bent(0, &name("config2.json")).unwrap_err().code(), "invalid_file", "the manifest comes first");
    for length in ["77777777777", "00000777777", "0000000000x", "           ", "-0000000001"] {
        let code = bent(second, &|header| header[124..135].copy_from_slice(length.as_bytes())).unwrap_err().code();
        assert!(["integrity", "invalid_file"].contains(&code), "{length}: {code}");
    }
    // Links, folders, devices, long names, extended headers; base-256 lengths; folders in the prefix.
    for kind in b"1234567LKxgS" {
        assert_eq!(bent(second, &|header| header[156] = *kind).unwrap_err().code(), "invalid_file");
    }
    assert_eq!(bent(second, &|header| header[124] = 0x80).unwrap_err().code(), "invalid_file");
    assert_eq!(bent(second, &|header| header[345] = b'a').unwrap_err().code(), "invalid_file");
    for cut in (0..bytes.len() - 1024).step_by(512) {
        assert!(opened(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let long = [&bytes[..], &[0; 20_480]].concat();
    assert_eq!(opened(&long).map(drop).unwrap_err().code(), "invalid_file", "what follows the end");
    assert!(opened(&[0; 1024]).is_err());
    let mut rng = Rng::new(2);
    for _ in 0..3000 {
        let mut bytes = bytes.clone();
        for _ in 0..1 + rng.below(3) {
            let at = [rng.below(512), second + rng.below(512), rng.below(bytes.len())][rng.below(3)];
            bytes[at] = rng.next() as u8;
        }
        // Whatever comes of it: no panic, and nothing beyond the archive.
        if let Ok(archive) = opened(&bytes) {
            assert!(archive.listing().values().sum::<u64>() <= bytes.len() as u64);
        }
    }
}
