//! A file that arrives as a stream: read from its first byte to its last, hashed, its length checked. Where only parts of it are wanted, the
//! others are passed over and nothing is hashed.

use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::SourceFile;
use crate::{
    error::{Error, Result},
    weights::{
        manifest::{FileEntry, hex},
        network::ByteStream,
        writer::Writer,
    },
};

/// Fewer bytes are read rather than passed over: a request costs more.
const NEAR: u64 = 1 << 20;

/// Opens a file at a byte; the stream goes to the file's end.
pub type Open<'a> = Box<dyn FnMut(u64) -> ByteStream<'a> + 'a>;

pub(super) struct Input<'a, 'p> {
    open: Open<'a>,
    stream: Option<ByteStream<'a>>,
    progress: &'p mut dyn FnMut(u64, u64),
    hash: Sha256,
    /// Whether what is not wanted need not be read.
    jumps: bool,
    /// Bytes received and not yet taken; the first one is the file's byte `taken`.
    buffer: Vec<u8>,
    taken: u64,
    len: u64,
}

impl<'a, 'p> Input<'a, 'p> {
    /// The whole file that `stream` yields.
    pub fn new(stream: ByteStream<'a>, len: u64, progress: &'p mut dyn FnMut(u64, u64)) -> Self {
        let open = Box::new(|_| futures_util::stream::empty().boxed_local());
        Input { open, stream: Some(stream), progress, hash: Sha256::new(), jumps: false, buffer: Vec::new(), taken: 0, len }
    }

    /// `file`, from where `writer` wants it on: from its end, if it `was_read` before.
    pub fn of(file: SourceFile<'a>, writer: &Writer<'_>, was_read: bool, progress: &'p mut dyn FnMut(u64, u64)) -> Self {
        let (cursor, jumps) = (writer.cursor(), writer.is_partial() && file.ranges);
        let taken = if was_read { file.size } else { cursor.taken.min(file.size) };
        Input { open: file.open, stream: None, progress, hash: cursor.hash.clone(), jumps, buffer: Vec::new(), taken, len: file.size }
    }

    /// The length that the file was announced with.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes taken or passed over, and the digest of those taken.
    pub fn position(&self) -> (u64, &Sha256) {
        (self.taken, &self.hash)
    }

    /// How many of the `rows` rows of `row_bytes` bytes from the file's byte `offset` on were read by whoever came here before.
    pub fn rows_before(&self, offset: u64, row_bytes: usize, rows: usize) -> usize {
        (self.taken.saturating_sub(offset) / row_bytes.max(1) as u64).min(rows as u64) as usize
    }

    /// All bytes received and not yet taken: at least `count`, or as many as the file still has.
    pub async fn peek(&mut self, count: u64) -> Result<&[u8]> {
        let count = count.min(self.len - self.taken);
        while (self.buffer.len() as u64) < count {
            if !self.receive().await? {
                let (have, len) = (self.taken + self.buffer.len() as u64, self.len);
                return Err(Error::Integrity(format!("the file is cut short: it ended at byte {have} of {len}: fetch it again")));
            }
        }
        Ok(&self.buffer)
    }

    /// The next `count` bytes.
    pub async fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        if count > self.len - self.taken {
            let (taken, len) = (self.taken, self.len);
            return Err(Error::Integrity(format!("the file is cut short: {count} bytes are needed from byte {taken} on, it has {len}")));
        }
        self.peek(count).await?;
        self.taken += count;
        let rest = self.buffer.split_off(count as usize);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        if !self.jumps {
            self.hash.update(&bytes);
        }
        Ok(bytes)
    }

    /// Bytes `offset .. offset + count`, wherever reading is. What was passed before is asked for once more.
    pub async fn read(&mut self, offset: u64, count: u64) -> Result<Vec<u8>> {
        if offset >= self.taken {
            self.skip_to(offset).await?;
            return self.take(count).await;
        }
        let (mut bytes, mut stream) = (Vec::new(), (self.open)(offset));
        while (bytes.len() as u64) < count {
            match stream.next().await.transpose()? {
                Some(chunk) => bytes.extend(chunk),
                None => return Err(Error::Integrity(format!("the file is cut short at byte {}", offset + bytes.len() as u64))),
            }
        }
        bytes.truncate(count as usize);
        Ok(bytes)
    }

    /// Passes over the bytes before the file's byte `offset`.
    pub async fn skip_to(&mut self, offset: u64) -> Result<()> {
        if self.jumps && offset > self.taken + self.buffer.len() as u64 + NEAR {
            (self.stream, self.taken) = (None, offset.min(self.len));
            self.buffer.clear();
        }
        while self.taken < offset {
            self.take((offset - self.taken).min(1 << 16)).await?;
        }
        Ok(())
    }

    /// Reads what is left, checks the length, and returns the SHA-256 of the whole file; none where parts were passed over.
    pub async fn finish(mut self) -> Result<Option<String>> {
        if self.jumps {
            return Ok(None);
        }
        self.skip_to(self.len).await?;
        if !self.buffer.is_empty() || self.receive().await? {
            return Err(Error::Integrity(format!("the file is too long: it was announced with {} bytes", self.len)));
        }
        Ok(Some(hex(&self.hash.finalize())))
    }

    /// Receives a chunk; false at the end of the stream.
    async fn receive(&mut self) -> Result<bool> {
        let at = self.taken + self.buffer.len() as u64;
        let stream = self.stream.get_or_insert_with(|| (self.open)(at));
        loop {
            match stream.next().await.transpose()? {
                None => return Ok(false),
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => {
                    self.buffer.extend(chunk);
                    (self.progress)(self.taken + self.buffer.len() as u64, self.len);
                    return Ok(true);
                }
            }
        }
    }
}

/// `file` as it was read, if its publisher states the same digest or none.
pub(super) fn verified(path: String, size: u64, sha256: Option<String>, stated: Option<&str>) -> Result<FileEntry> {
    match (sha256, stated) {
        (Some(sha256), Some(stated)) if stated != sha256 => {
            Err(Error::Integrity(format!("{path} has sha256 {sha256}, its publisher states {stated}: load it again")))
        }
        // Nothing is claimed of a file of which only parts were read.
        (sha256, _) => Ok(FileEntry { path, size, sha256: sha256.unwrap_or_default() }),
    }
}
