//! Targets: adapters, PEFT's and GGUF's.

use openweights::{
    Result,
    quant::Format,
    weights::{adapter, files::Memory, gguf::Value},
};
use pollster::block_on;

use super::{Target, gguf::WORDS, long_json, memory, with_header};
use crate::{
    fixture,
    gguf_writer::{Gguf, GgufTensor},
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
            let file = |name: &str| read(&format!("tiny/llama_plain/{kind}/{name}"));
            seeds.push(peft(&file("adapter_config.json"), &file("adapter_model.safetensors")));
        }
        seeds
    },
    heavy: || {
        let config = |json: &str| format!(r#"{{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":{json}}}"#);
        long_json(config).iter().map(|config| peft(config, &with_header("{}", 0))).collect()
    },
    stands_for: <[u8]>::len,
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

/// A GGUF adapter.
pub const GGUF_LORA: Target = Target {
    name: "gguf_lora",
    run: |bytes| use_adapter(Memory { files: [("a.gguf".to_owned(), bytes.to_vec())].into() }),
    seeds: || {
        let text = |s: &str| Value::String(s.into());
        let metadata = [
            ("general.architecture", text("llama")),
            ("general.type", text("adapter")),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::Float(16.0)),
        ];
        let tensor = |which: &str, shape: [u64; 2], format: Format, bytes: usize| GgufTensor {
            name: format!("blk.0.attn_q.weight.lora_{which}"),
            shape: shape.to_vec(),
            kind: format.ggml().id,
            data: vec![1; bytes],
        };
        let of = |tensors| Gguf { version: 3, metadata: metadata.clone().map(|(k, v)| (k.to_owned(), v)).to_vec(), tensors };
        let floats = of(vec![tensor("a", [2, 4], Format::F32, 32), tensor("b", [4, 2], Format::F16, 16)]);
        let quantised = of(vec![tensor("a", [2, 32], Format::Q8_0, 68), tensor("b", [4, 2], Format::F32, 32)]);
        vec![floats.to_bytes().1, quantised.to_bytes().1]
    },
    heavy: Vec::new,
    stands_for: <[u8]>::len,
    words: WORDS,
};

fn read(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
