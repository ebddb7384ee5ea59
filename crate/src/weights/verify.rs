//! Stored files are hashed again: what is not what its name says goes, and is fetched anew.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    abort::Abort,
    manifest::{FileEntry, hex},
    network::Clock,
    progress::{Meter, Phase, Progress},
    store::Storage,
};
use crate::error::{Error, Result};

/// Bytes that are read at once.
const BLOCK: u64 = 1 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Files that were missing or not what they should be.
    pub bad: Vec<String>,
    /// Whether these are there again.
    pub repaired: bool,
    /// Why not.
    pub unrepaired: Option<Unrepaired>,
}

/// Why files are not there again, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unrepaired {
    /// As an error's.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Verified {
    /// What is bad stays so, and `what` is to be done.
    pub fn unless(self, what: String) -> Verified {
        let unrepaired = (!self.repaired).then(|| {
            let error = Error::NotFound(format!("what {} was made from: {what}", self.bad.join(", ")));
            Unrepaired { code: error.code(), message: error.to_string() }
        });
        Verified { unrepaired, ..self }
    }
}

/// What hashing works with.
#[derive(Clone, Copy)]
pub struct Verifier<'a> {
    /// Where the files are.
    pub storage: &'a dyn Storage,
    /// For speed.
    pub clock: &'a dyn Clock,
    /// The caller's wish to stop.
    pub abort: &'a Abort,
    /// Told of every piece that is hashed.
    pub progress: &'a dyn Fn(Progress),
}

impl Verifier<'_> {
    /// Hashes `files`; removes the wrong ones. Nobody else may be writing.
    pub async fn check(&self, files: &[FileEntry]) -> Result<Verified> {
        let meter = Meter::new(self.clock, self.progress, Phase::Verify, 0, files.iter().map(|file| file.size).sum());
        let mut bad = Vec::new();
        for file in files {
            if !self.is_right(file, &meter).await? {
                self.storage.remove_blob(&file.sha256).await?;
                bad.push(file.path.clone());
            }
        }
        Ok(Verified { bytes: meter.loaded.get(), repaired: bad.is_empty(), bad, unrepaired: None })
    }

    async fn is_right(&self, file: &FileEntry, meter: &Meter<'_>) -> Result<bool> {
        if self.storage.blob_size(&file.sha256).await? != Some(file.size) {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        for start in (0..file.size).step_by(BLOCK as usize) {
            self.abort.check()?;
            let bytes = match self.storage.read(&file.sha256, start, BLOCK.min(file.size - start) as usize).await {
                // It went while it was read, or cannot be read: then it is as good as gone.
                Err(Error::NotFound(_) | Error::Integrity(_)) => return Ok(false),
                bytes => bytes?,
            };
            hash.update(&bytes);
            meter.add(bytes.len() as u64, &file.path);
        }
        Ok(hex(&hash.finalize()) == file.sha256)
    }
}
