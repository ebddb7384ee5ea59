//! What is there already of a package that is written: nothing, the beginning that an import left which did not end, or all but
//! a few files.
//!
//! An import notes how far it is: which files of the package are whole, how much the others have, and where in its publisher's files
//! it was when all that was read had been written. The digests of these files go on from their noted state, so no byte has to be read twice
//! for them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::manifest::{FileEntry, hex};

/// How far reading is, at a moment when all that was read is written.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// The publisher's files that were read to their ends.
    pub read: Vec<FileEntry>,
    /// Bytes that were taken of the next one.
    pub taken: u64,
    /// The digest of these, as far as it is.
    pub hash: Sha256,
}

/// What is there of a package.
#[derive(Debug, Clone, Default)]
pub struct Already {
    /// The files that are to be written; all, where nothing is said.
    pub only: Option<BTreeSet<String>>,
    /// Where reading goes on.
    pub cursor: Cursor,
    /// Shards that are whole.
    pub whole: Vec<FileEntry>,
    /// Shards that grow: the bytes that they have.
    pub growing: Vec<(String, Prefix)>,
}

/// The first bytes of a file.
#[derive(Debug, Clone, Default)]
pub struct Prefix {
    /// How many.
    pub len: usize,
    /// Their digest, as far as it is.
    pub hash: Sha256,
}

impl Prefix {
    /// More of it.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len();
    }

    /// The digest of these bytes.
    pub fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }
}

/// [`Already`], as it is noted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    read: Vec<FileEntry>,
    taken: u64,
    hash: Vec<u8>,
    /// Shards that are whole.
    pub whole: Vec<FileEntry>,
    /// Shards that grow: how many bytes they have, and the digest of these.
    pub growing: Vec<FileEntry>,
}

impl State {
    /// At `cursor`.
    pub fn new(cursor: &Cursor, whole: Vec<FileEntry>, growing: Vec<FileEntry>) -> State {
        State { read: cursor.read.clone(), taken: cursor.taken, hash: cursor.hash.serialize().to_vec(), whole, growing }
    }

    /// Where reading goes on; none if that is not what a digest's state looks like.
    pub fn cursor(&self) -> Option<Cursor> {
        let hash = Sha256::deserialize(&SerializedState::<Sha256>::try_from(&self.hash[..]).ok()?).ok()?;
        Some(Cursor { read: self.read.clone(), taken: self.taken, hash })
    }

    /// Bytes of the package that are there.
    pub fn bytes(&self) -> u64 {
        self.whole.iter().chain(&self.growing).map(|file| file.size).sum()
    }
}
