//! A file on its way into the store: what has arrived stays, whatever breaks, and only the rest is asked for.
//!
//! The bytes lie in `partial/<sha256>`, beside a note of the version that the server sent (`ETag` or `Last-Modified`); so another
//! attempt, another visit or another tab goes on where this one ended. A server that has no ranges, or another version by now,
//! sends the file from its beginning. What was put together of several answers may be right in every part and wrong as a whole;
//! the digest decides, and a wrong file gets one more chance, from its first byte.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    manifest::{FileEntry, hex},
    network::{Failed, Network, Request, Response},
    progress::Meter,
    retry::Attempts,
    store::{NOTE, Partial, Storage},
};
use crate::error::{Error, Result};

/// Bytes that are read at once of what is stored.
const BLOCK: usize = 1 << 20;

/// A file to fetch: from where, to where.
#[derive(Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub network: Network<'a>,
    pub storage: &'a dyn Storage,
    pub meter: &'a Meter<'a>,
    /// What the manifest says of it.
    pub file: &'a FileEntry,
}

/// What is known of the version that a partial file's bytes are of.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    validator: Option<String>,
}

/// What has arrived.
struct Arrived {
    partial: Box<dyn Partial>,
    hash: Sha256,
    note: Note,
    /// The most that has been there: only more is progress.
    most: u64,
    /// Whether ranges are of use: they are not once the server sent another one than was asked for.
    ranges: bool,
    /// Whether `If-Range` may be said: a server that does not expect the header from pages of other origins lets no such request pass.
    conditional: bool,
}

/// Where an answer's bytes belong.
#[derive(PartialEq)]
enum Place {
    Beginning,
    End,
    Nowhere,
}

impl Transfer<'_> {
    /// Fetches the file from `url` and makes it a blob.
    pub async fn run(&self, url: &str) -> Result<()> {
        let mut arrived = self.open().await?;
        let mut again = true;
        loop {
            self.receive(url, &mut arrived).await?;
            let found = hex(&arrived.hash.clone().finalize());
            if found == self.file.sha256 {
                break;
            }
            self.restart(&mut arrived, None).await?;
            if !again {
                let FileEntry { path, sha256, .. } = self.file;
                drop(arrived);
                self.storage.remove_partial(sha256).await?;
                self.storage.remove_partial(&self.note()).await?;
                return Err(Error::Integrity(format!("{path:?} is not what was published: expected sha256 {sha256}, found {found}")));
            }
            (again, arrived.ranges) = (false, false);
        }
        arrived.partial.commit(&self.file.sha256).await?;
        self.storage.remove_partial(&self.note()).await
    }

    fn note(&self) -> String {
        format!("{}{NOTE}", self.file.sha256)
    }

    /// Opens what is stored, and hashes it.
    async fn open(&self) -> Result<Arrived> {
        let partial = self.storage.resume(&self.file.sha256).await?;
        let note = self.read_note().await?;
        let mut arrived = Arrived { partial, hash: Sha256::new(), note, most: 0, ranges: true, conditional: true };
        let size = arrived.partial.size();
        if size > self.file.size {
            arrived.partial.truncate(0)?;
        }
        for start in (0..arrived.partial.size()).step_by(BLOCK) {
            self.network.abort.check()?;
            let len = (arrived.partial.size() - start).min(BLOCK as u64);
            arrived.hash.update(arrived.partial.read(start, len as usize).await?);
        }
        arrived.most = arrived.partial.size();
        Ok(arrived)
    }

    /// A note that cannot be read says nothing.
    async fn read_note(&self) -> Result<Note> {
        let mut file = self.storage.resume(&self.note()).await?;
        let size = file.size().min(BLOCK as u64) as usize;
        Ok(serde_json::from_slice(&file.read(0, size).await?).unwrap_or_default())
    }

    /// Drops what is there; what comes now is of this version.
    async fn restart(&self, arrived: &mut Arrived, validator: Option<&str>) -> Result<()> {
        self.meter.take_back(arrived.partial.size());
        arrived.partial.truncate(0)?;
        arrived.hash = Sha256::new();
        arrived.note = Note { validator: validator.map(str::to_owned) };
        // Before the first byte of it: after a crash there never is a note of one version beside bytes of another.
        let note = serde_json::to_vec(&arrived.note).expect("a text is JSON");
        self.storage.begin(&self.note()).await?.append(&note).await
    }

    /// Repeats attempts until all bytes are there.
    async fn receive(&self, url: &str, arrived: &mut Arrived) -> Result<()> {
        let mut attempts = Attempts::new(self.network);
        while arrived.partial.size() < self.file.size {
            let Err(failed) = self.attempt(url, arrived).await else { break };
            if arrived.partial.size() > arrived.most {
                arrived.most = arrived.partial.size();
                attempts.progressed();
            }
            attempts.again(failed).await?;
        }
        Ok(())
    }

    /// One answer: its bytes are stored as they come.
    async fn attempt(&self, url: &str, arrived: &mut Arrived) -> Result<(), Failed> {
        let size = self.file.size;
        let mut response = self.ask(url, arrived).await?;
        match place(&response, arrived, size) {
            Place::End => {}
            Place::Beginning => self.restart(arrived, response.headers.validator()).await?,
            Place::Nowhere => {
                arrived.ranges = false;
                return Err(Failed::once_more(Error::Network(format!("{url}: the server sent another range than it was asked for"))));
            }
        }
        while let Some(chunk) = self.network.patiently(url, response.body.next()).await? {
            let chunk = chunk?;
            if chunk.len() as u64 > size - arrived.partial.size() {
                self.restart(arrived, None).await?;
                arrived.ranges = false;
                let message = format!("{:?} is longer than the {size} bytes that the manifest says", self.file.path);
                return Err(Failed::once_more(Error::Integrity(message)));
            }
            self.network.abort.or(arrived.partial.append(&chunk)).await?;
            arrived.hash.update(&chunk);
            self.meter.add(chunk.len() as u64, &self.file.path);
        }
        match arrived.partial.size() {
            all if all == size => Ok(()),
            found => {
                let message = format!("{:?} is cut short: expected {size} bytes, found {found}", self.file.path);
                Err(Failed::once_more(Error::Integrity(message)))
            }
        }
    }

    /// Asks for what is not there.
    async fn ask(&self, url: &str, arrived: &mut Arrived) -> Result<Response, Failed> {
        let have = arrived.partial.size();
        let range = (have > 0 && arrived.ranges).then_some(have..self.file.size);
        let if_range = arrived.note.validator.as_deref().filter(|_| range.is_some() && arrived.conditional);
        let answer = self.network.answer(Request { range, if_range, ..Request::new(url) }).await;
        if let Err(failed) = &answer {
            match failed.status {
                // The server's file ends before what is there.
                Some(416) => arrived.ranges = false,
                None if if_range.is_some() => arrived.conditional = false,
                _ => {}
            }
        }
        answer.map_err(|failed| if failed.status == Some(416) { Failed { again: true, ..failed } } else { failed })
    }
}

fn place(response: &Response, arrived: &Arrived, size: u64) -> Place {
    let (headers, have) = (&response.headers, arrived.partial.size());
    if response.status == 200 {
        return Place::Beginning;
    }
    // A browser hides this header of other origins that do not expose it; the length it never hides.
    let right = match headers.content_range {
        Some(_) => headers.range() == Some((have, size)),
        None => headers.length.is_none_or(|length| length == size - have),
    };
    let same = match (&arrived.note.validator, headers.validator()) {
        (Some(before), Some(now)) => before == now,
        _ => true,
    };
    match right && same && !headers.is_encoded() {
        false => Place::Nowhere,
        true if have == 0 => Place::Beginning,
        true => Place::End,
    }
}
