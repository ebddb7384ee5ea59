//! A checkpoint as llama.cpp's converter would write it, for round trips: its names, its keys, what it does to rows and norms.
//! Sources: `conversion/*.py` and `gguf-py/gguf/tensor_mapping.py` of llama.cpp.

use openweights::{
    quant::Plane,
    weights::{Checkpoint, TensorInfo, gguf::Value},
};
use serde_json::Value as Json;

use crate::gguf_writer::{Gguf, GgufTensor};

/// The floats of a checkpoint's tensor.
pub fn floats(checkpoint: &Checkpoint, info: &TensorInfo) -> Vec<f32> {
    let mut out = vec![0.0; info.rows() * info.cols()];
    for (row, out) in out.chunks_mut(info.cols()).enumerate() {
        let plane = |plane| pollster::block_on(checkpoint.read_rows(info, plane, row, 1)).expect("a row");
        info.format.unpack_row(&plane(Plane::Values), &plane(Plane::Scales), out);
    }
    out
}

/// A tensor on its way.
#[derive(Debug, Clone)]
struct Moving {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// The file of `checkpoint`, all in f32.
pub fn to_gguf(checkpoint: &Checkpoint) -> Gguf {
    let model = checkpoint.config["model_type"].as_str().expect("model_type");
    let mut gguf = Gguf { version: 3, metadata: metadata(&checkpoint.config, model), tensors: Vec::new() };
    let mut tensors = Vec::new();
    // The pooler served BERT's training alone: the converter drops it.
    for (name, info) in checkpoint.tensors.iter().filter(|(name, _)| !name.starts_with("pooler.")) {
        let moving = Moving { name: name.clone(), shape: info.shape.clone(), data: floats(checkpoint, info) };
        tensors.extend(split(converted(moving, &checkpoint.config, model)));
    }
    let mut tensors = stacked(tensors);
    tensors.extend(factors(&checkpoint.config, model));
    for Moving { name, shape, data } in tensors {
        let data = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        gguf.tensors.push(GgufTensor { name, shape: shape.iter().map(|&d| d as u64).collect(), kind: 0, data });
    }
    gguf
}

/// transformers' name of an architecture, and GGUF's.
fn architecture(model: &str) -> &str {
    match model {
        "mistral" => "llama",
        "gemma3_text" => "gemma3",
        "phi" => "phi2",
        "gpt_neox" => "gptneox",
        "mixtral" => "llama",
        "qwen3_moe" => "qwen3moe",
        "gpt_oss" => "gpt-oss",
        same => same,
    }
}

fn metadata(config: &Json, model: &str) -> Vec<(String, Value)> {
    let bidirectional = config["use_bidirectional_attention"] == true;
    let name = if bidirectional { "gemma-embedding" } else { architecture(model) };
    let mut out = vec![("general.architecture".into(), Value::String(name.into())), ("general.type".into(), Value::String("model".into()))];
    let mut add = |key: &str, value: Option<Value>| out.extend(value.map(|v| (format!("{name}.{key}"), v)));
    let number = |keys: &[&str]| keys.iter().find_map(|k| config[*k].as_f64());
    let integer = |keys: &[&str]| number(keys).map(|n| Value::Integer(n as i64));
    let float = |keys: &[&str]| number(keys).map(Value::Float);
    let (hidden, heads) =
        (number(&["hidden_size", "n_embd"]).expect("a width"), number(&["num_attention_heads", "n_head"]).expect("heads"));
    let head_dim = number(&["head_dim"]).unwrap_or(hidden / heads);
    add("context_length", integer(&["max_position_embeddings", "n_positions"]));
    add("embedding_length", integer(&["hidden_size", "n_embd"]));
    add("block_count", integer(&["num_hidden_layers", "n_layer"]));
    let inner = number(&["intermediate_size"]).unwrap_or(4.0 * hidden);
    let adjusted = (2.0 * inner / 3.0).floor() * number(&["block_ffn_dim_multiplier"]).unwrap_or(1.0);
    let inner = number(&["block_multiple_of"]).map_or(inner, |of| (adjusted / of).ceil() * of);
    add("feed_forward_length", Some(Value::Integer(inner as i64)));
    add("expert_count", integer(&["num_local_experts", "num_experts"]));
    add("expert_used_count", integer(&["num_experts_per_tok"]));
    add("attention.head_count", integer(&["num_attention_heads", "n_head"]));
    let heads_of = |kind: &Json| if kind == "conv" { 0 } else { config["num_key_value_heads"].as_i64().expect("heads") };
    add(
        "attention.head_count_kv",
        match config["layer_types"].as_array().filter(|_| model == "lfm2") {
            Some(types) => Some(Value::Integers(types.iter().map(heads_of).collect())),
            None => integer(&["num_key_value_heads"]),
        },
    );
    add("attention.layer_norm_rms_epsilon", float(&["rms_norm_eps", "norm_eps"]));
    add("attention.layer_norm_epsilon", float(&["layer_norm_eps", "layer_norm_epsilon"]));
    if model != "gpt_neox" {
        add("rope.freq_base", float(&["rope_theta"]));
    }
    if config["head_dim"].is_number() {
        add("attention.key_length", Some(Value::Integer(head_dim as i64)));
        add("attention.value_length", Some(Value::Integer(head_dim as i64)));
    }
    match model {
        "llama" | "mistral" | "mixtral" | "smollm3" | "granite" => {
            add("vocab_size", integer(&["vocab_size"]));
            add("rope.dimension_count", Some(Value::Integer(head_dim as i64)));
        }
        "phi" | "phi3" | "gpt_neox" => {
            let part = number(&["partial_rotary_factor", "rotary_pct"]).expect("a part");
            add("rope.dimension_count", Some(Value::Integer((part * head_dim) as i64)));
        }
        _ => {}
    }
    match model {
        "lfm2" => add("shortconv.l_cache", integer(&["conv_L_cache"])),
        "qwen3_moe" => add("expert_feed_forward_length", integer(&["moe_intermediate_size"])),
        "gpt_oss" => {
            add("expert_feed_forward_length", integer(&["intermediate_size"]));
            add("attention.sliding_window", integer(&["sliding_window"]));
        }
        "gpt_neox" => add("use_parallel_residual", config["use_parallel_residual"].as_bool().map(Value::Bool)),
        "gemma2" | "gemma3_text" => {
            add("attention.sliding_window", integer(&["sliding_window"]));
            add("attn_logit_softcapping", float(&["attn_logit_softcapping"]));
            add("final_logit_softcapping", float(&["final_logit_softcapping"]));
            // Written by newer converters, and needed where it is not the architecture's own.
            if let Some(pattern) = number(&["sliding_window_pattern"]) {
                let layers = 1..=number(&["num_hidden_layers"]).expect("layers") as usize;
                let slides = layers.map(|layer| !layer.is_multiple_of(pattern as usize)).collect();
                add("attention.sliding_window_pattern", (pattern != 6.0).then_some(Value::Bools(slides)));
            }
        }
        "granite" => {
            add("attention.scale", float(&["attention_multiplier"]));
            add("embedding_scale", float(&["embedding_multiplier"]));
            add("residual_scale", float(&["residual_multiplier"]));
            add("logit_scale", float(&["logits_scaling"]));
        }
        "phi3" => {
            add("rope.scaling.original_context_length", integer(&["original_max_position_embeddings"]));
            add("attention.sliding_window", integer(&["sliding_window"]).or(Some(Value::Integer(0))));
            if config["rope_scaling"].is_object() {
                let (most, original) = (number(&["max_position_embeddings"]), number(&["original_max_position_embeddings"]));
                let (most, original) = (most.expect("positions"), original.expect("positions"));
                add("rope.scaling.attn_factor", Some(Value::Float((1.0 + (most / original).ln() / original.ln()).sqrt())));
            }
        }
        _ => {}
    }
    if bidirectional || model == "bert" {
        add("attention.causal", Some(Value::Bool(false)));
        // The mean.
        add("pooling_type", Some(Value::Integer(1)));
    }
    let rope = &config["rope_scaling"];
    let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
    if let Some(kind @ ("linear" | "yarn")) = kind {
        add("rope.scaling.type", Some(Value::String(kind.into())));
        add("rope.scaling.factor", rope["factor"].as_f64().map(Value::Float));
        add("rope.scaling.original_context_length", rope["original_max_position_embeddings"].as_i64().map(Value::Integer));
        add("rope.scaling.yarn_beta_fast", rope["beta_fast"].as_f64().map(Value::Float));
        add("rope.scaling.yarn_beta_slow", rope["beta_slow"].as_f64().map(Value::Float));
    }
    out.extend(config["type_vocab_size"].as_i64().map(|n| ("tokenizer.ggml.token_type_count".into(), Value::Integer(n))));
    out
}

/// Pairs of name parts, in the order in which they are replaced.
const NAMES: &[(&str, &str)] = &[
    ("embeddings.word_embeddings.", "token_embd."),
    ("embeddings.position_embeddings.", "position_embd."),
    ("embeddings.token_type_embeddings.", "token_types."),
    ("embeddings.LayerNorm.", "token_embd_norm."),
    ("encoder.layer.", "blk."),
    ("attention.self.query.", "attn_q."),
    ("attention.self.key.", "attn_k."),
    ("attention.self.value.", "attn_v."),
    ("attention.output.dense.", "attn_output."),
    ("attention.output.LayerNorm.", "attn_output_norm."),
    ("intermediate.dense.", "ffn_up."),
    (".output.dense.", ".ffn_down."),
    (".output.LayerNorm.", ".layer_output_norm."),
    ("transformer.wte.", "token_embd."),
    ("transformer.wpe.", "position_embd."),
    ("transformer.ln_f.", "output_norm."),
    ("transformer.h.", "blk."),
    ("gpt_neox.embed_in.", "token_embd."),
    ("gpt_neox.final_layer_norm.", "output_norm."),
    ("gpt_neox.layers.", "blk."),
    ("embed_out.", "output."),
    ("model.embed_tokens.", "token_embd."),
    ("model.embedding_norm.", "token_embd_norm."),
    ("operator_norm.", "attn_norm."),
    ("self_attn.out_proj.", "attn_output."),
    ("self_attn.q_layernorm.", "attn_q_norm."),
    ("self_attn.k_layernorm.", "attn_k_norm."),
    ("self_attn.sinks", "attn_sinks.weight"),
    ("conv.conv.", "shortconv.conv."),
    ("conv.in_proj.", "shortconv.in_proj."),
    ("conv.out_proj.", "shortconv.out_proj."),
    ("feed_forward.w1.", "ffn_gate."),
    ("feed_forward.w2.", "ffn_down."),
    ("feed_forward.w3.", "ffn_up."),
    ("block_sparse_moe.gate.", "ffn_gate_inp."),
    ("mlp.gate.", "ffn_gate_inp."),
    ("mlp.router.", "ffn_gate_inp."),
    ("model.norm.", "output_norm."),
    ("model.final_layernorm.", "output_norm."),
    ("lm_head.", "output."),
    ("model.layers.", "blk."),
    ("ln_1.", "attn_norm."),
    ("ln_2.", "ffn_norm."),
    ("attn.c_attn.", "attn_qkv."),
    ("attn.c_proj.", "attn_output."),
    ("mlp.c_fc.", "ffn_up."),
    ("mlp.c_proj.", "ffn_down."),
    ("attention.query_key_value.", "attn_qkv."),
    ("attention.dense.", "attn_output."),
    ("mlp.dense_h_to_4h.", "ffn_up."),
    ("mlp.dense_4h_to_h.", "ffn_down."),
    ("self_attn.q_proj.", "attn_q."),
    ("self_attn.k_proj.", "attn_k."),
    ("self_attn.v_proj.", "attn_v."),
    ("self_attn.qkv_proj.", "attn_qkv."),
    ("self_attn.o_proj.", "attn_output."),
    ("self_attn.dense.", "attn_output."),
    ("self_attn.q_norm.", "attn_q_norm."),
    ("self_attn.k_norm.", "attn_k_norm."),
    ("mlp.gate_proj.", "ffn_gate."),
    ("mlp.up_proj.", "ffn_up."),
    ("mlp.gate_up_proj.", "ffn_up."),
    ("mlp.down_proj.", "ffn_down."),
    ("mlp.fc1.", "ffn_up."),
    ("mlp.fc2.", "ffn_down."),
    ("input_layernorm.", "attn_norm."),
    ("pre_feedforward_layernorm.", "ffn_norm."),
    ("post_feedforward_layernorm.", "post_ffw_norm."),
];

fn converted(mut tensor: Moving, config: &Json, model: &str) -> Moving {
    let integer = |key: &str| config[key].as_u64().map(|n| n as usize);
    // EmbeddingGemma is published without a head around the model.
    if ["layers.", "embed_tokens.", "norm."].iter().any(|start| tensor.name.starts_with(start)) {
        tensor.name.insert_str(0, "model.");
    }
    let published = tensor.name.clone();
    for (theirs, ours) in NAMES {
        tensor.name = tensor.name.replace(theirs, ours);
    }
    let after_attention =
        if matches!(model, "gemma2" | "gemma3_text" | "olmo2" | "gpt_oss") { "post_attention_norm." } else { "ffn_norm." };
    tensor.name = tensor.name.replace("post_attention_layernorm.", after_attention);
    let columns = if tensor.shape.len() == 1 { 1 } else { tensor.shape[1] };
    let size = |key: &str| integer(key).expect("a size");
    let head_dim = || integer("head_dim").unwrap_or_else(|| size("hidden_size") / size("num_attention_heads"));
    if matches!(model, "llama" | "mistral" | "mixtral" | "smollm3" | "granite")
        && (published.contains("q_proj.") || published.contains("k_proj."))
    {
        tensor.data = interleaved(&tensor.data, head_dim() * columns, columns);
    }
    if model == "gpt_neox" && published.contains("query_key_value.") {
        tensor.data = by_part(&tensor.data, head_dim() * columns);
    }
    if model == "gpt2" && tensor.shape.len() == 2 && published.contains(".c_") {
        tensor.data = transposed(&tensor.data, tensor.shape[1]);
        tensor.shape.reverse();
    }
    if published.contains("conv.conv.") {
        tensor.shape.remove(1);
    }
    if model.starts_with("gemma") && published.ends_with("norm.weight") {
        tensor.data.iter_mut().for_each(|v| *v += 1.0);
    }
    // What scores are divided by is not in a file: an odd divisor has to go to the queries, or to their norm.
    let scaled = if model == "gemma2" { "q_proj.weight" } else { "q_norm.weight" };
    if let Some(divisor) = config["query_pre_attn_scalar"].as_f64().filter(|_| published.ends_with(scaled)) {
        let factor = (head_dim() as f64 / divisor).sqrt() as f32;
        tensor.data.iter_mut().for_each(|v| *v *= factor);
    }
    tensor
}

/// gpt-oss publishes gate and up of all experts in turns, and maps as `[in, out]`.
fn split(tensor: Moving) -> Vec<Moving> {
    let Some((layer, part)) = tensor.name.split_once(".mlp.experts.") else { return vec![tensor] };
    let bias = part.ends_with("_bias");
    if !bias && !part.ends_with("_proj") {
        return vec![tensor];
    }
    let (experts, out) = (tensor.shape[0], *tensor.shape.last().expect("a size"));
    let turned = |expert: &[f32]| if bias { expert.to_vec() } else { transposed(expert, out) };
    let data: Vec<f32> = tensor.data.chunks(tensor.data.len() / experts).flat_map(turned).collect();
    let row = data.len() / experts / out;
    let kinds = if part.starts_with("gate_up") { &["ffn_gate_exps", "ffn_up_exps"][..] } else { &["ffn_down_exps"] };
    let of = |(i, kind): (usize, &&str)| {
        let rows = data.chunks(row).skip(i).step_by(kinds.len()).flatten().copied().collect();
        let shape = if bias { vec![experts, out / kinds.len()] } else { vec![experts, out / kinds.len(), row] };
        Moving { name: format!("{layer}.{kind}.{}", if bias { "bias" } else { "weight" }), shape, data: rows }
    };
    kinds.iter().enumerate().map(of).collect()
}

/// One tensor of the maps of all experts, which come in order.
fn stacked(tensors: Vec<Moving>) -> Vec<Moving> {
    const KINDS: [(&str, &str); 6] = [
        ("w1", "ffn_gate_exps"),
        ("w2", "ffn_down_exps"),
        ("w3", "ffn_up_exps"),
        ("gate_proj", "ffn_gate_exps"),
        ("down_proj", "ffn_down_exps"),
        ("up_proj", "ffn_up_exps"),
    ];
    let mut out: Vec<Moving> = Vec::new();
    for tensor in tensors {
        let parts: Vec<&str> = tensor.name.split('.').collect();
        // blk, layer, module, "experts", expert, map, "weight"
        let kind = match parts[..] {
            ["blk", layer, _, "experts", _, map, "weight"] => {
                KINDS.iter().find(|(theirs, _)| *theirs == map).map(|(_, ours)| format!("blk.{layer}.{ours}.weight"))
            }
            _ => None,
        };
        let Some(name) = kind else {
            out.push(tensor);
            continue;
        };
        match out.iter_mut().find(|t| t.name == name) {
            Some(stack) => {
                stack.shape[0] += 1;
                stack.data.extend(tensor.data);
            }
            None => out.push(Moving { name, shape: [&[1], &tensor.shape[..]].concat(), data: tensor.data }),
        }
    }
    out
}

/// `w.reshape(heads, 2, head_dim / 2, columns).swapaxes(1, 2)`.
fn interleaved(data: &[f32], head: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for head in data.chunks(head) {
        let (low, high) = head.split_at(head.len() / 2);
        low.chunks(columns).zip(high.chunks(columns)).for_each(|(low, high)| out.extend([low, high].concat()));
    }
    out
}

/// `[heads, 3, head]` to `[3, heads, head]`.
fn by_part(data: &[f32], head: usize) -> Vec<f32> {
    let part = |part: usize| data.chunks(head).skip(part).step_by(3).flatten().copied();
    (0..3).flat_map(part).collect()
}

fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| data.iter().skip(column).step_by(columns).copied()).collect()
}

/// The rotation factors that the converter writes as tensors.
fn factors(config: &Json, model: &str) -> Vec<Moving> {
    let rope = &config["rope_scaling"];
    let tensor = |name: &str, data: Vec<f32>| Moving { name: format!("{name}.weight"), shape: vec![data.len()], data };
    let list = |key: &str| rope[key].as_array().map(|list| list.iter().map(|v| v.as_f64().expect("a factor") as f32).collect());
    let mut out = Vec::new();
    if model == "phi3" {
        out.extend(list("long_factor").map(|data| tensor("rope_factors_long", data)));
        out.extend(list("short_factor").map(|data| tensor("rope_factors_short", data)));
    }
    if rope["rope_type"] == "llama3" {
        let number = |key: &str| rope[key].as_f64().expect("a number");
        let dim = config["hidden_size"].as_f64().expect("a width") / config["num_attention_heads"].as_f64().expect("heads");
        let (base, original) = (config["rope_theta"].as_f64().expect("a base"), number("original_max_position_embeddings"));
        let factor = |i: usize| {
            let wavelength = std::f64::consts::TAU * base.powf(2.0 * i as f64 / dim);
            let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / number("factor") + smooth.clamp(0.0, 1.0))
        };
        out.push(tensor("rope_freqs", (0..dim as usize / 2).map(|i| factor(i) as f32).collect()));
    }
    out
}
