//! Which backend a model runs on, and why.

use serde::{Deserialize, Serialize};

use super::{adapter, threads};
use crate::{
    backend::{
        Backend, Precision,
        cpu::{Cpu, CpuOptions},
        gpu::{Gpu, GpuOptions},
    },
    error::{Error, Result},
};

/// What the caller asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// A real GPU, else the processor.
    #[default]
    Auto,
    /// WebGPU, emulated or not.
    WebGpu,
    /// The processor.
    Cpu,
}

/// What was chosen, in JavaScript's names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    /// The adapter or processor.
    pub device: String,
    /// Why this backend.
    pub reason: String,
    /// Threads that compute.
    pub threads: usize,
    /// Why there are not more threads.
    pub threads_reason: Option<String>,
}

impl Choice {
    /// Opens the backend; the processor's with `threads`, or as many as make sense.
    pub async fn open(self, threads: Option<usize>, precision: Precision) -> Result<(Box<dyn Backend>, Chosen)> {
        if threads == Some(0) {
            return Err(Error::InvalidInput("threads is 0".into()));
        }
        match self {
            Choice::Cpu => Ok(cpu(threads, precision, "asked for".into()).await),
            Choice::WebGpu => gpu(adapter::ask().await, "asked for").await,
            Choice::Auto => match adapter::ask().await {
                None => Ok(cpu(threads, precision, "this browser offers no WebGPU adapter".into()).await),
                Some(adapter) if adapter.software => {
                    let name = adapter.name.as_deref().unwrap_or("WebGPU adapter");
                    Ok(cpu(threads, precision, format!("the {name} is emulated by the processor, which is faster by itself")).await)
                }
                adapter => match gpu(adapter, "a GPU is faster than the processor").await {
                    Err(Error::NoWebGpu(why)) => Ok(cpu(threads, precision, why).await),
                    chosen => chosen,
                },
            },
        }
    }
}

async fn gpu(adapter: Option<adapter::Adapter>, reason: &str) -> Result<(Box<dyn Backend>, Chosen)> {
    let (name, software) = adapter.map_or((None, false), |adapter| (adapter.name, adapter.software));
    // Only a yes is certain: names may be withheld.
    let gpu = Gpu::new(GpuOptions { software: software.then_some(true), ..GpuOptions::default() }).await?;
    let device = name.unwrap_or_else(|| gpu.info().device);
    let chosen = Chosen { device, reason: reason.into(), threads: 1, threads_reason: Some("the GPU computes".into()) };
    Ok((Box::new(gpu), chosen))
}

async fn cpu(threads: Option<usize>, precision: Precision, reason: String) -> (Box<dyn Backend>, Chosen) {
    let threads = threads::start(threads).await;
    let backend = Cpu::new(CpuOptions { threads: Some(threads.count), precision, ..CpuOptions::default() });
    let chosen = Chosen { device: backend.info().device, reason, threads: threads.count, threads_reason: threads.reason };
    (Box::new(backend), chosen)
}
