//! Where models are kept: the origin's private files, or memory where a browser grants none, as in some private windows.

use std::rc::Rc;

use super::opfs::Opfs;
use crate::{
    error::{Error, Result},
    weights::{store::Storage, store_memory::MemoryStorage},
};

/// Most that is kept in the worker's memory, beside the model that runs there.
const MOST_IN_MEMORY: u64 = 1 << 30;

thread_local! {
    /// Ends with the worker.
    static MEMORY: MemoryStorage = {
        let memory = MemoryStorage::default();
        memory.set_quota(Some(MOST_IN_MEMORY));
        memory
    };
}

/// An open store.
pub struct Kept {
    /// It.
    pub storage: Rc<dyn Storage>,
    /// Its files, if it is made of files.
    pub files: Option<Rc<Opfs>>,
    /// Why it is memory, if it is.
    pub reason: Option<String>,
}

impl Kept {
    /// `files` or `memory`.
    pub fn kind(&self) -> &'static str {
        if self.files.is_some() { "files" } else { "memory" }
    }
}

/// Opens the store.
pub async fn open() -> Result<Kept> {
    match Opfs::open().await {
        Ok(files) => {
            let files = Rc::new(files);
            Ok(Kept { storage: files.clone(), files: Some(files), reason: None })
        }
        Err(Error::Storage(reason)) => Ok(Kept { storage: Rc::new(MEMORY.with(MemoryStorage::clone)), files: None, reason: Some(reason) }),
        Err(other) => Err(other),
    }
}
