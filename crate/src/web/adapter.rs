//! The graphics adapter in the browser's words, which wgpu does not pass on.

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::js::worker;

/// `google swiftshader`, `nvidia ampere`, ...: vendor, architecture and description, as far as the browser tells them.
pub async fn name() -> Option<String> {
    let info = info().await.ok()?;
    let words = ["vendor", "architecture", "description"].map(|field| get(&info, field).ok().and_then(|word| word.as_string()));
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    Some(words.join(" ")).filter(|name| !name.is_empty())
}

/// Whether the adapter is an emulated one, `None` unless its name says so: wgpu's own information is empty in browsers.
pub async fn software() -> Option<bool> {
    let name = name().await?.to_lowercase();
    ["swiftshader", "llvmpipe", "lavapipe"].iter().any(|emulated| name.contains(emulated)).then_some(true)
}

/// `(await navigator.gpu.requestAdapter({ powerPreference })).info`: web-sys hides these behind an unstable switch.
async fn info() -> Result<JsValue, JsValue> {
    let gpu = get(&worker().navigator(), "gpu")?;
    let options = Object::new();
    Reflect::set(&options, &"powerPreference".into(), &"high-performance".into())?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into()?;
    let promise: Promise = request.call1(&gpu, &options)?.dyn_into()?;
    get(&JsFuture::from(promise).await?, "info")
}

fn get(target: &JsValue, field: &str) -> Result<JsValue, JsValue> {
    Reflect::get(target, &field.into())
}
