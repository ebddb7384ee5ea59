//! A model for a worker that may connect to nothing: one worker brings it into the store and gives out its files, another gets
//! these files and no address.

use std::{collections::BTreeMap, rc::Rc};

use js_sys::{Array, Function};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::File;

use super::{
    files::LocalFiles,
    load::{self, Loaded, Options, Teller},
    named::Named,
    opfs::Opfs,
};
use crate::{
    error::{Error, Result},
    weights::{manifest::Manifest, store::Storage},
};

/// The model at `source` as `[manifest, [path, file], ...]`; downloaded or imported, verified and stored first unless it is stored.
pub async fn files(source: JsValue, options: Options, on_progress: &Function) -> Result<Array> {
    let (named, quantize) = (Named::new(source, &options.access()).await?, options.quantize()?);
    let (opfs, teller) = (Rc::new(Opfs::open().await?), Teller::new(on_progress));
    let storage: Rc<dyn Storage> = opfs.clone();
    let record = load::acquire(&named, quantize, &*storage, &|progress| teller.tell(&progress.into())).await?;
    let text = String::from_utf8(record.manifest.to_bytes()).map_err(|e| Error::Integrity(e.to_string()))?;
    let handed = Array::of1(&text.into());
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
    for pair in handed.iter().skip(1) {
        let pair: Array = pair.dyn_into().map_err(|_| wrong())?;
        let file: File = pair.get(1).dyn_into().map_err(|_| wrong())?;
        files.insert(pair.get(0).as_string().ok_or_else(wrong)?, file);
    }
    let device = options.open_device().await?;
    load::onto_device(&manifest, Box::new(LocalFiles::named(files)), device, &options, &Teller::new(on_progress)).await
}
