//! Sentence Transformers' files beside a checkpoint: `modules.json` lists what makes an embedding of hidden states, each module in a
//! folder of its own. They become part of the checkpoint: a list in its configuration, under `sentence_transformers`, and tensors
//! named after their folder.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Files, TensorInfo,
    files::Listing,
    manifest::check_file_name,
    safetensors::{read_header, read_json_value, tensor},
};
use crate::error::{Error, Result};

const MODULES: &str = "modules.json";

/// Whether a checkpoint's `folder` is a module's: `1_Pooling`, `2_Dense`.
pub fn is_module(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(index, _)| index.parse::<u8>().is_ok())
}

/// Adds to `config` and `tensors` what `modules.json` lists, if there is one.
pub(super) async fn join(
    files: &dyn Files,
    listing: &Listing,
    config: &mut Value,
    tensors: &mut BTreeMap<String, TensorInfo>,
) -> Result<()> {
    let Some(modules) = read_json_value(files, listing, MODULES).await? else { return Ok(()) };
    let bad = |what: &str| Error::InvalidFile(format!("{MODULES}: {what}"));
    let mut list = Vec::new();
    for module in modules.as_array().ok_or_else(|| bad("not a list"))? {
        let text = |key: &str| module.get(key).and_then(Value::as_str).ok_or_else(|| bad(&format!("a module has no {key:?}")));
        let (kind, path) = (text("type")?, text("path")?);
        // sentence_transformers.models.Pooling
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        let mut described = json!({});
        if !path.is_empty() {
            check_file_name(path)?;
            let own = read_json_value(files, listing, &format!("{path}/config.json")).await?;
            described = own.filter(Value::is_object).unwrap_or(described);
            add_tensors(files, listing, path, tensors).await?;
        }
        described["type"] = kind.into();
        described["path"] = path.into();
        list.push(described);
    }
    config["sentence_transformers"] = list.into();
    Ok(())
}

/// The tensors of a module's `model.safetensors`; the pickled form is not read.
async fn add_tensors(files: &dyn Files, listing: &Listing, path: &str, tensors: &mut BTreeMap<String, TensorInfo>) -> Result<()> {
    let (file, pickled) = (format!("{path}/model.safetensors"), format!("{path}/pytorch_model.bin"));
    match listing.get(&file) {
        Some(&size) => {
            for (name, entry) in read_header(files, &file, size).await? {
                let name = format!("{path}.{name}");
                let info = tensor(&name, entry)?;
                tensors.insert(name, info);
            }
            Ok(())
        }
        None if listing.contains_key(&pickled) => {
            Err(Error::UnsupportedFormat(format!("{pickled:?}: weights of modules are read from model.safetensors only")))
        }
        None => Ok(()),
    }
}
