//! Results on their way back: staging buffers that are mapped when the device has filled them.

use std::{cell::RefCell, rc::Rc};

use futures_channel::oneshot;
use futures_util::future::{FutureExt, LocalBoxFuture};

use super::{
    device::{Device, Failure},
    memory::{Buffer, Memory},
};
use crate::error::{Error, Result};

/// Staging buffers not in use.
#[derive(Clone, Default)]
pub struct Staging(Rc<RefCell<Vec<Buffer>>>);

impl Staging {
    /// A buffer of at least `bytes`.
    pub fn take(&self, memory: &Memory, bytes: usize) -> Buffer {
        let size = bytes.next_power_of_two().max(16) as u64;
        let mut free = self.0.borrow_mut();
        match free.iter().position(|b| b.raw.size() == size) {
            Some(index) => free.swap_remove(index),
            None => memory.staging(size),
        }
    }

    fn give(&self, buffer: Buffer) {
        buffer.raw.unmap();
        self.0.borrow_mut().push(buffer);
    }
}

/// The words that `submission` copies into `buffer`. Mapping starts now, so several may be under way.
pub fn words(
    device: &Device,
    staging: &Staging,
    buffer: Buffer,
    count: usize,
    submission: wgpu::SubmissionIndex,
) -> LocalBoxFuture<'static, Result<Vec<u32>>> {
    let (done, mapped) = oneshot::channel();
    let bytes = 4 * count as u64;
    buffer.raw.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
        // The receiver may be gone: nobody waits any more.
        let _ = done.send(result);
    });
    let (raw, staging, failure) = (device.raw.clone(), staging.clone(), device.failure.clone());
    async move {
        Device::wait(&raw, submission)?;
        settle(&failure, mapped.await.map(|r| r.map_err(|e| e.to_string())))?;
        let view = buffer.raw.get_mapped_range(..bytes).map_err(|e| Error::Device(format!("reading results: {e}")))?;
        let words = view.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        drop(view);
        staging.give(buffer);
        Ok(words)
    }
    .boxed_local()
}

/// Resolves when everything written and submitted so far is done.
pub fn done(device: &Device) -> LocalBoxFuture<'static, Result<()>> {
    let submission = device.queue.submit([]);
    let (send, finished) = oneshot::channel();
    device.queue.on_submitted_work_done(move || {
        let _ = send.send(());
    });
    let (raw, failure) = (device.raw.clone(), device.failure.clone());
    async move {
        Device::wait(&raw, submission)?;
        settle(&failure, finished.await.map(Ok))
    }
    .boxed_local()
}

/// What the device reported goes before what the wait itself gave.
fn settle(failure: &Failure, outcome: std::result::Result<std::result::Result<(), String>, oneshot::Canceled>) -> Result<()> {
    failure.check()?;
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Error::Device(format!("reading results: {why}"))),
        Err(_) => Err(Error::DeviceLost("it dropped a pending read".into())),
    }
}
