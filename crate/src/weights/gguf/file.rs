//! What an architecture's configuration is made from: a header's keys, the sizes that they say, and which tensors there are.

use serde_json::{Value as Json, json};

use super::{Header, Metadata, Strings, Value, architecture::Dim, rope};
use crate::error::{Error, Result};

/// A header as its architecture sees it.
pub struct File<'a> {
    /// The architecture's name, with which its keys begin.
    pub name: &'static str,
    /// The model's sizes.
    pub sizes: Sizes,
    header: &'a Header,
}

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens.
    pub vocab: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width of the MLP.
    pub inner: u64,
    /// Blocks.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key/value heads.
    pub kv_heads: u64,
    /// Elements of a head.
    pub head_dim: u64,
    /// Positions that the model was made for.
    pub context: u64,
    /// Experts of a layer, or 0.
    pub experts: u64,
    /// Width of an expert.
    pub expert_inner: u64,
}

impl<'a> File<'a> {
    /// Reads and checks the sizes.
    pub(super) fn new(name: &'static str, header: &'a Header) -> Result<File<'a>> {
        let empty =
            Sizes { vocab: 0, hidden: 0, inner: 0, layers: 0, heads: 0, kv_heads: 0, head_dim: 0, context: 0, experts: 0, expert_inner: 0 };
        let mut file = File { name, sizes: empty, header };
        file.sizes = file.read_sizes()?;
        Ok(file)
    }

    /// The whole key.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// All of the file's metadata.
    pub fn metadata(&self) -> &'a Metadata {
        &self.header.metadata
    }

    /// Whether the file has the tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.header.tensors.iter().any(|t| t.name == name)
    }

    /// A positive integer, if present, and not above [`most`].
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.metadata().u32(&self.key(key))? {
            Some(0) => Err(self.bad(key, "is 0")),
            Some(n) if n > most(key) => Err(self.bad(key, &format!("is {n}; at most {} are read", most(key)))),
            other => Ok(other.map(u64::from)),
        }
    }

    /// A positive integer that must be present.
    pub fn need_size(&self, key: &str) -> Result<u64> {
        self.size(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// A number, if present: the shortest decimal that is this f32.
    pub fn number(&self, key: &str) -> Result<Option<Json>> {
        self.metadata().f32(&self.key(key))?.map(decimal).transpose()
    }

    /// A number that must be present.
    pub fn need_number(&self, key: &str) -> Result<Json> {
        self.number(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// `invalid_file`: the key `key` is ...
    pub fn bad(&self, key: &str, what: &str) -> Error {
        Error::InvalidFile(format!("GGUF metadata {:?} {what}", self.key(key)))
    }

    /// `unsupported_format`: the key `key` is ...
    pub fn unsupported(&self, key: &str, what: &str) -> Error {
        Error::UnsupportedFormat(format!("GGUF metadata {:?} {what}", self.key(key)))
    }

    /// `config.json` of a decoder of llama's kind: sizes, rotary positions, end tokens, tied embeddings.
    pub fn decoder(&self, model_type: &str) -> Result<Json> {
        let Sizes { vocab, hidden, inner, layers, heads, kv_heads, head_dim, context, .. } = self.sizes;
        let mut config = json!({
            "model_type": model_type,
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": context,
            "hidden_act": "silu",
            "tie_word_embeddings": !self.has("output.weight"),
        });
        if let Some(eps) = self.number("attention.layer_norm_rms_epsilon")? {
            config["rms_norm_eps"] = eps;
        }
        if let Some(eps) = self.number("attention.layer_norm_epsilon")? {
            config["layer_norm_eps"] = eps;
        }
        if head_dim * heads != hidden {
            config["head_dim"] = head_dim.into();
        }
        config["rope_theta"] = self.number("rope.freq_base")?.unwrap_or(json!(10000.0));
        if let Some(scaling) = rope::scaling(self)? {
            config["rope_scaling"] = scaling;
        }
        self.special_tokens(&mut config)?;
        Ok(config)
    }

    /// Ids of the special tokens.
    pub fn special_tokens(&self, config: &mut Json) -> Result<()> {
        for (key, gguf) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
            if let Some(id) = self.metadata().u32(&format!("tokenizer.ggml.{gguf}_token_id"))? {
                config[key] = id.into();
            }
        }
        Ok(())
    }

    /// Every element of a head is rotated.
    pub fn whole_rope(&self) -> Result<()> {
        match self.size("rope.dimension_count")? {
            Some(n) if n != self.sizes.head_dim => {
                Err(self.unsupported("rope.dimension_count", &format!("differs from the head's {} elements", self.sizes.head_dim)))
            }
            _ => Ok(()),
        }
    }

    /// The part of a head that is rotated.
    pub fn rotated_part(&self) -> Result<f64> {
        let rotated = self.size("rope.dimension_count")?.unwrap_or(self.sizes.head_dim);
        match rotated <= self.sizes.head_dim {
            true => Ok(rotated as f64 / self.sizes.head_dim as f64),
            false => Err(self.bad("rope.dimension_count", &format!("exceeds the head's {} elements", self.sizes.head_dim))),
        }
    }

    /// `layer_types`: a file says for each layer whether its attention slides, or for every which one it does not; else it is the
    /// architecture's, `default`. All are full where there is no window.
    pub fn layer_types(&self, default: u64) -> Result<Json> {
        let key = "attention.sliding_window_pattern";
        let layers = self.sizes.layers;
        let every = |n: u64| (0..layers).map(|layer| n > 0 && layer % n < n - 1).collect::<Vec<bool>>();
        let slides = match self.metadata().get(&self.key(key)) {
            None => every(default),
            Some(Value::Integer(n)) if (1..1 << 20).contains(n) => every(*n as u64),
            Some(Value::Bools(list)) if list.len() as u64 == layers => list.clone(),
            Some(Value::Integers(list)) if list.len() as u64 == layers && list.iter().all(|n| (0..2).contains(n)) => {
                list.iter().map(|n| *n == 1).collect()
            }
            Some(_) => return Err(self.bad(key, "is neither a number of layers nor a list with yes or no for each layer")),
        };
        let name = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
        Ok(slides.into_iter().map(name).collect::<Vec<_>>().into())
    }

    /// A size in numbers.
    pub(super) fn dim(&self, dim: Dim) -> u64 {
        let s = &self.sizes;
        let (query, key_value) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        match dim {
            Dim::Vocab => s.vocab,
            Dim::Hidden => s.hidden,
            Dim::Inner => s.inner,
            Dim::GateUp => 2 * s.inner,
            Dim::Query => query,
            Dim::KeyValue => key_value,
            Dim::Stacked => query + 2 * key_value,
            Dim::Head => s.head_dim,
            Dim::Context => s.context,
            Dim::Heads => s.heads,
            Dim::Experts => s.experts,
            Dim::ExpertInner => s.expert_inner,
            Dim::Gated => 3 * s.hidden,
            Dim::One => 1,
            // Zero fits no tensor: a file that has one must say how large it is.
            Dim::Taps => self.size("shortconv.l_cache").ok().flatten().unwrap_or(0),
            Dim::Parts => self.metadata().u32("tokenizer.ggml.token_type_count").ok().flatten().unwrap_or(0).into(),
        }
    }

    /// Key/value heads: one number, or one for each layer, which may be 0 for layers without attention.
    fn kv_heads(&self) -> Result<Option<u64>> {
        let key = "attention.head_count_kv";
        let Some(Value::Integers(list)) = self.metadata().get(&self.key(key)) else { return self.size(key) };
        let mut heads = list.iter().copied().filter(|n| *n != 0);
        match heads.next() {
            Some(first @ 1..=0xffff) if heads.all(|n| n == first) => Ok(Some(first as u64)),
            _ => Err(self.unsupported(key, "is a list of different numbers")),
        }
    }

    fn read_sizes(&self) -> Result<Sizes> {
        let (hidden, heads) = (self.need_size("embedding_length")?, self.need_size("attention.head_count")?);
        let head_dim = self.size("attention.key_length")?.unwrap_or(hidden / heads);
        let table = self.header.tensors.iter().find(|t| t.name == "token_embd.weight");
        let rows = table.map_or(0, |t| t.shape[0] as u64);
        let inner = self.need_size("feed_forward_length")?;
        let sizes = Sizes {
            vocab: self.size("vocab_size")?.unwrap_or(rows),
            hidden,
            inner,
            layers: self.need_size("block_count")?,
            heads,
            kv_heads: self.kv_heads()?.unwrap_or(heads),
            head_dim,
            context: self.need_size("context_length")?,
            experts: if self.metadata().u32(&self.key("expert_count"))? == Some(0) { 0 } else { self.size("expert_count")?.unwrap_or(0) },
            expert_inner: self.size("expert_feed_forward_length")?.unwrap_or(inner),
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(Error::InvalidFile("GGUF metadata: heads must have an even number of elements".into()));
        }
        if !heads.is_multiple_of(sizes.kv_heads) {
            return Err(self.bad("attention.head_count", &format!("is no multiple of {:?}", self.key("attention.head_count_kv"))));
        }
        if sizes.layers > self.header.tensors.len() as u64 {
            return Err(self.bad("block_count", &format!("is {}, the file has {} tensors", sizes.layers, self.header.tensors.len())));
        }
        if self.size("attention.value_length")?.is_some_and(|n| n != head_dim) {
            return Err(self.unsupported("attention.value_length", &format!("differs from the key's {head_dim} elements")));
        }
        let tokens = self.metadata().strings("tokenizer.ggml.tokens")?.map_or(0, Strings::len) as u64;
        if tokens > sizes.vocab {
            return Err(Error::InvalidFile(format!("GGUF metadata: {tokens} tokens are listed, the model has {}", sizes.vocab)));
        }
        Ok(sizes)
    }
}

/// The most that a size may be: several times what any model has, and little enough to allocate in proportion to.
fn most(key: &str) -> u32 {
    match key {
        "block_count" | "attention.head_count" | "attention.head_count_kv" | "attention.key_length" | "attention.value_length" => 1 << 10,
        "expert_count" | "expert_used_count" => 1 << 12,
        "embedding_length" | "feed_forward_length" | "expert_feed_forward_length" => 1 << 18,
        _ => 1 << 24,
    }
}

/// The shortest decimal number that is this f32: 1e-5 rather than 9.999999747378752e-6.
pub(super) fn decimal(value: f32) -> Result<Json> {
    let number = value.to_string().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    number.map(Json::Number).ok_or_else(|| Error::InvalidFile(format!("GGUF metadata holds the number {value}")))
}
