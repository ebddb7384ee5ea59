//! The ops' random cases in a browser, whose own compiler and driver run the kernels: for tests.

use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::values::{error, to_js};
use crate::{
    backend::gpu::{Gpu, GpuOptions},
    error::{Error, Result},
    ops::{check, kernel, matmul::Variant},
};

/// All cases.
#[derive(Serialize)]
struct Outcomes {
    limit: f64,
    cases: Vec<Checked>,
}

/// A case and how far it is from the plain reference.
#[derive(Serialize)]
struct Checked {
    name: String,
    nmse: f64,
}

/// A kernel as the browser gets it.
#[derive(Serialize)]
struct Source {
    name: String,
    source: String,
}

/// Runs all cases with the kernels for emulated or for real GPUs, all products with the variant `matmul` if one is named
/// (`plain`, `block`, ...). Gives what is allowed, and what each case gave: `{ limit, cases: [{ name, nmse }] }`.
#[wasm_bindgen]
pub async fn check_ops(emulated: bool, matmul: Option<String>) -> Result<JsValue, JsValue> {
    let cases = run(emulated, matmul).await.map_err(|e| error(&e))?;
    to_js(&Outcomes { limit: check::NMSE, cases })
}

async fn run(emulated: bool, matmul: Option<String>) -> Result<Vec<Checked>> {
    let named = |name: &str| Variant::ALL.into_iter().find(|variant| format!("{variant:?}").eq_ignore_ascii_case(name));
    let matmul = match matmul {
        Some(name) => Some(named(&name).ok_or_else(|| Error::InvalidInput(format!("no variant of matmul is called {name:?}")))?),
        None => None,
    };
    let mut gpu = Gpu::new(GpuOptions { software: Some(emulated), matmul, ..GpuOptions::default() }).await?;
    let outcomes = check::all(&mut gpu).await?;
    Ok(outcomes.into_iter().map(|outcome| Checked { nmse: outcome.nmse(), name: outcome.name }).collect())
}

/// Every kernel: `[{ name, source }]`.
#[wasm_bindgen]
pub fn kernels() -> Result<JsValue, JsValue> {
    let name = |(op, format): kernel::Id| format.map_or_else(|| op.to_string(), |format| format!("{op} {}", format.name()));
    let sources: Vec<_> = kernel::all().iter().map(|k| Source { name: name(k.id), source: k.source() }).collect();
    to_js(&sources)
}
