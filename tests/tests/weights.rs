//! GGUF files become packages, packages are read back, and bad files are refused by name.

use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use half::f16;
use openweights::{
    Error, Result,
    quant::{Format, Plane},
    weights::{
        self, Checkpoint,
        files::{DirectorySink, Memory},
        gguf::Value,
        import::{self, Options, Quantize},
        manifest::{MANIFEST, Manifest, Source, sha256_hex},
        package,
    },
};
use openweights_tests::{
    gguf_writer::{TinyLlama, tiny_llama},
    rng::Rng,
    smollm2_gguf,
};

/// Imports `bytes`, announced as `len`, arriving in pieces of `chunk` bytes.
fn import(bytes: &[u8], len: usize, chunk: usize, options: Options) -> Result<(Manifest, Memory)> {
    let chunks: Vec<Result<Vec<u8>>> = bytes.chunks(chunk).map(|c| Ok(c.to_vec())).collect();
    let mut memory = Memory::default();
    let stream = stream::iter(chunks).boxed_local();
    let manifest = pollster::block_on(import::gguf(stream, len as u64, options, &mut memory, &mut |_, _| {}))?;
    Ok((manifest, memory))
}

fn import_whole(bytes: &[u8]) -> Result<(Manifest, Memory)> {
    import(bytes, bytes.len(), 1 << 20, Options::default())
}

fn open(memory: &Memory) -> Result<Checkpoint> {
    pollster::block_on(package::open(&Manifest::parse(&memory.files[MANIFEST])?, Box::new(memory.clone())))
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.tensor(name).unwrap();
    let mut out = vec![0.0; info.rows() * info.cols()];
    for (row, out) in out.chunks_mut(info.cols()).enumerate() {
        let plane = |plane| pollster::block_on(checkpoint.read_rows(info, plane, row, 1)).unwrap();
        info.format.unpack_row(&plane(Plane::Values), &plane(Plane::Scales), out);
    }
    out
}

/// Imports a tiny llama that `change` has bent.
fn refused(change: impl FnOnce(&mut TinyLlama)) -> Error {
    let mut tiny = tiny_llama();
    change(&mut tiny);
    import_whole(&tiny.gguf.to_bytes().1).err().unwrap()
}

#[track_caller]
fn expect(error: &Error, code: &str, says: &str) {
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(says), "{error:?} does not say {says:?}");
}

/// A directory that is removed again.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("openweights-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_value_survives_the_import() {
    let tiny = tiny_llama();
    let bytes = tiny.gguf.to_bytes().1;
    let (manifest, memory) = import_whole(&bytes).unwrap();
    let checkpoint = open(&memory).unwrap();
    assert_eq!(checkpoint.tensors.len(), tiny.expected.len());
    for (name, (format, shape, expected)) in &tiny.expected {
        let info = checkpoint.tensor(name).unwrap();
        assert_eq!((info.format, &info.shape), (*format, shape), "{name}");
        assert_eq!(values(&checkpoint, name), *expected, "{name}");
        assert!(info.values.iter().chain(&info.scales).all(|p| p.offset % 4 == 0), "{name}");
    }
    let config = &checkpoint.config;
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["hidden_size"], 64);
    assert_eq!(config["intermediate_size"], 96);
    assert_eq!(config["num_key_value_heads"], 2);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(config["attention_bias"], true);
    assert_eq!(config.get("head_dim"), None);
    assert_eq!(checkpoint.generation_config["eos_token_id"], serde_json::json!([2]));
    assert_eq!(checkpoint.card.license.as_ref().unwrap().value, "apache-2.0");
    assert_eq!(checkpoint.card.publisher, None);
    assert_eq!(manifest.parameters, tiny.expected.values().map(|(_, _, v)| v.len() as u64).sum::<u64>());
    assert_eq!(manifest.source.sha256.as_deref(), Some(sha256_hex(&bytes).as_str()));
    assert!(!manifest.source.publisher_digest);
}

#[test]
fn the_same_file_gives_the_same_package_however_it_arrives() {
    let bytes = tiny_llama().gguf.to_bytes().1;
    let (_, whole) = import_whole(&bytes).unwrap();
    for chunk in [1, 7, 4096] {
        assert!(import(&bytes, bytes.len(), chunk, Options::default()).unwrap().1 == whole, "in pieces of {chunk}");
    }
}

#[test]
fn matrices_can_be_requantised_and_vectors_stay() {
    let tiny = tiny_llama();
    let bytes = tiny.gguf.to_bytes().1;
    // Largest error, and root of the mean square, relative to the row's largest magnitude. Steps of s give s / 2 and s / sqrt(12); q4
    // lowers the second and lets an element at the end of its group lose a whole step.
    for (quantize, format, most, mean) in [
        (Quantize::F16, Format::F16, 1e-3, 6e-4),
        (Quantize::Q8, Format::Q8_0, 0.005, 0.003),
        (Quantize::Q4, Format::Q4_1, 2.0 / 15.0, 0.0385),
    ] {
        let memory = import(&bytes, bytes.len(), 4096, Options { quantize, ..Options::default() }).unwrap().1;
        let checkpoint = open(&memory).unwrap();
        let name = "model.layers.1.mlp.down_proj.weight";
        assert_eq!(checkpoint.tensor(name).unwrap().format, format);
        assert_eq!(checkpoint.tensor("model.norm.weight").unwrap().format, Format::F32);
        let (_, shape, expected) = &tiny.expected[name];
        for (row, expected) in values(&checkpoint, name).chunks(shape[1]).zip(expected.chunks(shape[1])) {
            let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let errors = || row.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest);
            assert!(errors().all(|e| e <= most), "{}", format.name());
            let squares: f32 = errors().map(|e| e * e).sum();
            assert!((squares / row.len() as f32).sqrt() <= mean, "{}", format.name());
        }
    }
}

#[test]
fn q4_is_the_better_of_the_two_four_bit_formats() {
    let mut rng = Rng::new(3);
    // Sums of four are close to the bell shape that weights have.
    let row: Vec<f32> = (0..4096).map(|_| (0..4).map(|_| rng.float()).sum()).collect();
    let error = |format: Format| {
        let (mut values, mut scales, mut out) = (Vec::new(), Vec::new(), vec![0.0; row.len()]);
        format.pack_row(&row, &mut values, &mut scales);
        format.unpack_row(&values, &scales, &mut out);
        row.iter().zip(&out).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
    };
    assert!(error(Format::Q4_1) < 0.9 * error(Format::Q4_0));
}

#[test]
fn what_is_no_gguf_is_refused() {
    for bytes in [&b""[..], b"GGU", b"<html><body>404", b"PK\x03\x04aaaaaaaaaaaaaaaa"] {
        expect(&import_whole(bytes).err().unwrap(), "invalid_file", "not a GGUF file");
    }
    expect(&refused(|t| t.gguf.version = 1), "unsupported_format", "version 1");
    expect(&refused(|t| t.gguf.version = 3_u32.swap_bytes()), "unsupported_format", "big-endian");
}

#[test]
fn a_gguf_cut_short_is_an_integrity_error_wherever_it_ends() {
    let (header, bytes) = tiny_llama().gguf.to_bytes();
    let cuts = (4..header).step_by(13).chain((header..bytes.len()).step_by(997)).chain([bytes.len() - 1]);
    for cut in cuts {
        // The file is that short.
        expect(&import(&bytes[..cut], cut, 512, Options::default()).err().unwrap(), "integrity", "cut short");
        // The connection ended there.
        expect(&import(&bytes[..cut], bytes.len(), 512, Options::default()).err().unwrap(), "integrity", "cut short");
    }
    expect(&import(&bytes, bytes.len() + 64, 512, Options::default()).err().unwrap(), "integrity", "too long");
    let longer = [&bytes[..], &[0; 8]].concat();
    expect(&import(&longer, bytes.len(), 512, Options::default()).err().unwrap(), "integrity", "too long");
}

#[test]
fn an_error_of_the_source_is_handed_on() {
    let bytes = tiny_llama().gguf.to_bytes().1;
    let chunks = vec![Ok(bytes[..1000].to_vec()), Err(Error::Network("gone".into()))];
    let (mut memory, stream) = (Memory::default(), stream::iter(chunks).boxed_local());
    let result = pollster::block_on(import::gguf(stream, bytes.len() as u64, Options::default(), &mut memory, &mut |_, _| {}));
    assert_eq!(result.err().unwrap(), Error::Network("gone".into()));
    assert!(!memory.files.contains_key(MANIFEST));
}

#[test]
fn unknown_architectures_and_quantisations_are_named() {
    let set = |key: &'static str, value: Value| refused(move |t| t.gguf.set(key, value));
    expect(&set("general.architecture", Value::String("mamba".into())), "unsupported_architecture", "mamba");
    expect(&set("llama.expert_count", Value::Integer(8)), "invalid_file", "llama.expert_used_count");
    expect(&refused(|t| t.gguf.tensor("blk.0.ffn_up.weight").kind = 18), "unsupported_format", "IQ3_XXS (18)");
    expect(&refused(|t| t.gguf.tensor("blk.0.ffn_up.weight").kind = 99), "unsupported_format", "type number 99");
    expect(&set("llama.attention.sliding_window", Value::Integer(8)), "unsupported_format", "llama.attention.sliding_window");
    expect(&set("llama.rope.dimension_count", Value::Integer(8)), "unsupported_format", "rope.dimension_count");
    expect(&set("llama.rope.scaling.type", Value::String("longrope".into())), "invalid_file", "rope.scaling.factor");
    expect(&set("split.count", Value::Integer(3)), "unsupported_format", "split");
    expect(&set("llama.block_count", Value::String("two".into())), "invalid_file", "llama.block_count");
    expect(&set("llama.block_count", Value::Integer(4_000_000_000)), "invalid_file", "llama.block_count");
    expect(&set("general.alignment", Value::Integer(0)), "invalid_file", "general.alignment");
}

#[test]
fn sizes_and_counts_that_no_model_has_are_refused_before_they_cost_memory() {
    for key in ["block_count", "attention.head_count", "embedding_length", "feed_forward_length", "vocab_size", "context_length"] {
        let error = refused(|t| t.gguf.set(&format!("llama.{key}"), Value::Integer(1 << 25)));
        expect(&error, "invalid_file", &format!("\"llama.{key}\" is 33554432; at most"));
    }
    let entries = (0..200_000).map(|i| (format!("{i:x}"), Value::Bool(true)));
    expect(&refused(|t| t.gguf.metadata.extend(entries)), "invalid_file", "take more memory");
    expect(&refused(|t| t.gguf.set("x", Value::Integers(vec![0; (4 << 20) - 1]))), "invalid_file", "take more memory");
}

#[test]
fn missing_misshapen_and_unknown_tensors_are_named() {
    let name = "blk.1.attn_k.weight";
    expect(&refused(|t| t.gguf.tensors.retain(|t| t.name != name)), "invalid_file", "\"blk.1.attn_k.weight\" is missing");
    expect(&refused(|t| t.gguf.tensor(name).shape = vec![64, 32]), "invalid_file", "blk.1.attn_k.weight");
    expect(&refused(|t| t.gguf.tensor(name).shape = vec![2048]), "invalid_file", "blk.1.attn_k.weight");
    expect(&refused(|t| t.gguf.tensor(name).shape = vec![u64::MAX, 64]), "invalid_file", "impossible shape");
    expect(&refused(|t| t.gguf.tensor(name).shape = vec![1 << 30, 1 << 30]), "invalid_file", "impossible shape");
    expect(&refused(|t| t.gguf.tensor(name).name = "blk.1.mystery.weight".into()), "unsupported_format", "blk.1.mystery.weight");
    expect(&refused(|t| t.gguf.tensor(name).name = "blk.0.attn_k.weight".into()), "invalid_file", "occurs twice");
    // 32 more bytes than the shape needs: the next tensor no longer follows.
    expect(&refused(|t| t.gguf.tensor(name).data.extend([0; 32])), "invalid_file", "begins at byte");
}

#[test]
fn rope_factors_become_configuration_or_an_error() {
    let with = |factors: Vec<f32>| {
        let mut tiny = tiny_llama();
        let data = factors.iter().flat_map(|f| f.to_le_bytes()).collect();
        let name = "rope_freqs.weight".into();
        tiny.gguf.tensors.insert(1, openweights_tests::gguf_writer::GgufTensor { name, shape: vec![factors.len() as u64], kind: 0, data });
        import_whole(&tiny.gguf.to_bytes().1).map(|(_, memory)| open(&memory).unwrap().config["rope_scaling"].clone())
    };
    // transformers' `_compute_llama3_parameters` for base 10000, 16 elements, factor 8, 1, 4, 8192.
    let llama3 = (0..8).map(|i| {
        let frequency = 10000_f64.powf(-f64::from(i) / 8.0);
        let wavelength = std::f64::consts::TAU / frequency;
        let smooth = (8192.0 / wavelength - 1.0) / 3.0;
        (if wavelength < 2048.0 {
            1.0
        } else if wavelength > 8192.0 {
            8.0
        } else {
            1.0 / ((1.0 - smooth) / 8.0 + smooth)
        }) as f32
    });
    let mut factors: Vec<f32> = llama3.collect();
    assert_eq!(with(vec![1.0; 8]).unwrap(), serde_json::Value::Null);
    let scaling = serde_json::json!({
        "rope_type": "llama3", "factor": factors[7], "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192
    });
    assert_eq!(with(factors.clone()).unwrap(), scaling);
    factors[6] *= 1.01;
    expect(&with(factors).err().unwrap(), "unsupported_format", "rope_freqs.weight");
    expect(&with(vec![1.5; 4]).err().unwrap(), "unsupported_format", "rope_freqs.weight");
}

#[test]
fn rope_scaling_keys_become_configuration() {
    let with = |entries: &[(&str, Value)]| {
        let mut tiny = tiny_llama();
        entries.iter().for_each(|(k, v)| tiny.gguf.set(&format!("llama.rope.{k}"), v.clone()));
        open(&import_whole(&tiny.gguf.to_bytes().1).unwrap().1).unwrap().config["rope_scaling"].clone()
    };
    let text = |s: &str| Value::String(s.into());
    let linear = with(&[("scaling.type", text("linear")), ("scaling.factor", Value::Float(4.0))]);
    assert_eq!(linear, serde_json::json!({ "rope_type": "linear", "factor": 4.0 }));
    assert_eq!(with(&[("scale_linear", Value::Float(2.0))]), serde_json::json!({ "rope_type": "linear", "factor": 2.0 }));
    assert_eq!(with(&[("scaling.type", text("none"))]), serde_json::Value::Null);
    let original = ("scaling.original_context_length", Value::Integer(64));
    let yarn = with(&[("scaling.type", text("yarn")), ("scaling.factor", Value::Float(4.0)), original]);
    assert_eq!(yarn, serde_json::json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64 }));
}

#[test]
fn the_publishers_digest_decides() {
    let bytes = tiny_llama().gguf.to_bytes().1;
    let options = |sha256: String| Options { source: Source { sha256: Some(sha256), ..Source::default() }, ..Options::default() };
    let (manifest, _) = import(&bytes, bytes.len(), 4096, options(sha256_hex(&bytes))).unwrap();
    assert!(manifest.source.publisher_digest);
    expect(&import(&bytes, bytes.len(), 4096, options("0".repeat(64))).err().unwrap(), "integrity", "publisher");
}

#[test]
fn weights_that_a_format_cannot_hold_are_refused() {
    let mut tiny = tiny_llama();
    tiny.gguf.tensor("blk.0.ffn_down.weight").data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let bytes = tiny.gguf.to_bytes().1;
    let options = Options { quantize: Quantize::Q8, ..Options::default() };
    expect(&import(&bytes, bytes.len(), 4096, options).err().unwrap(), "invalid_file", "down_proj");
    let mut tiny = tiny_llama();
    let large = f16::MAX.to_f32() * 2.0;
    tiny.gguf.tensor("blk.0.ffn_down.weight").data[..4].copy_from_slice(&large.to_le_bytes());
    let bytes = tiny.gguf.to_bytes().1;
    let options = Options { quantize: Quantize::F16, ..Options::default() };
    expect(&import(&bytes, bytes.len(), 4096, options).err().unwrap(), "invalid_file", "131008");
}

/// The package of a tiny llama whose manifest `change` has bent.
fn bent(change: impl FnOnce(&mut serde_json::Value)) -> Error {
    let (_, mut memory) = import_whole(&tiny_llama().gguf.to_bytes().1).unwrap();
    let mut manifest = serde_json::from_slice(&memory.files[MANIFEST]).unwrap();
    change(&mut manifest);
    memory.files.insert(MANIFEST.into(), serde_json::to_vec(&manifest).unwrap());
    open(&memory).err().expect("the manifest is bad")
}

#[test]
fn bad_manifests_are_refused() {
    expect(&bent(|m| m["format"] = 2.into()), "unsupported_format", "format 2");
    expect(&bent(|m| m["format"] = "one".into()), "invalid_file", "one");
    expect(&bent(|m| *m = serde_json::json!([1])), "invalid_file", "not a JSON object");
    expect(&bent(|m| m["novelty"] = vec![0; 1 << 20].into()), "invalid_file", "more than are read");
    expect(&bent(|m| m["files"][0]["path"] = "../secret".into()), "invalid_file", "../secret");
    expect(&bent(|m| m["files"][1]["path"] = m["files"][0]["path"].clone()), "invalid_file", "twice");
    expect(&bent(|m| m["files"][0]["sha256"] = "abc".into()), "invalid_file", "sha256");
    expect(&bent(|m| m["files"][0]["size"] = u64::MAX.into()), "invalid_file", "size");
    let norm = "model.norm.weight";
    expect(&bent(|m| m["tensors"][norm]["format"] = "q7_x".into()), "unsupported_format", "q7_x");
    expect(&bent(|m| m["tensors"][norm]["shape"] = serde_json::json!([65])), "invalid_file", norm);
    let up = "model.layers.0.mlp.up_proj.weight";
    expect(&bent(|m| m["tensors"][up]["shape"] = serde_json::json!([97, 64])), "invalid_file", up);
    expect(&bent(|m| m["tensors"][up]["format"] = "q4_0".into()), "invalid_file", up);
    let remove = |m: &mut serde_json::Value| drop(m["tensors"].as_object_mut().unwrap().remove(up));
    expect(&bent(remove), "invalid_file", "belongs to no tensor");
    expect(&bent(|m| m["tensors"]["extra.weight"] = m["tensors"][norm].clone()), "invalid_file", "\"extra.weight\" is missing");
    // Fields that a newer writer adds do no harm.
    let (_, mut memory) = import_whole(&tiny_llama().gguf.to_bytes().1).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&memory.files[MANIFEST]).unwrap();
    manifest["novelty"] = 1.into();
    memory.files.insert(MANIFEST.into(), serde_json::to_vec(&manifest).unwrap());
    open(&memory).unwrap();
}

#[test]
fn a_package_on_disk_is_verified() {
    let dir = TempDir::new("verify");
    let source = TempDir::new("verify-source");
    std::fs::create_dir_all(&source.0).unwrap();
    let gguf = source.0.join("tiny.gguf");
    std::fs::write(&gguf, tiny_llama().gguf.to_bytes().1).unwrap();
    let mut sink = DirectorySink::create(&dir.0).unwrap();
    let manifest = weights::convert(&gguf, Options::default(), &mut sink, &mut |_, _| {}).unwrap();
    assert_eq!(manifest.source.origin, "tiny.gguf");
    expect(&DirectorySink::create(&dir.0).err().unwrap(), "invalid_input", "holds a package already");
    let check = || weights::verify(&dir.0, &mut |_, _| {});
    assert_eq!(check().unwrap(), manifest);

    // The same model, whichever way it is opened.
    let (package, file) = (weights::open(&dir.0).unwrap(), weights::open(&gguf).unwrap());
    assert_eq!((&package.tensors, &package.config), (&file.tensors, &file.config));
    let (a, b) = (weights::inspect(&dir.0).unwrap(), weights::inspect(&gguf).unwrap());
    assert_eq!((a.architecture, a.parameters, a.tensors), (b.architecture, b.parameters, b.tensors));
    assert_eq!(b.files[0].sha256, a.source.unwrap().sha256.unwrap());

    let shard = dir.0.join("model-00001-of-00002.safetensors");
    let good = std::fs::read(&shard).unwrap();
    let mut wrong = good.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, &wrong).unwrap();
    expect(&check().err().unwrap(), "integrity", "model-00001-of-00002.safetensors");
    std::fs::write(&shard, &good[..good.len() - 1]).unwrap();
    expect(&weights::open(&dir.0).err().unwrap(), "integrity", "model-00001-of-00002.safetensors");
    std::fs::remove_file(&shard).unwrap();
    expect(&weights::open(&dir.0).err().unwrap(), "not_found", "model-00001-of-00002.safetensors");
}

#[test]
fn mutated_files_never_panic() {
    let (header, bytes) = tiny_llama().gguf.to_bytes();
    let mut rng = Rng::new(5);
    let (mut refused, rounds) = (0, 3000);
    for _ in 0..rounds {
        let mut bytes = bytes.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(header);
            // Extreme values find overflows that random ones miss.
            let choices = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8];
            bytes[at] = choices[rng.below(choices.len())];
        }
        refused += usize::from(import_whole(&bytes).is_err());
    }
    assert!(refused > rounds / 4, "only {refused} of {rounds} were refused: the mutations do not bite");
}

#[test]
fn mutated_packages_never_panic() {
    let (_, memory) = import_whole(&tiny_llama().gguf.to_bytes().1).unwrap();
    let mut rng = Rng::new(6);
    let (mut refused, rounds) = (0, 2000);
    for _ in 0..rounds {
        let mut memory = memory.clone();
        let name = [MANIFEST, "model-00001-of-00002.safetensors", "config.json"][rng.below(3)];
        let file = memory.files.get_mut(name).unwrap();
        let at = rng.below(file.len().min(4000));
        file[at] = [b'"', b'9', b'{', 0xff, 0, rng.next() as u8][rng.below(6)];
        refused += usize::from(open(&memory).is_err());
    }
    assert!(refused > rounds / 4, "only {refused} of {rounds} were refused: the mutations do not bite");
}

#[test]
fn smollm2_becomes_a_package() {
    let dir = TempDir::new("smollm2");
    let mut sink = DirectorySink::create(&dir.0).unwrap();
    let mut last = (0, 0);
    let manifest = weights::convert(&smollm2_gguf(), Options::default(), &mut sink, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (98_362_432, 98_362_432));
    assert_eq!(manifest.source.sha256.as_deref(), Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"));
    assert_eq!(manifest.tensors.len(), 272);
    assert_eq!(manifest.parameters, 134_515_008);
    assert_eq!((manifest.architecture.as_str(), manifest.quantization.as_str()), ("llama", "q4_1"));
    assert_eq!(manifest.card.license.as_ref().unwrap().value, "apache-2.0");
    assert_eq!(manifest.card.publisher.as_ref().unwrap().value, "HuggingFaceTB");
    assert!(manifest.files.iter().all(|f| f.size <= 32 << 20));
    assert!(manifest.bytes() < 98_362_432 * 115 / 100);
    let checkpoint = weights::open(&dir.0).unwrap();
    assert_eq!(checkpoint.tensor("model.embed_tokens.weight").unwrap().values.len(), 2);
    assert!(checkpoint.tokenizer.is_some());
    assert!(checkpoint.tokenizer_config["chat_template"].is_string());
    weights::verify(&dir.0, &mut |_, _| {}).unwrap();
}
