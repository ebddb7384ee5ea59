//! Tests on every backend.

pub mod converter;
pub mod discarding;
pub mod downloads;
pub mod exact;
pub mod fake;
pub mod faults;
pub mod fuzz;
pub mod gguf_writer;
pub mod real;
pub mod rng;
pub mod virtual_clock;
pub mod vocabularies;
pub mod world;

use std::path::PathBuf;

use openweights::{
    Result,
    backend::{
        Backend, Precision,
        cpu::{Cpu, CpuOptions},
        gpu::Gpu,
        reference::Reference,
    },
    engine::{LoadOptions, Model},
    generate::{Event, FinishReason, Params, Usage},
    weights::Checkpoint,
};
use serde_json::Value;

/// SmolLM2-135M-Instruct Q4_1 as published: `OPENWEIGHTS_SMOLLM2`, or `.cache/` of the workspace, where the scripts put it.
pub fn smollm2_gguf() -> PathBuf {
    fetched("OPENWEIGHTS_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Gemma 3 270M Q4_K_M as published: `OPENWEIGHTS_GEMMA3`, or `.cache/` of the workspace, where `scripts/test` puts it.
pub fn gemma3_gguf() -> PathBuf {
    fetched("OPENWEIGHTS_GEMMA3", "gemma-3-270m.Q4_K_M.gguf")
}

fn fetched(variable: &str, file: &str) -> PathBuf {
    let cached = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache")).join(file);
    let path = std::env::var_os(variable).map_or(cached, PathBuf::from);
    assert!(path.is_file(), "{} is missing: scripts/test fetches it; or set {variable}", path.display());
    path
}

/// A file or directory under `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(path)
}

/// A JSON file under `tests/fixtures`.
pub fn json(path: &str) -> Value {
    let path = fixture(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Token ids of a JSON array.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("an array of ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The reference backend.
pub fn reference() -> Box<dyn Backend> {
    Box::new(Reference::default())
}

/// The CPU backend with the machine's best instructions, on two threads.
pub fn cpu() -> Box<dyn Backend> {
    Box::new(Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }))
}

/// The same, rounding activations as said.
pub fn cpu_of(precision: Precision) -> Box<dyn Backend> {
    Box::new(Cpu::new(CpuOptions { threads: Some(2), precision, ..CpuOptions::default() }))
}

/// The GPU backend; a machine that runs the tests must have an adapter, in software if need be.
pub fn gpu() -> Box<dyn Backend> {
    let gpu = pollster::block_on(Gpu::new(Default::default()));
    Box::new(gpu.unwrap_or_else(|e| panic!("{e}; for Vulkan in software install mesa-vulkan-drivers")))
}

/// A loaded model.
pub fn load(checkpoint: &Checkpoint, backend: Box<dyn Backend>) -> Result<Model> {
    load_for(checkpoint, backend, None)
}

/// A model loaded for this context.
pub fn load_for(checkpoint: &Checkpoint, backend: Box<dyn Backend>, context_length: Option<usize>) -> Result<Model> {
    pollster::block_on(Model::load(checkpoint, backend, LoadOptions { context_length }, &mut |_, _| {}))
}

/// Logits of every position, one vector each.
pub fn logits(model: &mut Model, ids: &[u32]) -> Vec<Vec<f32>> {
    let (vocab, mut rows) = (model.info().vocab_size, Vec::new());
    let result = model.logits(ids, |_, logits| {
        rows.extend(logits.chunks_exact(vocab).map(<[f32]>::to_vec));
        Ok(())
    });
    pollster::block_on(result).expect("logits");
    rows
}

/// An answer: ids, text, why it ended.
pub struct Answer {
    /// Tokens, end token included.
    pub ids: Vec<u32>,
    /// The text, joined from its pieces.
    pub text: String,
    /// Why it ended.
    pub reason: FinishReason,
    /// Counts and times.
    pub usage: Usage,
}

/// Runs a request to its end.
pub fn answer(model: &mut Model, prompt: Vec<u32>, params: Params) -> Result<Answer> {
    let mut generation = model.start(prompt, params)?;
    let (mut ids, mut answer) = (Vec::new(), String::new());
    loop {
        match pollster::block_on(generation.next(model))?.expect("a request ends with Done") {
            Event::Prefill { done, total } => assert!(done <= total),
            Event::Token { id, text } => {
                ids.push(id);
                answer += &text;
            }
            Event::Done { text, reason, usage } => return Ok(Answer { ids, text: answer + &text, reason, usage }),
        }
    }
}

/// Greedy ids, end tokens ignored.
pub fn greedy(model: &mut Model, prompt: &[u32], tokens: usize) -> Vec<u32> {
    let params = Params { max_tokens: Some(tokens), ignore_eos: true, ..Params::default() };
    answer(model, prompt.to_vec(), params).expect("a greedy answer").ids
}

/// The largest absolute difference of two equally long rows.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
