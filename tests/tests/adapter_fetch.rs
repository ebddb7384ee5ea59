//! Adapters from a network into a store: once, whole, and nothing of one that is refused.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use futures_util::{FutureExt, StreamExt, future, future::LocalBoxFuture, stream};
use openweights::{
    Result,
    weights::{
        abort::Abort,
        adapter::{
            Adapter,
            fetch::{self, Address},
        },
        network::{Clock, Fetch, Headers, Network, Request, Response},
        source::Access,
        store::{self, Storage},
        store_memory::MemoryStorage,
    },
};
use openweights_tests::fixture;

const URL: &str = "https://host.example/lora_dora/";

/// Serves files, whole ones, and notes what was asked for.
#[derive(Default)]
struct Server {
    files: BTreeMap<String, Vec<u8>>,
    asked: RefCell<Vec<String>>,
}

impl Fetch for Server {
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        self.asked.borrow_mut().push(request.url.to_owned());
        let body = self.files.get(request.url).cloned();
        let headers = Headers { length: body.as_ref().map(|b| b.len() as u64), ..Headers::default() };
        let status = if body.is_some() { 200 } else { 404 };
        let chunks: Vec<_> = body.unwrap_or_default().chunks(1000).map(|chunk| Ok(chunk.to_vec())).collect();
        async move { Ok(Response { status, headers, body: stream::iter(chunks).boxed_local() }) }.boxed_local()
    }
}

/// Nothing here takes time.
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> f64 {
        0.0
    }

    fn unix_ms(&self) -> f64 {
        0.0
    }

    fn sleep(&self, _ms: f64) -> LocalBoxFuture<'_, ()> {
        future::pending().boxed_local()
    }
}

fn server(change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> Server {
    let read = |name: &str| std::fs::read(fixture("tiny/llama_plain/lora_dora").join(name)).expect("a fixture");
    let (mut config, mut weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    change(&mut config, &mut weights);
    let files = [("adapter_config.json", config), ("adapter_model.safetensors", weights)];
    Server { files: files.into_iter().map(|(name, bytes)| (format!("{URL}{name}"), bytes)).collect(), ..Server::default() }
}

fn address(text: &str) -> Address {
    Address::parse(text, &Access::default()).expect("an address")
}

fn fetched(server: &Server, storage: &Rc<dyn Storage>) -> Result<Adapter> {
    let abort = Abort::default();
    let network = Network { fetch: server, clock: &Still, abort: &abort };
    pollster::block_on(fetch::fetch(storage, network, &address(URL)))
}

fn storage() -> Rc<dyn Storage> {
    Rc::new(MemoryStorage::default())
}

#[test]
fn a_stored_adapter_asks_the_network_for_nothing() {
    let (server, storage) = (server(|_, _| {}), storage());
    assert!(pollster::block_on(fetch::stored(&storage, &address(URL))).expect("readable").is_none());
    let adapter = fetched(&server, &storage).expect("fetched");
    assert!(adapter.is_dora());
    assert_eq!(*server.asked.borrow(), [format!("{URL}adapter_config.json"), format!("{URL}adapter_model.safetensors")]);
    let again = pollster::block_on(fetch::stored(&storage, &address(URL))).expect("readable").expect("stored");
    assert_eq!(again.modules, adapter.modules);
    let module = &again.modules["model.layers.0.mlp.up_proj.weight"];
    assert_eq!(pollster::block_on(again.floats(&module.a)).expect("readable").len(), 4 * 64);

    // It is no model, and is not taken for one; what it needs stays.
    assert!(pollster::block_on(store::list(&*storage)).expect("readable").is_empty());
    let list = pollster::block_on(fetch::list(&*storage)).expect("readable");
    assert_eq!((list.len(), list[0].url.as_str(), list[0].files.len()), (1, URL, 2));
    pollster::block_on(store::clean(&*storage, |_| false)).expect("cleaned");
    assert!(pollster::block_on(fetch::stored(&storage, &address(URL))).expect("readable").is_some());
    pollster::block_on(store::remove(&*storage, &list[0].id)).expect("removed");
    assert!(pollster::block_on(storage.blobs()).expect("readable").is_empty());
    assert!(pollster::block_on(fetch::stored(&storage, &address(URL))).expect("readable").is_none());
}

/// Nothing of it is kept; returns what was asked for.
#[track_caller]
fn refused(server: &Server, code: &str, says: &str) -> usize {
    let storage = storage();
    let error = fetched(server, &storage).err().expect("refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert!(pollster::block_on(storage.blobs()).expect("readable").is_empty());
    assert!(pollster::block_on(storage.records()).expect("readable").is_empty());
    server.asked.borrow().len()
}

#[test]
fn a_refused_adapter_leaves_nothing() {
    let other = server(|config, _| *config = String::from_utf8_lossy(config).replace("\"LORA\"", "\"VERA\"").into_bytes());
    assert_eq!(refused(&other, "unsupported_format", "VERA"), 1, "its weights were not asked for");
    let cut = server(|_, weights| weights.truncate(9000));
    refused(&cut, "integrity", "adapter_model.safetensors");
    let mut missing = server(|_, _| {});
    missing.files.pop_last();
    refused(&missing, "not_found", "adapter_model.safetensors");
}

#[test]
fn adapters_are_named_by_directory_file_or_hub_id() {
    assert_eq!(address("https://host/a/style").name(), "style");
    assert_eq!(address("https://host/a/style/adapter_model.safetensors"), address("https://host/a/style/"));
    assert_ne!(address("https://host/a/style/other.safetensors"), address("https://host/a/style/"));
    assert_eq!(address("https://host/a/style.gguf").name(), "style.gguf");
    assert_eq!(address("org/style").name(), "style");
    for wrong in ["style", "https://host/a-00001-of-00002.gguf"] {
        assert!(Address::parse(wrong, &Access::default()).is_err(), "{wrong}");
    }
}
