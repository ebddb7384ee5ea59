//! The command line: convert, inspect, tokenize, logits, generate, perplexity, embed, bench, serve.
//!
//! `--json` prints one JSON object to standard output; progress and messages go to standard error. The exit status is 0, 1
//! (failed) or 2 (usage).

mod bench;
mod files;
mod run;
mod serve;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use openweights::{
    Error, Result,
    adapters::AdapterInfo,
    backend::{
        Backend, Precision,
        cpu::{Cpu, CpuOptions},
        gpu::Gpu,
        reference::Reference,
    },
    engine::{LoadOptions, Model},
    generate::Speculation,
    weights,
};

#[derive(Parser)]
#[command(name = "openweights", version, about = "Run open-weight language models")]
struct Cli {
    /// Print one JSON object to standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a package from a GGUF file or a checkpoint directory.
    Convert(files::Convert),
    /// Show card, architecture, tensors and digests.
    Inspect(files::Inspect),
    /// Show the tokens of a text.
    Tokenize(run::Tokenize),
    /// Logits of every position.
    Logits(run::Logits),
    /// Complete a prompt or answer a message.
    Generate(run::Generate),
    /// Negative log-likelihood of a text, in nats.
    Perplexity(run::Perplexity),
    /// The embedding of a text, of length 1.
    Embed(run::Embed),
    /// Measure speed.
    Bench(bench::Bench),
    /// Serve a directory over HTTP, cross-origin isolated and with ranges.
    Serve(serve::Serve),
}

/// Where a model comes from and what it runs on.
#[derive(Args)]
struct Source {
    /// A package directory, a GGUF file or a checkpoint directory.
    source: PathBuf,
    /// What computes.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: BackendName,
    /// Threads of the CPU backend; by default one per processor.
    #[arg(long)]
    threads: Option<usize>,
    /// How the CPU backend rounds activations for quantised weights.
    #[arg(long, value_enum, default_value = "balanced")]
    precision: PrecisionName,
    /// Most tokens of prompt and answer together.
    #[arg(long)]
    context: Option<usize>,
    /// A LoRA adapter: PEFT's directory, or a GGUF file; with =SCALE so many times as strong. May be given several times.
    #[arg(long = "adapter", value_name = "PATH[=SCALE]")]
    adapters: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackendName {
    /// The processor: SIMD kernels on threads.
    Cpu,
    /// The graphics processor, through Vulkan, Metal or Direct3D 12.
    Gpu,
    /// Plain f32 loops: the oracle.
    Reference,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionName {
    /// To 8 bits, once.
    Fast,
    /// What that left again, in the quarter of a row's groups where it is most.
    Balanced,
    /// Again everywhere.
    Exact,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Precision {
        match name {
            PrecisionName::Fast => Precision::Fast,
            PrecisionName::Balanced => Precision::Balanced,
            PrecisionName::Exact => Precision::Exact,
        }
    }
}

impl BackendName {
    fn open(self, threads: Option<usize>, precision: Precision) -> Result<Box<dyn Backend>> {
        match self {
            BackendName::Cpu => Ok(Box::new(Cpu::new(CpuOptions { threads, precision, ..CpuOptions::default() }))),
            BackendName::Reference => Ok(Box::new(Reference::default())),
            BackendName::Gpu => Ok(Box::new(pollster::block_on(Gpu::new(Default::default()))?)),
        }
    }
}

impl Source {
    fn load(&self) -> Result<Model> {
        let checkpoint = weights::open(&self.source)?;
        let options = LoadOptions { context_length: self.context };
        let mut progress = Meter::new("loading");
        let mut show = |done, total| progress.show(done, total);
        let mut model =
            pollster::block_on(Model::load(&checkpoint, self.backend.open(self.threads, self.precision.into())?, options, &mut show))?;
        for (index, text) in self.adapters.iter().enumerate() {
            let (path, scale) = path_and_scale(text);
            let name = path.file_name().map_or_else(|| text.clone(), |name| name.to_string_lossy().into_owned());
            // The same adapter may be given twice.
            let name = if model.adapters().iter().any(|a| a.name == name) { format!("{name} ({})", index + 1) } else { name };
            pollster::block_on(model.add_adapter(&weights::open_adapter(&path)?, &name, scale, &checkpoint))?;
        }
        for AdapterInfo { name, base_model, .. } in model.adapters().iter().filter(|a| a.base_matches == Some(false)) {
            let own = model.card().name.as_ref().or(model.card().origin.as_ref()).map_or("without a name", |d| &d.value);
            eprintln!("note: adapter {name} says it was made for {:?}; this model is {own:?}", base_model.as_deref().unwrap_or_default());
        }
        Ok(model)
    }
}

/// `PATH` or `PATH=SCALE`.
fn path_and_scale(text: &str) -> (PathBuf, f32) {
    let scaled = text.rsplit_once('=').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
    let (path, scale) = scaled.unwrap_or((text, 1.0));
    (path.into(), scale)
}

/// A progress line on standard error, if that is a terminal.
struct Meter {
    what: &'static str,
    percent: u64,
}

impl Meter {
    fn new(what: &'static str) -> Meter {
        Meter { what, percent: u64::MAX }
    }

    fn show(&mut self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        if percent != self.percent && std::io::stderr().is_terminal() {
            self.percent = percent;
            let end = if done >= total { "\n" } else { "" };
            eprint!("\r{} {percent} % of {:.1} MB{end}", self.what, total as f64 / 1e6);
        }
    }
}

/// `--speculation`: whether steps check guesses at what follows.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Guesses {
    /// One token a step.
    Off,
    /// On the processor, while that is faster.
    #[default]
    Auto,
    /// Whenever there is a guess.
    Always,
}

impl From<Guesses> for Speculation {
    fn from(guesses: Guesses) -> Speculation {
        match guesses {
            Guesses::Off => Speculation::Off,
            Guesses::Auto => Speculation::Auto,
            Guesses::Always => Speculation::Always,
        }
    }
}

/// Prints `value` as JSON, or `text` for a person.
fn print(json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) -> Result<()> {
    let out = if json { value.to_string() } else { text() };
    writeln!(std::io::stdout(), "{}", out.trim_end_matches('\n')).map_err(|e| Error::Storage(format!("standard output: {e}")))
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let result = match command {
        Command::Convert(c) => c.run(json),
        Command::Inspect(c) => c.run(json),
        Command::Tokenize(c) => c.run(json),
        Command::Logits(c) => c.run(json),
        Command::Generate(c) => c.run(json),
        Command::Perplexity(c) => c.run(json),
        Command::Embed(c) => c.run(json),
        Command::Bench(c) => c.run(json),
        Command::Serve(c) => c.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                println!("{}", serde_json::json!({ "error": { "code": error.code(), "message": error.to_string() } }));
            }
            eprintln!("openweights: {error} [{}]", error.code());
            ExitCode::FAILURE
        }
    }
}
