//! A model's conversations, as JavaScript names them: open ones by number, saved ones by name.

use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::{
    api::Model,
    load::lock_store,
    storage,
    values::{error, to_js},
};
use crate::{
    error::Result,
    sessions::saved::{self, Record},
};

/// A saved conversation, in JavaScript's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    name: String,
    tokens: usize,
    bytes: u64,
    /// Milliseconds since 1970.
    saved: u64,
    /// Whether this model, with its adapters, goes on from it.
    usable: bool,
}

impl Model {
    fn describe(&self, record: Record) -> Saved {
        let usable = record.key == self.model.session_key(&self.digest);
        Saved { bytes: record.bytes(), tokens: record.tokens, saved: record.saved_ms, usable, name: record.name }
    }

    async fn save(&mut self, id: u32, name: &str) -> Result<Saved> {
        let _lock = lock_store().await?;
        let record = self.model.save_session(id, &*storage::open().await?.storage, &self.digest, name, js_sys::Date::now() as u64).await?;
        Ok(self.describe(record))
    }
}

#[wasm_bindgen]
impl Model {
    /// Opens another, empty conversation.
    pub fn open_session(&mut self) -> Result<u32, JsValue> {
        self.model.open_session().map_err(|e| error(&e))
    }

    /// A new conversation that holds what `id` holds.
    pub async fn fork_session(&mut self, id: u32) -> Result<u32, JsValue> {
        self.model.fork_session(id).await.map_err(|e| error(&e))
    }

    /// Forgets all but the first `tokens` tokens; returns how many are left.
    pub fn truncate_session(&mut self, id: u32, tokens: usize) -> Result<usize, JsValue> {
        self.model.truncate_session(id, tokens).map_err(|e| error(&e))
    }

    /// The tokens that a conversation holds.
    pub fn session_tokens(&mut self, id: u32) -> Result<Vec<u32>, JsValue> {
        self.model.session_tokens(id).map(<[u32]>::to_vec).map_err(|e| error(&e))
    }

    /// Frees a conversation.
    pub fn close_session(&mut self, id: u32) -> Result<(), JsValue> {
        self.model.close_session(id).map_err(|e| error(&e))
    }

    /// Saves a conversation in browser storage.
    pub async fn save_session(&mut self, id: u32, name: String) -> Result<JsValue, JsValue> {
        to_js(&self.save(id, &name).await.map_err(|e| error(&e))?)
    }

    /// Opens a saved conversation.
    pub async fn restore_session(&mut self, name: String) -> Result<u32, JsValue> {
        let restore = async { self.model.restore_session(&*storage::open().await?.storage, &self.digest, &name).await };
        restore.await.map_err(|e| error(&e))
    }

    /// The saved conversations with this model.
    pub async fn saved_sessions(&self) -> Result<JsValue, JsValue> {
        let records = async { saved::list(&*storage::open().await?.storage, Some(&self.digest)).await };
        let records = records.await.map_err(|e| error(&e))?;
        to_js(&records.into_iter().map(|record| self.describe(record)).collect::<Vec<_>>())
    }

    /// Removes a saved conversation.
    pub async fn remove_session(&self, name: String) -> Result<(), JsValue> {
        let remove = async {
            let _lock = lock_store().await?;
            saved::remove(&*storage::open().await?.storage, &self.digest, &name).await
        };
        remove.await.map_err(|e| error(&e))
    }
}
