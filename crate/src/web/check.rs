//! The ops' random cases in a browser, whose own compiler and driver run the kernels, and its threads: for tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use wasm_bindgen::prelude::*;

use super::{
    clock::BrowserClock,
    threads,
    values::{error, from_js, to_js},
};
use crate::{
    backend::{
        Backend,
        cpu::{Cpu, CpuOptions, pool::Pool},
        gpu::{Gpu, GpuOptions},
    },
    engine::{LoadOptions, Model},
    error::{Error, Result},
    ops::{check, kernel, matmul::Variant},
    weights::{download::Clock, files::Memory, safetensors},
};

/// All cases.
#[derive(Serialize)]
struct Outcomes {
    device: String,
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
/// (`plain`, `block`, ...). Gives what is allowed, and what each case gave: `{ device, limit, cases: [{ name, nmse }] }`.
#[wasm_bindgen]
pub async fn check_ops(emulated: bool, matmul: Option<String>) -> Result<JsValue, JsValue> {
    to_js(&on_gpu(emulated, matmul).await.map_err(|e| error(&e))?)
}

/// Runs all cases on the processor with `wanted` threads, activations rounded as `precision` says (`fast`, `balanced`,
/// `exact`); gives the same.
#[wasm_bindgen]
pub async fn check_cpu(wanted: usize, precision: JsValue) -> Result<JsValue, JsValue> {
    let threads = Some(threads::start(Some(wanted)).await.count);
    let precision = from_js(precision, "precision").map_err(|e| error(&e))?;
    let mut cpu = Cpu::new(CpuOptions { threads, precision, ..CpuOptions::default() });
    to_js(&all(&mut cpu).await.map_err(|e| error(&e))?)
}

async fn on_gpu(emulated: bool, matmul: Option<String>) -> Result<Outcomes> {
    let named = |name: &str| Variant::ALL.into_iter().find(|variant| format!("{variant:?}").eq_ignore_ascii_case(name));
    let matmul = match matmul {
        Some(name) => Some(named(&name).ok_or_else(|| Error::InvalidInput(format!("no variant of matmul is called {name:?}")))?),
        None => None,
    };
    let mut gpu = Gpu::new(GpuOptions { software: Some(emulated), matmul, ..GpuOptions::default() }).await?;
    all(&mut gpu).await
}

async fn all(backend: &mut dyn Backend) -> Result<Outcomes> {
    let cases = check::all(backend).await?.into_iter().map(|outcome| Checked { nmse: outcome.nmse(), name: outcome.name });
    Ok(Outcomes { device: backend.info().device, limit: check::NMSE, cases: cases.collect() })
}

/// Logits of every position of `tokens` by the checkpoint whose files are `[[name, bytes], ...]`, on `cpu` or `webgpu`.
#[wasm_bindgen]
pub async fn check_logits(files: js_sys::Array, tokens: Vec<u32>, on: String) -> Result<js_sys::Float32Array, JsValue> {
    let mut memory = Memory::default();
    for file in files.iter() {
        let pair: js_sys::Array = file.into();
        let name = pair.get(0).as_string().unwrap_or_default();
        memory.files.insert(name, js_sys::Uint8Array::new(&pair.get(1)).to_vec());
    }
    let logits = logits(memory, &tokens, on == "webgpu").await.map_err(|e| error(&e))?;
    Ok(js_sys::Float32Array::from(logits.as_slice()))
}

async fn logits(memory: Memory, tokens: &[u32], on_gpu: bool) -> Result<Vec<f32>> {
    let listing = memory.listing();
    let checkpoint = safetensors::open(Box::new(memory), &listing).await?;
    let backend: Box<dyn Backend> = match on_gpu {
        true => Box::new(Gpu::new(GpuOptions::default()).await?),
        false => Box::new(Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() })),
    };
    let mut model = Model::load(&checkpoint, backend, LoadOptions::default(), &mut |_, _| {}).await?;
    let mut all = Vec::new();
    let each = |_, rows: &[f32]| {
        all.extend_from_slice(rows);
        Ok(())
    };
    model.logits(tokens, each).await?;
    Ok(all)
}

/// Every kernel: `[{ name, source }]`.
#[wasm_bindgen]
pub fn kernels() -> Result<JsValue, JsValue> {
    let name = |(op, format): kernel::Id| format.map_or_else(|| op.to_string(), |format| format!("{op} {}", format.name()));
    let sources: Vec<_> = kernel::all().iter().map(|k| Source { name: name(k.id), source: k.source() }).collect();
    to_js(&sources)
}

/// What a pool did.
#[derive(Serialize)]
struct Forked {
    threads: usize,
    reason: Option<String>,
    /// Forks that every thread took part in.
    forks: usize,
    microseconds: f64,
}

/// Forks `forks` times on `threads` threads. Gives how many threads there were and why not more, on how many forks all of them
/// were seen, and what one took: `{ threads, reason, forks, microseconds }`. With `fail`, the last thread panics instead.
#[wasm_bindgen]
pub async fn check_pool(wanted: usize, forks: usize, fail: bool) -> Result<JsValue, JsValue> {
    let started = threads::start(Some(wanted)).await;
    let pool = Pool::new(started.count);
    let last = pool.threads() - 1;
    let seen: Vec<AtomicUsize> = (0..=last).map(|_| AtomicUsize::new(0)).collect();
    let begun = BrowserClock.now_ms();
    for _ in 0..forks {
        pool.run(&|index| {
            assert!(!fail || index < last, "a thread that is told to fail");
            seen[index].fetch_add(1, Ordering::Relaxed);
        });
    }
    let microseconds = (BrowserClock.now_ms() - begun) * 1000.0 / forks as f64;
    let forks = seen.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0);
    to_js(&Forked { threads: pool.threads(), reason: started.reason, forks, microseconds })
}
