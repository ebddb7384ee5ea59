//! Publishers' files by address, hub id or as a person's own: what is asked for and in which order, what ends up in the store,
//! and that nothing half-written ever counts as a model.

use std::collections::BTreeMap;

use openweights::{
    quant::Plane,
    weights::{
        self, Checkpoint,
        acquire::Kind,
        import::Quantize,
        manifest::sha256_hex,
        network::Headers,
        package,
        progress::Phase,
        source::{Access, Source},
        store::{self, Storage},
    },
};
use openweights_tests::{
    fake::Fault,
    fixture,
    gguf_writer::tiny_llama,
    load_for, logits, reference,
    world::{HUB, World, own},
};
use serde_json::Value;

const GGUF: &str = "https://host.example/files/tiny.gguf";
const WEIGHTS: &str = "model.safetensors";
const COMMIT: &str = "0123456789012345678901234567890123456789";

/// The files of a fixture, at addresses.
fn directory(base: &str, name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(fixture(&format!("tiny/{name}"))).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && file != "golden.json" && file != "config.v5.json" {
            files.insert(format!("{base}{file}"), std::fs::read(path).unwrap());
        }
    }
    files
}

fn at_hub(file: &str) -> String {
    format!("{HUB}/org/tiny/resolve/main/{file}")
}

fn hub(name: &str) -> World {
    World::new(directory(&at_hub(""), name))
}

fn gguf() -> World {
    World::new([(GGUF.to_owned(), tiny_llama().gguf.to_bytes().1)])
}

/// `change` bends the configuration at the hub.
fn bent(change: impl FnOnce(&mut Value)) -> World {
    let mut world = hub("llama_plain");
    let config = world.host.files.get_mut(&at_hub("config.json")).unwrap();
    let mut json: Value = serde_json::from_slice(config).unwrap();
    change(&mut json);
    *config = json.to_string().into();
    world
}

fn same_logits(imported: &Checkpoint, name: &str) {
    let ids: Vec<u32> = (3..20).collect();
    let published = weights::open(&fixture(&format!("tiny/{name}"))).unwrap();
    let [a, b] = [imported, &published].map(|c| logits(&mut load_for(c, reference(), Some(64)).unwrap(), &ids));
    assert_eq!(a, b, "{name}");
}

#[test]
fn a_checkpoint_at_a_hub_runs_as_published_and_is_fetched_once() {
    let mut world = hub("llama_plain");
    world.access.token = Some("secret".into());
    world.host.files.insert(at_hub("README.md"), b"---\nlicense: apache-2.0\n---\n".to_vec());
    let record = world.load("org/tiny").unwrap();
    same_logits(&world.open(&record), "llama_plain");
    let source = &record.manifest.source;
    assert_eq!((source.origin.as_str(), source.revision.as_deref()), ("https://hub.example/org/tiny@main", Some("main")));
    assert!(!source.publisher_digest, "the hub stated none");
    let weights = source.files.iter().find(|file| file.path == WEIGHTS).unwrap();
    assert_eq!(weights.sha256, sha256_hex(&world.host.files[&at_hub(WEIGHTS)]));
    assert_eq!(record.manifest.card.license.as_ref().unwrap().value, "apache-2.0");
    assert!(world.host.asked.borrow().iter().all(|asked| asked.token.as_deref() == Some("secret") && !asked.url.contains("secret")));

    world.host.asked.take();
    assert_eq!(world.load("org/tiny@main").unwrap(), record);
    assert!(world.inspect("org/tiny").unwrap().stored);
    assert_eq!(world.load(&format!("store:{}", record.id)).unwrap(), record);
    assert_eq!(world.load("store:other").unwrap_err().code(), "not_found");
    assert_eq!(world.host.urls(), Vec::<String>::new());
    // Another revision, another quantisation: other models.
    assert_eq!(world.load("org/tiny@other").unwrap_err().code(), "not_found");
    world.quantize = Some(Quantize::Q8);
    let other = world.load("org/tiny").unwrap();
    assert_ne!(other.id, record.id);
    assert_eq!(other.manifest.quantization, "q8_0");
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let mut world = gguf();
    world.access.token = Some("secret".into());
    assert_eq!(Source::parse(GGUF, &world.access).unwrap_err().code(), "invalid_input");
    // Even a request that slips through carries none.
    let source = Source::parse(GGUF, &Access::default()).unwrap();
    world.load_source(&source).unwrap();
    assert!(world.host.asked.borrow().iter().all(|asked| asked.token.is_none()));
}

#[test]
fn a_hub_s_commit_is_kept_to() {
    let mut world = hub("llama_plain");
    let pinned = directory(&format!("{HUB}/org/tiny/resolve/{COMMIT}/"), "llama_plain");
    world.host.files.retain(|url, _| url.ends_with("config.json"));
    world.host.files.extend(pinned);
    world.host.headers.insert(at_hub("config.json"), Headers { commit: Some(COMMIT.into()), ..Headers::default() });
    let record = world.load("org/tiny").unwrap();
    assert_eq!(record.manifest.source.revision.as_deref(), Some(COMMIT));
    assert_eq!(world.load("org/tiny").unwrap(), record, "the identity is what was asked for");
}

#[test]
fn a_gguf_gives_the_same_package_with_ranges_and_without() {
    let bytes = tiny_llama().gguf.to_bytes().1;
    let mut packages = Vec::new();
    for (ranges, exposed) in [(true, true), (true, false), (false, true)] {
        let mut world = gguf();
        (world.host.ranges, world.host.exposed) = (ranges, exposed);
        let inspection = world.inspect(GGUF).unwrap();
        assert_eq!((inspection.kind, inspection.stored, inspection.bytes), (Kind::Gguf, false, bytes.len() as u64));
        assert_eq!(inspection.card.license.as_ref().unwrap().value, "apache-2.0");
        let record = world.load(GGUF).unwrap();
        assert_eq!(inspection.id.as_deref(), Some(record.id.as_str()));
        let shards: u64 = record.manifest.files.iter().filter(|f| f.path.ends_with(".safetensors")).map(|f| f.size).sum();
        // Headers are padded, and how much depends on the order of tensors.
        assert!(inspection.storage.abs_diff(shards) < 1024, "{} {shards}", inspection.storage);
        assert_eq!(record.manifest.source.sha256.as_deref(), Some(sha256_hex(&bytes).as_str()));
        let last = world.seen.take().pop().unwrap();
        assert_eq!((last.phase, last.loaded, last.total), (Phase::Import, bytes.len() as u64, bytes.len() as u64));
        let (files, source) = (record.manifest.files, record.manifest.source);
        packages.push((files, Value::from(source.sha256)));
        world.host.asked.take();
        world.load(GGUF).unwrap();
        assert_eq!(world.host.urls(), Vec::<String>::new());
    }
    assert!(packages.iter().all(|package| *package == packages[0]));
}

#[test]
fn a_split_gguf_is_the_same_model() {
    let whole = gguf().load(GGUF).unwrap();
    let address = |number: usize| format!("https://host.example/files/tiny-{number:05}-of-00003.gguf");
    let split = || {
        let parts = (1..).zip(tiny_llama().gguf.split());
        World::new(parts.map(|(number, part)| (address(number), part.to_bytes().1)).collect::<Vec<_>>())
    };
    for ranges in [true, false] {
        let mut world = split();
        world.host.ranges = ranges;
        let record = world.load(&address(2)).unwrap();
        assert_eq!(record.manifest.files, whole.manifest.files);
        assert_eq!(record.manifest.source.files.len(), 3);
        world.host.asked.take();
        world.load(&address(1)).unwrap();
        assert_eq!(world.host.urls(), Vec::<String>::new());
    }
    let mut world = split();
    let third = world.host.files[&address(3)].clone();
    world.host.files.insert(address(2), third);
    assert_eq!(world.load(&address(1)).unwrap_err().code(), "invalid_file", "the second part is the third");
    world.host.files.remove(&address(3));
    assert_eq!(world.load(&address(1)).unwrap_err().code(), "not_found");
    world.assert_empty();
}

#[test]
fn shards_by_address_with_ranges_and_without() {
    const BASE: &str = "https://host.example/tiny/";
    for ranges in [true, false] {
        let mut world = World::new(directory(BASE, "llama_f16_sharded"));
        world.host.ranges = ranges;
        let inspection = world.inspect(BASE).unwrap();
        assert_eq!((inspection.kind, inspection.architecture.as_str()), (Kind::Checkpoint, "llama"));
        let record = world.load("https://host.example/tiny").unwrap();
        same_logits(&world.open(&record), "llama_f16_sharded");
        assert_eq!(record.manifest.source.files.iter().filter(|file| file.path.ends_with(".safetensors")).count(), 3);
    }
}

#[test]
fn other_peoples_schemes_and_architectures_cost_no_weight() {
    let quantised = |method: &'static str| move |c: &mut Value| c["quantization_config"] = serde_json::json!({ "quant_method": method });
    type Case = (&'static str, &'static str, Box<dyn FnOnce(&mut Value)>);
    let cases: Vec<Case> = vec![
        ("unsupported_format", "GPTQ", Box::new(quantised("gptq"))),
        ("unsupported_format", "AWQ", Box::new(quantised("awq"))),
        ("unsupported_format", "compressed-tensors", Box::new(quantised("compressed-tensors"))),
        ("unsupported_format", "bitsandbytes", Box::new(quantised("bitsandbytes"))),
        ("unsupported_format", "fp8", Box::new(quantised("fp8"))),
        ("unsupported_format", "MLX", Box::new(|c| c["quantization"] = serde_json::json!({ "group_size": 64, "bits": 4 }))),
        ("unsupported_architecture", "frobnicator", Box::new(|c| c["model_type"] = "frobnicator".into())),
        ("invalid_file", "model_type", Box::new(|c| drop(c.as_object_mut().unwrap().remove("model_type")))),
    ];
    for (code, says, change) in cases {
        let world = bent(change);
        for error in [world.load("org/tiny").unwrap_err(), world.inspect("org/tiny").unwrap_err()] {
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(world.host.urls().iter().all(|url| !url.contains("safetensors")), "{says}");
        world.assert_empty();
    }
}

#[test]
fn wrong_shapes_and_settings_are_found_in_the_header() {
    for (says, change) in [
        ("embed_tokens", (|c| c["vocab_size"] = 123.into()) as fn(&mut Value)),
        ("hidden_act", |c| c["hidden_act"] = "sine".into()),
        ("model.layers.2.", |c| c["num_hidden_layers"] = 3.into()),
        ("is not part of", |c| c["num_hidden_layers"] = 1.into()),
    ] {
        let world = bent(change);
        let error = world.load("org/tiny").unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        let asked = world.host.asked.take();
        let weights: Vec<_> = asked.iter().filter(|asked| asked.url.ends_with(WEIGHTS) && asked.url.contains("resolve")).collect();
        assert!(weights.len() == 1 && weights[0].range == Some(0..256 << 10), "{weights:?}");
        world.assert_empty();
    }
    let mut tiny = tiny_llama();
    tiny.gguf.set("general.architecture", openweights::weights::gguf::Value::String("mamba".into()));
    let world = World::new([(GGUF.to_owned(), tiny.gguf.to_bytes().1)]);
    assert_eq!(world.load(GGUF).unwrap_err().code(), "unsupported_architecture");
    world.assert_empty();
}

#[test]
fn the_publishers_digest_decides() {
    let weights = hub("llama_plain").host.files[&at_hub(WEIGHTS)].clone();
    let (right, wrong) = (sha256_hex(&weights), "0".repeat(64));
    let etag = |sha256: &str| Headers { linked_etag: Some(format!("\"{sha256}\"")), ..Headers::default() };
    let pointer = |sha256: &str, size: usize| format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n");
    for (stated, good) in [(&right, true), (&wrong, false)] {
        let mut with_header = hub("llama_plain");
        with_header.host.headers.insert(at_hub(WEIGHTS), etag(stated));
        let mut with_pointer = hub("llama_plain");
        let at = at_hub(WEIGHTS).replace("resolve", "raw");
        with_pointer.host.files.insert(at, pointer(stated, weights.len()).into());
        for world in [with_header, with_pointer] {
            match world.load("org/tiny") {
                Ok(record) => assert!(good && record.manifest.source.publisher_digest),
                Err(error) => {
                    assert!(!good && error.code() == "integrity" && error.to_string().contains("publisher states"), "{error}");
                    world.assert_empty();
                }
            }
        }
    }
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke_or_leaves_nothing() {
    let world = hub("llama_plain");
    let head: u64 = 256 << 10;
    let faults = [Fault::Status(500), Fault::Fine, Fault::Broken(20_000), Fault::Status(503), Fault::Broken(0)];
    world.host.faults.borrow_mut().insert(at_hub(WEIGHTS), faults.into());
    let record = world.load("org/tiny").unwrap();
    same_logits(&world.open(&record), "llama_plain");
    let asked = world.host.asked.take();
    let from: Vec<u64> = asked.iter().filter(|a| a.url == at_hub(WEIGHTS)).map(|a| a.range.clone().unwrap().start).collect();
    assert_eq!(from, [0, 0, head, head + 20_000, head + 20_000, head + 20_000]);

    let mut world = gguf();
    world.host.ranges = false;
    // The inspection has its own connection; this is the one of the import.
    world.host.faults.borrow_mut().insert(GGUF.into(), [Fault::Broken(40_000)].into());
    assert_eq!(world.load(GGUF).unwrap_err().code(), "network");
    world.assert_empty();
    world.load(GGUF).unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_integrity_error() {
    let first = || Some("first".into());
    for headers in [Headers { etag: first(), ..Headers::default() }, Headers { last_modified: first(), ..Headers::default() }] {
        let mut world = hub("llama_plain");
        let size = world.host.files[&at_hub(WEIGHTS)].len();
        assert!(size > 256 << 10, "the rest of the file needs a request of its own");
        world.host.headers.insert(at_hub(WEIGHTS), headers);
        world.host.faults.borrow_mut().insert(at_hub(WEIGHTS), [Fault::Fine, Fault::Changed].into());
        assert_eq!(world.load("org/tiny").unwrap_err().code(), "integrity");
        world.assert_empty();
    }
}

#[test]
fn cancelling_and_a_full_store_leave_nothing() {
    let mut world = hub("llama_plain");
    world.abort_at = Some(200_000);
    assert_eq!(world.load("org/tiny").unwrap_err().code(), "aborted");
    world.assert_empty();

    let world = hub("llama_plain");
    world.storage.set_quota(Some(100_000));
    let error = world.load("org/tiny").unwrap_err();
    assert_eq!(error.code(), "quota");
    assert!(world.host.asked.take().iter().filter(|asked| asked.url == at_hub(WEIGHTS)).count() == 1, "only the header was read");
    world.assert_empty();
}

/// A person's own files, as the page hands them over.
#[test]
fn a_persons_own_files_are_known_by_their_contents() {
    let files = directory("", "llama_plain");
    let (world, source) = own(&files);
    let record = world.load_source(&source).unwrap();
    same_logits(&world.open(&record), "llama_plain");
    assert_eq!(record.url, "file:config.json");
    assert_eq!(world.load_source(&source).unwrap(), record, "found again");
    assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap().len(), 1);

    // One byte in the middle of the weights: same names, same sizes, same beginning, same end.
    let mut changed = files.clone();
    let weights = changed.get_mut(WEIGHTS).unwrap();
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    let (other, source) = own(&changed);
    let other = World { storage: world.storage.clone(), ..other };
    let second = other.load_source(&source).unwrap();
    assert_ne!(second.id, record.id);
    // One file more that an import would read.
    let mut more = files.clone();
    more.insert("chat_template.jinja".into(), b"{{ messages }}".to_vec());
    let (third, source) = own(&more);
    let third = World { storage: world.storage.clone(), ..third };
    assert_ne!(third.load_source(&source).unwrap().id, record.id);
    assert_eq!(pollster::block_on(store::list(&world.storage)).unwrap().len(), 3);
}

#[test]
fn a_persons_own_gguf_and_package() {
    let bytes = tiny_llama().gguf.to_bytes().1;
    let (world, source) = own(&[("my model (1).gguf".to_owned(), bytes)].into());
    let inspect = || world.with(&source, async |acquire, source| acquire.inspect(source, None).await).unwrap();
    assert_eq!((inspect().id, inspect().stored), (None, false));
    let record = world.load_source(&source).unwrap();
    assert_eq!((inspect().id, inspect().stored), (Some(record.id.clone()), true));
    assert_eq!(record.manifest.card.origin.as_ref().unwrap().value, "my model (1).gguf");

    // The package that came of it, as files.
    let mut package: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for file in &record.manifest.files {
        package.insert(file.path.clone(), pollster::block_on(world.storage.read(&file.sha256, 0, file.size as usize)).unwrap());
    }
    package.insert("openweights.json".into(), record.manifest.to_bytes());
    let (world, source) = own(&package);
    let copy = world.load_source(&source).unwrap();
    assert_eq!(copy.manifest, record.manifest);
    assert_eq!(world.load_source(&source).unwrap(), copy);
    let world = World { quantize: Some(Quantize::Q4), ..world };
    assert_eq!(world.load_source(&source).unwrap_err().code(), "invalid_input");
    assert_eq!(world.load(&format!("store:{}", copy.id)).unwrap_err().code(), "invalid_input");
}

#[test]
fn what_is_not_there_is_said() {
    let world = World::new([]);
    let error = world.load("org/tiny").unwrap_err();
    assert!(error.code() == "not_found" && error.to_string().contains("org/name/file.gguf"), "{error}");
    let error = world.load("https://host.example/tiny/").unwrap_err();
    assert!(error.to_string().contains("openweights.json") && error.to_string().contains("config.json"), "{error}");
    assert_eq!(world.load(GGUF).unwrap_err().code(), "not_found");
    let mut world = hub("llama_plain");
    world.host.files.remove(&at_hub(WEIGHTS));
    assert_eq!(world.load("org/tiny").unwrap_err().code(), "not_found");
    let world = hub("llama_plain");
    world.host.faults.borrow_mut().insert(at_hub("openweights.json"), [Fault::Status(404)].into());
    world.host.faults.borrow_mut().insert(at_hub("config.json"), [Fault::Status(401)].into());
    assert!(world.load("org/tiny").unwrap_err().to_string().contains("token"));
}

/// Rows of both planes are where the writer's plan says, whatever the source was.
#[test]
fn quantised_rows_are_those_of_the_command_line() {
    let mut world = hub("llama_bf16");
    world.quantize = Some(Quantize::Q4);
    let record = world.load("org/tiny").unwrap();
    let imported = world.open(&record);
    let mut memory = weights::files::Memory::default();
    let options = weights::import::Options { quantize: Quantize::Q4, ..Default::default() };
    let manifest = weights::convert(&fixture("tiny/llama_bf16"), options, &mut memory, &mut |_, _| {}).unwrap();
    let converted = pollster::block_on(package::open(&manifest, Box::new(memory))).unwrap();
    for (name, info) in &imported.tensors {
        let other = converted.tensor(name).unwrap();
        assert_eq!((info.format, &info.shape), (other.format, &other.shape));
        for plane in [Plane::Values, Plane::Scales] {
            let [a, b] =
                [(&imported, info), (&converted, other)].map(|(c, t)| pollster::block_on(c.read_rows(t, plane, 0, t.rows())).unwrap());
            assert_eq!(a, b, "{name} {plane:?}");
        }
    }
}
