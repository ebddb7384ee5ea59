//! A file that arrives as a stream: read once from its first byte to its last, hashed, its length checked.

use futures_util::{StreamExt, stream::LocalBoxStream};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    weights::manifest::hex,
};

pub(super) struct Input<'a> {
    stream: LocalBoxStream<'a, Result<Vec<u8>>>,
    progress: &'a mut dyn FnMut(u64, u64),
    hash: Sha256,
    /// Bytes received and not yet taken; the first one is the file's byte `taken`.
    buffer: Vec<u8>,
    taken: u64,
    len: u64,
}

impl<'a> Input<'a> {
    pub fn new(stream: LocalBoxStream<'a, Result<Vec<u8>>>, len: u64, progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        Input { stream, progress, hash: Sha256::new(), buffer: Vec::new(), taken: 0, len }
    }

    /// The length that the file was announced with.
    pub fn len(&self) -> u64 {
        self.len
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
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Passes over the bytes before the file's byte `offset`.
    pub async fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.taken < offset {
            self.take((offset - self.taken).min(1 << 16)).await?;
        }
        Ok(())
    }

    /// Reads what is left, checks the length, and returns the SHA-256 of the whole file.
    pub async fn finish(mut self) -> Result<String> {
        self.skip_to(self.len).await?;
        if !self.buffer.is_empty() || self.receive().await? {
            return Err(Error::Integrity(format!("the file is too long: it was announced with {} bytes", self.len)));
        }
        Ok(hex(&self.hash.finalize()))
    }

    /// Receives a chunk; false at the end of the stream.
    async fn receive(&mut self) -> Result<bool> {
        loop {
            match self.stream.next().await.transpose()? {
                None => return Ok(false),
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => {
                    self.hash.update(&chunk);
                    self.buffer.extend(chunk);
                    (self.progress)(self.taken + self.buffer.len() as u64, self.len);
                    return Ok(true);
                }
            }
        }
    }
}

/// The digest of `file`, as read, if its publisher states the same or none.
pub(super) fn verified(sha256: String, stated: Option<&str>, file: &str) -> Result<String> {
    match stated {
        Some(stated) if stated != sha256 => {
            Err(Error::Integrity(format!("{file} has sha256 {sha256}, its publisher states {stated}: load it again")))
        }
        _ => Ok(sha256),
    }
}
