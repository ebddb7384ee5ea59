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
    for (name, info) in &checkpoint.tensors {
        let moving = Moving { name: name.clone(), shape: info.shape.clone(), data: floats(checkpoint, info) };
        tensors.push(converted(moving, &checkpoint.config, model));
    }
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
        same => same,
    }
}

fn metadata(config: &Json, model: &str) -> Vec<(String, Value)> {
    let name = architecture(model);
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
    add("feed_forward_length", integer(&["intermediate_size"]).or(Some(Value::Integer(4 * hidden as i64))));
    add("attention.head_count", integer(&["num_attention_heads", "n_head"]));
    add("attention.head_count_kv", integer(&["num_key_value_heads"]));
    add("attention.layer_norm_rms_epsilon", float(&["rms_norm_eps"]));
    add("attention.layer_norm_epsilon", float(&["layer_norm_eps", "layer_norm_epsilon"]));
    if model != "gpt_neox" {
        add("rope.freq_base", float(&["rope_theta"]));
    }
    if config["head_dim"].is_number() {
        add("attention.key_length", Some(Value::Integer(head_dim as i64)));
        add("attention.value_length", Some(Value::Integer(head_dim as i64)));
    }
    match model {
        "llama" | "mistral" | "smollm3" | "granite" => {
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
    let rope = &config["rope_scaling"];
    let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
    if let Some(kind @ ("linear" | "yarn")) = kind {
        add("rope.scaling.type", Some(Value::String(kind.into())));
        add("rope.scaling.factor", rope["factor"].as_f64().map(Value::Float));
        add("rope.scaling.original_context_length", rope["original_max_position_embeddings"].as_i64().map(Value::Integer));
    }
    out
}

/// Pairs of name parts, in the order in which they are replaced.
const NAMES: &[(&str, &str)] = &[
    ("transformer.wte.", "token_embd."),
    ("transformer.wpe.", "position_embd."),
    ("transformer.ln_f.", "output_norm."),
    ("transformer.h.", "blk."),
    ("gpt_neox.embed_in.", "token_embd."),
    ("gpt_neox.final_layer_norm.", "output_norm."),
    ("gpt_neox.layers.", "blk."),
    ("embed_out.", "output."),
    ("model.embed_tokens.", "token_embd."),
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
    let published = tensor.name.clone();
    for (theirs, ours) in NAMES {
        tensor.name = tensor.name.replace(theirs, ours);
    }
    let after_attention = if matches!(model, "gemma2" | "gemma3_text" | "olmo2") { "post_attention_norm." } else { "ffn_norm." };
    tensor.name = tensor.name.replace("post_attention_layernorm.", after_attention);
    let columns = if tensor.shape.len() == 1 { 1 } else { tensor.shape[1] };
    let size = |key: &str| integer(key).expect("a size");
    let head_dim = || integer("head_dim").unwrap_or_else(|| size("hidden_size") / size("num_attention_heads"));
    if matches!(model, "llama" | "mistral" | "smollm3" | "granite") && (published.contains("q_proj.") || published.contains("k_proj.")) {
        tensor.data = interleaved(&tensor.data, head_dim() * columns, columns);
    }
    if model == "gpt_neox" && published.contains("query_key_value.") {
        tensor.data = by_part(&tensor.data, head_dim() * columns);
    }
    if model == "gpt2" && tensor.shape.len() == 2 && published.contains(".c_") {
        tensor.data = transposed(&tensor.data, tensor.shape[1]);
        tensor.shape.reverse();
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
