//! A GGUF file in transformers' terms: its configuration, and what each tensor becomes.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value as Json;

use super::{
    Header, Tensor,
    architecture::{Architecture, Bias, Line},
    families::ARCHITECTURES,
    file::File,
    order::Order,
    rope,
};
use crate::error::{Error, Result};

/// What a tensor of the file becomes: nearly always one tensor of another name.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// Names and shapes of what it becomes; their rows follow each other.
    pub targets: Vec<(String, Vec<usize>)>,
    /// How the rows of each are put back in order.
    pub order: Order,
    /// Added to each element.
    pub offset: f32,
    shape: Vec<usize>,
    required: bool,
}

/// Configuration and names of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// `config.json`.
    pub config: Json,
    architecture: &'static str,
    head_dim: u64,
    conversions: BTreeMap<String, Conversion>,
}

impl Model {
    /// Reads a header; every tensor of the file is checked against what the metadata implies.
    pub fn new(header: &Header) -> Result<Model> {
        let architecture = find(header)?;
        check_keys(header, architecture)?;
        let file = File::new(architecture.name, header)?;
        let model = Model {
            config: (architecture.config)(&file)?,
            architecture: architecture.name,
            head_dim: file.sizes.head_dim,
            conversions: conversions(&file, architecture),
        };
        for tensor in &header.tensors {
            model.conversion(tensor)?;
        }
        let names: HashSet<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        match model.conversions.iter().find(|(name, conversion)| conversion.required && !names.contains(name.as_str())) {
            Some((name, _)) => Err(Error::InvalidFile(format!("GGUF tensor {name:?} is missing"))),
            None => Ok(model),
        }
    }

    /// What becomes of `tensor`; `None` for rotation factors, which go to [`Model::set_rope_factors`].
    pub fn conversion(&self, tensor: &Tensor) -> Result<Option<&Conversion>> {
        if rope::is_factors(&tensor.name) {
            return Ok(None);
        }
        let conversion = self.conversions.get(&tensor.name).ok_or_else(|| {
            let (name, architecture) = (&tensor.name, self.architecture);
            Error::UnsupportedFormat(format!("GGUF tensor {name:?} is no part of a {architecture} model that is known here"))
        })?;
        if tensor.shape != conversion.shape {
            let (name, wanted) = (&tensor.name, &conversion.shape);
            return Err(Error::InvalidFile(format!("GGUF tensor {name:?} has shape {:?}; the metadata asks for {wanted:?}", tensor.shape)));
        }
        if tensor.shape.len() == 1 && tensor.format.is_quantised() {
            let (name, format) = (&tensor.name, tensor.format.name());
            return Err(Error::UnsupportedFormat(format!("GGUF tensor {name:?} is a vector and quantised as {format}")));
        }
        Ok(Some(conversion))
    }

    /// Takes the values of a tensor of rotation factors into the configuration.
    pub fn set_rope_factors(&mut self, tensor: &str, factors: &[f32]) -> Result<()> {
        rope::set_factors(&mut self.config, tensor, factors, self.head_dim)
    }
}

/// The file's architecture.
fn find(header: &Header) -> Result<&'static Architecture> {
    let metadata = &header.metadata;
    if let Some(kind) = metadata.string("general.type")?.filter(|kind| *kind != "model") {
        return Err(Error::UnsupportedFormat(format!("a GGUF file of a {kind:?} (\"general.type\"): only models are read")));
    }
    let name = metadata.string("general.architecture")?;
    let name = name.ok_or_else(|| Error::InvalidFile("GGUF metadata \"general.architecture\" is missing".into()))?;
    let of_name: Vec<_> = ARCHITECTURES.iter().filter(|a| a.name == name).collect();
    if of_name.is_empty() {
        let mut known: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
        known.dedup();
        let known = known.join(", ");
        return Err(Error::UnsupportedArchitecture(format!("{name:?}, by GGUF metadata \"general.architecture\"; known: {known}")));
    }
    let key = format!("{name}.expert_count");
    let experts = metadata.u32(&key)?.unwrap_or(0) > 0;
    of_name.into_iter().find(|a| a.experts == experts).copied().ok_or_else(|| {
        let kind = if experts { "with" } else { "without" };
        Error::UnsupportedArchitecture(format!("{name:?} {kind} experts ({key:?})"))
    })
}

fn check_keys(header: &Header, architecture: &Architecture) -> Result<()> {
    let metadata = &header.metadata;
    let (prefix, causal) = (format!("{}.", architecture.name), format!("{}.attention.causal", architecture.name));
    if let Some(value) = metadata.bool(&causal)?.filter(|causal| *causal == architecture.encoder) {
        return Err(Error::UnsupportedFormat(format!("GGUF metadata {causal:?} is {value}, which is new for this architecture")));
    }
    let known = |key: &str| architecture.keys.iter().any(|keys| keys.contains(&key));
    match metadata.keys().find(|key| key.strip_prefix(&prefix).is_some_and(|key| !known(key))) {
        Some(key) => Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} is not understood"))),
        None => Ok(()),
    }
}

fn conversions(file: &File<'_>, architecture: &Architecture) -> BTreeMap<String, Conversion> {
    let mut out = BTreeMap::new();
    for line in architecture.tensors.iter().copied().flatten() {
        let layers = if line.file.contains("{}") { file.sizes.layers } else { 1 };
        for layer in 0..layers {
            let name = line.file.replace("{}", &layer.to_string());
            out.insert(format!("{name}.weight"), conversion(file, line, layer, "weight", line.shape.len(), !line.optional));
            if let Some(bias) = line.bias {
                let dimensions = (line.shape.len() - 1).max(1);
                out.insert(format!("{name}.bias"), conversion(file, line, layer, "bias", dimensions, bias == Bias::Must));
            }
        }
    }
    out
}

/// What becomes of a line's weight, or of its bias: `dimensions` of the shape's leading ones.
fn conversion(file: &File<'_>, line: &Line, layer: u64, suffix: &str, dimensions: usize, required: bool) -> Conversion {
    let shape: Vec<usize> = line.shape[..dimensions].iter().map(|dim| file.dim(*dim) as usize).collect();
    let name = |name: &str| match (name.replace("{}", &layer.to_string()), line.bare) {
        (name, true) => name,
        (name, false) => format!("{name}.{suffix}"),
    };
    let part = |(part, rows): &(&str, _)| (name(part), [&[file.dim(*rows) as usize], &shape[1..]].concat());
    let targets = match line.parts {
        [] => {
            let published = line.published.map(|shape| shape.iter().map(|dim| file.dim(*dim) as usize).collect());
            vec![(name(line.name), published.unwrap_or_else(|| shape.clone()))]
        }
        parts => parts.iter().map(part).collect(),
    };
    let order = Order::new(line.rows, file.sizes.heads as usize, file.sizes.head_dim as usize);
    Conversion { targets, order, offset: line.offset, shape, required }
}
