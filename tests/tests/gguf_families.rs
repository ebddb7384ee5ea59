//! GGUF files of every architecture: a tiny checkpoint, written as llama.cpp's converter writes it, is imported and gives
//! transformers' logits; names, shapes and values are the publisher's again.

use futures_util::{StreamExt, stream};
use openweights::weights::{
    self, Checkpoint,
    files::Memory,
    gguf::Value,
    import::{self, Options},
    package,
};
use openweights_tests::{
    converter::{floats, to_gguf},
    fixture,
    gguf_writer::{Gguf, GgufTensor},
    ids, json, largest_difference, load_for, logits, reference,
};

/// Largest difference of a logit from transformers'.
const TOLERANCE: f32 = 1e-3;

fn imported(gguf: &Gguf) -> openweights::Result<Checkpoint> {
    let bytes = gguf.to_bytes().1;
    let (len, mut memory) = (bytes.len() as u64, Memory::default());
    let stream = stream::iter([Ok(bytes)]).boxed_local();
    pollster::block_on(async {
        let manifest = import::gguf(stream, len, Options::default(), &mut memory, &mut |_, _| {}).await?;
        package::open(&manifest, Box::new(memory)).await
    })
}

fn check(name: &str) {
    let published = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
    let checkpoint = imported(&to_gguf(&published)).expect("the GGUF is imported");
    same_tensors(name, &published, &checkpoint);

    let golden = json(&format!("tiny/{name}/golden.json"));
    let all: Vec<u32> = ids(&golden["input_ids"]).into_iter().chain(ids(&golden["greedy_ids"])).collect();
    // Longrope's short factors serve contexts up to 64 here.
    let context = (name == "phi3_longrope_short_swa").then_some(64);
    let mut model = load_for(&checkpoint, reference(), context).expect("the model loads");
    let rows = logits(&mut model, &all);
    let expected = golden["logits"].as_array().expect("logits");
    assert_eq!(rows.len(), expected.len());
    for (position, (row, expected)) in rows.iter().zip(expected).enumerate() {
        let expected: Vec<f32> = expected.as_array().expect("a row").iter().map(|v| v.as_f64().expect("a logit") as f32).collect();
        let difference = largest_difference(row, &expected);
        assert!(difference < TOLERANCE, "{name}: position {position} is off by {difference}");
    }
}

fn same_tensors(name: &str, published: &Checkpoint, imported: &Checkpoint) {
    // Experts are one tensor in a file, and many in most checkpoints.
    let names = |checkpoint: &Checkpoint| checkpoint.tensors.keys().filter(|name| !name.contains(".experts.")).cloned().collect::<Vec<_>>();
    assert_eq!(names(imported), names(published), "{name}");
    for (tensor, info) in &imported.tensors {
        // The converter of the tests moves an odd divisor of scores into these; maps of GPT-2 stay as files have them.
        let moved = name.starts_with("gemma") && (tensor.contains("q_proj") || tensor.contains("q_norm"));
        if moved || name == "gpt2" && tensor.contains(".c_") || tensor.contains(".experts.") {
            continue;
        }
        assert_eq!(info.shape, published.tensors[tensor].shape, "{name}: {tensor}");
        let (ours, theirs) = (floats(imported, info), floats(published, &published.tensors[tensor]));
        // 1 is added to Gemma's norms, and subtracted: that rounds to 2^-22 for sums below 8.
        let bound = if name.starts_with("gemma") && tensor.contains("norm") { 2.4e-7 } else { 0.0 };
        assert!(largest_difference(&ours, &theirs) <= bound, "{name}: {tensor}");
    }
}

macro_rules! families {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

families!(
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
    mixtral_moe,
    olmo2_postnorm,
    phi,
    phi3_longrope_long,
    phi3_longrope_short_swa,
    phi3_partial,
    qwen2_tied,
    qwen3,
    qwen3_moe,
    smollm3_nope,
);

#[test]
fn encoders_become_what_was_published() {
    for (name, prefix) in [("bert_mean", ""), ("embeddinggemma_bidir", "model.")] {
        let published = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
        let imported = imported(&to_gguf(&published)).expect("the GGUF is imported");
        let kept: Vec<String> = published.tensors.keys().filter(|n| !n.starts_with("pooler.")).map(|n| format!("{prefix}{n}")).collect();
        assert_eq!(imported.tensors.keys().cloned().collect::<Vec<_>>(), kept, "{name}");
        for (tensor, info) in &imported.tensors {
            let (ours, theirs) = (floats(&imported, info), floats(&published, &published.tensors[&tensor[prefix.len()..]]));
            assert!(largest_difference(&ours, &theirs) <= 2.4e-7, "{name}: {tensor}");
        }
        let (ours, theirs) = (&imported.config, &published.config);
        let keys =
            ["model_type", "hidden_size", "num_attention_heads", "use_bidirectional_attention", "sliding_window", "query_pre_attn_scalar"];
        for key in keys.into_iter().chain(["type_vocab_size", "hidden_act", "head_dim", "rope_theta", "rope_local_base_freq"]) {
            assert_eq!(ours.get(key), theirs.get(key), "{name}: {key}");
        }
        assert_eq!(ours["sentence_transformers"][1]["pooling_mode"], "mean");
    }
}

/// The logits of the first row that a file gives.
fn first_row(gguf: &Gguf, name: &str) -> Vec<f32> {
    let checkpoint = imported(gguf).expect("the GGUF is imported");
    let mut model = load_for(&checkpoint, reference(), None).expect("the model loads");
    logits(&mut model, &ids(&json(&format!("tiny/{name}/golden.json"))["input_ids"])[..1]).swap_remove(0)
}

fn written(name: &str) -> Gguf {
    to_gguf(&weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens"))
}

/// Replaces `names`, of one layer, with one tensor that holds their rows.
fn fuse(gguf: &mut Gguf, names: &[&str], fused: &str) {
    let (mut rows, mut data, mut rest) = (0, Vec::new(), Vec::new());
    for name in names {
        let tensor = gguf.tensor(name).clone();
        (rows, rest) = (rows + tensor.shape[0], tensor.shape[1..].to_vec());
        data.extend(tensor.data);
    }
    gguf.tensors.retain(|t| !names.contains(&t.name.as_str()));
    gguf.tensors.push(GgufTensor { name: fused.into(), shape: [&[rows], &rest[..]].concat(), kind: 0, data });
}

#[test]
fn older_files_of_phi_2_stack_queries_keys_and_values() {
    let mut gguf = written("phi");
    let expected = first_row(&gguf, "phi");
    for layer in 0..2 {
        for suffix in ["weight", "bias"] {
            let name = |part: &str| format!("blk.{layer}.{part}.{suffix}");
            fuse(&mut gguf, &[&name("attn_q"), &name("attn_k"), &name("attn_v")], &name("attn_qkv"));
        }
    }
    assert_eq!(first_row(&gguf, "phi"), expected);
}

#[test]
fn older_files_of_gpt_2_have_a_head_of_their_own() {
    let mut gguf = written("gpt2");
    let expected = first_row(&gguf, "gpt2");
    let mut head = GgufTensor { name: "output.weight".into(), ..gguf.tensor("token_embd.weight").clone() };
    // Twice the embedding, so that a head that is left aside would be seen.
    for value in head.data.chunks_exact_mut(4) {
        let twice = 2.0 * f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        value.copy_from_slice(&twice.to_le_bytes());
    }
    gguf.tensors.push(head);
    assert_eq!(first_row(&gguf, "gpt2"), expected.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
}

#[test]
fn what_an_architecture_does_not_have_is_refused_by_name() {
    let refused = |name: &str, key: &str, value: Value| {
        let mut gguf = written(name);
        gguf.set(key, value);
        imported(&gguf).err().unwrap_or_else(|| panic!("{name} with {key} is refused"))
    };
    let integer = Value::Integer;
    for (name, key, value, code, says) in [
        ("llama_plain", "llama.attention.sliding_window", integer(8), "unsupported_format", "llama.attention.sliding_window"),
        ("olmo2_postnorm", "olmo2.attention.sliding_window", integer(8), "unsupported_format", "olmo2.attention.sliding_window"),
        ("qwen2_tied", "qwen2.pooling_type", integer(3), "unsupported_format", "qwen2.pooling_type"),
        ("qwen2_tied", "qwen2.rope.dimension_count", integer(4), "unsupported_format", "rope.dimension_count"),
        ("gpt2", "gpt2.rope.freq_base", Value::Float(1e4), "unsupported_format", "gpt2.rope.freq_base"),
        ("granite", "granite.rope.scaling.finetuned", Value::Bool(false), "unsupported_format", "rope.scaling.finetuned"),
        ("gemma", "gemma.expert_count", integer(4), "unsupported_architecture", "experts"),
        ("gemma3", "gemma3.attention.sliding_window_pattern", integer(0), "invalid_file", "sliding_window_pattern"),
        ("gemma3", "gemma3.attention.causal", Value::Bool(false), "unsupported_format", "attention.causal"),
        ("gpt_neox_pythia", "gptneox.rope.dimension_count", integer(17), "invalid_file", "rope.dimension_count"),
        ("qwen3", "general.type", Value::String("adapter".into()), "unsupported_format", "adapter"),
        ("qwen3", "general.architecture", Value::String("mamba".into()), "unsupported_architecture", "mamba"),
    ] {
        let error = refused(name, key, value);
        assert_eq!(error.code(), code, "{name}, {key}: {error}");
        assert!(error.to_string().contains(says), "{name}, {key}: {error}");
    }
    let mut gguf = written("phi3_longrope_long");
    gguf.tensors.retain(|t| t.name != "rope_factors_long.weight");
    assert!(imported(&gguf).err().expect("refused").to_string().contains("attn_factor"));
    let mut gguf = written("qwen3");
    gguf.tensor("blk.1.attn_q_norm.weight").name = "blk.1.attn_sinks.weight".into();
    assert!(imported(&gguf).err().expect("refused").to_string().contains("blk.1.attn_sinks.weight"));
}
