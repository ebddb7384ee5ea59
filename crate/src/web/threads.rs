//! Threads in the browser: workers of this worker, that run the same module on the same memory and wait for a pool's tasks.
//! Where memory cannot be shared there is one thread, and a reason.

use std::cell::RefCell;

use futures_util::future::join_all;
use js_sys::{Object, Promise, Reflect, SharedArrayBuffer, WebAssembly};
use wasm_bindgen::{JsCast, JsValue, prelude::*};
use wasm_bindgen_futures::JsFuture;
use web_sys::{DedicatedWorkerGlobalScope, Event, Worker, WorkerOptions, WorkerType};

use super::js::{message, worker};
use crate::backend::cpu::{
    pool::{self, MOST_THREADS},
    threads::{enter, help},
};

/// Threads that a pool can have, the engine's worker included.
pub struct Threads {
    /// Their number, at least 1.
    pub count: usize,
    /// Why they are fewer than asked for, or than the processor has use for.
    pub reason: Option<String>,
}

thread_local! {
    /// The workers. They live as long as this one.
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
}

/// Starts threads until there are `wanted` (if nothing is wanted: as many as make sense here), or says why not.
pub async fn start(wanted: Option<usize>) -> Threads {
    let wanted = wanted.unwrap_or_else(sensible).clamp(1, MOST_THREADS);
    let running = WORKERS.with_borrow(Vec::len) + 1;
    if wanted <= running {
        return Threads { count: wanted, reason: None };
    }
    if let Some(reason) = unshared() {
        return Threads { count: 1, reason: Some(reason.into()) };
    }
    let mut reason = None;
    for started in join_all((running..wanted).map(|_| start_one())).await {
        match started {
            Ok(worker) => WORKERS.with_borrow_mut(|workers| workers.push(worker)),
            Err(error) => reason = Some(format!("a thread did not start: {}", message(&error))),
        }
    }
    Threads { count: WORKERS.with_borrow(Vec::len) + 1, reason }
}

/// Half of the logical processors, at least two and at most eight: the other half are second threads of the same cores or slow
/// cores, and the page has work too.
fn sensible() -> usize {
    let processors = worker().navigator().hardware_concurrency() as usize;
    processors.min((processors / 2).clamp(2, 8))
}

/// Why memory cannot be shared with other workers.
fn unshared() -> Option<&'static str> {
    let isolated = Reflect::get(&worker(), &"crossOriginIsolated".into()).is_ok_and(|value| value.is_truthy());
    if !isolated {
        return Some("the page is not cross-origin isolated: serve it with the headers COOP and COEP for more threads");
    }
    let memory: WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
    (!memory.buffer().is_instance_of::<SharedArrayBuffer>()).then_some("the engine was built without shared memory")
}

/// A worker of the script that this worker runs, once it has said that it is ready.
async fn start_one() -> Result<Worker, JsValue> {
    let options = WorkerOptions::new();
    options.set_type(WorkerType::Module);
    let thread = Worker::new_with_options(&worker().location().href(), &options)?;
    // A worker that fails at its start is no failure of this one.
    let quiet = Closure::<dyn Fn(Event)>::new(|event: Event| event.prevent_default());
    thread.add_event_listener_with_callback("error", quiet.as_ref().unchecked_ref())?;
    let ready = Promise::new(&mut |resolve, reject| {
        thread.set_onmessage(Some(&resolve));
        thread.set_onerror(Some(&reject));
    });
    let shared = Object::new();
    Reflect::set(&shared, &"module".into(), &wasm_bindgen::module())?;
    Reflect::set(&shared, &"memory".into(), &wasm_bindgen::memory())?;
    thread.post_message(&shared)?;
    JsFuture::from(ready).await?;
    // From now on it is: the pool waits for it.
    thread.set_onerror(None);
    thread.remove_event_listener_with_callback("error", quiet.as_ref().unchecked_ref())?;
    Ok(thread)
}

/// Makes the calling worker a thread: says that it is ready, and never returns.
#[wasm_bindgen]
pub fn run_thread() -> Result<(), JsValue> {
    enter();
    js_sys::global().unchecked_into::<DedicatedWorkerGlobalScope>().post_message(&JsValue::NULL)?;
    help();
    Ok(())
}

/// For a thread that ended in a trap: whoever waits for it learns of it.
#[wasm_bindgen]
pub fn thread_failed() {
    pool::thread_failed();
}
