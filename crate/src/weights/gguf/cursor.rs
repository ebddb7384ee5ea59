//! Reading numbers and strings from a prefix of a file, knowing when the prefix is too short.

use super::MAX_HEADER;
use crate::error::{Error, Result};

/// Why parsing stopped.
pub(super) enum Stop {
    /// The prefix must be at least this long to go on.
    More(u64),
    /// The file is bad.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Bad(error)
    }
}

/// A position in the first bytes of a file whose length is known.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    file_len: u64,
    at: usize,
    claimed: u64,
}

/// Bytes that a header may take in memory beyond twice its own.
const MOST_CLAIMED: u64 = 12 << 20;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        Cursor { bytes, file_len, at: 0, claimed: 0 }
    }

    /// Byte offset of what is read next.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Makes sure that `count` elements of at least `size` bytes follow, before anything is allocated for them.
    pub(super) fn require(&self, count: u64, size: u64) -> Result<(), Stop> {
        let end = count.checked_mul(size).and_then(|n| n.checked_add(self.at as u64)).unwrap_or(u64::MAX);
        if end > self.file_len {
            let (at, len) = (self.at, self.file_len);
            return Err(Error::Integrity(format!(
                "the GGUF file is cut short: its header reads on at byte {at} to byte {end}, the file has {len} bytes"
            ))
            .into());
        }
        if end > MAX_HEADER {
            let at = self.at;
            return Err(
                Error::InvalidFile(format!("GGUF header: byte {at} asks for bytes up to {end}; a header ends by {MAX_HEADER}")).into()
            );
        }
        if end > self.bytes.len() as u64 { Err(Stop::More(end)) } else { Ok(()) }
    }

    /// As [`Cursor::require`], and that what they become, `each` bytes besides their text, is no more than a header may take.
    pub(super) fn claim(&mut self, count: u64, size: u64, each: usize) -> Result<(), Stop> {
        self.require(count, size)?;
        self.claimed = self.claimed.saturating_add(count.saturating_mul(each as u64));
        if self.claimed > self.at as u64 + count * size + MOST_CLAIMED {
            let at = self.at;
            return Err(Error::InvalidFile(format!("GGUF header: the {count} entries at byte {at} take more memory than is given")).into());
        }
        Ok(())
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Stop> {
        self.require(count, 1)?;
        let start = self.at;
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Stop> {
        let at = self.at;
        let len = self.u64()?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| Error::InvalidFile(format!("GGUF header: the string at byte {at} is not UTF-8")).into())
    }
}
