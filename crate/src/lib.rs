//! Run open-weight language models in a browser tab, or natively.
//!
//! The map, from the outside in:
//!
//! * [`engine`] joins the parts: load a model, chat, complete; [`adapters`] come and go while it stays.
//! * [`generate`] is prefill, decode, sampling, stopping; [`sessions`] are conversations beside each other, saved and restored.
//! * [`models`] holds one short file per architecture, built from [`layers`].
//! * [`backend`] is the contract between models and hardware, with its implementations; [`ops`] says what can be computed,
//!   each op with its plain reference and its kernel; [`quant`] says how weights are packed.
//! * [`weights`] reads publishers' files and packages, imports, downloads and stores them; [`card`] says what is declared of them.
//! * [`text`] turns text into tokens and back, and conversations into prompts.
//! * `web` is the only place that names the browser.

#![cfg_attr(size_first, feature(optimize_attribute))]

pub mod adapters;
pub mod backend;
pub mod card;
mod embed;
pub mod engine;
pub mod error;
pub mod generate;
mod json;
pub mod layers;
pub mod models;
pub mod ops;
pub mod quant;
pub mod sessions;
pub mod text;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod weights;

pub use error::{Error, Result};
