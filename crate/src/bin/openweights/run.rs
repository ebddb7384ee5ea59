//! Commands that run a model on text or tokens.

use std::{io::Write, path::PathBuf};

use clap::Args;
use openweights::{
    Error, Result,
    backend::Sampling,
    generate::{Event, Params},
    ops::score,
    text::Message,
    weights,
};
use serde_json::json;

use super::{Guesses, Source, print};

/// `--tokens 1,2,3`
fn parse_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a token id"))
}

#[derive(Args)]
pub struct Tokenize {
    /// A package directory, a GGUF file or a checkpoint directory.
    source: PathBuf,
    /// The text.
    #[arg(long)]
    text: String,
    /// Add what the tokenizer puts around a text.
    #[arg(long)]
    special: bool,
}

impl Tokenize {
    pub fn run(self, json: bool) -> Result<()> {
        let checkpoint = weights::open(&self.source)?;
        let bytes = checkpoint.tokenizer.ok_or_else(|| Error::NotFound("the checkpoint has no tokenizer.json".into()))?;
        let tokenizer = openweights::text::Tokenizer::from_json(&bytes)?;
        let ids = tokenizer.encode(&self.text, self.special)?;
        let tokens: Vec<_> = ids.iter().map(|&id| json!({ "id": id, "piece": tokenizer.piece(id) })).collect();
        print(json, &json!({ "tokens": tokens }), || {
            let line = |id: &u32| format!("{id:>7}  {}\n", tokenizer.piece(*id).unwrap_or_default());
            ids.iter().map(line).collect()
        })
    }
}

#[derive(Args)]
pub struct Logits {
    #[command(flatten)]
    source: Source,
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_id, required = true)]
    tokens: Vec<u32>,
}

impl Logits {
    pub fn run(self, json: bool) -> Result<()> {
        let mut model = self.source.load()?;
        let vocab = model.info().vocab_size;
        let mut rows: Vec<Vec<f32>> = Vec::new();
        pollster::block_on(model.logits(&self.tokens, |_, logits| {
            rows.extend(logits.chunks_exact(vocab).map(<[f32]>::to_vec));
            Ok(())
        }))?;
        print(json, &json!({ "logits": rows }), || {
            let mut text = String::new();
            for (position, row) in rows.iter().enumerate() {
                let top = score::top(row, 5).into_iter().map(|(id, logit)| format!("{id}: {logit:.4}")).collect::<Vec<_>>();
                text += &format!("position {position}: {}\n", top.join("  "));
            }
            text
        })
    }
}

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    prompt: Prompt,
    /// Most tokens of the answer.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Draw from the most likely tokens only; 0: all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Draw from the smallest set of tokens with this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Draw from tokens at least so likely relative to the most likely one.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Above 1 discourages tokens that were seen.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Key of the random draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End the answer at this text; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// Go on past the model's end token.
    #[arg(long)]
    ignore_eos: bool,
    /// Check guesses at what follows, copied from prompt and answer, several a step; the tokens are the same.
    #[arg(long, value_enum, default_value_t)]
    speculation: Guesses,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// A text to continue.
    #[arg(long)]
    prompt: Option<String>,
    /// A message to answer, through the model's chat template.
    #[arg(long)]
    chat: Option<String>,
    /// Token ids to continue, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_id)]
    tokens: Option<Vec<u32>>,
}

impl Generate {
    pub fn run(self, json: bool) -> Result<()> {
        let mut model = self.source.load()?;
        let prompt = match self.prompt {
            Prompt { prompt: Some(text), .. } => model.encode(&text, true)?,
            Prompt { chat: Some(text), .. } => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
                model.chat_prompt(&[Message { role: "user".into(), content: text }], Some(now))?
            }
            Prompt { tokens, .. } => tokens.unwrap_or_default(),
        };
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        };
        let (stop, ignore_eos, speculation) = (self.stop, self.ignore_eos, self.speculation.into());
        let params = Params { sampling, max_tokens: self.max_tokens, stop, ignore_eos, speculation, ..Params::default() };
        let mut generation = model.start(prompt, params)?;
        let (mut answer, mut ids) = (String::new(), Vec::new());
        let say = |text: &str, answer: &mut String| {
            answer.push_str(text);
            if !json {
                print!("{text}");
                // A closed pipe shows at the end; an answer is not stopped for it.
                let _ = std::io::stdout().flush();
            }
        };
        while let Some(event) = pollster::block_on(generation.next(&mut model))? {
            match event {
                Event::Prefill { .. } => {}
                Event::Token { id, text } => {
                    ids.push(id);
                    say(&text, &mut answer);
                }
                Event::Done { text, reason, usage } => {
                    say(&text, &mut answer);
                    let prefill = (usage.prompt_tokens - usage.reused_tokens) as f64 / usage.prefill_ms * 1e3;
                    let decode = usage.completion_tokens.saturating_sub(1) as f64 / usage.decode_ms * 1e3;
                    let value = json!({ "text": answer, "tokens": ids, "prompt_tokens": usage.prompt_tokens, "finish_reason": reason, "timings": usage });
                    eprintln!(
                        "\n{} prompt tokens at {prefill:.1}/s, {} tokens at {decode:.1}/s, {} of {} guesses right",
                        usage.prompt_tokens,
                        ids.len(),
                        usage.accepted_tokens,
                        usage.drafted_tokens
                    );
                    if json {
                        print(true, &value, String::new)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Args)]
pub struct Perplexity {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    text: Text,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Text {
    /// A file of text.
    #[arg(long)]
    text_file: Option<PathBuf>,
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = parse_id)]
    tokens: Option<Vec<u32>>,
}

impl Perplexity {
    pub fn run(self, json: bool) -> Result<()> {
        let mut model = self.source.load()?;
        let ids = match self.text {
            Text { text_file: Some(path), .. } => {
                let text = std::fs::read_to_string(&path).map_err(|e| Error::NotFound(format!("{}: {e}", path.display())))?;
                model.encode(&text, true)?
            }
            Text { tokens, .. } => tokens.unwrap_or_default(),
        };
        if ids.len() < 2 {
            return Err(Error::InvalidInput("a likelihood needs at least two tokens".into()));
        }
        let vocab = model.info().vocab_size;
        let mut nll = Vec::with_capacity(ids.len() - 1);
        pollster::block_on(model.logits(&ids, |first, logits| {
            for (row, next) in logits.chunks_exact(vocab).zip(ids.iter().skip(first + 1)) {
                nll.push(-score::log_probability(row, *next));
            }
            Ok(())
        }))?;
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        print(json, &json!({ "mean_nll": mean, "nll": nll, "tokens": ids }), || {
            format!("{} tokens, mean negative log-likelihood {mean:.4} nats, perplexity {:.3}", ids.len(), mean.exp())
        })
    }
}

#[derive(Args)]
pub struct Embed {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    input: Embedded,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Embedded {
    /// The text.
    #[arg(long)]
    text: Option<String>,
    /// Token ids, separated by commas; nothing is put around them.
    #[arg(long, value_delimiter = ',', value_parser = parse_id)]
    tokens: Option<Vec<u32>>,
}

impl Embed {
    pub fn run(self, json: bool) -> Result<()> {
        let mut model = self.source.load()?;
        let ids = match self.input {
            Embedded { text: Some(text), .. } => model.encode(&text, true)?,
            Embedded { tokens, .. } => tokens.unwrap_or_default(),
        };
        let embedding = pollster::block_on(model.embed(&ids))?;
        print(json, &json!({ "embedding": embedding, "tokens": ids }), || {
            let numbers: Vec<String> = embedding.iter().map(f32::to_string).collect();
            format!("{} tokens, {} numbers:\n{}", ids.len(), numbers.len(), numbers.join(" "))
        })
    }
}
