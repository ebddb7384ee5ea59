//! The browser: what JavaScript sees, the network and storage. The only place that names wasm-bindgen, js-sys and web-sys.
//!
//! * [`api`] is what the worker calls; [`request`] and [`values`] are its arguments and results;
//! * [`named`] is what a page calls a model: an address, a hub id, or a person's own [`files`];
//! * [`load`] joins network ([`fetch`]), [`storage`] ([`opfs`] or memory), `lock` and time ([`clock`]) with the policies of [`crate::weights`];
//! * [`private`] loads from files that were handed over, where no network may be asked;
//! * [`store`] is what a page asks of stored models; [`key`] checks who signed one;
//! * [`choose`] decides between GPU and processor, whose [`threads`] are workers;
//! * `sessions` are conversations, open and saved;
//! * `check` lets tests run the kernels in a browser, in a build of its own (feature `checks`).

mod adapter;
mod adapters;
pub mod api;
#[cfg(feature = "checks")]
pub mod check;
pub mod choose;
pub mod clock;
pub mod fetch;
pub mod files;
mod js;
pub mod key;
pub mod load;
mod lock;
pub mod named;
pub mod opfs;
pub mod private;
pub mod request;
mod sessions;
pub mod storage;
pub mod store;
pub mod threads;
pub mod values;
