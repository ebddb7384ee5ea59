//! A store in memory: for tests, and for pages whose browser grants no storage.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use futures_util::{FutureExt, future::LocalBoxFuture};

use super::{
    files::cut_short,
    store::{Partial, Storage, Usage},
};
use crate::error::{Error, Result};

/// Blobs, records and partial files in memory, with a limit like a browser's.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage(Rc<Contents>);

#[derive(Debug, Default)]
struct Contents {
    blobs: RefCell<BTreeMap<String, Vec<u8>>>,
    records: RefCell<BTreeMap<String, Vec<u8>>>,
    partial: RefCell<BTreeMap<String, Vec<u8>>>,
    writing: RefCell<BTreeSet<String>>,
    quota: Cell<Option<u64>>,
}

impl MemoryStorage {
    /// Grants `quota` bytes in all, or as many as memory has.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.0.quota.set(quota);
    }

    /// Bytes of the partial file `name`, as many as there are.
    pub fn partial_size(&self, name: &str) -> u64 {
        self.0.partial.borrow().get(name).map_or(0, |bytes| bytes.len() as u64)
    }

    /// Changes a stored file behind the store's back, as a broken disk would.
    pub fn damage(&self, sha256: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.0.blobs.borrow_mut().get_mut(sha256) {
            change(bytes);
        }
    }
}

impl Contents {
    fn used(&self) -> u64 {
        let bytes = |files: &RefCell<BTreeMap<String, Vec<u8>>>| files.borrow().values().map(|b| b.len() as u64).sum::<u64>();
        bytes(&self.blobs) + bytes(&self.records) + bytes(&self.partial)
    }

    fn reserve(&self, bytes: usize) -> Result<()> {
        let usage = Usage { used: self.used(), quota: self.quota.get() };
        match usage.available() {
            Some(available) if available < bytes as u64 => Err(Error::Quota { needed: bytes as u64, available, removable: 0 }),
            _ => Ok(()),
        }
    }
}

fn slice(bytes: &[u8], name: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
    range.and_then(|range| bytes.get(range)).map(<[u8]>::to_vec).ok_or_else(|| cut_short(name, offset, len, bytes.len() as u64))
}

/// An answer that is there at once.
fn now<'a, T: 'a>(result: Result<T>) -> LocalBoxFuture<'a, Result<T>> {
    async { result }.boxed_local()
}

impl Storage for MemoryStorage {
    fn blob_size<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<Option<u64>>> {
        now(Ok(self.0.blobs.borrow().get(sha256).map(|bytes| bytes.len() as u64)))
    }

    fn read<'a>(&'a self, sha256: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        let blobs = self.0.blobs.borrow();
        let bytes = blobs.get(sha256).ok_or_else(|| Error::NotFound(format!("blob {sha256}")));
        now(bytes.and_then(|bytes| slice(bytes, sha256, offset, len)))
    }

    fn resume<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn Partial>>> {
        if !self.0.writing.borrow_mut().insert(name.to_string()) {
            return now(Err(Error::Storage(format!("partial/{name} is being written already"))));
        }
        self.0.partial.borrow_mut().entry(name.to_string()).or_default();
        now(Ok(Box::new(MemoryPartial { contents: self.0.clone(), name: name.to_string() }) as Box<dyn Partial>))
    }

    fn remove_blob<'a>(&'a self, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.0.blobs.borrow_mut().remove(sha256);
        now(Ok(()))
    }

    fn blobs(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        now(Ok(self.0.blobs.borrow().keys().cloned().collect()))
    }

    fn partials(&self) -> LocalBoxFuture<'_, Result<Vec<(String, u64)>>> {
        now(Ok(self.0.partial.borrow().iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()))
    }

    fn remove_partial<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        if !self.0.writing.borrow().contains(name) {
            self.0.partial.borrow_mut().remove(name);
        }
        now(Ok(()))
    }

    fn records(&self) -> LocalBoxFuture<'_, Result<Vec<String>>> {
        now(Ok(self.0.records.borrow().keys().cloned().collect()))
    }

    fn read_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>>> {
        now(Ok(self.0.records.borrow().get(id).cloned()))
    }

    fn write_record<'a>(&'a self, id: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        now(self.0.reserve(bytes.len()).map(|()| {
            self.0.records.borrow_mut().insert(id.to_string(), bytes.to_vec());
        }))
    }

    fn remove_record<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.0.records.borrow_mut().remove(id);
        now(Ok(()))
    }

    fn usage(&self) -> LocalBoxFuture<'_, Result<Usage>> {
        now(Ok(Usage { used: self.0.used(), quota: self.0.quota.get() }))
    }
}

struct MemoryPartial {
    contents: Rc<Contents>,
    name: String,
}

impl Partial for MemoryPartial {
    fn size(&self) -> u64 {
        self.contents.partial.borrow().get(&self.name).map_or(0, |bytes| bytes.len() as u64)
    }

    fn read<'a>(&'a mut self, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        let partial = self.contents.partial.borrow();
        now(slice(partial.get(&self.name).map_or(&[], Vec::as_slice), &self.name, offset, len))
    }

    fn truncate(&mut self, size: u64) -> Result<()> {
        self.contents.partial.borrow_mut().entry(self.name.clone()).or_default().truncate(size as usize);
        Ok(())
    }

    fn append<'a>(&'a mut self, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        now(self.contents.reserve(bytes.len()).map(|()| {
            self.contents.partial.borrow_mut().entry(self.name.clone()).or_default().extend_from_slice(bytes);
        }))
    }

    fn commit(self: Box<Self>, sha256: &str) -> LocalBoxFuture<'static, Result<()>> {
        let bytes = self.contents.partial.borrow_mut().remove(&self.name).unwrap_or_default();
        self.contents.blobs.borrow_mut().insert(sha256.to_string(), bytes);
        now(Ok(()))
    }
}

impl Drop for MemoryPartial {
    fn drop(&mut self) {
        self.contents.writing.borrow_mut().remove(&self.name);
    }
}
