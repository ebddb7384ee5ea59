//! What the browser's parts share.

use wasm_bindgen::{JsCast, JsValue};
use web_sys::WorkerGlobalScope;

/// The worker that this runs in.
pub(super) fn worker() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// What a thrown value says: `TypeError: Failed to fetch`.
pub(super) fn message(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Object>() {
        Some(error) => String::from(error.to_string()),
        None => format!("{error:?}"),
    }
}
