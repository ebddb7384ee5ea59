//! `bench`: speed of prefill and decode on one backend.

use std::time::Instant;

use clap::Args;
use openweights::{
    Error, Result,
    engine::Model,
    generate::{Event, Params, Speculation, Usage},
    ops::check::Random,
};
use serde_json::json;

use super::{Source, print};

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    source: Source,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// Tokens to generate.
    #[arg(long, default_value_t = 64)]
    generate: usize,
    /// Tokens in the context before the prompt.
    #[arg(long, default_value_t = 0)]
    depth: usize,
}

impl Bench {
    pub fn run(self, json: bool) -> Result<()> {
        if self.prompt == 0 || self.generate < 2 {
            return Err(Error::InvalidInput("bench needs a prompt of at least 1 token and at least 2 tokens to generate".into()));
        }
        let started = Instant::now();
        let mut model = self.source.load()?;
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        // One short request first: kernels are compiled, buffers made.
        measure(&mut model, 0, 8, 2, 1)?;
        let usage = measure(&mut model, self.depth, self.prompt, self.generate, 2)?;
        let prefill = (usage.prompt_tokens - usage.reused_tokens) as f64 / usage.prefill_ms * 1e3;
        let decode = (usage.completion_tokens - 1) as f64 / usage.decode_ms * 1e3;
        let value = json!({
            "backend": model.info().backend.name,
            "device": model.info().backend.device,
            "prompt_tokens": self.prompt,
            "depth": self.depth,
            "generated_tokens": usage.completion_tokens,
            "prefill_tok_s": prefill,
            "decode_tok_s": decode,
            "load_ms": load_ms,
            "ttft_ms": usage.prefill_ms,
            "peak_bytes": peak_bytes(),
            "dispatches_per_token": model.dispatches(),
        });
        print(json, &value, || {
            format!(
                "{} on {}\nprefill {prefill:.1} tokens/s ({} tokens at depth {}, first token after {:.0} ms), decode {decode:.2} tokens/s, load {load_ms:.0} ms, {} dispatches a token",
                model.info().backend.name,
                model.info().backend.device,
                self.prompt,
                self.depth,
                usage.prefill_ms,
                model.dispatches(),
            )
        })
    }
}

/// Fills the context with `depth` random tokens, then times a request that continues them.
fn measure(model: &mut Model, depth: usize, prompt: usize, generate: usize, seed: u64) -> Result<Usage> {
    let mut random = Random(seed);
    let vocab = model.info().vocab_size;
    let ids: Vec<u32> = (0..depth + prompt).map(|_| random.below(vocab) as u32).collect();
    if depth > 0 {
        complete(model, ids[..depth].to_vec(), 0)?;
    }
    complete(model, ids, generate)
}

fn complete(model: &mut Model, ids: Vec<u32>, tokens: usize) -> Result<Usage> {
    // A random prompt's answer soon repeats itself: guesses at it would be right, and say nothing of other answers.
    let params = Params { max_tokens: Some(tokens), ignore_eos: true, speculation: Speculation::Off, ..Params::default() };
    let mut generation = model.start(ids, params)?;
    loop {
        match pollster::block_on(generation.next(model))? {
            Some(Event::Done { usage, .. }) => return Ok(usage),
            Some(_) => {}
            None => return Err(Error::Device("a request ended without a result".into())),
        }
    }
}

/// The process's peak resident memory, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
