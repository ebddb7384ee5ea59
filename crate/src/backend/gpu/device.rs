//! Opening a device, and noticing what goes wrong on it later.

use std::sync::{Arc, Mutex};

use crate::{
    backend::BackendInfo,
    error::{Error, Result},
    ops::matmul::Variant,
};

/// How to open a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuOptions {
    /// Ask for WebGPU's default limits only, whatever the adapter has.
    pub floor: bool,
    /// Use this variant for all products instead of choosing by device and number of tokens.
    pub matmul: Option<Variant>,
    /// Split weights into planes of at most so many bytes, where the device would take larger ones.
    pub max_plane_bytes: Option<usize>,
    /// Use the kernels for emulated (or for real) GPUs instead of asking the adapter.
    pub software: Option<bool>,
}

/// Largest plane of a weight segment: WebGPU's default limit of a binding.
const MAX_PLANE: u64 = 128 << 20;

/// An open device.
pub struct Device {
    pub raw: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: BackendInfo,
    pub max_plane_bytes: usize,
    pub max_binding_bytes: u64,
    pub failure: Failure,
}

/// The first error that the device reported and nobody was told of yet. Losing the device is never forgotten.
#[derive(Clone, Default)]
pub struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// Remembers an error, unless there is one: the first is the cause, what follows are consequences.
    pub fn set(&self, error: Error) {
        let mut slot = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if slot.is_none() || matches!(error, Error::DeviceLost(_)) {
            *slot = Some(error);
        }
    }

    /// Reports the error, if any.
    pub fn check(&self) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(|e| e.into_inner());
        match &*slot {
            None => Ok(()),
            Some(Error::DeviceLost(why)) => Err(Error::DeviceLost(why.clone())),
            Some(_) => Err(slot.take().expect("an error")),
        }
    }
}

impl Device {
    pub async fn open(options: &GpuOptions) -> Result<Device> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let request = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
        let adapter = instance.request_adapter(&request).await.map_err(|e| Error::NoWebGpu(no_adapter(&e.to_string())))?;
        let has = adapter.limits();
        let mut limits = wgpu::Limits::defaults();
        if !options.floor {
            limits.max_buffer_size = has.max_buffer_size.max(limits.max_buffer_size);
            limits.max_storage_buffer_binding_size = has.max_storage_buffer_binding_size.max(limits.max_storage_buffer_binding_size);
        }
        let max_binding_bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let descriptor = wgpu::DeviceDescriptor { label: Some("openweights"), required_limits: limits, ..Default::default() };
        let (raw, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| Error::NoWebGpu(format!("the adapter {:?} gave no device: {e}", adapter.get_info().name)))?;
        let failure = Failure::default();
        let reports = failure.clone();
        raw.on_uncaptured_error(Arc::new(move |error| reports.set(describe(error))));
        let reports = failure.clone();
        raw.set_device_lost_callback(move |reason, message| reports.set(Error::DeviceLost(format!("{message} ({reason:?})"))));
        let info = info(&adapter.get_info(), options.software);
        let most = max_binding_bytes.min(MAX_PLANE) as usize;
        let max_plane_bytes = options.max_plane_bytes.map_or(most, |bytes| bytes.min(most));
        Ok(Device { raw, queue, info, max_plane_bytes, max_binding_bytes, failure })
    }

    /// Waits for a submission (not for later ones, which may be under way), where waiting is possible: browsers call back by
    /// themselves.
    pub fn wait(raw: &wgpu::Device, submission: wgpu::SubmissionIndex) -> Result<()> {
        raw.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })
            .map(|_| ())
            .map_err(|e| Error::Device(format!("waiting for the GPU: {e}")))
    }
}

fn no_adapter(why: &str) -> String {
    let hint = if cfg!(target_arch = "wasm32") {
        "this browser has no WebGPU or no graphics adapter that it allows; update browser and graphics driver, or use the CPU backend"
    } else {
        "no graphics driver was found; install one (for an emulated GPU on Debian: mesa-vulkan-drivers), or use the CPU backend"
    };
    format!("{hint} ({why})")
}

fn describe(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::OutOfMemory("the GPU has no memory left; use a smaller model or a shorter context".into())
        }
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => Error::Device(description),
    }
}

fn info(adapter: &wgpu::AdapterInfo, software: Option<bool>) -> BackendInfo {
    let words = [&adapter.name, &adapter.driver, &adapter.driver_info];
    let named: Vec<&str> = words.into_iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
    let device = if named.is_empty() { "WebGPU adapter".to_string() } else { named.join(", ") };
    let lower = device.to_lowercase();
    let emulated = adapter.device_type == wgpu::DeviceType::Cpu || ["swiftshader", "llvmpipe"].iter().any(|n| lower.contains(n));
    BackendInfo { name: "gpu", device, software: software.unwrap_or(emulated) }
}
