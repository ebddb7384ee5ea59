//! `adapter_model.safetensors` of PEFT.

use std::collections::BTreeMap;

use super::{Adapter, Module, Parts, Stored, config::Lora};
use crate::{
    error::{Error, Result},
    weights::{Files, safetensors},
};

/// What PEFT writes before the base model's own names.
const PREFIX: &str = "base_model.model.";

/// Opens the file `weights` of `size` bytes.
pub async fn open(files: Box<dyn Files>, config: Lora, weights: &str, size: u64) -> Result<Adapter> {
    let mut found: BTreeMap<String, Parts> = BTreeMap::new();
    for (name, entry) in safetensors::read_header(&*files, weights, size).await? {
        let info = safetensors::tensor(&name, entry)?;
        let part = info.values.into_iter().next().ok_or_else(|| Error::InvalidFile(format!("tensor {name:?} has no bytes")))?;
        let stored = Stored { name: name.clone(), shape: info.shape, format: info.format, part };
        let known = name.strip_prefix(PREFIX).and_then(split);
        let (module, which) = known.ok_or_else(|| Error::UnsupportedFormat(unknown(&name)))?;
        let parts = found.entry(module.to_owned()).or_default();
        let slot = match which {
            Which::A => &mut parts.a,
            Which::B => &mut parts.b,
            Which::Magnitude => &mut parts.magnitude,
        };
        if let Some(twice) = slot.replace(stored) {
            return Err(Error::InvalidFile(format!("tensors {:?} and {name:?} are the same", twice.name)));
        }
    }
    let mut modules = BTreeMap::new();
    for (name, parts) in found {
        if config.dora != parts.magnitude.is_some() {
            let (says, has) = if config.dora { ("a DoRA", "no") } else { ("no DoRA", "a") };
            return Err(Error::InvalidFile(format!(
                "the adapter is {says} by its configuration and has {has} magnitude vector for {name:?}"
            )));
        }
        let module = Module::new(&name, parts, |rank| config.scaling(&name, rank))?;
        modules.insert(format!("{name}.weight"), module);
    }
    if modules.is_empty() {
        return Err(Error::InvalidFile(format!("{weights:?} holds no tensors")));
    }
    Ok(Adapter { base_model: config.base_model, modules, files })
}

enum Which {
    A,
    B,
    Magnitude,
}

/// The module and what it is of it: `model.layers.0.self_attn.q_proj` and `lora_A.weight`.
fn split(name: &str) -> Option<(&str, Which)> {
    let endings = [
        (".lora_A.weight", Which::A),
        (".lora_B.weight", Which::B),
        (".lora_magnitude_vector", Which::Magnitude),
        (".lora_magnitude_vector.weight", Which::Magnitude), // before PEFT 0.12
    ];
    endings.into_iter().find_map(|(ending, which)| Some((name.strip_suffix(ending)?, which)))
}

fn unknown(name: &str) -> String {
    let what = match name {
        _ if name.contains(".lora_embedding_") => "changes an embedding",
        _ if name.ends_with(".lora_B.bias") => "is a bias",
        _ if !name.contains(".lora_") => "replaces a tensor of the base",
        _ => "is not known here",
    };
    format!("tensor {name:?} {what}; adapters of linear maps are read: lora_A, lora_B, lora_magnitude_vector")
}
