//! `adapter_config.json` of PEFT.

use serde_json::{Map, Value};

use super::CONFIG;
use crate::{
    error::{Error, Result},
    json,
};

/// Settings that do not change what a trained adapter computes: about training, bookkeeping, or which modules have
/// tensors, which the file of tensors says itself.
const INERT: [&str; 18] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out", // how the base is stored, which the base's own architecture knows
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size", // of use_qalora
    "revision",
    "runtime_config",
    "target_modules",
];

/// Settings that are read below.
const READ: [&str; 8] = ["alpha_pattern", "layers_to_transform", "lora_alpha", "r", "rank_pattern", "task_type", "use_dora", "use_rslora"];

/// Ways to begin training that leave the base as it was; others change it, and the adapter fits the changed base only.
const STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// What a LoRA's configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    pub base_model: Option<String>,
    pub dora: bool,
    rslora: bool,
    rank: f64,
    alpha: f64,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
    layers: Option<Vec<u64>>,
}

impl Lora {
    /// Reads and checks it.
    pub fn parse(bytes: &[u8]) -> Result<Lora> {
        let json: Map<String, Value> = json::parse(CONFIG, bytes, json::ANY)?;
        match json.get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            Some(other) => return Err(Error::UnsupportedFormat(format!("{CONFIG}: \"peft_type\" is {other:?}; \"LORA\" is read"))),
            None => return Err(Error::InvalidFile(format!("{CONFIG} has no \"peft_type\""))),
        }
        for (key, value) in &json {
            check(key, value)?;
        }
        let flag = |key: &str| match json.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| bad(key, value, "a boolean")),
        };
        let number = |key: &str| match json.get(key) {
            Some(value) => positive(key, value),
            None => Err(Error::InvalidFile(format!("{CONFIG} has no {key:?}"))),
        };
        Ok(Lora {
            base_model: json.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            dora: flag("use_dora")?,
            rslora: flag("use_rslora")?,
            rank: number("r")?,
            alpha: number("lora_alpha")?,
            ranks: pattern(&json, "rank_pattern")?,
            alphas: pattern(&json, "alpha_pattern")?,
            layers: layers(&json)?,
        })
    }

    /// The factor of the module called `name`, whose A has `rank` rows.
    pub fn scaling(&self, name: &str, rank: usize) -> Result<f32> {
        if let Some(layers) = &self.layers {
            let layer = name.split('.').find_map(|part| part.parse::<u64>().ok());
            if layer.is_none_or(|layer| !layers.contains(&layer)) {
                let message = format!("{CONFIG}: \"layers_to_transform\" leaves out {name:?}, for which the adapter has tensors");
                return Err(Error::InvalidFile(message));
            }
        }
        let rank = rank as f64;
        let declared = find(&self.ranks, name).unwrap_or(self.rank);
        if declared != rank {
            return Err(Error::InvalidFile(format!("{CONFIG} says that {name:?} has rank {declared}, its tensors have {rank}")));
        }
        let alpha = find(&self.alphas, name).unwrap_or(self.alpha);
        Ok((alpha / if self.rslora { rank.sqrt() } else { rank }) as f32)
    }
}

/// A setting that is known, or off.
fn check(key: &str, value: &Value) -> Result<()> {
    let off = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let known = match key {
        "peft_type" => true,
        "bias" => value == "none",
        "init_lora_weights" => value == true || value.as_str().is_some_and(|start| STARTS.contains(&start)),
        _ => INERT.contains(&key) || READ.contains(&key),
    };
    if off || known {
        return Ok(());
    }
    Err(Error::UnsupportedFormat(format!("{CONFIG}: the setting {key:?} is {}, which is not supported", shortened(value))))
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn bad(key: &str, value: &Value, expected: &str) -> Error {
    Error::InvalidFile(format!("{CONFIG}: {key:?} is {}; expected {expected}", shortened(value)))
}

fn positive(key: &str, value: &Value) -> Result<f64> {
    value.as_f64().filter(|n| n.is_finite() && *n > 0.0).ok_or_else(|| bad(key, value, "a positive number"))
}

/// A number for some modules. PEFT takes the names as regular expressions for the end of a module's name; plain names are
/// read, with `^` for a whole one.
fn pattern(json: &Map<String, Value>, key: &str) -> Result<Vec<(String, f64)>> {
    let map = match json.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(bad(key, other, "an object")),
    };
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let entry = |(name, value): (&String, &Value)| match plain(name.strip_prefix('^').unwrap_or(name)) {
        true => Ok((name.clone(), positive(key, value)?)),
        false => Err(Error::UnsupportedFormat(format!("{CONFIG}: {key:?} has the regular expression {name:?}; plain names are read"))),
    };
    map.iter().map(entry).collect()
}

/// The first entry that matches, as in PEFT.
fn find(pattern: &[(String, f64)], module: &str) -> Option<f64> {
    let matches = |name: &str| match name.strip_prefix('^') {
        Some(whole) => whole == module,
        None => module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    };
    pattern.iter().find(|(name, _)| matches(name)).map(|(_, value)| *value)
}

/// `layers_to_transform`: an index or a list.
fn layers(json: &Map<String, Value>) -> Result<Option<Vec<u64>>> {
    const KEY: &str = "layers_to_transform";
    let list = match json.get(KEY) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let index = |value: &Value| value.as_u64().ok_or_else(|| bad(KEY, value, "an index"));
    list.iter().map(index).collect::<Result<_>>().map(Some)
}
