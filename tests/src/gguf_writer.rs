//! Writes small GGUF files for tests: a tiny llama whose values are known, ready to be bent.

use std::collections::BTreeMap;

use half::{bf16, f16};
use openweights::{quant::Format, weights::gguf::Value};

use crate::rng::Rng;

/// A tensor to be written: dimensions slowest first, ggml's type number, its blocks.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    /// Name.
    pub name: String,
    /// Dimensions, slowest first.
    pub shape: Vec<u64>,
    /// ggml's type number.
    pub kind: u32,
    /// Blocks.
    pub data: Vec<u8>,
}

/// A GGUF file to be.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// Version in the header.
    pub version: u32,
    /// Metadata, in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors, in order.
    pub tensors: Vec<GgufTensor>,
}

impl Gguf {
    /// Sets or adds a metadata entry.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value));
    }

    /// The tensor called `name`.
    pub fn tensor(&mut self, name: &str) -> &mut GgufTensor {
        self.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of this name")
    }

    /// The same in three parts, as `gguf-split` makes them: the first has the metadata.
    pub fn split(&self) -> Vec<Gguf> {
        let parts = self.tensors.chunks(self.tensors.len().div_ceil(3)).enumerate();
        let part = |(number, tensors): (usize, &[GgufTensor])| {
            let mut part = self.clone();
            part.tensors = tensors.to_vec();
            if number > 0 {
                part.metadata.clear();
            }
            for (key, value) in [("split.no", number), ("split.count", 3), ("split.tensors.count", self.tensors.len())] {
                part.set(key, Value::Integer(value as i64));
            }
            part
        };
        parts.map(part).collect()
    }

    /// Bytes of the header, before padding, and of the whole file.
    pub fn to_bytes(&self) -> (usize, Vec<u8>) {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().rev().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.data.len() as u64).next_multiple_of(32);
        }
        let header = out.len();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.data);
        }
        (header, out)
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Integers are written as u32 (arrays: i32), floats as f32.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend([9_u32.to_le_bytes(), kind.to_le_bytes()].concat());
        out.extend((len as u64).to_le_bytes());
    };
    let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
    match value {
        Value::Integer(i) => (kind(out, 4), out.extend((*i as u32).to_le_bytes())).1,
        Value::Float(f) => (kind(out, 6), out.extend((*f as f32).to_le_bytes())).1,
        Value::Bool(b) => (kind(out, 7), out.push(u8::from(*b))).1,
        Value::String(s) => (kind(out, 8), put_string(out, s)).1,
        Value::Integers(list) => (array(out, 5, list.len()), list.iter().for_each(|i| out.extend((*i as i32).to_le_bytes()))).1,
        Value::Floats(list) => (array(out, 6, list.len()), list.iter().for_each(|f| out.extend(f.to_le_bytes()))).1,
        Value::Bools(list) => (array(out, 7, list.len()), list.iter().for_each(|b| out.push(u8::from(*b)))).1,
        Value::Strings(list) => (array(out, 8, list.len()), list.iter().for_each(|s| put_string(out, s))).1,
    }
}

/// A row of random elements: its ggml blocks, and the values that they stand for by the format's definition.
pub fn random_row(rng: &mut Rng, format: Format, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut blocks, mut values) = (Vec::new(), Vec::new());
    if !format.is_quantised() {
        for _ in 0..cols {
            let x = rng.float();
            match format {
                Format::F16 => blocks.extend(f16::from_f32(x).to_le_bytes()),
                Format::Bf16 => blocks.extend(bf16::from_f32(x).to_le_bytes()),
                _ => blocks.extend(x.to_le_bytes()),
            }
            values.push(match format {
                Format::F16 => f16::from_f32(x).to_f32(),
                Format::Bf16 => bf16::from_f32(x).to_f32(),
                _ => x,
            });
        }
        return (blocks, values);
    }
    for _ in 0..cols / 32 {
        let (scale, minimum) = (f16::from_f32(rng.float()), f16::from_f32(rng.float()));
        let bits: Vec<u8> = (0..32).map(|_| rng.next() as u8).collect();
        blocks.extend(scale.to_le_bytes());
        if format == Format::Q4_1 {
            blocks.extend(minimum.to_le_bytes());
        }
        if format == Format::Q8_0 {
            blocks.extend(&bits);
            values.extend(bits.iter().map(|&b| scale.to_f32() * f32::from(b as i8)));
            continue;
        }
        // Byte j holds element j in its low half and element j + 16 in its high half.
        blocks.extend((0..16).map(|j| (bits[j] & 15) | ((bits[j + 16] & 15) << 4)));
        values.extend(bits.iter().map(|&b| match format {
            Format::Q4_0 => scale.to_f32() * (f32::from(b & 15) - 8.0),
            _ => scale.to_f32() * f32::from(b & 15) + minimum.to_f32(),
        }));
    }
    (blocks, values)
}

/// A tiny llama, and what its tensors must be after the import: shape and values by transformers' names, in their order.
#[derive(Debug, Clone)]
pub struct TinyLlama {
    /// The file.
    pub gguf: Gguf,
    /// Format, shape and values.
    pub expected: BTreeMap<String, (Format, Vec<usize>, Vec<f32>)>,
}

const HEAD_DIM: usize = 16;

/// 2 layers, 4 query heads of 16 and 2 key/value heads, every format, biases; no tokenizer.
pub fn tiny_llama() -> TinyLlama {
    let integer = |i: i64| Value::Integer(i);
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("general.name", Value::String("Tiny".into())),
        ("general.license", Value::String("apache-2.0".into())),
        ("llama.vocab_size", integer(40)),
        ("llama.context_length", integer(128)),
        ("llama.embedding_length", integer(64)),
        ("llama.block_count", integer(2)),
        ("llama.feed_forward_length", integer(96)),
        ("llama.attention.head_count", integer(4)),
        ("llama.attention.head_count_kv", integer(2)),
        ("llama.rope.dimension_count", integer(HEAD_DIM as i64)),
        ("llama.rope.freq_base", Value::Float(10000.0)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5_f32.into())),
        ("tokenizer.ggml.eos_token_id", integer(2)),
    ];
    let metadata = metadata.map(|(k, v)| (k.to_owned(), v)).to_vec();
    let mut tiny = TinyLlama { gguf: Gguf { version: 3, metadata, tensors: Vec::new() }, expected: BTreeMap::new() };
    let rng = &mut Rng::new(1);
    tiny.add(rng, "token_embd.weight", "model.embed_tokens.weight", Format::Q8_0, &[40, 64]);
    for layer in 0..2 {
        let names = |gguf: &str, name: &str| (format!("blk.{layer}.{gguf}"), format!("model.layers.{layer}.{name}"));
        for (gguf, name, format, shape) in [
            ("attn_norm.weight", "input_layernorm.weight", Format::F32, &[64][..]),
            ("attn_q.weight", "self_attn.q_proj.weight", Format::Q4_0, &[64, 64]),
            ("attn_q.bias", "self_attn.q_proj.bias", Format::F32, &[64]),
            ("attn_k.weight", "self_attn.k_proj.weight", Format::Q4_1, &[32, 64]),
            ("attn_k.bias", "self_attn.k_proj.bias", Format::F16, &[32]),
            ("attn_v.weight", "self_attn.v_proj.weight", Format::F16, &[32, 64]),
            ("attn_v.bias", "self_attn.v_proj.bias", Format::F32, &[32]),
            ("attn_output.weight", "self_attn.o_proj.weight", Format::Bf16, &[64, 64]),
            ("attn_output.bias", "self_attn.o_proj.bias", Format::F32, &[64]),
            ("ffn_norm.weight", "post_attention_layernorm.weight", Format::F32, &[64]),
            ("ffn_gate.weight", "mlp.gate_proj.weight", Format::Q4_1, &[96, 64]),
            ("ffn_up.weight", "mlp.up_proj.weight", Format::Q8_0, &[96, 64]),
            ("ffn_down.weight", "mlp.down_proj.weight", Format::F32, &[64, 96]),
        ] {
            let (gguf, name) = names(gguf, name);
            tiny.add(rng, &gguf, &name, format, shape);
        }
    }
    tiny.add(rng, "output_norm.weight", "model.norm.weight", Format::F32, &[64]);
    tiny
}

impl TinyLlama {
    fn add(&mut self, rng: &mut Rng, gguf: &str, name: &str, format: Format, shape: &[usize]) {
        let (rows, cols) = if shape.len() == 1 { (1, shape[0]) } else { (shape[0], shape[1]) };
        let packed: Vec<_> = (0..rows).map(|_| random_row(rng, format, cols)).collect();
        let values = packed.iter().flat_map(|(_, v)| v).copied().collect();
        let blocks: Vec<Vec<u8>> = packed.into_iter().map(|(b, _)| b).collect();
        let rotated = gguf.contains("attn_q") || gguf.contains("attn_k");
        let data = match (rotated, rows) {
            (false, _) => blocks.concat(),
            (true, 1) => interleave(blocks[0].chunks(blocks[0].len() / cols)),
            (true, _) => interleave(blocks.iter().map(Vec::as_slice)),
        };
        let shape64 = shape.iter().map(|&d| d as u64).collect();
        self.gguf.tensors.push(GgufTensor { name: gguf.into(), shape: shape64, kind: format.ggml().id, data });
        self.expected.insert(name.into(), (format, shape.to_vec(), values));
    }
}

/// What llama.cpp's converter does to q and k: `w.reshape(heads, 2, head_dim / 2, ...).swapaxes(1, 2)`.
fn interleave<'a>(units: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let units: Vec<&[u8]> = units.collect();
    let mut out = Vec::new();
    for head in units.chunks(HEAD_DIM) {
        for j in 0..HEAD_DIM / 2 {
            for half in 0..2 {
                out.extend(head[half * HEAD_DIM / 2 + j]);
            }
        }
    }
    out
}
