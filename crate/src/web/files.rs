//! A person's own files, asked for as if they lay on a server.

use std::{collections::BTreeMap, ops::Range};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use web_sys::File;

use super::opfs;
use crate::{
    error::{Error, Result},
    weights::{
        Files,
        files::{Listing, cut_short},
        network::{Fetch, Headers, Request, Response},
        source::LOCAL,
    },
};

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// Files by name.
pub struct LocalFiles(BTreeMap<String, File>);

impl LocalFiles {
    /// No two may have one name.
    pub fn new(files: Vec<(String, File)>) -> Result<LocalFiles> {
        let mut named = BTreeMap::new();
        for (name, file) in files {
            if named.insert(name.clone(), file).is_some() {
                return Err(Error::InvalidInput(format!("two files are called {name:?}: choose the files of one model")));
            }
        }
        Ok(LocalFiles(named))
    }

    /// Files under names that are not their own.
    pub fn named(files: BTreeMap<String, File>) -> LocalFiles {
        LocalFiles(files)
    }

    /// Names and sizes.
    pub fn listing(&self) -> Listing {
        self.0.iter().map(|(name, file)| (name.clone(), file.size() as u64)).collect()
    }
}

impl Fetch for LocalFiles {
    fn get<'a>(&'a self, Request { url, range, .. }: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let file = url.strip_prefix(LOCAL).and_then(|name| self.0.get(name));
        let response = match file {
            Some(file) => answer(file, range),
            None => Response { status: 404, headers: Headers::default(), body: stream::empty().boxed_local() },
        };
        async { Ok(response) }.boxed_local()
    }
}

impl Files for LocalFiles {
    fn read<'a>(&'a self, name: &'a str, offset: u64, len: usize) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        async move {
            let file = self.0.get(name).ok_or_else(|| Error::NotFound(format!("file {name:?} of the package")))?;
            let (end, size) = (offset.saturating_add(len as u64), file.size() as u64);
            if end > size {
                return Err(cut_short(name, offset, len, size));
            }
            opfs::slice(file, offset, end, name).await
        }
        .boxed_local()
    }
}

fn answer(file: &File, range: Option<Range<u64>>) -> Response {
    let size = file.size() as u64;
    let Range { start, end } = range.clone().unwrap_or(0..size);
    let end = end.min(size);
    let mut headers = Headers { length: Some(end.saturating_sub(start)), ..Headers::default() };
    if range.is_some() && start >= end {
        return Response { status: 416, headers, body: stream::empty().boxed_local() };
    }
    headers.content_range = range.is_some().then(|| format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
    let body = stream::try_unfold((file.clone(), start), move |(file, at)| async move {
        let to = end.min(at + PIECE);
        if at >= to {
            return Ok(None);
        }
        let piece = opfs::slice(&file, at, to, &file.name()).await.map_err(|e| match e {
            // The browser refuses to read a file that was written to since it was chosen.
            Error::Storage(what) | Error::NotFound(what) => Error::Integrity(format!("{what}: the file may have changed: choose it again")),
            other => other,
        })?;
        Ok(Some((piece, (file, to))))
    });
    Response { status: if range.is_some() { 206 } else { 200 }, headers, body: body.boxed_local() }
}
