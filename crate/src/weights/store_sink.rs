//! A package on its way into the store: its files become blobs as they are finished; nothing counts as a model before its
//! record is written, and what an import that failed has stored is taken back.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::LocalBoxFuture};

use super::{
    Sink,
    manifest::MANIFEST,
    store::{self, Partial, Storage},
};
use crate::error::Result;

/// Writes into a store. The manifest is not kept as a file: it is part of the model's record.
pub struct StoreSink<'a> {
    storage: &'a dyn Storage,
    growing: BTreeMap<String, Box<dyn Partial>>,
    /// Blobs that were not there before.
    added: Vec<String>,
}

impl<'a> StoreSink<'a> {
    /// Writes into `storage`: one import at a time.
    pub fn new(storage: &'a dyn Storage) -> StoreSink<'a> {
        StoreSink { storage, growing: BTreeMap::new(), added: Vec::new() }
    }

    /// Removes what was added, as far as no model needs it.
    pub async fn undo(self) -> Result<()> {
        drop(self.growing);
        store::sweep(self.storage, |_| true).await?;
        let needed = store::referenced(self.storage).await?;
        for sha256 in self.added.iter().filter(|sha256| !needed.contains(*sha256)) {
            self.storage.remove_blob(sha256).await?;
        }
        Ok(())
    }

    async fn add(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        if path == MANIFEST {
            return Ok(());
        }
        if !self.growing.contains_key(path) {
            let partial = self.storage.begin(&format!("import-{path}")).await?;
            self.growing.insert(path.to_owned(), partial);
        }
        match self.growing.get_mut(path) {
            Some(partial) => partial.append(bytes).await,
            None => Ok(()),
        }
    }

    async fn finish(&mut self, path: &str, sha256: &str) -> Result<()> {
        self.add(path, &[]).await?;
        let Some(partial) = self.growing.remove(path) else { return Ok(()) };
        if self.storage.blob_size(sha256).await?.is_none() {
            partial.commit(sha256).await?;
            self.added.push(sha256.to_owned());
        }
        Ok(())
    }
}

impl Sink for StoreSink<'_> {
    fn append<'a>(&'a mut self, path: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        self.add(path, bytes).boxed_local()
    }

    fn close<'a>(&'a mut self, path: &'a str, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.finish(path, sha256).boxed_local()
    }
}
