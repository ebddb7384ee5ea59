//! GGUF adapters, as llama.cpp's `convert_lora_to_gguf.py` writes them: `blk.N.attn_q.weight.lora_a` and `.lora_b`.

use std::collections::BTreeMap;

use super::{Adapter, Module, Parts, Stored};
use crate::{
    error::{Error, Result},
    weights::{
        Files, Part,
        gguf::{
            self, Header, Metadata, Parsed,
            architecture::{self, Rows},
        },
    },
};

/// Opens the file of `size` bytes.
pub async fn open(files: Box<dyn Files>, file: &str, size: u64) -> Result<Adapter> {
    let header = header(&*files, file, size).await?;
    let alpha = check(&header.metadata)?;
    let architecture = header.metadata.string("general.architecture")?.unwrap_or_default();
    let mut found: BTreeMap<&str, Parts> = BTreeMap::new();
    for tensor in &header.tensors {
        let known = tensor.name.rsplit_once('.').filter(|(_, which)| matches!(*which, "lora_a" | "lora_b"));
        let (weight, which) =
            known.ok_or_else(|| Error::UnsupportedFormat(format!("GGUF tensor {:?} is no part of a LoRA adapter", tensor.name)))?;
        let part = Part { file: file.to_owned(), offset: tensor.offset, len: tensor.len };
        let stored = Stored { name: tensor.name.clone(), shape: tensor.shape.clone(), format: tensor.format, part };
        let parts = found.entry(weight).or_default();
        *(if which == "lora_a" { &mut parts.a } else { &mut parts.b }) = Some(stored);
    }
    let mut modules = BTreeMap::new();
    for (weight, parts) in found {
        let (published, rows) = published(architecture, weight).ok_or_else(|| {
            Error::UnsupportedFormat(format!("GGUF adapters of architecture {architecture:?} that change {weight:?} are not read"))
        })?;
        let module = Module::new(&published, parts, |rank| Ok((alpha / rank as f64) as f32))?;
        modules.insert(published, Module { rows, ..module });
    }
    if modules.is_empty() {
        return Err(Error::InvalidFile(format!("{file:?} holds no tensors")));
    }
    let base_model = header.metadata.string("general.base_model.0.name")?.map(str::to_owned);
    Ok(Adapter { base_model, modules, files })
}

async fn header(files: &dyn Files, file: &str, size: u64) -> Result<Header> {
    let mut prefix = files.read(file, 0, size.min(64 << 10) as usize).await?;
    loop {
        match gguf::parse(&prefix, size)? {
            Parsed::Header(header) => return Ok(header),
            Parsed::NeedMore(bytes) => {
                // Twice as much each time, so that a long header is not parsed again for each of its fields.
                let end = bytes.max(2 * prefix.len() as u64).min(size);
                let have = prefix.len() as u64;
                prefix.extend(files.read(file, have, end.saturating_sub(have) as usize).await?);
            }
        }
    }
}

/// Checks that it is a LoRA and that nothing else is asked for; returns alpha.
fn check(metadata: &Metadata) -> Result<f64> {
    match metadata.string("general.type")? {
        Some("adapter") => {}
        other => {
            let kind = other.unwrap_or("not given");
            return Err(Error::InvalidInput(format!("GGUF metadata \"general.type\" is {kind:?}: this is a model, not an adapter")));
        }
    }
    match metadata.string("adapter.type")? {
        Some("lora") => {}
        other => {
            let kind = other.unwrap_or("not given");
            return Err(Error::UnsupportedFormat(format!("GGUF metadata \"adapter.type\" is {kind:?}; \"lora\" is read")));
        }
    }
    const KNOWN: [&str; 3] = ["adapter.type", "adapter.lora.alpha", "adapter.lora.task_name"];
    if let Some(key) = metadata.keys().find(|key| key.starts_with("adapter.") && !KNOWN.contains(key)) {
        return Err(Error::UnsupportedFormat(format!("GGUF metadata {key:?} is not understood")));
    }
    match metadata.f32("adapter.lora.alpha")? {
        Some(alpha) if alpha.is_finite() && alpha > 0.0 => Ok(f64::from(alpha)),
        _ => Err(Error::InvalidFile("GGUF metadata \"adapter.lora.alpha\" is missing or no positive number".into())),
    }
}

/// The publisher's name of the linear map that GGUF calls `weight`, and the order of its rows.
fn published(architecture: &str, weight: &str) -> Option<(String, Rows)> {
    let name = weight.strip_suffix(".weight").filter(|name| !name.ends_with("_embd"))?;
    let (name, rows) = architecture::published(architecture, name)?;
    Some((format!("{name}.weight"), rows))
}
