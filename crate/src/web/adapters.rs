//! Adapters that a page names: by address, fetched into browser storage, or a person's own files.

use std::rc::Rc;

use js_sys::Uint8Array;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use super::{clock::BrowserClock, fetch::BrowserFetch, load::lock_store, named::own_files, storage};
use crate::{
    adapters::AdapterInfo,
    error::{Error, Result},
    weights::{
        abort::Abort,
        adapter::{self, Adapter, CONFIG, fetch},
        files::Memory,
        network::{Authorized, Network, origin},
        source::{Access, HUB},
        store::Storage,
    },
};

/// Options of an adapter, as JavaScript writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What to call it; by default as its source.
    pub name: Option<String>,
    /// How much of it to add.
    pub scale: Option<f32>,
    hub: Option<String>,
    revision: Option<String>,
    token: Option<String>,
    offline: bool,
}

/// An adapter of a model, in JavaScript's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    name: String,
    scale: f32,
    kind: &'static str,
    rank: usize,
    tensors: Vec<String>,
    base_model: Option<String>,
    base_matches: Option<bool>,
}

impl From<AdapterInfo> for Info {
    fn from(info: AdapterInfo) -> Info {
        let AdapterInfo { name, scale, kind, rank, tensors, base_model, base_matches } = info;
        Info { name, scale, kind, rank, tensors, base_model, base_matches }
    }
}

/// The adapter at `source`, an address, a hub's id, or a person's own files; and what to call it.
pub async fn open(source: JsValue, options: &Options) -> Result<(String, Adapter)> {
    let access = Access { hub: options.hub.clone(), revision: options.revision.clone(), token: options.token.clone() };
    let Some(text) = source.as_string() else {
        if access != Access::default() {
            return Err(Error::InvalidInput("hub, revision and token are for adapters at a hub, not for files".into()));
        }
        return open_files(&source).await;
    };
    let address = fetch::Address::parse(&text, &access)?;
    let name = address.name().to_owned();
    let storage: Rc<dyn Storage> = storage::open().await?.storage;
    if let Some(adapter) = fetch::stored(&storage, &address).await? {
        return Ok((name, adapter));
    }
    if options.offline {
        return Err(Error::Offline(format!("{text} is needed and not stored, and this load may not use the network")));
    }
    let _lock = lock_store().await?;
    let hub = origin(access.hub.as_deref().unwrap_or(HUB)).unwrap_or_default().to_owned();
    let (fetch, abort) = (Authorized { fetch: &BrowserFetch, origin: hub, token: access.token }, Abort::default());
    let network = Network { fetch: &fetch, clock: &BrowserClock, abort: &abort };
    Ok((name, fetch::fetch(&storage, network, &address).await?))
}

/// A person's own files, read into memory: they are not stored.
async fn open_files(source: &JsValue) -> Result<(String, Adapter)> {
    let (mut memory, mut name) = (Memory::default(), String::new());
    for (file_name, file) in own_files(source).await? {
        // What else lies in a directory is no part of an adapter.
        let weights = [".safetensors", ".gguf"].iter().any(|end| file_name.ends_with(end));
        if weights || file_name == CONFIG {
            let read = JsFuture::from(file.array_buffer()).await;
            let bytes = read.map_err(|_| Error::Storage(format!("{file_name:?} could not be read: choose it again")))?;
            memory.files.insert(file_name.clone(), Uint8Array::new(&bytes).to_vec());
        }
        if weights {
            name = file_name;
        }
    }
    let listing = memory.listing();
    Ok((name, adapter::open(Box::new(memory), &listing).await?))
}
