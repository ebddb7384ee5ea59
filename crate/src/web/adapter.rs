//! The graphics adapter in the browser's words, which wgpu does not pass on.

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::js::worker;

/// What the browser says of the adapter that the engine would get.
pub struct Adapter {
    /// `google swiftshader`, `nvidia ampere`, ...: vendor, architecture and description, as far as it tells them.
    pub name: Option<String>,
    /// Whether the processor emulates it.
    pub software: bool,
}

/// The adapter, if there is one.
pub async fn ask() -> Option<Adapter> {
    let adapter = request().await.ok().filter(|adapter| adapter.is_object())?;
    let info = get(&adapter, "info").unwrap_or_default();
    let words = ["vendor", "architecture", "description"].map(|field| get(&info, field).ok().and_then(|word| word.as_string()));
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let name = Some(words.join(" ")).filter(|name| !name.is_empty());
    // Where this stands has changed between browsers' versions.
    let fallback = [&adapter, &info].iter().any(|place| get(place, "isFallbackAdapter").is_ok_and(|value| value.is_truthy()));
    let lower = name.as_deref().unwrap_or_default().to_lowercase();
    let emulated = ["swiftshader", "llvmpipe", "lavapipe", "microsoft basic render"].iter().any(|word| lower.contains(word));
    Some(Adapter { name, software: fallback || emulated })
}

/// `await navigator.gpu.requestAdapter({ powerPreference })`: web-sys hides these behind an unstable switch.
async fn request() -> Result<JsValue, JsValue> {
    let gpu = get(&worker().navigator(), "gpu")?;
    let options = Object::new();
    Reflect::set(&options, &"powerPreference".into(), &"high-performance".into())?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into()?;
    let promise: Promise = request.call1(&gpu, &options)?.dyn_into()?;
    JsFuture::from(promise).await
}

fn get(target: &JsValue, field: &str) -> Result<JsValue, JsValue> {
    Reflect::get(target, &field.into())
}
