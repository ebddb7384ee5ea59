//! An import's memory does not depend on the model: counted by the allocator, over a checkpoint that is made while it is read
//! and whose largest tensor has more than 256 MiB.

use std::{collections::BTreeMap, ops::Range};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use half::bf16;
use openweights::{
    Result, engine,
    weights::{
        abort::Abort,
        acquire::{Acquire, Checks},
        import::Quantize,
        network::{Fetch, Headers, Request, Response},
        source::{Access, Source},
        trust::Trust,
    },
};
use openweights_tests::{discarding::Discarding, fake::FakeClock, rng::Rng};
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const LIMIT: usize = 96 << 20;
const HIDDEN: usize = 1024;
const INNER: usize = 66_048;
const VOCAB: usize = 4096;

/// A phi3 of one layer: its stacked gate and up projections have 270 MB.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    vec![
        ("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]),
        (layer("input_layernorm"), vec![HIDDEN]),
        (layer("self_attn.qkv_proj"), vec![3 * HIDDEN, HIDDEN]),
        (layer("self_attn.o_proj"), vec![HIDDEN, HIDDEN]),
        (layer("post_attention_layernorm"), vec![HIDDEN]),
        (layer("mlp.gate_up_proj"), vec![2 * INNER, HIDDEN]),
        (layer("mlp.down_proj"), vec![HIDDEN, INNER]),
        ("model.norm.weight".into(), vec![HIDDEN]),
        ("lm_head.weight".into(), vec![VOCAB, HIDDEN]),
    ]
}

fn config() -> Value {
    json!({
        "model_type": "phi3", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false, "rope_theta": 10000.0, "rope_scaling": null,
        "sliding_window": null, "eos_token_id": 2
    })
}

/// A gpt-oss of one layer with two experts.
fn transposed() -> (Value, Vec<(String, Vec<usize>)>) {
    const HIDDEN: usize = 2880;
    let mut config = openweights_tests::json("tiny/gpt_oss/config.json");
    for (key, value) in [
        ("vocab_size", VOCAB),
        ("hidden_size", HIDDEN),
        ("intermediate_size", HIDDEN),
        ("num_hidden_layers", 1),
        ("num_local_experts", 2),
        ("num_experts_per_tok", 1),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 8),
        ("head_dim", 64),
    ] {
        config[key] = value.into();
    }
    config["layer_types"] = json!(["sliding_attention"]);
    let mut tensors: Vec<(String, Vec<usize>)> =
        ["model.embed_tokens", "lm_head"].map(|n| (format!("{n}.weight"), vec![VOCAB, HIDDEN])).into();
    tensors.push(("model.norm.weight".into(), vec![HIDDEN]));
    let mut layer = |name: &str, shape: &[usize]| tensors.push((format!("model.layers.0.{name}"), shape.to_vec()));
    for (name, out, cols) in [
        ("self_attn.q_proj", 4096, HIDDEN),
        ("self_attn.k_proj", 512, HIDDEN),
        ("self_attn.v_proj", 512, HIDDEN),
        ("self_attn.o_proj", HIDDEN, 4096),
        ("mlp.router", 2, HIDDEN),
    ] {
        layer(&format!("{name}.weight"), &[out, cols]);
        layer(&format!("{name}.bias"), &[out]);
    }
    layer("input_layernorm.weight", &[HIDDEN]);
    layer("post_attention_layernorm.weight", &[HIDDEN]);
    layer("self_attn.sinks", &[64]);
    for (name, out) in [("gate_up_proj", 2 * HIDDEN), ("down_proj", HIDDEN)] {
        layer(&format!("mlp.experts.{name}"), &[2, HIDDEN, out]);
        layer(&format!("mlp.experts.{name}_bias"), &[2, out]);
    }
    (config, tensors)
}

/// Serves a checkpoint whose weights are one block of random numbers over and over.
struct Generated {
    small: BTreeMap<&'static str, Vec<u8>>,
    header: Vec<u8>,
    block: Vec<u8>,
    size: u64,
}

impl Generated {
    fn new(config: Value, tensors: Vec<(String, Vec<usize>)>, tokenizer: usize) -> Generated {
        let (mut entries, mut end) = (serde_json::Map::new(), 0);
        for (name, shape) in tensors {
            let len = 2 * shape.iter().product::<usize>();
            entries.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [end, end + len] }));
            end += len;
        }
        let mut text = serde_json::to_vec(&entries).unwrap();
        text.resize(text.len().next_multiple_of(8), b' ');
        let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
        let mut rng = Rng::new(4);
        let block = (0..1 << 19).flat_map(|_| bf16::from_f32(rng.float()).to_le_bytes()).collect();
        let size = (header.len() + end) as u64;
        // As large as the tokenizers of the largest vocabularies.
        let mut padding = vec![b' '; tokenizer];
        padding[..2].copy_from_slice(b"{}");
        let small = [("config.json", config.to_string().into_bytes()), ("tokenizer.json", padding)].into();
        Generated { small, header, block, size }
    }

    /// Bytes `at ..` of the weights, at most `most`.
    fn bytes(&self, at: u64, most: usize) -> Vec<u8> {
        if let Some(rest) = self.header.get(at as usize..).filter(|rest| !rest.is_empty()) {
            return rest[..rest.len().min(most)].to_vec();
        }
        let start = (at as usize - self.header.len()) % self.block.len();
        self.block[start..self.block.len().min(start + most)].to_vec()
    }
}

impl Fetch for &'static Generated {
    fn get<'a>(&'a self, Request { url, range, .. }: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let name = url.rsplit('/').next().unwrap();
        let response = |status, headers, body| async move { Ok(Response { status, headers, body }) }.boxed_local();
        if let Some(bytes) = self.small.get(name) {
            let chunks = bytes.chunks(1 << 16).map(|chunk| Ok(chunk.to_vec()));
            return response(200, Headers { length: Some(bytes.len() as u64), ..Headers::default() }, stream::iter(chunks).boxed_local());
        }
        if name != "model.safetensors" {
            return response(404, Headers::default(), stream::empty().boxed_local());
        }
        let Range { start, end } = range.unwrap_or(0..self.size);
        let (all, end, host): (u64, u64, &'static Generated) = (self.size, end.min(self.size), self);
        let body = stream::unfold(start, move |at| async move {
            let chunk = host.bytes(at, (end - at).min(1 << 16) as usize);
            let next = at + chunk.len() as u64;
            (at < end).then_some((Ok(chunk), next))
        });
        let content_range = Some(format!("bytes {start}-{}/{all}", end - 1));
        response(206, Headers { length: Some(end - start), content_range, ..Headers::default() }, body.boxed_local())
    }
}

/// The bytes at the peak of an import to q4, beyond what was there before.
fn peak_of(generated: &'static Generated) -> usize {
    let storage = Discarding::default();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let acquire = Acquire {
        storage: &storage,
        fetch: &generated,
        clock: &FakeClock::default(),
        abort: &Abort::default(),
        progress: &|_| {},
        checks: Checks { known: |_| Ok(()), check: |checkpoint| engine::check(checkpoint).boxed_local() },
        trust: Trust::default(),
    };
    let source = Source::parse("https://host.example/large/", &Access::default()).unwrap();
    let record = pollster::block_on(acquire.load(source, Some(Quantize::Q4))).unwrap();
    let peak = HEAP.peak_usage() - before;
    println!("peak {:.1} MiB over a checkpoint of {} MiB", peak as f64 / f64::from(1 << 20), generated.size >> 20);
    assert_eq!(record.manifest.quantization, "q4_1");
    assert_eq!(storage.kept(), record.manifest.bytes());
    peak
}

/// One test: allocations of others would be counted.
#[test]
fn bf16_to_q4_needs_little_memory_however_large_the_tensors() {
    let largest = tensors().iter().map(|(_, shape)| 2 * shape.iter().product::<usize>()).max().unwrap();
    assert!(largest > 256 << 20);
    let stacked = peak_of(Box::leak(Box::new(Generated::new(config(), tensors(), 35_000_000))));
    // Experts of gpt-oss's own size, published transposed.
    let (config, tensors) = transposed();
    let turned = peak_of(Box::leak(Box::new(Generated::new(config, tensors, 35_000_000))));
    assert!(stacked < LIMIT && turned < LIMIT, "{stacked} and {turned} bytes at the peak, at most {LIMIT} are allowed");
}
