//! Targets: safetensors files and `config.json`.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use openweights::{
    Result, engine,
    weights::{self, Checkpoint, TensorInfo, safetensors as checkpoints},
};
use pollster::block_on;
use serde_json::{Value, json};

use super::{Target, long_json, memory, with_header};
use crate::fixture;

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
    heavy: || {
        let tensors = |n: usize| {
            (0..n).map(|i| format!(r#""{i:x}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)).collect::<Vec<_>>()
        };
        [1000, 10_000, 14_000, 20_000, 200_000].map(|n| with_header(&format!("{{{}}}", tensors(n).join(",")), n)).to_vec()
    },
    stands_for: <[u8]>::len,
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
        // What is made here of more would take more memory than what is read.
        let fields: Vec<Fields> = Unstructured::new(&bytes[..bytes.len().min(64 << 10)]).arbitrary().unwrap_or_default();
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
    heavy: Vec::new,
    stands_for: <[u8]>::len,
    words: &[],
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
        let files = memory(&[("config.json", bytes), ("model.safetensors", &with_header("{}", 0))]);
        let listing = files.listing();
        let checkpoint = block_on(checkpoints::open(Box::new(files), &listing))?;
        let model_type = checkpoint.config["model_type"].as_str().unwrap_or_default();
        let tensors = TENSORS.with(|all| all.get(model_type).cloned().unwrap_or_default());
        let checkpoint = Checkpoint { tensors, ..checkpoint };
        block_on(engine::check(&checkpoint))
    },
    seeds: || tiny_models().iter().map(|path| std::fs::read(path.join("config.json")).expect("a configuration")).collect(),
    heavy: || long_json(|json| format!("{{\"model_type\":\"llama\",\"x\":{json}}}")),
    stands_for: <[u8]>::len,
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
