//! Downloads against a network and a storage with scripted faults: every run ends in verified weights or in an error with
//! the right code, and nothing corrupt is ever stored.

use openweights::{
    Error,
    weights::{
        download::Phase,
        manifest::{FORMAT, FileEntry, MANIFEST, sha256_hex},
        network::Clock,
        store::{self, Storage},
    },
};
use openweights_tests::{
    downloads::{URL, World, bytes, two_files},
    faults::{Fault, Version},
};
use serde_json::json;

const SHARD: &str = "model-1.safetensors";

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
    assert_eq!(world.server.paths().len(), 3);

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
    assert_eq!(world.server.paths(), [MANIFEST, "model-1.safetensors"]);
    world.check_files(&record);
}

#[test]
fn files_with_one_content_are_fetched_once() {
    let world = World::new(&[("a", bytes(1, 5000)), ("b", bytes(1, 5000)), ("empty", vec![])]);
    let record = world.load().unwrap();
    assert_eq!(world.server.paths(), [MANIFEST, "b"], "and of nothing, nothing");
    world.check_files(&record);
}

/// Always the same fault: what the error says, and that nothing wrong stays.
#[test]
fn wrong_bytes_are_named_and_never_stored() {
    for (fault, says) in [
        (Fault::Flipped(9_999), "sha256"),
        (Fault::CutShort(10_499), "expected 10500 bytes, found 10499"),
        (Fault::CutShort(0), "found 0"),
        (Fault::Longer(1), "longer than the 10500 bytes"),
    ] {
        let mut world = two_files();
        world.server.ranges = false;
        world.fault(SHARD, &[fault; 9]);
        let error = world.load().unwrap_err();
        assert_eq!(error.code(), "integrity", "{fault:?}: {error}");
        assert!(error.to_string().contains(SHARD) && error.to_string().contains(says), "{error}");
        world.check();
        assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap(), []);
        // The server has recovered: the next load is whole.
        world.server.faults.take();
        let record = world.load().unwrap();
        world.check_files(&record);
    }
}

#[test]
fn a_wrong_file_gets_one_more_chance() {
    let world = two_files();
    world.fault(SHARD, &[Fault::Flipped(5)]);
    let record = world.load().unwrap();
    world.check_files(&record);
    assert_eq!(ranges(&world), ["0..", "0.."]);
}

#[test]
fn the_server_s_answers_have_codes() {
    let always = |fault| [fault; 9];
    for (file, faults, code, asked) in [
        (SHARD, always(Fault::Status(404)), "not_found", 1),
        (MANIFEST, always(Fault::Status(404)), "not_found", 1),
        (SHARD, always(Fault::Status(403)), "network", 1),
        (SHARD, always(Fault::Expired), "network", 5),
        (SHARD, always(Fault::Status(500)), "network", 5),
        (MANIFEST, always(Fault::Status(503)), "network", 5),
        (SHARD, always(Fault::Refused), "network", 5),
        (SHARD, always(Fault::Broken(0)), "network", 5),
        (SHARD, always(Fault::Stalled(0)), "network", 5),
        (MANIFEST, always(Fault::CutShort(100)), "invalid_file", 1),
    ] {
        let world = two_files();
        world.fault(file, &faults);
        let error = world.load().unwrap_err();
        assert_eq!(error.code(), code, "{file} {:?}: {error}", faults[0]);
        assert_eq!(world.server.paths().iter().filter(|path| *path == file).count(), asked, "{file} {:?}", faults[0]);
        world.check();
    }
}

#[test]
fn a_server_that_recovers_is_asked_again_later_and_later() {
    let world = two_files();
    world.fault(SHARD, &[Fault::Broken(0), Fault::Status(503), Fault::Refused]);
    let record = world.load().unwrap();
    let waited = world.clock.now_ms();
    assert!((1750.0..3700.0).contains(&waited), "half of 500 + 1000 + 2000 ms, or more: {waited}");
    world.check_files(&record);
    assert_eq!(world.seen.borrow().last().unwrap().loaded, 10_800);
}

#[test]
fn a_server_that_says_when_is_asked_then() {
    // Seconds; a date that is five seconds away; and more than anyone should be made to wait.
    for (after, waited) in [("7", 7000.0), ("Thu, 01 Jan 2026 00:00:05 GMT", 5000.0), ("86400", 60_000.0)] {
        let world = two_files();
        world.fault(SHARD, &[Fault::Busy(429, after)]);
        world.load().unwrap();
        let took = world.clock.now_ms();
        assert!((waited - 100.0..waited + 100.0).contains(&took), "{after}: {took}");
    }
}

#[test]
fn what_has_arrived_is_not_asked_for_again() {
    let world = two_files();
    world.fault(SHARD, &[Fault::Broken(4000), Fault::Stalled(3000), Fault::CutShort(2000)]);
    let record = world.load().unwrap();
    world.check_files(&record);
    let version = format!("\"{SHARD}-0\"");
    let asked: Vec<_> = world.server.asked.take().into_iter().filter(|asked| asked.path == SHARD).collect();
    assert!(asked[1..].iter().all(|asked| asked.if_range.as_ref() == Some(&version)), "{asked:?}");
    let starts: Vec<_> = asked.iter().map(|asked| asked.range.as_ref().map_or(0, |range| range.start)).collect();
    assert_eq!(starts, [0, 4000, 7000, 9000]);
    assert_eq!(world.server.again.get(), (0, 0));
    assert_eq!(world.seen.borrow().last().unwrap().loaded, 10_800);
}

#[test]
fn another_visit_goes_on_where_the_last_one_ended() {
    let mut world = two_files();
    world.abort_after = Some(7);
    assert_eq!(world.load().unwrap_err(), Error::Aborted);
    let left: u64 = world.partials().iter().filter(|(name, _)| !name.ends_with("json")).map(|(_, size)| size).sum();
    assert!(left > 3000, "{left}");
    world.abort_after = None;
    world.abort = Default::default();
    world.seen.take();
    let record = world.load().unwrap();
    world.check_files(&record);
    assert_eq!(world.server.again.get(), (0, 0));
    assert!(world.seen.borrow()[1].loaded >= left, "progress begins with what is there");
}

#[test]
fn another_version_or_no_ranges_begin_that_file_again() {
    for version in [Version::Strong, Version::Date] {
        let mut world = two_files();
        world.server.version = version;
        world.fault(SHARD, &[Fault::Broken(4000), Fault::Changed]);
        world.load().unwrap();
        assert_eq!(ranges(&world), ["0..", "4000.."], "the answer to the second is the whole file");
        assert_eq!(world.server.again.get(), (0, 0), "it was asked for the rest alone");
    }
    let mut world = two_files();
    world.server.ranges = false;
    world.fault(SHARD, &[Fault::Broken(4000)]);
    let record = world.load().unwrap();
    world.check_files(&record);
    assert_eq!(ranges(&world), ["0..", "4000.."]);
}

#[test]
fn a_server_that_lets_no_if_range_pass_is_asked_without() {
    let mut world = two_files();
    world.server.if_range = false;
    world.fault(SHARD, &[Fault::Broken(4000)]);
    world.load().unwrap();
    assert_eq!(ranges(&world), ["0..", "4000..", "4000.."]);
    assert_eq!(world.server.again.get(), (0, 0));
}

#[test]
fn a_range_of_something_else_is_never_put_together() {
    for fault in [Fault::WrongRange, Fault::Gzip] {
        for exposed in [true, false] {
            let mut world = two_files();
            world.server.exposed = exposed;
            world.fault(SHARD, &[Fault::Broken(4000), fault]);
            let record = world.load().unwrap();
            world.check_files(&record);
            let asked = ranges(&world);
            assert_eq!(asked.last().unwrap(), "0..", "{fault:?}: {asked:?}");
        }
    }
}

#[test]
fn what_came_compressed_is_gone_on_with_uncompressed() {
    let world = two_files();
    world.fault(SHARD, &[Fault::Gzip, Fault::Fine]);
    let record = world.load().unwrap();
    world.check_files(&record);
    assert_eq!(ranges(&world), ["0.."]);
}

#[test]
fn back_off_can_be_aborted() {
    let mut world = two_files();
    world.fault(SHARD, &[Fault::Busy(503, "50")]);
    world.abort_after = Some(2);
    assert_eq!(world.load().unwrap_err(), Error::Aborted);
    assert!(world.clock.now_ms() < 1000.0);
}

/// What was asked for of the shard: `from..`.
fn ranges(world: &World) -> Vec<String> {
    let asked = world.server.asked.take().into_iter().filter(|asked| asked.path == SHARD);
    asked.map(|asked| format!("{}..", asked.range.map_or(0, |range| range.start))).collect()
}

#[test]
fn space_is_checked_before_any_weight() {
    let world = two_files();
    world.storage.set_quota(Some(10_799));
    assert_eq!(world.load().unwrap_err(), Error::Quota { needed: 10_800, available: 10_799, removable: 0 });
    assert_eq!(world.server.paths(), [MANIFEST]);
    world.check();
}

#[test]
fn a_manifest_that_is_refused_costs_no_file() {
    let mut world = two_files();
    world.refused = Some(|manifest| Error::UnsupportedArchitecture(manifest.architecture.clone()));
    assert_eq!(world.load().unwrap_err(), Error::UnsupportedArchitecture("llama".into()));
    assert_eq!(world.server.paths(), [MANIFEST]);
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
    assert!(matches!(world.load().unwrap_err(), Error::Quota { needed: 9000, available: ..9000, .. }), "{records}");
    world.storage.set_quota(Some(4000 + 9000 + records));
    let record = world.load().unwrap();
    assert_eq!(world.server.paths(), [MANIFEST, MANIFEST, "model-1.safetensors"], "a stored file is not fetched again");
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
    world.fault(SHARD, &[Fault::Flipped(1); 2]);
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
        assert!(matches!(error, Error::Quota { needed: 500.., available: ..200, .. }), "{error}");
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
        assert_eq!(store::stored_bytes(storage).await.unwrap(), store::Bytes { models: 10_800, unfinished: 0 });
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
    world.fault(SHARD, &[Fault::Flipped(1); 2]);
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
    world.fault(SHARD, &[Fault::Stalled(5000)]);
    world.abort_after = Some(6);
    assert_eq!(world.load().unwrap_err(), Error::Aborted);
    assert!(world.clock.now_ms() < 1000.0);
    world.check();
}

#[test]
fn addresses_become_ids() {
    let id = store::model_id("https://host.example/a b/Ünï/../m?x=1/");
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !id.starts_with('.'), "{id}");
    assert_ne!(store::model_id("https://a.example/m/"), store::model_id("https://b.example/m/"));
}
