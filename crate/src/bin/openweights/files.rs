//! Commands on files: `convert` and `inspect`.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use openweights::{
    Result,
    card::{Card, Declared},
    weights::{
        self, Inspection,
        files::DirectorySink,
        import::{Options, Quantize},
    },
};
use serde_json::json;

use super::{Meter, print};

#[derive(Args)]
pub struct Convert {
    /// A GGUF file, a checkpoint directory or a package.
    source: PathBuf,
    /// The directory to write; made if it does not exist.
    out: PathBuf,
    /// What matrices become: q4, q8, f16, or keep.
    #[arg(long, default_value = "keep", value_parser = |name: &str| Quantize::parse(name).map_err(|e| e.to_string()))]
    quantize: Quantize,
}

impl Convert {
    pub fn run(self, json: bool) -> Result<()> {
        let started = Instant::now();
        let mut sink = DirectorySink::create(&self.out)?;
        let options = Options { quantize: self.quantize, ..Options::default() };
        let mut progress = Meter::new("converting");
        let manifest = weights::convert(&self.source, options, &mut sink, &mut |done, total| progress.show(done, total))?;
        let bytes: u64 = manifest.files.iter().map(|f| f.size).sum();
        let seconds = started.elapsed().as_secs_f64();
        print(json, &json!({ "files": manifest.files, "bytes": bytes, "seconds": seconds }), || {
            let count = manifest.files.len() + 1;
            format!("{}: {count} files, {:.1} MB, {seconds:.1} s", self.out.display(), bytes as f64 / 1e6)
        })
    }
}

#[derive(Args)]
pub struct Inspect {
    /// A package directory, a GGUF file or a checkpoint directory.
    source: PathBuf,
}

impl Inspect {
    pub fn run(self, json: bool) -> Result<()> {
        let inspection = weights::inspect(&self.source)?;
        let value = serde_json::to_value(&inspection).unwrap_or_else(|e| json!({ "error": e.to_string() }));
        print(json, &value, || describe(&inspection))
    }
}

fn describe(inspection: &Inspection) -> String {
    let mut text = describe_card(&inspection.card);
    text += &format!("{:<14}{}\n", "architecture", inspection.architecture);
    text += &format!("\n{} tensors\n", inspection.tensors.len());
    for (name, tensor) in &inspection.tensors {
        text += &format!("  {name:<55}{:<6}{:?}\n", tensor.format, tensor.shape);
    }
    text += "\nfiles\n";
    for file in &inspection.files {
        text += &format!("  {:<40}{:>12} bytes  sha256 {}\n", file.path, file.size, file.sha256);
    }
    text
}

fn describe_card(card: &Card) -> String {
    let say = |fact: &Option<Declared>| match fact {
        Some(fact) => format!("{} ({})", fact.value, fact.source),
        None => "not declared".to_owned(),
    };
    let list = |facts: &[Declared]| match facts {
        [] => "not declared".to_owned(),
        facts => facts.iter().map(|f| f.value.as_str()).collect::<Vec<_>>().join(", "),
    };
    let rows = [
        ("name", say(&card.name)),
        ("publisher", say(&card.publisher)),
        ("licence", say(&card.license)),
        ("licence name", say(&card.license_name)),
        ("licence link", say(&card.license_link)),
        ("base models", list(&card.base_models)),
        ("data sets", list(&card.datasets)),
        ("languages", list(&card.languages)),
        ("origin", say(&card.origin)),
        ("parameters", card.parameters.to_string()),
        ("quantisation", card.quantisation.clone()),
        ("weights", format!("{:.1} MB", card.bytes as f64 / 1e6)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<14}{value}\n")).collect()
}
