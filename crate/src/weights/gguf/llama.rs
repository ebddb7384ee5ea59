//! GGUF's `llama` architecture in transformers' terms: configuration, tensor names, shapes, and which rows are permuted.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Header, Metadata, Tensor};
use crate::error::{Error, Result};

/// Rotation factors of Llama 3.1 and later, a tensor that becomes configuration.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Keys below `llama.` that are understood. Any other one changes the computation in a way that is not known here.
const KEYS: [&str; 22] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.attn_factor",
    "expert_count",
    "expert_used_count",
];

/// What a tensor becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The name in transformers' terms.
    pub name: String,
    /// The shape that the metadata implies.
    pub shape: Vec<u64>,
    /// Elements of a head, where the rows of each head are interleaved and must be put back in two halves.
    pub interleaved: Option<usize>,
    required: bool,
}

/// Configuration and names of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama {
    /// `config.json`.
    pub config: Json,
    /// Elements of a head.
    pub head_dim: u64,
    names: BTreeMap<String, Rename>,
}

impl Llama {
    /// Reads a header; every tensor of the file is checked against what the metadata implies.
    pub fn new(header: &Header) -> Result<Llama> {
        let metadata = &header.metadata;
        match metadata.string("general.architecture")? {
            Some("llama") => {}
            Some(other) => {
                return Err(Error::UnsupportedArchitecture(format!(
                    "{other:?}, by GGUF metadata \"general.architecture\"; \"llama\" is read"
                )));
            }
            None => return Err(Error::InvalidFile("GGUF metadata \"general.architecture\" is missing".into())),
        }
        check_keys(metadata)?;
        let sizes = Sizes::read(metadata, header)?;
        let names = names(&sizes, header.tensors.len() as u64)?;
        let has = |name: &str| header.tensors.iter().any(|t| t.name == name);
        let llama = Llama { config: config(metadata, &sizes, has)?, head_dim: sizes.head_dim, names };
        for tensor in &header.tensors {
            llama.rename(tensor)?;
        }
        match llama.names.iter().find(|(name, rename)| rename.required && !has(name)) {
            Some((name, _)) => Err(Error::InvalidFile(format!("GGUF tensor {name:?} is missing"))),
            None => Ok(llama),
        }
    }

    /// What becomes of `tensor`; `None` for the rotation factors.
    pub fn rename(&self, tensor: &Tensor) -> Result<Option<&Rename>> {
        if tensor.name == ROPE_FACTORS {
            return Ok(None);
        }
        let rename = self.names.get(&tensor.name).ok_or_else(|| {
            Error::UnsupportedFormat(format!("GGUF tensor {:?} is no part of a llama model that is known here", tensor.name))
        })?;
        if tensor.shape.iter().map(|&d| d as u64).ne(rename.shape.iter().copied()) {
            let message = format!("GGUF tensor {:?} has shape {:?}; the metadata asks for {:?}", tensor.name, tensor.shape, rename.shape);
            return Err(Error::InvalidFile(message));
        }
        Ok(Some(rename))
    }

    /// Takes the values of [`ROPE_FACTORS`] into the configuration. The file does not say what they were computed from, so
    /// the parameters that Meta publishes for Llama 3.1 to 3.3 are tried, and taken only if they give these very factors.
    pub fn set_rope_factors(&mut self, factors: &[f32]) -> Result<()> {
        if factors.iter().all(|&f| f == 1.0) {
            return Ok(());
        }
        let base = self.config["rope_theta"].as_f64().unwrap_or_default();
        let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
        let same = factors.len() as u64 * 2 == self.head_dim
            && factors.iter().enumerate().all(|(i, &f)| {
                let expected = llama3_factor(base, i as f64 * 2.0 / self.head_dim as f64, factor);
                (f64::from(f) - expected).abs() <= 1e-3 * expected
            });
        if !same || self.config.get("rope_scaling").is_some() {
            return Err(Error::UnsupportedFormat(format!(
                "GGUF tensor {ROPE_FACTORS:?} holds factors other than those of Llama 3.1 to 3.3"
            )));
        }
        self.config["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192
        });
        Ok(())
    }
}

/// By what the frequency `base^-exponent` is divided: by 1 where 8192 positions hold more than 4 turns, by `factor` where
/// they hold less than one, in between smoothly.
fn llama3_factor(base: f64, exponent: f64, factor: f64) -> f64 {
    let turns = 8192.0 * base.powf(-exponent) / std::f64::consts::TAU;
    let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
    1.0 / ((1.0 - smooth) / factor + smooth)
}

fn check_keys(metadata: &Metadata) -> Result<()> {
    if let Some(count @ 2..) = metadata.u32("split.count")? {
        return Err(Error::UnsupportedFormat(format!("one of {count} parts of a split GGUF file; join them with gguf-split --merge")));
    }
    let unknown = metadata.keys().find(|k| k.strip_prefix("llama.").is_some_and(|k| !KEYS.contains(&k)));
    if let Some(key) = unknown {
        return Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} is not understood")));
    }
    match metadata.u32("llama.expert_count")? {
        Some(1..) => Err(Error::UnsupportedArchitecture("\"llama\" with experts (\"llama.expert_count\")".into())),
        _ => Ok(()),
    }
}

struct Sizes {
    vocab: u64,
    hidden: u64,
    inner: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    context: u64,
}

impl Sizes {
    fn read(metadata: &Metadata, header: &Header) -> Result<Sizes> {
        let optional = |key: &str| -> Result<Option<u64>> {
            match metadata.u32(&format!("llama.{key}"))? {
                Some(0) => Err(Error::InvalidFile(format!("GGUF metadata \"llama.{key}\" is 0"))),
                other => Ok(other.map(u64::from)),
            }
        };
        let required = |key: &str| optional(key)?.ok_or_else(|| Error::InvalidFile(format!("GGUF metadata \"llama.{key}\" is missing")));
        let (hidden, heads) = (required("embedding_length")?, required("attention.head_count")?);
        let head_dim = optional("attention.key_length")?.unwrap_or(hidden / heads);
        let table = header.tensors.iter().find(|t| t.name == "token_embd.weight");
        let rows = table.map_or(0, |t| t.shape[0] as u64);
        let sizes = Sizes {
            vocab: optional("vocab_size")?.unwrap_or(rows),
            hidden,
            inner: required("feed_forward_length")?,
            layers: required("block_count")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            context: required("context_length")?,
        };
        let bad = |what: &str| Err(Error::InvalidFile(format!("GGUF metadata: {what}")));
        if sizes.head_dim == 0 || !sizes.head_dim.is_multiple_of(2) {
            return bad("heads must have an even number of elements");
        }
        if !sizes.heads.is_multiple_of(sizes.kv_heads) {
            return bad("\"llama.attention.head_count\" is no multiple of \"llama.attention.head_count_kv\"");
        }
        let tokens = metadata.strings("tokenizer.ggml.tokens")?.map_or(0, <[String]>::len) as u64;
        if tokens > sizes.vocab {
            return bad(&format!("{tokens} tokens are listed, the model has {}", sizes.vocab));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if optional(key)?.is_some_and(|n| n != sizes.head_dim) {
                let message = format!("GGUF metadata \"llama.{key}\" differs from the head's {} elements", sizes.head_dim);
                return Err(Error::UnsupportedFormat(message));
            }
        }
        Ok(sizes)
    }
}

fn names(sizes: &Sizes, tensor_count: u64) -> Result<BTreeMap<String, Rename>> {
    if sizes.layers > tensor_count {
        return Err(Error::InvalidFile(format!(
            "GGUF metadata \"llama.block_count\" is {}, the file has {tensor_count} tensors",
            sizes.layers
        )));
    }
    let (hidden, q, kv) = (sizes.hidden, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    let mut names = BTreeMap::new();
    let mut add = |gguf: String, name: String, shape: &[u64], rotated: bool, required: bool| {
        let interleaved = rotated.then_some(sizes.head_dim as usize);
        names.insert(gguf, Rename { name, shape: shape.to_vec(), interleaved, required });
    };
    add("token_embd.weight".into(), "model.embed_tokens.weight".into(), &[sizes.vocab, hidden], false, true);
    add("output_norm.weight".into(), "model.norm.weight".into(), &[hidden], false, true);
    add("output.weight".into(), "lm_head.weight".into(), &[sizes.vocab, hidden], false, false);
    for layer in 0..sizes.layers {
        for (gguf, name) in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")] {
            add(format!("blk.{layer}.{gguf}.weight"), format!("model.layers.{layer}.{name}.weight"), &[hidden], false, true);
        }
        for (gguf, name, out, input) in [
            ("attn_q", "self_attn.q_proj", q, hidden),
            ("attn_k", "self_attn.k_proj", kv, hidden),
            ("attn_v", "self_attn.v_proj", kv, hidden),
            ("attn_output", "self_attn.o_proj", hidden, q),
            ("ffn_gate", "mlp.gate_proj", sizes.inner, hidden),
            ("ffn_up", "mlp.up_proj", sizes.inner, hidden),
            ("ffn_down", "mlp.down_proj", hidden, sizes.inner),
        ] {
            let rotated = matches!(gguf, "attn_q" | "attn_k");
            add(format!("blk.{layer}.{gguf}.weight"), format!("model.layers.{layer}.{name}.weight"), &[out, input], rotated, true);
            add(format!("blk.{layer}.{gguf}.bias"), format!("model.layers.{layer}.{name}.bias"), &[out], rotated, false);
        }
    }
    Ok(names)
}

fn config(metadata: &Metadata, sizes: &Sizes, has: impl Fn(&str) -> bool) -> Result<Json> {
    let eps = metadata.f32("llama.attention.layer_norm_rms_epsilon")?;
    let eps = eps.ok_or_else(|| Error::InvalidFile("GGUF metadata \"llama.attention.layer_norm_rms_epsilon\" is missing".into()))?;
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": sizes.context,
        "hidden_act": "silu",
        "rms_norm_eps": decimal(eps)?,
        "rope_theta": decimal(metadata.f32("llama.rope.freq_base")?.unwrap_or(10000.0))?,
        "attention_bias": has("blk.0.attn_q.bias"),
        "mlp_bias": has("blk.0.ffn_gate.bias"),
        "tie_word_embeddings": !has("output.weight"),
    });
    if sizes.head_dim * sizes.heads != sizes.hidden {
        config["head_dim"] = sizes.head_dim.into();
    }
    for (key, gguf) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = metadata.u32(&format!("tokenizer.ggml.{gguf}_token_id"))? {
            config[key] = id.into();
        }
    }
    if let Some(scaling) = rope_scaling(metadata)? {
        config["rope_scaling"] = scaling;
    }
    Ok(config)
}

/// `rope_scaling` from `llama.rope.scaling.*`, or the older `llama.rope.scale_linear`.
fn rope_scaling(metadata: &Metadata) -> Result<Option<Json>> {
    let key = |k: &str| format!("llama.rope.scaling.{k}");
    let kind = metadata.string(&key("type"))?;
    let factor = metadata.f32(&key("factor"))?.or(metadata.f32("llama.rope.scale_linear")?);
    let refuse = |what: String| Err(Error::UnsupportedFormat(what));
    if let Some(attention) = metadata.f32(&key("attn_factor"))?.filter(|&f| f != 1.0) {
        return refuse(format!("GGUF metadata {:?} is {attention}", key("attn_factor")));
    }
    let kind = match (kind, factor) {
        (Some("none"), _) | (None, None) => return Ok(None),
        (None, Some(1.0)) => return Ok(None),
        (None, Some(_)) => "linear",
        (Some(kind), _) => kind,
    };
    let Some(factor) = factor.filter(|f| f.is_finite() && *f > 0.0) else {
        return Err(Error::InvalidFile(format!("GGUF metadata {:?} is missing or no positive number", key("factor"))));
    };
    let mut scaling = json!({ "rope_type": kind, "factor": decimal(factor)? });
    match kind {
        "linear" => {}
        "yarn" => {
            let original = metadata.u32(&key("original_context_length"))?;
            let original =
                original.ok_or_else(|| Error::InvalidFile(format!("GGUF metadata {:?} is missing", key("original_context_length"))))?;
            scaling["original_max_position_embeddings"] = original.into();
            for (name, gguf) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                if let Some(beta) = metadata.f32(&key(gguf))? {
                    scaling[name] = decimal(beta)?;
                }
            }
        }
        other => return refuse(format!("GGUF metadata {:?} is {other:?}; \"none\", \"linear\" and \"yarn\" are read", key("type"))),
    }
    Ok(Some(scaling))
}

/// `generation_config.json`: where generation ends. Besides the declared end token these are the ends of a turn that
/// chat models know by their text; a vocabulary in which they are ordinary text does not mark them as control tokens.
pub fn generation_config(metadata: &Metadata) -> Result<Json> {
    const CONTROL: i32 = 3;
    const ENDS: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>"];
    let mut ends = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ends.extend(metadata.u32(&format!("tokenizer.ggml.{key}_token_id"))?);
    }
    if let (Some(tokens), Some(types)) = (metadata.strings("tokenizer.ggml.tokens")?, metadata.i32s("tokenizer.ggml.token_type")?) {
        let is_end = |(token, kind): (&String, i32)| kind == CONTROL && ENDS.contains(&token.as_str());
        ends.extend(tokens.iter().zip(types).enumerate().filter_map(|(id, pair)| is_end(pair).then_some(id as u32)));
    }
    let mut seen = std::collections::BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    let mut config = json!({});
    if let Some(bos) = metadata.u32("tokenizer.ggml.bos_token_id")? {
        config["bos_token_id"] = bos.into();
    }
    if !ends.is_empty() {
        config["eos_token_id"] = ends.into();
    }
    Ok(config)
}

/// The shortest decimal number that is this f32: 1e-5 rather than 9.999999747378752e-6.
fn decimal(value: f32) -> Result<Json> {
    let number = value.to_string().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    number.map(Json::Number).ok_or_else(|| Error::InvalidFile(format!("GGUF metadata holds the number {value}")))
}
