//! A package on its way into the store: its files become blobs as they are finished; nothing counts as a model before its
//! record is written.
//!
//! What an import that ended early has stored stays for the next attempt: files on their way lie in `partial/<key>.<path>`, where the key
//! is a digest of what is imported and how, and two notes beside them, written in turn, say how far all was. What cannot go on, since its
//! source changed or an error was found in it, is taken back.

use std::collections::BTreeMap;

use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::{Deserialize, Serialize};

use super::{
    Sink,
    abort::Abort,
    manifest::{FileEntry, MANIFEST, check_file_name, sha256_hex},
    resume::{Already, Prefix, State},
    store::{self, NOTE, Partial, Storage, is_sha256},
};
use crate::error::{Error, Result};

/// Bytes that are read at once of what is stored.
const BLOCK: u64 = 1 << 20;
/// Most bytes of a note.
const MAX_NOTE: u64 = 16 << 20;

/// Which version of which files is imported, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// A digest of all that decides what is written, but for the weights.
    pub plan: String,
    /// The publisher's weight files: name, size, and what tells their version.
    pub files: Vec<(String, u64, String)>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    /// The later of two notes has the larger number.
    number: u64,
    identity: Identity,
    state: State,
}

/// What an attempt before has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes of the package that are there.
    pub bytes: u64,
    /// Why those that were are of no use.
    pub restarted: Option<String>,
}

/// Writes into a store. The manifest is not kept as a file: it is part of the model's record.
pub struct StoreSink<'a> {
    storage: &'a dyn Storage,
    key: String,
    already: Already,
    /// Of an import that can go on, and how many notes there are of it.
    noted: Option<(Identity, u64)>,
    growing: BTreeMap<String, Box<dyn Partial>>,
    /// What was made blobs, by this attempt and those before.
    added: Vec<String>,
    /// The digests that files must have.
    expected: Option<BTreeMap<String, String>>,
}

impl<'a> StoreSink<'a> {
    /// Writes into `storage`, one import at a time: that of `key`, from its beginning.
    pub fn new(storage: &'a dyn Storage, key: &str) -> StoreSink<'a> {
        let (key, already) = (sha256_hex(key.as_bytes()), Already::default());
        StoreSink { storage, key, already, noted: None, growing: BTreeMap::new(), added: Vec::new(), expected: None }
    }

    /// Writes only `files` of a package, each as it was.
    pub fn repair(storage: &'a dyn Storage, key: &str, files: &[&FileEntry]) -> StoreSink<'a> {
        let expected: BTreeMap<_, _> = files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect();
        let already = Already { only: Some(expected.keys().cloned().collect()), ..Already::default() };
        StoreSink { already, expected: Some(expected), ..StoreSink::new(storage, key) }
    }

    /// Goes on where an import of the same `identity` ended; one of another is taken back.
    pub async fn resume(&mut self, identity: Identity, abort: &Abort) -> Result<Found> {
        let notes = [self.read_note(0).await?, self.read_note(1).await?];
        let mut found = Found::default();
        if let Some(note) = notes.into_iter().flatten().max_by_key(|note| note.number) {
            self.added = note.state.whole.iter().map(|file| file.sha256.clone()).collect();
            found.restarted = differs(&note.identity, &identity);
            if found.restarted.is_none() {
                if let Some(already) = self.restore(&note.state, abort).await? {
                    self.already = already;
                    self.noted = Some((identity, note.number));
                    return Ok(Found { bytes: note.state.bytes(), restarted: None });
                }
                found.restarted = Some("what was stored of this import is damaged or gone".into());
            }
        }
        self.undo().await?;
        self.noted = Some((identity, 0));
        Ok(found)
    }

    /// Whether a digest is that of something which this import needs.
    pub fn needs(&self, sha256: &str) -> bool {
        sha256 == self.key || self.added.iter().any(|added| added == sha256)
    }

    /// Whether another attempt would go on.
    pub fn can_go_on(&self) -> bool {
        self.noted.is_some()
    }

    /// Removes what was added, as far as no model needs it.
    pub async fn undo(&mut self) -> Result<()> {
        self.done().await?;
        let needed = store::referenced(self.storage).await?;
        for sha256 in self.added.drain(..).filter(|sha256| !needed.contains(sha256)) {
            self.storage.remove_blob(&sha256).await?;
        }
        Ok(())
    }

    /// Removes what only another attempt would need.
    pub async fn done(&mut self) -> Result<()> {
        self.growing.clear();
        store::sweep(self.storage, |sha256| sha256 != self.key).await
    }

    fn name(&self, path: &str) -> String {
        format!("{}.{path}", self.key)
    }

    fn note_name(&self, which: u64) -> String {
        self.name(&format!("{}{NOTE}", which % 2))
    }

    /// A note that cannot be read is none: the page ended while it was written.
    async fn read_note(&self, which: u64) -> Result<Option<Note>> {
        let mut file = self.storage.resume(&self.note_name(which)).await?;
        let size = file.size().min(MAX_NOTE) as usize;
        let note: Option<Note> = serde_json::from_slice(&file.read(0, size).await?).ok();
        let named = |file: &FileEntry| is_sha256(&file.sha256) && check_file_name(&file.path).is_ok();
        Ok(note.filter(|note| note.state.whole.iter().chain(&note.state.growing).all(named)))
    }

    /// What is there, if it is what was noted. A shard that was noted as whole may not have become a blob yet.
    async fn restore(&mut self, state: &State, abort: &Abort) -> Result<Option<Already>> {
        let Some(cursor) = state.cursor() else { return Ok(None) };
        let mut already = Already { cursor, whole: state.whole.clone(), ..Already::default() };
        for file in &state.whole {
            if self.storage.blob_size(&file.sha256).await? != Some(file.size) {
                let Some((partial, _)) = self.prefix(file, abort).await? else { return Ok(None) };
                partial.commit(&file.sha256).await?;
            }
        }
        for file in &state.growing {
            let Some((partial, prefix)) = self.prefix(file, abort).await? else { return Ok(None) };
            self.growing.insert(file.path.clone(), partial);
            already.growing.push((file.path.clone(), prefix));
        }
        Ok(Some(already))
    }

    /// The first bytes of a file on its way, if they are what was noted of it.
    async fn prefix(&self, file: &FileEntry, abort: &Abort) -> Result<Option<(Box<dyn Partial>, Prefix)>> {
        let (mut partial, mut prefix) = (self.storage.resume(&self.name(&file.path)).await?, Prefix::default());
        if partial.size() < file.size {
            return Ok(None);
        }
        partial.truncate(file.size)?;
        for start in (0..file.size).step_by(BLOCK as usize) {
            abort.check()?;
            prefix.add(&partial.read(start, (file.size - start).min(BLOCK) as usize).await?);
        }
        Ok((prefix.sha256() == file.sha256).then_some((partial, prefix)))
    }

    async fn add(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        if path == MANIFEST {
            return Ok(());
        }
        if !self.growing.contains_key(path) {
            let partial = self.storage.begin(&self.name(path)).await?;
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
        if let Some(expected) = &self.expected
            && expected.get(path).is_none_or(|expected| expected != sha256)
        {
            return Err(Error::Integrity(format!(
                "{path:?} would not be as it was: its source has changed, or this version of the engine makes another file of it: \
                 remove the model and load it again"
            )));
        }
        match self.storage.blob_size(sha256).await? {
            Some(size) if size == partial.size() => {
                drop(partial);
                self.storage.remove_partial(&self.name(path)).await?;
            }
            // Of another size it is not what its name says.
            Some(_) => {
                self.storage.remove_blob(sha256).await?;
                partial.commit(sha256).await?;
            }
            None => partial.commit(sha256).await?,
        }
        self.added.push(sha256.to_owned());
        Ok(())
    }

    async fn keep(&mut self, state: State) -> Result<()> {
        let Some((identity, number)) = self.noted.take() else { return Ok(()) };
        let note = Note { number: number + 1, identity, state };
        let text = serde_json::to_vec(&note).map_err(|e| Error::Storage(format!("cannot note how far an import is: {e}")))?;
        let written = match self.storage.begin(&self.note_name(note.number)).await {
            Ok(mut file) => file.append(&text).await,
            Err(error) => Err(error),
        };
        self.noted = Some((note.identity, note.number));
        written
    }
}

/// Why what was imported before is of no use.
fn differs(before: &Identity, now: &Identity) -> Option<String> {
    if before.files != now.files {
        let changed = now.files.iter().find(|file| !before.files.contains(file));
        return Some(format!("{:?} has changed since its import began", changed.map_or("a file", |(name, ..)| name)));
    }
    (before.plan != now.plan).then(|| "the model's small files or the engine have changed since its import began".into())
}

impl Sink for StoreSink<'_> {
    fn append<'a>(&'a mut self, path: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Result<()>> {
        self.add(path, bytes).boxed_local()
    }

    fn close<'a>(&'a mut self, path: &'a str, sha256: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        self.finish(path, sha256).boxed_local()
    }

    fn already(&mut self) -> Already {
        std::mem::take(&mut self.already)
    }

    fn note<'a>(&'a mut self, state: State) -> LocalBoxFuture<'a, Result<()>> {
        self.keep(state).boxed_local()
    }
}
