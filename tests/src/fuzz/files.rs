//! Targets: safetensors, manifests, configurations, PEFT's adapters.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use openweights::{
    Error, Result, engine,
    weights::{
        self, Checkpoint, Files, TensorInfo, adapter, files::Memory, manifest::Manifest, owpkg, package, safetensors as checkpoints,
        signing, trust::Signer,
    },
};
use pollster::block_on;
use serde_json::{Value, json};

use super::Target;
use crate::fixture;

fn memory(files: &[(&str, &[u8])]) -> Memory {
    Memory { files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect() }
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A safetensors file with this header and so many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn open_checkpoint(weights: &[u8]) -> Result<()> {
    let files = memory(&[("config.json", b"{\"model_type\":\"llama\"}"), ("model.safetensors", weights)]);
    let listing = files.listing();
    let checkpoint = block_on(checkpoints::open(Box::new(files), &listing))?;
    for info in checkpoint.tensors.values() {
        block_on(checkpoint.read_rows(info, openweights::quant::Plane::Values, 0, info.rows().min(4)))?;
    }
    Ok(())
}

/// A checkpoint's weights.
pub const SAFETENSORS: Target = Target {
    name: "safetensors",
    run: open_checkpoint,
    seeds: || {
        let blocks = r#"{"a_blocks":{"dtype":"U8","shape":[2,2,16],"data_offsets":[0,64]},"a_scales":{"dtype":"U8","shape":[2,2],"data_offsets":[64,68]}}"#;
        let plain = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}"#;
        vec![with_header(plain, 24), with_header(blocks, 68), with_header("{}", 0)]
    },
    words: &[
        "\"dtype\":",
        "\"shape\":[",
        "\"data_offsets\":[",
        "\"F16\"",
        "\"U8\"",
        "\"F4\"",
        "_blocks",
        "_scales",
        "[[",
        "{\"",
        "},",
        "0,",
    ],
};

/// What a header may say of a tensor, true or not.
#[derive(Debug, Arbitrary)]
struct Fields {
    name: u8,
    dtype: u8,
    shape: Vec<u64>,
    small: bool,
    start: u64,
    end: u64,
}

/// Headers that are JSON of the right form, with any numbers.
pub const SAFETENSORS_FIELDS: Target = Target {
    name: "safetensors_fields",
    run: |bytes| {
        let fields: Vec<Fields> = Unstructured::new(bytes).arbitrary().unwrap_or_default();
        let dtypes = ["F32", "F16", "BF16", "U8", "I64", "F8_E4M3", "BOOL", "F4"];
        let names = ["w", "a_blocks", "a_scales", "b_blocks", "b_scales", "__metadata__"];
        let (mut header, mut end) = (serde_json::Map::new(), 0_usize);
        for f in &fields {
            let shape: Vec<u64> = f.shape.iter().map(|d| if f.small { d % 5 } else { *d }).collect();
            let dtype = dtypes[usize::from(f.dtype) % dtypes.len()];
            // Half of them lie where they should.
            let width = [4, 2, 2, 1, 8, 1, 1, 1][usize::from(f.dtype) % dtypes.len()];
            let len = shape.iter().fold(width, |n: usize, d| n.wrapping_mul(*d as usize));
            let offsets = if f.small { [end as u64, end.wrapping_add(len) as u64] } else { [f.start, f.end] };
            end = offsets[1] as usize;
            let name = format!("{}{}", names[usize::from(f.name) % names.len()], f.name / 64);
            header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        }
        open_checkpoint(&with_header(&Value::Object(header).to_string(), end.min(1 << 16)))
    },
    seeds: || vec![vec![0; 64], (0..=255).collect(), vec![1; 300]],
    words: &[],
};

/// `openweights.json`, and the package that it describes, whose files hold something else.
pub const MANIFEST: Target = Target {
    name: "manifest",
    run: |bytes| {
        let manifest = Manifest::parse(bytes)?;
        let weights = with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
        let mut files = memory(&[("config.json", b"{}")]);
        files.files.insert("weights-00001.safetensors".into(), weights);
        block_on(package::open(&manifest, Box::new(files))).map(drop)
    },
    seeds: || {
        let digest = "0".repeat(64);
        let size = with_header(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8).len();
        let good = json!({
            "format": 1, "name": "m", "architecture": "llama", "quantization": "f32", "parameters": 2, "engine": "openweights/0.1.0",
            "source": {"origin": "o", "files": [{"path": "f", "size": 1, "sha256": digest}]}, "card": openweights::card::Card::default(),
            "tensors": {"w": {"format": "f32", "shape": [2]}},
            "files": [{"path": "config.json", "size": 2, "sha256": digest}, {"path": "weights-00001.safetensors", "size": size, "sha256": digest}]
        });
        vec![good.to_string().into_bytes(), good.to_string().replace("f32", "q4_1").into_bytes()]
    },
    words: &["\"shape\":[", "\"size\":", "\"q4_1\"", "\"mxfp4\"", "\"bf16\"", "../", "/", "null", "[[", "{\"\":", "18446744073709551615"],
};

thread_local! {
    /// The tensors of every tiny model, by `model_type`.
    static TENSORS: BTreeMap<String, BTreeMap<String, TensorInfo>> = tiny_models()
        .iter()
        .filter_map(|path| weights::open(path).ok())
        .map(|c| (c.config["model_type"].as_str().unwrap_or_default().to_owned(), c.tensors))
        .collect();
}

fn tiny_models() -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(fixture("tiny")).expect("tests/fixtures/tiny");
    let mut paths: Vec<_> = folders.map(|entry| entry.expect("an entry").path()).filter(|p| p.join("config.json").is_file()).collect();
    paths.sort();
    paths
}

/// `config.json` of every architecture, against the tensors of its tiny model.
pub const CONFIG: Target = Target {
    name: "config",
    run: |bytes| {
        let files = memory(&[("config.json", bytes)]);
        let listing = [("config.json".to_owned(), bytes.len() as u64)].into();
        // Without weights this ends after the configuration was read: in the way in which a checkpoint's is.
        match block_on(checkpoints::open(Box::new(files), &listing)) {
            Err(Error::NotFound(_)) => {}
            Err(other) => return Err(other),
            Ok(_) => return Ok(()),
        }
        let config: Value = serde_json::from_slice(bytes).map_err(|e| Error::InvalidFile(e.to_string()))?;
        let tensors = TENSORS.with(|all| all.get(config["model_type"].as_str().unwrap_or_default()).cloned().unwrap_or_default());
        let (generation_config, tokenizer_config, files) = (config.clone(), config.clone(), Box::new(Memory::default()));
        let card = Default::default();
        let checkpoint = Checkpoint { config, generation_config, tokenizer: None, tokenizer_config, card, tensors, files };
        block_on(engine::check(&checkpoint))
    },
    seeds: || tiny_models().iter().map(|path| std::fs::read(path.join("config.json")).expect("a configuration")).collect(),
    words: &[
        "\"num_hidden_layers\":",
        "\"head_dim\":",
        "\"num_attention_heads\":",
        "\"rope_scaling\":{",
        "\"factor\":",
        "\"layer_types\":[",
        "\"sliding_attention\"",
        "\"yarn\"",
        "\"longrope\"",
        "\"llama3\"",
        "\"vocab_size\":",
        "null",
        "true",
        "[[",
        "{\"\":",
        "4294967296",
        "1e308",
    ],
};

/// PEFT's two files: the length of the first in 4 bytes, then both.
pub const PEFT: Target = Target {
    name: "peft",
    run: |bytes| {
        let len = bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)) as usize;
        let rest = bytes.get(4..).unwrap_or_default();
        let (config, weights) = rest.split_at(len.min(rest.len()));
        use_adapter(memory(&[("adapter_config.json", config), ("adapter_model.safetensors", weights)]))
    },
    seeds: || {
        let mut seeds = vec![peft(br#"{"peft_type":"LORA","r":1,"lora_alpha":2,"rank_pattern":{"q":1},"layers_to_transform":[0]}"#, &{
            let name = |which: &str| format!("base_model.model.model.layers.0.q.lora_{which}.weight");
            let header = format!(
                r#"{{"{}":{{"dtype":"F32","shape":[1,4],"data_offsets":[0,16]}},"{}":{{"dtype":"F32","shape":[2,1],"data_offsets":[16,24]}}}}"#,
                name("A"),
                name("B")
            );
            with_header(&header, 24)
        })];
        for kind in ["lora_r4", "lora_rslora_qv", "lora_dora"] {
            let file = |name: &str| bytes(&format!("tiny/llama_plain/{kind}/{name}"));
            seeds.push(peft(&file("adapter_config.json"), &file("adapter_model.safetensors")));
        }
        seeds
    },
    words: &[
        "\"r\":",
        "\"lora_alpha\":",
        "\"alpha_pattern\":{",
        "\"use_dora\":true",
        "lora_A",
        "lora_B",
        "\"shape\":[",
        "null",
        "[[",
        "{\"\":",
    ],
};

fn peft(config: &[u8], weights: &[u8]) -> Vec<u8> {
    [&(config.len() as u32).to_le_bytes()[..], config, weights].concat()
}

/// Opens an adapter and reads all that it holds.
pub(super) fn use_adapter(files: Memory) -> Result<()> {
    let listing = files.listing();
    let adapter = block_on(adapter::open(Box::new(files), &listing))?;
    for module in adapter.modules.values() {
        for stored in [Some(&module.a), Some(&module.b), module.magnitude.as_ref()].into_iter().flatten() {
            block_on(adapter.floats(stored))?;
        }
    }
    Ok(())
}

/// A tar block of a plain file, with its right sum.
fn tar_header(name: &[u8], len: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    summed(&mut block);
    block
}

fn summed(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `.owpkg`, as it is and with the sums of its headers made right.
pub const OWPKG: Target = Target {
    name: "owpkg",
    run: |bytes| {
        let read = |bytes: &[u8]| {
            let archive = block_on(owpkg::Archive::open(memory(&[("a.owpkg", bytes)]), "a.owpkg", bytes.len() as u64))?;
            for (file, len) in archive.listing() {
                block_on(archive.read(&file, 0, len as usize))?;
            }
            Ok(())
        };
        let mut right = bytes.to_vec();
        right.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar").for_each(summed);
        read(&right).and_then(|()| read(bytes))
    },
    seeds: || {
        let file = |name: &str, len: usize| [tar_header(name.as_bytes(), len as u64), vec![7; len.next_multiple_of(512)]].concat();
        vec![
            [file("openweights.json", 9), file("config.json", 512), file("w.safetensors", 0), vec![0; 1024]].concat(),
            [file("openweights.json", 0), vec![0; 512]].concat(),
        ]
    },
    words: &["ustar", "openweights.json", "./", "../", "777777777777", "00000000000", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}"],
};

/// A key that has signed everything.
struct Everything;

impl Signer for Everything {
    fn signed<'a>(&'a self, _: &'a [u8], _: &'a [u8]) -> futures_util::future::LocalBoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(true) })
    }
}

/// `model.sig`: the statement inside is what is fuzzed, and the bundle around it.
pub const SIGNATURE: Target = Target {
    name: "signature",
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let manifest = Manifest::parse(&(MANIFEST.seeds)()[0])?;
        let check = |bundle: &str| block_on(signing::verify(bundle, "{}", &manifest, &Everything));
        let der = "MAYCAQECAQE=";
        let bundle = json!({"dsseEnvelope": {"payload": base64(bytes), "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": der}]}});
        check(&bundle.to_string()).and_then(|()| check(&text)).or_else(|inner| match check(&text) {
            Err(outer) if text.contains("dsseEnvelope") => Err(outer),
            _ => Err(inner),
        })
    },
    seeds: || {
        let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0",
            "subject": [{"name": "m", "digest": {"sha256": "0".repeat(64)}}],
            "predicate": {"serialization": {"method": "files"}, "resources": [{"name": "config.json", "algorithm": "sha256", "digest": "0".repeat(64)}]}});
        let bundle = json!({"dsseEnvelope": {"payload": base64(statement.to_string().as_bytes()), "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "MAYCAQECAQE="}]}});
        vec![statement.to_string().into_bytes(), bundle.to_string().into_bytes()]
    },
    words: &["MAYCAQECAQE=", "MEUCIQ", "\"sig\":\"", "\"payload\":\"", "====", "sha256", "[[", "{\"\":", "null"],
};

/// Base64, as bundles have it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().chain([0; 2].iter()).take(3).fold(0, |bits, b| (bits << 8) | usize::from(*b));
        (0..4).map(|i| if i <= chunk.len() { char::from(DIGITS[(bits >> (18 - 6 * i)) & 63]) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}
