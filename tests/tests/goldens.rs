//! Tiny models of every architecture against transformers' logits, on every backend: the prompt at once, token by token, and
//! in both spellings of the configuration.

use openweights::{
    backend::{
        Backend,
        gpu::{Gpu, GpuOptions},
    },
    engine::Model,
    generate::Params,
    weights,
};
use openweights_tests::{cpu, fixture, gpu, greedy, ids, json, largest_difference, load_for, logits, reference};
use serde_json::Value;

/// Largest difference of a logit in f32 from transformers' f32.
const TOLERANCE: f32 = 1e-3;

fn golden_row(row: &Value) -> Vec<f32> {
    row.as_array().expect("a row").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

fn golden_rows(golden: &Value) -> Vec<Vec<f32>> {
    golden["logits"].as_array().expect("logits").iter().map(golden_row).collect()
}

/// The context to load for, where the default would change what is computed: longrope's short factors serve contexts up to 64 here.
fn context(name: &str) -> Option<usize> {
    (name == "phi3_longrope_short_swa").then_some(64)
}

fn check(name: &str, backend: fn() -> Box<dyn Backend>) {
    let golden = json(&format!("tiny/{name}/golden.json"));
    let (prompt, expected_ids, expected) = (ids(&golden["input_ids"]), ids(&golden["greedy_ids"]), golden_rows(&golden));
    let all: Vec<u32> = prompt.iter().chain(&expected_ids).copied().collect();
    for config in ["config.json", "config.v5.json"] {
        let mut checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
        checkpoint.config = json(&format!("tiny/{name}/{config}"));
        let mut model = load_for(&checkpoint, backend(), context(name)).expect("the model loads");

        let at_once = logits(&mut model, &all);
        assert_eq!(at_once.len(), expected.len());
        for (position, (row, expected)) in at_once.iter().zip(&expected).enumerate() {
            let difference = largest_difference(row, expected);
            assert!(difference < TOLERANCE, "{name}, {config}: position {position} is off by {difference}");
        }
        assert_eq!(greedy(&mut model, &prompt, expected_ids.len()), expected_ids, "{name}, {config}: greedy ids");

        // One token at a time, as decoding does, must see the same context as all at once.
        let one_by_one = token_by_token(&checkpoint, backend(), context(name), &all);
        for (position, (row, expected)) in one_by_one.iter().zip(&at_once).enumerate() {
            let difference = largest_difference(row, expected);
            assert!(difference < TOLERANCE / 4.0, "{name}: token by token, position {position} differs by {difference}");
        }
    }
}

/// Encoders: hidden states, and embeddings by either pooling; what is not a whole text at once is refused.
fn check_encoder(name: &str, backend: fn() -> Box<dyn Backend>) {
    let golden = json(&format!("tiny/{name}/golden.json"));
    let ids = ids(&golden["input_ids"]);
    for config in ["config.json", "config.v5.json"] {
        let mut checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
        checkpoint.config = json(&format!("tiny/{name}/{config}"));
        let mut model = load_for(&checkpoint, backend(), None).expect("the model loads");
        let embed = |model: &mut Model, ids: &[u32]| pollster::block_on(model.embed(ids)).expect("an embedding");

        let expected: Vec<f32> = golden["last_hidden_state"].as_array().expect("rows").iter().flat_map(golden_row).collect();
        let states = pollster::block_on(model.hidden_states(&ids)).expect("hidden states");
        let difference = largest_difference(&states, &expected);
        assert!(difference < TOLERANCE, "{name}, {config}: hidden states are off by {difference}");

        let mean = embed(&mut model, &ids);
        let difference = largest_difference(&mean, &golden_row(&golden["mean_pooled_normalised"]));
        assert!(difference < TOLERANCE, "{name}, {config}: the mean is off by {difference}");
        assert_ne!(embed(&mut model, &ids[..3]), mean);
        assert_eq!(embed(&mut model, &ids), mean, "a text does not know of the one before");
        let info = model.info().embedding.clone().expect("an encoder");
        assert_eq!((info.length, info.pooling), (mean.len(), "mean"));

        let long = vec![1; model.info().context_length + 1];
        assert_eq!(pollster::block_on(model.embed(&long)).expect_err("too long").code(), "context_overflow");
        assert_eq!(pollster::block_on(model.embed(&[])).expect_err("nothing").code(), "invalid_input");
        assert_eq!(model.start(ids.clone(), Params::default()).err().expect("no text").code(), "invalid_input");
        assert_eq!(pollster::block_on(model.logits(&ids, |_, _| Ok(()))).expect_err("no logits").code(), "invalid_input");

        checkpoint.config["sentence_transformers"] = serde_json::json!([{ "type": "Pooling", "pooling_mode_cls_token": true }]);
        let mut model = load_for(&checkpoint, backend(), None).expect("the model loads");
        let difference = largest_difference(&embed(&mut model, &ids), &golden_row(&golden["cls_normalised"]));
        assert!(difference < TOLERANCE, "{name}, {config}: the first token's is off by {difference}");
    }
}

#[test]
fn a_decoder_gives_no_embedding() {
    let checkpoint = weights::open(&fixture("tiny/llama_plain")).expect("the checkpoint opens");
    let mut model = load_for(&checkpoint, reference(), None).expect("the model loads");
    assert_eq!(pollster::block_on(model.embed(&[1])).expect_err("no embedding").code(), "invalid_input");
}

fn token_by_token(checkpoint: &weights::Checkpoint, backend: Box<dyn Backend>, context: Option<usize>, all: &[u32]) -> Vec<Vec<f32>> {
    let mut model = load_for(checkpoint, backend, context).expect("the model loads");
    model.set_prefill_chunk(1);
    logits(&mut model, all)
}

macro_rules! goldens {
    ($check:ident, $group:ident: $($name:ident),* $(,)?) => {
        mod $group {
            mod reference_backend {
                $(#[test] fn $name() { crate::$check(stringify!($name), crate::reference); })*
            }
            mod cpu_backend {
                $(#[test] fn $name() { crate::$check(stringify!($name), crate::cpu); })*
            }
            mod gpu_backend {
                $(#[test] fn $name() { crate::$check(stringify!($name), crate::gpu); })*
            }
        }
    };
}

goldens!(check_encoder, encoders: bert_mean, embeddinggemma_bidir);

goldens!(check, decoders:
    gemma,
    gemma2,
    gemma3,
    gemma3_ropescale,
    gpt2,
    gpt_neox_pythia,
    gpt_oss,
    granite,
    lfm2_conv,
    llama3_rope_tied,
    llama_bf16,
    llama_bias_headdim,
    llama_f16_sharded,
    llama_linear_rope,
    llama_plain,
    llama_yarn,
    mistral_nemo_headdim,
    mistral_swa,
    mixtral_moe,
    olmo2_postnorm,
    phi,
    phi3_longrope_long,
    phi3_longrope_short_swa,
    phi3_partial,
    qwen2_swa,
    qwen2_tied,
    qwen3,
    qwen3_moe,
    smollm3_nope,
);

/// A convolution's state keeps few rows: a conversation may go on, be cut by a little, or by more than the state holds, with
/// steps ahead of a stop in flight, and each answer is that of a fresh session.
fn rewound(backend: fn() -> Box<dyn Backend>) {
    let golden = json("tiny/lfm2_conv/golden.json");
    let (prompt, ids) = (ids(&golden["input_ids"]), ids(&golden["greedy_ids"]));
    let checkpoint = weights::open(&fixture("tiny/lfm2_conv")).expect("the checkpoint opens");
    let load = || load_for(&checkpoint, backend(), None).expect("the model loads");
    let all: Vec<u32> = prompt.iter().chain(&ids).copied().collect();
    let mut model = load();
    for (length, tokens) in [(24, 16), (24, 3), (27, 13), (28, 1), (36, 4), (40, 5), (40, 2), (35, 5), (7, 4), (10, 30)] {
        let expected = greedy(&mut load(), &all[..length], tokens);
        assert_eq!(greedy(&mut model, &all[..length], tokens), expected, "{tokens} tokens after {length}");
    }
}

#[test]
fn a_convolution_follows_a_rewound_conversation() {
    rewound(reference);
    rewound(cpu);
    rewound(gpu);
    // As on a real GPU: three steps in flight.
    rewound(|| {
        let options = GpuOptions { software: Some(false), ..GpuOptions::default() };
        Box::new(pollster::block_on(Gpu::new(options)).expect("an adapter"))
    });
}

#[test]
fn the_readme_lists_the_architectures() {
    let readme = std::fs::read_to_string(fixture("../../README.md")).expect("README.md");
    let table = readme.lines().skip_while(|line| !line.starts_with("| `model_type`")).skip(2).take_while(|line| line.starts_with('|'));
    let listed: Vec<&str> = table.filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` | ")?.0)).collect();
    assert_eq!(listed, openweights::models::KNOWN);
}
