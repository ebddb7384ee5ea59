//! A model for a worker that may connect to nothing: one worker brings it into the store and gives out its files, another gets
//! these files and no address.

use std::collections::BTreeMap;

use js_sys::{Array, Function};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::File;

use super::{
    files::LocalFiles,
    load::{self, Loaded, Options, Teller},
    values::{from_js, to_js},
};
use crate::{
    error::{Error, Result},
    weights::manifest::Manifest,
};

/// The model at `source` as `[manifest, place, [path, file], ...]`; downloaded or imported, verified and stored first unless it is stored.
pub async fn files(source: JsValue, options: Options, on_progress: &Function, key: Option<Function>) -> Result<Array> {
    let named = options.named(source).await?;
    let (kept, record, place) = load::obtain(&named, &options, &Teller::new(on_progress), key).await?;
    let Some(opfs) = kept.files else {
        return Err(Error::Storage(format!("private models need private files: {}", kept.reason.unwrap_or_default())));
    };
    let text = String::from_utf8(record.manifest.to_bytes()).map_err(|e| Error::Integrity(e.to_string()))?;
    let place = to_js(&place).map_err(|_| Error::Storage("what is known of the model cannot be handed over".into()))?;
    let handed = Array::of2(&text.into(), &place);
    for entry in &record.manifest.files {
        let file = opfs.blob(&entry.sha256).await?;
        handed.push(&Array::of2(&entry.path.as_str().into(), &file));
    }
    Ok(handed)
}

/// Loads what [`files`] gave. Storage is not opened, the network is asked for nothing.
pub async fn load(handed: Array, options: Options, on_progress: &Function) -> Result<Loaded> {
    let wrong = || Error::InvalidInput("a model is handed over as its manifest and its files".into());
    let manifest = Manifest::parse(handed.get(0).as_string().ok_or_else(wrong)?.as_bytes())?;
    let mut files = BTreeMap::new();
    let place = from_js(handed.get(1), "place")?;
    for pair in handed.iter().skip(2) {
        let pair: Array = pair.dyn_into().map_err(|_| wrong())?;
        let file: File = pair.get(1).dyn_into().map_err(|_| wrong())?;
        files.insert(pair.get(0).as_string().ok_or_else(wrong)?, file);
    }
    let device = options.open_device().await?;
    load::onto_device(&manifest, Box::new(LocalFiles::named(files)), device, &options, &Teller::new(on_progress), place).await
}
