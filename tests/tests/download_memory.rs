//! A download's memory does not depend on its size: counted by the allocator, while a server that is always ready meets a store that is slow.

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::{
    Result,
    weights::{
        abort::Abort,
        download::Downloader,
        manifest::{FileEntry, MANIFEST, hex},
        network::{Fetch, Headers, Request, Response},
    },
};
use openweights_tests::{discarding::Discarding, downloads, virtual_clock::VirtualClock};
use peak_alloc::PeakAlloc;
use sha2::{Digest, Sha256};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// As a package's.
const SHARD: u64 = 32 << 20;
const SHARDS: u64 = 20;
/// What a browser hands over at once, at most, is less.
const CHUNK: usize = 1 << 20;
const LIMIT: usize = 8 * CHUNK;

/// Serves a package whose shards are one byte over and over. Its answers never wait.
struct Eager {
    manifest: Vec<u8>,
}

impl Fetch for Eager {
    fn get<'a>(&'a self, Request { url, .. }: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let name = url.rsplit('/').next().unwrap();
        let response = |length, body| async move {
            Ok(Response { status: 200, headers: Headers { length: Some(length), ..Headers::default() }, body })
        };
        if name == MANIFEST {
            let bytes = self.manifest.clone();
            return response(bytes.len() as u64, stream::iter([Ok(bytes)]).boxed_local()).boxed_local();
        }
        let number: u64 = name.strip_suffix(".safetensors").unwrap().parse().unwrap();
        let chunks = (0..SHARD / CHUNK as u64).map(move |_| Ok(vec![number as u8; CHUNK]));
        response(SHARD, stream::iter(chunks).boxed_local()).boxed_local()
    }
}

fn shard(number: u64) -> FileEntry {
    let (mut hash, chunk) = (Sha256::new(), vec![number as u8; CHUNK]);
    (0..SHARD / CHUNK as u64).for_each(|_| hash.update(&chunk));
    FileEntry { path: format!("{number}.safetensors"), size: SHARD, sha256: hex(&hash.finalize()) }
}

/// One test: allocations of others would be counted.
#[test]
fn a_download_needs_little_memory_however_large_it_is_and_slow_the_store() {
    let mut manifest = downloads::manifest(&[]);
    manifest.files = (0..SHARDS).map(shard).collect();
    let server = Eager { manifest: manifest.to_bytes() };
    let clock = VirtualClock::default();
    let storage = Discarding::slow(&clock, 50.0);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let downloader = Downloader { storage: &storage, fetch: &server, clock: &clock, abort: &Abort::default(), progress: &|_| {} };
    clock.run(downloader.load("https://host.example/large/", |_| Ok(())), None).unwrap().unwrap();
    let peak = HEAP.peak_usage() - before;
    println!("peak {:.1} MiB over a package of {} MiB", peak as f64 / f64::from(1 << 20), storage.kept() >> 20);
    assert!(storage.kept() >= SHARD * SHARDS && SHARD * SHARDS > 512 << 20);
    // Four files at a time, each with a chunk that is written and one that is on its way.
    assert!(peak < LIMIT, "{peak} bytes at the peak; 96 MiB are promised");
}
