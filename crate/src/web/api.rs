//! What the worker calls. A generation is driven from JavaScript, one piece of work a call, so that it can be stopped
//! between any two.

use js_sys::{Array, Function};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::{
    adapters,
    choose::Chosen,
    load::{self, Loaded, Place},
    private,
    request::{self, Request},
    store,
    values::{error, from_js, to_js},
};
use crate::{
    engine::{self, EmbeddingInfo},
    error::{Error, Result},
    generate::{Event, FinishReason, Generation, Usage},
    sessions::FIRST,
    weights::Checkpoint,
};

/// What a loaded model runs on, in JavaScript's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    backend: &'static str,
    #[serde(flatten)]
    chosen: &'a Chosen,
    software: bool,
    architecture: &'a str,
    context_length: usize,
    vocab_size: usize,
    embedding: &'a Option<EmbeddingInfo>,
    #[serde(flatten)]
    place: &'a Place,
}

/// A text's embedding.
#[derive(Serialize)]
struct Embedding {
    embedding: Vec<f32>,
    tokens: usize,
}

/// A piece of work of a generation.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Step {
    Prefill { done: usize, total: usize },
    Token { id: u32, text: String },
    Done { text: String, finish_reason: FinishReason, usage: Usage },
}

impl From<Event> for Step {
    fn from(event: Event) -> Step {
        match event {
            Event::Prefill { done, total } => Step::Prefill { done, total },
            Event::Token { id, text } => Step::Token { id, text },
            Event::Done { text, reason, usage } => Step::Done { text, finish_reason: reason, usage },
        }
    }
}

/// A loaded model, and the request that it is answering.
#[wasm_bindgen]
pub struct Model {
    pub(super) model: engine::Model,
    /// Of what it was loaded from: what saved conversations are known by.
    pub(super) digest: String,
    chosen: Chosen,
    generation: Option<Generation>,
    /// What it was loaded from, without tokenizer: an adapter may need the base's weights.
    base: Checkpoint,
    place: Place,
}

impl From<Loaded> for Model {
    fn from(Loaded { model, chosen, base, digest, place }: Loaded) -> Model {
        Model { model, digest, chosen, generation: None, base, place }
    }
}

#[wasm_bindgen]
impl Model {
    /// Downloads or imports, verifies and stores the model at `source` unless it is stored, then loads it onto the device. `key`
    /// checks signatures: `(message, signature) => Promise<boolean>`.
    pub async fn load(source: JsValue, options: JsValue, on_progress: Function, key: Option<Function>) -> Result<Model, JsValue> {
        let load = async { load::load(source, from_js(options, "options")?, &on_progress, key).await };
        load.await.map(Model::from).map_err(|e| error(&e))
    }

    /// Loads a model from what [`handed_files`] gave: nothing is asked of network or storage.
    pub async fn load_handed(files: Array, options: JsValue, on_progress: Function) -> Result<Model, JsValue> {
        let load = async { private::load(files, from_js(options, "options")?, &on_progress).await };
        load.await.map(Model::from).map_err(|e| error(&e))
    }

    /// The card.
    pub fn card(&self) -> Result<JsValue, JsValue> {
        to_js(self.model.card())
    }

    /// What runs where.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        let info = self.model.info();
        to_js(&Info {
            backend: if info.backend.name == "gpu" { "webgpu" } else { "cpu" },
            chosen: &self.chosen,
            software: info.backend.software,
            architecture: &info.architecture,
            context_length: info.context_length,
            vocab_size: info.vocab_size,
            embedding: &info.embedding,
            place: &self.place,
        })
    }

    /// Begins the answer to `request.messages`.
    pub fn start_chat(&mut self, request: JsValue) -> Result<(), JsValue> {
        self.start(request, |model, request| model.chat_prompt(request.messages()?, Some(local_time()))).map_err(|e| error(&e))
    }

    /// Begins the continuation of `request.prompt`.
    pub fn start_completion(&mut self, request: JsValue) -> Result<(), JsValue> {
        self.start(request, |model, request| model.encode(request.prompt()?, true)).map_err(|e| error(&e))
    }

    fn start(&mut self, request: JsValue, prompt: impl FnOnce(&engine::Model, &Request) -> Result<Vec<u32>>) -> Result<()> {
        // What a request before this one had in flight must be gone before the session is used again.
        self.generation = None;
        let request: Request = from_js(request, "request")?;
        self.model.use_session(request.session.unwrap_or(FIRST))?;
        let prompt = prompt(&self.model, &request)?;
        let random = (js_sys::Math::random() * 2_f64.powi(53)) as u64;
        self.generation = Some(self.model.start(prompt, request.params(random))?);
        Ok(())
    }

    /// Does the next piece of work and says what it was; `undefined` when there is none.
    pub async fn next(&mut self) -> Result<JsValue, JsValue> {
        let Some(generation) = &mut self.generation else { return Ok(JsValue::UNDEFINED) };
        match generation.next(&mut self.model).await {
            Ok(Some(event)) => to_js(&Step::from(event)),
            Ok(None) => Ok(JsValue::UNDEFINED),
            Err(e) => {
                self.generation = None;
                Err(error(&e))
            }
        }
    }

    /// The texts of `request.input`, to be embedded one by one.
    pub fn embedding_texts(&self, request: JsValue) -> Result<Vec<String>, JsValue> {
        from_js::<request::Embedding>(request, "request").and_then(request::Embedding::texts).map_err(|e| error(&e))
    }

    /// The embedding of a text, and its number of tokens.
    pub async fn embed(&mut self, text: String) -> Result<JsValue, JsValue> {
        self.generation = None;
        let embed = async {
            let ids = self.model.encode(&text, true)?;
            Ok(Embedding { embedding: self.model.embed(&ids).await?, tokens: ids.len() })
        };
        to_js(&embed.await.map_err(|e: Error| error(&e))?)
    }

    /// Ends the request; the session keeps what was computed.
    pub fn stop(&mut self) {
        self.generation = None;
    }

    /// Adds the adapter at `source`, and says what it is.
    pub async fn add_adapter(&mut self, source: JsValue, options: JsValue) -> Result<JsValue, JsValue> {
        let added = async {
            let options: adapters::Options = from_js(options, "options")?;
            let (name, adapter) = adapters::open(source, &options).await?;
            let (name, scale) = (options.name.unwrap_or(name), options.scale.unwrap_or(1.0));
            self.generation = None;
            self.model.add_adapter(&adapter, &name, scale, &self.base).await
        };
        let added = added.await;
        self.base.files.release();
        added.map_err(|e| error(&e))?;
        to_js(&self.model.adapters().pop().map(adapters::Info::from))
    }

    /// Adds more or less of an adapter from now on.
    pub fn set_adapter_scale(&mut self, name: &str, scale: f32) -> Result<(), JsValue> {
        self.generation = None;
        self.model.set_adapter_scale(name, scale).map_err(|e| error(&e))
    }

    /// Takes an adapter away.
    pub fn remove_adapter(&mut self, name: &str) -> Result<(), JsValue> {
        self.generation = None;
        self.model.remove_adapter(name).map_err(|e| error(&e))
    }

    /// The adapters, in the order in which they act.
    pub fn adapters(&self) -> Result<JsValue, JsValue> {
        to_js(&self.model.adapters().into_iter().map(adapters::Info::from).collect::<Vec<_>>())
    }

    /// Token ids of `text`, without what a prompt would get around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        self.model.encode(text, false).map_err(|e| error(&e))
    }

    /// The text of token ids, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> Result<String, JsValue> {
        self.model
            .tokenizer()
            .map_or_else(|| Err(Error::InvalidInput("this model has no tokenizer.json".into())), |t| t.decode(ids, false))
            .map_err(|e| error(&e))
    }

    /// Kernel dispatches of the last step, for measuring.
    pub fn dispatches(&self) -> usize {
        self.model.dispatches()
    }
}

/// Card, architecture and size of the model at `source`, and whether it is stored.
#[wasm_bindgen]
pub async fn inspect(source: JsValue, options: JsValue) -> Result<JsValue, JsValue> {
    let inspect = async { load::inspect(source, from_js(options, "options")?).await };
    inspect.await.map_err(|e| error(&e)).and_then(|inspection| to_js(&inspection))
}

/// The model's manifest and files, once it is stored whole: for a worker that may connect to nothing.
#[wasm_bindgen]
pub async fn handed_files(source: JsValue, options: JsValue, on_progress: Function, key: Option<Function>) -> Result<Array, JsValue> {
    let files = async { private::files(source, from_js(options, "options")?, &on_progress, key).await };
    files.await.map_err(|e| error(&e))
}

/// The models, adapters and saved conversations that are stored.
#[wasm_bindgen]
pub async fn store_list() -> Result<JsValue, JsValue> {
    store::list().await.map_err(|e| error(&e)).and_then(|models| to_js(&models))
}

/// Removes a model from the store.
#[wasm_bindgen]
pub async fn store_remove(id: String) -> Result<(), JsValue> {
    store::remove(&id).await.map_err(|e| error(&e))
}

/// Removes what no model needs; gives the bytes.
#[wasm_bindgen]
pub async fn store_clean() -> Result<f64, JsValue> {
    store::clean().await.map(|bytes| bytes as f64).map_err(|e| error(&e))
}

/// Bytes of browser storage, used and granted.
#[wasm_bindgen]
pub async fn store_usage() -> Result<JsValue, JsValue> {
    store::usage().await.map_err(|e| error(&e)).and_then(|usage| to_js(&usage))
}

/// Hashes a stored model, and fetches again what is wrong.
#[wasm_bindgen]
pub async fn store_verify(id: String, access: JsValue, on_progress: Function) -> Result<JsValue, JsValue> {
    let verify = async { store::verify(&id, from_js(access, "options")?, &on_progress).await };
    verify.await.map_err(|e| error(&e)).and_then(|verified| to_js(&verified))
}

/// A stored model as one file.
#[wasm_bindgen]
pub async fn store_export(id: String) -> Result<web_sys::Blob, JsValue> {
    store::export(&id).await.map_err(|e| error(&e))
}

/// Panics end up in the console with their place, instead of as "unreachable executed".
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// Local time in seconds since 1970.
fn local_time() -> i64 {
    let now = js_sys::Date::new_0();
    (now.get_time() / 1000.0 - now.get_timezone_offset() * 60.0) as i64
}
