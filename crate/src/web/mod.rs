//! The browser: what JavaScript sees, the network and storage. The only place that names wasm-bindgen, js-sys and web-sys.

pub mod api;
pub mod request;
pub mod values;
