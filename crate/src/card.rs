//! The card: what is declared about a model, and by whom. Nothing is inferred; what is not declared stays `None` and is
//! shown as "not declared".

use serde::{Deserialize, Serialize};

/// A declared fact and the place that declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The fact, verbatim.
    pub value: String,
    /// Where it was read: `general.license` of a GGUF, `license` of README.md, ...
    pub source: String,
}

/// What a publisher says of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// The model's name.
    pub name: Option<Declared>,
    /// Who published it.
    pub publisher: Option<Declared>,
    /// Licence id as declared: `apache-2.0`, `llama3.2`, `other`, ...
    pub license: Option<Declared>,
    /// A licence's name where the id is not one of a list.
    pub license_name: Option<Declared>,
    /// A link to the licence's text.
    pub license_link: Option<Declared>,
    /// Models that this one was made from.
    pub base_models: Vec<Declared>,
    /// Data sets that the publisher names.
    pub datasets: Vec<Declared>,
    /// Languages that the publisher names.
    pub languages: Vec<Declared>,
    /// Where the files come from: address, hub id, or file name.
    pub origin: Option<Declared>,
    /// Number of parameters, counted from the tensors.
    pub parameters: u64,
    /// Quantisation, such as `q4_1` or `bf16`: the format of most parameters, counted from the tensors.
    pub quantisation: String,
    /// Bytes of all weight files.
    pub bytes: u64,
}
