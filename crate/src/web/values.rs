//! Values and errors between Rust and JavaScript.

use js_sys::{Object, Reflect};
use serde::{Serialize, de::DeserializeOwned};
use wasm_bindgen::JsValue;

use crate::error::{Error, Result};

/// A plain JavaScript value: objects, arrays, numbers; what is missing is `null`.
pub fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value.serialize(&serde_wasm_bindgen::Serializer::json_compatible()).map_err(|e| error(&Error::InvalidInput(e.to_string())))
}

/// Reads an argument. Going through JSON names the field at fault, and lets a type refuse fields that it does not know.
pub fn from_js<T: DeserializeOwned>(value: JsValue, what: &str) -> Result<T> {
    let invalid = |e: String| Error::InvalidInput(format!("{what}: {e}"));
    let json: serde_json::Value = serde_wasm_bindgen::from_value(value).map_err(|e| invalid(e.to_string()))?;
    serde_json::from_value(json).map_err(|e| invalid(e.to_string()))
}

/// `{ code, message }`, of which the package makes an `OpenWeightsError`.
pub fn error(error: &Error) -> JsValue {
    let object = Object::new();
    for (name, text) in [("code", error.code().to_string()), ("message", error.to_string())] {
        // Setting a field of a fresh object cannot fail.
        let _ = Reflect::set(&object, &name.into(), &text.into());
    }
    object.into()
}
