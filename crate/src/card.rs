//! The card: what is declared about a model, and by whom. Nothing is inferred; what is not declared stays `None` and is
//! shown as "not declared".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    quant::Format,
    weights::{TensorInfo, gguf::Metadata},
};

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

impl Card {
    /// What a GGUF file's metadata declares.
    pub fn from_gguf(metadata: &Metadata) -> Card {
        let string = |key: &str| {
            let value = metadata.string(key).ok().flatten().filter(|v| !v.is_empty())?;
            Some(Declared { value: value.into(), source: key.into() })
        };
        let first = |keys: &[&str]| keys.iter().find_map(|key| string(key));
        let list = |key: &str| {
            let values = metadata.strings(key).ok().flatten();
            values.iter().flat_map(|all| all.iter()).map(|v| Declared { value: v.into(), source: key.into() }).collect::<Vec<_>>()
        };
        let numbered = |of: &str, part: &str| {
            let one = |i: usize| string(&format!("general.{of}.{i}.{part}"));
            (0..).map_while(one).collect::<Vec<_>>()
        };
        let mut datasets = list("general.datasets");
        datasets.extend(numbered("dataset", "name"));
        Card {
            name: string("general.name"),
            publisher: first(&["general.organization", "general.author"]),
            license: string("general.license"),
            license_name: string("general.license.name"),
            license_link: string("general.license.link"),
            base_models: numbered("base_model", "name"),
            datasets,
            languages: list("general.languages"),
            origin: first(&["general.source.repo_url", "general.source.url", "general.repo_url", "general.url"]),
            ..Card::default()
        }
    }

    /// What the front matter of a README.md declares, in the Hub's terms.
    pub fn from_readme(readme: &str) -> Card {
        let fields = front_matter(readme);
        let list = |key: &str| {
            let values = fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_slice()).unwrap_or_default();
            values.iter().map(|v| Declared { value: v.clone(), source: format!("README.md {key}") }).collect::<Vec<_>>()
        };
        let one = |key: &str| list(key).into_iter().next();
        Card {
            license: one("license"),
            license_name: one("license_name"),
            license_link: one("license_link"),
            base_models: list("base_model"),
            datasets: list("datasets"),
            languages: list("language"),
            ..Card::default()
        }
    }

    /// Fills the counts from tensors' formats and shapes and the size of the weight files.
    pub fn count<'a>(&mut self, tensors: impl Iterator<Item = (Format, &'a [usize])>, bytes: u64) {
        let mut by_format = [0_u64; Format::ALL.len()];
        for (format, shape) in tensors {
            let index = Format::ALL.iter().position(|f| *f == format).expect("ALL is all");
            by_format[index] += shape.iter().map(|&d| d as u64).product::<u64>();
        }
        let largest = (0..by_format.len()).max_by_key(|&i| by_format[i]).expect("there are formats");
        self.parameters = by_format.iter().sum();
        self.quantisation = Format::ALL[largest].name().into();
        self.bytes = bytes;
    }

    /// [`Card::count`] for a checkpoint's tensors.
    pub fn count_tensors(&mut self, tensors: &BTreeMap<String, TensorInfo>) {
        let bytes = tensors.values().flat_map(|t| t.values.iter().chain(&t.scales)).map(|p| p.len).sum();
        self.count(tensors.values().map(|t| (t.format, t.shape.as_slice())), bytes);
    }
}

/// The top-level fields of the YAML between the two `---` lines that a README may begin with: scalars, block lists and
/// flow lists of scalars, which is what the Hub's fields are. Fields of other forms (nested maps) are left out.
fn front_matter(readme: &str) -> Vec<(String, Vec<String>)> {
    let mut lines = readme.trim_start_matches('\u{feff}').lines();
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    if lines.next().map(str::trim_end) != Some("---") {
        return fields;
    }
    let body: Vec<&str> = lines.map(str::trim_end).take_while(|l| *l != "---").collect();
    for line in body {
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            // An item such as `- name: x` begins a nested map.
            if let (Some((_, values)), Some(value)) = (fields.last_mut(), scalar(item)) {
                values.push(value);
            }
        } else if let Some((key, value)) = line.split_once(':').filter(|(k, _)| !k.starts_with([' ', '#', '-'])) {
            let value = value.trim();
            let values = match value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
                Some(items) => items.split(',').filter_map(scalar).collect(),
                None => scalar(value).into_iter().collect(),
            };
            fields.push((key.trim().into(), values));
        }
    }
    fields
}

/// A YAML scalar on one line, without quotes and comment; none if it is empty or begins something else.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split(quote).next().map(str::to_owned);
        }
    }
    let text = text.split(" #").next().unwrap_or_default().trim();
    let plain = !text.is_empty() && !text.starts_with(['|', '>', '{', '[', '&', '*', '#']) && !text.contains(": ");
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_declares_with_its_source() {
        let readme = "---\nlicense: other # see the file\nlicense_name: \"my: licence\"\nlanguage:\n- en\n- 'no'\n\
                      datasets: [a/b, c]\nbase_model: org/base\nmodel-index:\n- name: x\n  results:\n  - 1\n---\n# Title\nlicense: mit\n";
        let card = Card::from_readme(readme);
        assert_eq!(card.license, Some(Declared { value: "other".into(), source: "README.md license".into() }));
        assert_eq!(card.license_name.unwrap().value, "my: licence");
        assert_eq!(card.languages.iter().map(|d| d.value.as_str()).collect::<Vec<_>>(), ["en", "no"]);
        assert_eq!(card.datasets.len(), 2);
        assert_eq!(card.base_models[0].value, "org/base");
        assert_eq!(card.license_link, None);
    }

    #[test]
    fn a_readme_without_front_matter_declares_nothing() {
        assert_eq!(Card::from_readme("# Model\n---\nlicense: mit\n---\n"), Card::default());
    }
}
