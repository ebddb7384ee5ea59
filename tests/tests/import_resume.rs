//! Imports that do not end: the next one goes on where they were, whatever moment that was, and makes the same model; what is bad of a stored
//! one is made again, of no more than it needs.

use std::collections::BTreeMap;

use openweights::weights::{
    self,
    import::Quantize,
    manifest::{FileEntry, sha256_hex},
    network::Headers,
    store::{self, Record, Storage},
};
use openweights_tests::{
    converter::to_gguf,
    fixture,
    rng::Rng,
    world::{World, own},
};
use serde_json::{Value, json};

const BASE: &str = "https://host.example/files/";
const GGUF: &str = "https://host.example/files/tiny.gguf";
/// What is asked for of a file before anything else.
const HEAD: u64 = 256 << 10;
/// Rows of so many bytes are converted at once.
const BLOCK: u64 = 1 << 20;

fn is_weights(url: &str) -> bool {
    url.ends_with(".safetensors") || url.ends_with(".gguf")
}

/// A server that tells the version of its files.
fn versioned(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> World {
    let mut world = World::new(files);
    world.host.chunk = 2_000;
    for url in world.host.files.keys() {
        world.host.headers.insert(url.clone(), Headers { etag: Some("\"v1\"".into()), ..Headers::default() });
    }
    world
}

fn checkpoint(name: &str) -> World {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(fixture(&format!("tiny/{name}"))).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && file != "golden.json" && file != "config.v5.json" {
            files.insert(format!("{BASE}{file}"), std::fs::read(path).unwrap());
        }
    }
    versioned(files)
}

fn gguf(name: &str) -> World {
    let published = weights::open(&fixture(&format!("tiny/{name}"))).unwrap();
    versioned([(GGUF.to_owned(), to_gguf(&published).to_bytes().1)])
}

/// The same in three parts.
fn split(name: &str) -> World {
    let all = to_gguf(&weights::open(&fixture(&format!("tiny/{name}"))).unwrap());
    let address = |number: usize| format!("{BASE}tiny-{number:05}-of-00003.gguf");
    versioned((1..).zip(all.split()).map(|(number, part)| (address(number), part.to_bytes().1)).collect::<Vec<_>>())
}

/// A checkpoint of 70 MB, which fills several shards.
fn large() -> World {
    const VOCAB: usize = 131_072;
    let mut world = checkpoint("llama_plain");
    let config = world.host.files.get_mut(&format!("{BASE}config.json")).unwrap();
    let mut settings: Value = serde_json::from_slice(config).unwrap();
    settings["vocab_size"] = VOCAB.into();
    *config = settings.to_string().into();
    let file = world.host.files.get_mut(&format!("{BASE}model.safetensors")).unwrap();
    let start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&file[8..start]).unwrap();
    let (mut entries, mut data, mut rng) = (serde_json::Map::new(), Vec::new(), Rng::new(7));
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let offsets = |i: usize| start + entry["data_offsets"][i].as_u64().unwrap() as usize;
        let (mut shape, begin) = (entry["shape"].clone(), data.len());
        match name.contains("embed_tokens") || name.contains("lm_head") {
            true => {
                shape[0] = VOCAB.into();
                data.extend((0..VOCAB * shape[1].as_u64().unwrap() as usize).flat_map(|_| rng.float().to_le_bytes()));
            }
            false => data.extend(&file[offsets(0)..offsets(1)]),
        }
        entries.insert(name, json!({ "dtype": entry["dtype"], "shape": shape, "data_offsets": [begin, data.len()] }));
    }
    let text = serde_json::to_vec(&entries).unwrap();
    *file = [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat();
    world
}

/// An import that a crash ended in its middle.
fn stopped(mut world: World, address: &str) -> World {
    world.load(address).unwrap();
    let steps = world.steps.get();
    pollster::block_on(store::remove(&world.storage, &pollster::block_on(world.storage.records()).unwrap()[0])).unwrap();
    world.assert_empty();
    world.crash_after = Some(steps * 3 / 4);
    assert_eq!(world.load(address).unwrap_err().code(), "aborted");
    assert_ne!(pollster::block_on(world.storage.partials()).unwrap(), []);
    world.crash_after = None;
    world
}

fn sent(world: &World) -> u64 {
    world.host.sent.borrow().iter().filter(|(url, _)| is_weights(url)).map(|(_, bytes)| bytes).sum()
}

fn blobs(world: &World) -> Vec<String> {
    pollster::block_on(world.storage.blobs()).unwrap()
}

/// Whatever happened: blobs are what their names say, and there is no model before there is one.
fn check_blobs(world: &World, models: usize) {
    for sha256 in blobs(world) {
        let size = pollster::block_on(world.storage.blob_size(&sha256)).unwrap().unwrap();
        assert_eq!(sha256_hex(&pollster::block_on(world.storage.read(&sha256, 0, size as usize)).unwrap()), sha256);
    }
    assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap().len(), models);
}

fn assert_nothing_left(world: &World, record: &Record) {
    assert_eq!(pollster::block_on(world.storage.partials()).unwrap(), []);
    let mut wanted: Vec<_> = record.manifest.files.iter().map(|file| file.sha256.clone()).collect();
    wanted.sort();
    wanted.dedup();
    assert_eq!(blobs(world), wanted);
}

/// Loads it in one go, and with crashes after every so many eighths of that, again and again.
fn crashes(what: &str, make: impl Fn() -> World, address: &str, eighths: &[usize]) {
    let world = make();
    let whole = world.load(address).unwrap();
    let weights: Vec<u64> = world.host.files.iter().filter(|(url, _)| is_weights(url)).map(|(_, file)| file.len() as u64).collect();
    let total: u64 = weights.iter().sum();
    for part in eighths {
        let (mut world, steps) = (make(), world.steps.get() * part / 8);
        world.crash_after = Some(steps);
        let (mut crashed, mut before) = (0, 0);
        let record = loop {
            match world.load(address) {
                Ok(record) => break record,
                Err(error) => {
                    assert_eq!(error.code(), "aborted", "{what}: {error}");
                    check_blobs(&world, 0);
                }
            }
            crashed += 1;
            // A visit that is too short for one block of rows would never come further.
            let there: u64 = pollster::block_on(world.storage.partials()).unwrap().iter().map(|(_, bytes)| bytes).sum();
            if there <= before {
                world.crash_after = world.crash_after.map(|steps| steps + 20);
            }
            before = there;
        };
        assert_eq!(record, whole, "{what} after {crashed} crashes");
        check_blobs(&world, 1);
        assert_nothing_left(&world, &record);
        if world.host.ranges {
            // Each visit reads the heads, and again what came after the last block that was written whole.
            let again: u64 = weights.iter().map(|file| HEAD.min(*file)).sum::<u64>() + BLOCK + total / 128 + world.host.chunk as u64;
            let twice = sent(&world) - total;
            assert!(twice <= crashed * again, "{what}: {twice} bytes twice after {crashed} crashes");
        }
        println!("{what}: whole after {crashed} crashes");
        assert!(crashed > 0, "{what}: {steps} steps are enough for all of it");
    }
}

#[test]
fn after_a_crash_at_any_moment_an_import_goes_on_and_makes_the_same_model() {
    let many: Vec<usize> = (1..8).collect();
    crashes("a GGUF", || gguf("llama_plain"), GGUF, &many);
    crashes("a GGUF with rope factors", || gguf("llama3_rope_tied"), GGUF, &many);
    crashes("a split GGUF", || split("llama3_rope_tied"), &format!("{BASE}tiny-00001-of-00003.gguf"), &many);
    crashes("shards", || checkpoint("llama_f16_sharded"), BASE, &many);
    let quantised = |name: &'static str| move || World { quantize: Some(Quantize::Q4), ..checkpoint(name) };
    crashes("bf16 to q4", quantised("llama_bf16"), BASE, &many);
    crashes("GPT-2, whose maps are turned", quantised("gpt2"), BASE, &many);
    crashes("gpt-oss", quantised("gpt_oss"), BASE, &many);
    let without = || {
        let mut world = gguf("llama3_rope_tied");
        world.host.ranges = false;
        world
    };
    crashes("a GGUF without ranges", without, GGUF, &many);
}

#[test]
fn a_large_import_fetches_little_twice() {
    let world = large();
    let (whole, steps) = (world.load(BASE).unwrap(), world.steps.get());
    assert!(whole.manifest.files.iter().filter(|file| file.path.ends_with(".safetensors")).count() > 2);
    for part in [1, 3, 5, 7] {
        let mut world = large();
        world.crash_after = Some(steps * part / 8);
        assert_eq!(world.load(BASE).unwrap_err().code(), "aborted");
        let (before, size) = (sent(&world), world.host.files[&format!("{BASE}model.safetensors")].len() as u64);
        world.crash_after = None;
        assert_eq!(world.load(BASE).unwrap(), whole);
        let twice = sent(&world) - size;
        println!("stopped after {before} of {size} bytes: {twice} fetched twice, {:.2} %", 100.0 * twice as f64 / size as f64);
        assert!(before > size / 20 && before < size, "{before}");
        // The head, a block, and what was read since the last note: of a model of gigabytes less than a hundredth.
        assert!(twice <= HEAD + BLOCK + size / 128 + world.host.chunk as u64, "{twice}");
        assert_nothing_left(&world, &whole);
    }
}

#[test]
fn a_source_that_changed_begins_again_and_says_so() {
    let stopped = || stopped(gguf("llama_plain"), GGUF);
    let restarted = |world: &World| world.seen.borrow().iter().find_map(|progress| progress.restarted.clone());
    // The same bytes, by another name of their version: nobody can know that they are the same.
    let mut world = stopped();
    world.host.headers.insert(GGUF.into(), Headers { etag: Some("\"v2\"".into()), ..Headers::default() });
    let before = sent(&world);
    let record = world.load(GGUF).unwrap();
    assert!(restarted(&world).unwrap().contains("\"tiny.gguf\" has changed"), "{:?}", restarted(&world));
    assert_eq!(sent(&world) - before, world.host.files[GGUF].len() as u64);
    assert_nothing_left(&world, &record);
    // Other bytes.
    let mut world = stopped();
    let file = world.host.files.get_mut(GGUF).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    world.host.headers.insert(GGUF.into(), Headers { etag: Some("\"v2\"".into()), ..Headers::default() });
    let changed = world.load(GGUF).unwrap();
    assert!(restarted(&world).is_some());
    assert_eq!(changed.manifest.source.sha256, Some(sha256_hex(&world.host.files[GGUF])));
    // Another version that is noticed only where reading goes on.
    let world = stopped();
    world
        .host
        .faults
        .borrow_mut()
        .insert(GGUF.into(), [openweights_tests::fake::Fault::Fine, openweights_tests::fake::Fault::Changed].into());
    if world.host.files[GGUF].len() as u64 > HEAD {
        assert_eq!(world.load(GGUF).unwrap_err().code(), "integrity");
        world.assert_empty();
    }
    world.host.faults.borrow_mut().clear();
    assert_eq!(world.load(GGUF).unwrap(), record);
    assert_eq!(restarted(&world), None, "nothing was left");
    // What is stored was damaged: the noted digests say so.
    let world = stopped();
    pollster::block_on(async {
        let (name, size) = world.storage.partials().await.unwrap().into_iter().find(|(name, _)| name.ends_with(".safetensors")).unwrap();
        let mut partial = world.storage.resume(&name).await.unwrap();
        let mut bytes = partial.read(0, size as usize).await.unwrap();
        bytes[0] ^= 1;
        partial.truncate(0).unwrap();
        partial.append(&bytes).await.unwrap();
    });
    assert_eq!(world.load(GGUF).unwrap(), record);
    assert!(restarted(&world).unwrap().contains("damaged"));
}

#[test]
fn notes_that_are_torn_or_wrong_are_of_no_harm() {
    let whole = gguf("llama_plain").load(GGUF).unwrap();
    let mut rng = Rng::new(11);
    for round in 0..60 {
        let world = stopped(gguf("llama_plain"), GGUF);
        pollster::block_on(async {
            for (name, size) in world.storage.partials().await.unwrap().into_iter().filter(|(name, _)| name.ends_with(".json")) {
                let mut note = world.storage.resume(&name).await.unwrap();
                let mut bytes = note.read(0, size as usize).await.unwrap();
                match round % 3 {
                    0 => bytes.truncate(rng.below(bytes.len().max(1))),
                    // A digit for a digit: it is still JSON, and says something else.
                    _ => {
                        let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
                        for _ in 0..1 + round / 20 {
                            bytes[digits[rng.below(digits.len())]] = b'1' + rng.below(9) as u8;
                        }
                    }
                }
                note.truncate(0).unwrap();
                note.append(&bytes).await.unwrap();
            }
        });
        let mut record = world.load(GGUF);
        if let Err(error) = &record {
            assert_eq!(error.code(), "integrity", "{error}");
            record = world.load(GGUF);
        }
        let record = record.unwrap();
        // The digest of the source's file has a state of its own, with which nothing can be compared where the publisher states none.
        assert_eq!(record.manifest.files, whole.manifest.files);
        assert_nothing_left(&world, &record);
    }
}

#[test]
fn cancelling_a_full_store_and_a_server_that_is_away_leave_what_is_there() {
    let whole = gguf("llama_plain").load(GGUF).unwrap();
    let size = |world: &World| world.host.files[GGUF].len() as u64;
    for reason in ["aborted", "quota", "network"] {
        let mut world = gguf("llama_plain");
        match reason {
            "aborted" => world.abort_at = Some(size(&world) / 2),
            "quota" => world = stopped(world, GGUF),
            _ => {
                let away = std::iter::repeat_n(openweights_tests::fake::Fault::Broken(0), 20);
                let faults = [openweights_tests::fake::Fault::Broken(100_000)].into_iter().chain(away);
                world.host.faults.borrow_mut().insert(GGUF.into(), faults.collect());
            }
        }
        if reason == "quota" {
            let used = pollster::block_on(world.storage.usage()).unwrap().used;
            world.storage.set_quota(Some(used + 10_000));
            assert_eq!(world.load(GGUF).unwrap_err().code(), "quota");
            world.storage.set_quota(None);
        } else {
            assert_eq!(world.load(GGUF).unwrap_err().code(), reason);
        }
        check_blobs(&world, 0);
        world.host.faults.borrow_mut().clear();
        (world.abort_at, world.abort) = Default::default();
        let there = pollster::block_on(store::stored_bytes(&world.storage)).unwrap().unfinished;
        assert!(reason == "network" || there > 10_000, "{reason}: {there}");
        assert_eq!(world.load(GGUF).unwrap(), whole, "{reason}");
        assert_nothing_left(&world, &whole);
    }
}

#[test]
fn an_import_that_was_given_up_is_cleaned_away_and_outlives_another_model() {
    let mut world = stopped(gguf("llama_plain"), GGUF);
    let other = format!("{BASE}other.gguf");
    let bytes = to_gguf(&weights::open(&fixture("tiny/qwen3")).unwrap()).to_bytes().1;
    world.host.files.insert(other.clone(), bytes);
    world.load(&other).unwrap();
    let before = sent(&world);
    world.load(GGUF).unwrap();
    assert!(sent(&world) - before < world.host.files[GGUF].len() as u64, "it went on");

    let world = stopped(gguf("llama_plain"), GGUF);
    pollster::block_on(store::clean(&world.storage, |_| false)).unwrap();
    world.assert_empty();
}

/// Changes or removes a stored file.
fn damage(world: &World, record: &Record, path: &str, how: usize) -> FileEntry {
    let file = record.manifest.files.iter().find(|file| file.path == path).unwrap().clone();
    match how % 2 {
        0 => world.storage.damage(&file.sha256, |bytes| bytes[0] ^= 1),
        _ => pollster::block_on(world.storage.remove_blob(&file.sha256)).unwrap(),
    }
    file
}

#[test]
fn verifying_makes_what_is_bad_of_an_import_again() {
    type Case = (&'static str, fn() -> World, &'static str);
    let cases: [Case; 4] = [
        ("a GGUF", || gguf("llama3_rope_tied"), GGUF),
        ("shards", || checkpoint("llama_f16_sharded"), BASE),
        ("q4", || World { quantize: Some(Quantize::Q4), ..checkpoint("llama_bf16") }, BASE),
        ("turned", || World { quantize: Some(Quantize::Q4), ..checkpoint("gpt_oss") }, BASE),
    ];
    for (what, make, address) in cases {
        let world = make();
        let record = world.load(address).unwrap();
        for (how, file) in record.manifest.files.iter().enumerate() {
            damage(&world, &record, &file.path, how);
            let verified = world.verify(&record.id).unwrap();
            // Small files may be one in the store.
            let bad: Vec<_> = record.manifest.files.iter().filter(|f| f.sha256 == file.sha256).map(|f| f.path.clone()).collect();
            assert_eq!((verified.repaired, verified.bad, verified.unrepaired), (true, bad, None), "{what}");
            assert_eq!(world.verify(&record.id).unwrap().bad, Vec::<String>::new(), "{what}: {}", file.path);
            assert_nothing_left(&world, &record);
        }
    }
    // At a hub, at the commit that was imported, though the branch has gone on.
    let commit = "0123456789".repeat(4);
    let files = checkpoint("llama_plain").host.files;
    let at = |revision: &str| format!("https://hub.example/org/tiny/resolve/{revision}/");
    let mut world = World::new(files.iter().flat_map(|(url, bytes)| ["main", &commit].map(|r| (url.replace(BASE, &at(r)), bytes.clone()))));
    world.host.headers.insert(at("main") + "config.json", Headers { commit: Some(commit.clone()), ..Headers::default() });
    let record = world.load("org/tiny").unwrap();
    world.host.files.retain(|url, _| !url.starts_with(&at("main")));
    damage(&world, &record, "model-00001-of-00001.safetensors", 0);
    assert!(world.verify(&record.id).unwrap().repaired);
}

#[test]
fn repairing_a_large_import_reads_what_the_bad_shard_needs() {
    let world = large();
    let record = world.load(BASE).unwrap();
    let size = world.host.files[&format!("{BASE}model.safetensors")].len() as u64;
    for (how, number) in [2, 3].into_iter().enumerate() {
        let shards = record.manifest.files.iter().filter(|file| file.path.ends_with(".safetensors")).count();
        let bad = damage(&world, &record, &format!("model-{number:05}-of-{shards:05}.safetensors"), how);
        world.host.sent.borrow_mut().clear();
        assert!(world.verify(&record.id).unwrap().repaired);
        println!("{} bytes were bad, {} of {size} were fetched", bad.size, sent(&world));
        assert!(sent(&world) < bad.size + HEAD + 3 * BLOCK && sent(&world) < size * 2 / 3, "{}", sent(&world));
        assert_eq!(world.verify(&record.id).unwrap().bad, Vec::<String>::new());
    }
}

#[test]
fn loading_an_import_of_which_a_part_was_evicted_makes_that_part_again() {
    let mut world = large();
    let record = world.load(BASE).unwrap();
    let size = world.host.files[&format!("{BASE}model.safetensors")].len() as u64;
    let bad = damage(&world, &record, "model-00002-of-00004.safetensors", 1);
    world.host.sent.borrow_mut().clear();
    assert_eq!(world.load(BASE).unwrap(), record);
    assert!(sent(&world) < bad.size + HEAD + 3 * BLOCK, "{}", sent(&world));
    assert_nothing_left(&world, &record);
    // Its publisher has another one by now: that is imported.
    damage(&world, &record, "model-00003-of-00004.safetensors", 1);
    let file = world.host.files.get_mut(&format!("{BASE}model.safetensors")).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    world.host.sent.borrow_mut().clear();
    let other = world.load(BASE).unwrap();
    assert!(other != record && other.id == record.id && sent(&world) > size);
    assert!(world.verify(&other.id).unwrap().repaired);
}

#[test]
fn what_cannot_be_repaired_says_what_to_do() {
    // Its publisher has another file there now.
    let mut world = gguf("llama_plain");
    let record = world.load(GGUF).unwrap();
    let shard = "model-00001-of-00001.safetensors";
    let bad = damage(&world, &record, shard, 0);
    for flip in [true, false] {
        let file = world.host.files.get_mut(GGUF).unwrap();
        let last = file.len() - 100;
        file[last] ^= 1;
        if flip {
            let error = world.verify(&record.id).unwrap_err();
            assert!(error.code() == "integrity" && error.to_string().contains("load it again"), "{error}");
            assert_eq!(pollster::block_on(world.storage.blob_size(&bad.sha256)).unwrap(), None);
            assert_eq!(pollster::block_on(world.storage.partials()).unwrap(), []);
        } else {
            assert!(world.verify(&record.id).unwrap().repaired, "it is back");
        }
    }
    world.host.files.get_mut(GGUF).unwrap().push(0);
    damage(&world, &record, shard, 1);
    assert_eq!(world.verify(&record.id).unwrap_err().code(), "integrity");
    world.host.files.clear();
    assert_eq!(world.verify(&record.id).unwrap_err().code(), "not_found");

    // A person's own file, which no page can open again by itself.
    let bytes = gguf("llama_plain").host.files[GGUF].clone();
    let (world, source) = own(&[("mine.gguf".to_owned(), bytes)].into());
    let record = world.load_source(&source).unwrap();
    damage(&world, &record, shard, 0);
    let verified = world.verify(&record.id).unwrap();
    let unrepaired = verified.unrepaired.unwrap();
    assert_eq!((verified.repaired, verified.bad, unrepaired.code), (false, vec![shard.to_owned()], "not_found"));
    assert!(unrepaired.message.contains("mine.gguf") && unrepaired.message.contains("load them again"), "{}", unrepaired.message);
    assert_eq!(world.load_source(&source).unwrap(), record, "as it said");
    assert!(world.verify(&record.id).unwrap().repaired);
}
