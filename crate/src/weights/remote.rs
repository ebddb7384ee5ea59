//! A publisher's file at an address: first its head, a range at a time, then all of it as one stream.
//!
//! Where the server knows no ranges, the head is the beginning of the one answer, which goes on when the rest is wanted.

use futures_util::{StreamExt, stream};

use super::{
    network::{ByteStream, Failed, Headers, Network, Request, Response},
    retry::Attempts,
};
use crate::error::{Error, Result};

/// Bytes of the first question: enough for most headers of safetensors files.
const FIRST: usize = 256 << 10;

/// A file whose beginning has been read.
pub struct Remote<'a> {
    network: Network<'a>,
    /// Its address.
    pub url: String,
    /// Its size.
    pub size: u64,
    /// What the server said of it.
    pub headers: Headers,
    head: Vec<u8>,
    /// Where there are no ranges: the answer, from the end of `head` on.
    body: Option<ByteStream<'static>>,
    ranges: bool,
}

impl<'a> Remote<'a> {
    /// Reads the beginning of the file at `url`; none if there is no such file.
    pub async fn open(network: Network<'a>, url: String) -> Result<Option<Remote<'a>>> {
        let opened = network.persistently(async || match Self::attempt(network, &url).await {
            Ok(remote) => Ok(Some(remote)),
            Err(Failed { error: Error::NotFound(_), .. }) => Ok(None),
            Err(failed) => Err(failed),
        });
        opened.await
    }

    async fn attempt(network: Network<'a>, url: &str) -> Result<Remote<'a>, Failed> {
        let first = Request { range: Some(0..FIRST as u64), ..Request::new(url) };
        let response = match network.answer(first).await {
            // 416: not one byte to give. The whole of it says so, or is something else.
            Err(Failed { status: Some(416), .. }) => None,
            other => Some(other?),
        };
        let mut response = match response {
            // A server of another origin may hide the header that tells the size: then the file is taken as a whole.
            Some(response) if response.status == 200 => response,
            // A range of a compressed file would be a part of something else.
            Some(response) if matches!(response.headers.range(), Some((0, _))) && !response.headers.is_encoded() => response,
            _ => network.answer(Request::new(url)).await?,
        };
        let ranged = response.headers.range().filter(|_| response.status == 206);
        let size = ranged.map(|(_, total)| total).or(response.headers.length.filter(|_| !response.headers.is_encoded()));
        let size = size.ok_or_else(|| {
            Error::Network(format!("{url}: the server does not say how long the file is (no Content-Length, or a compressed answer)"))
        })?;
        let mut remote = Remote {
            network,
            url: url.to_owned(),
            size,
            headers: response.headers,
            head: Vec::new(),
            body: None,
            ranges: ranged.is_some(),
        };
        if remote.ranges {
            while let Some(chunk) = network.patiently(url, response.body.next()).await? {
                remote.head.extend(chunk?);
                if remote.head.len() > FIRST {
                    return Err(Error::Network(format!("{url}: the server sends more than it was asked for")).into());
                }
            }
        } else {
            remote.body = Some(response.body);
        }
        Ok(remote)
    }

    /// Its first `len` bytes, or more; all of it if it is shorter.
    pub async fn head(&mut self, len: u64) -> Result<&[u8]> {
        while (self.head.len() as u64) < len.min(self.size) {
            match &mut self.body {
                Some(body) => match self.network.patiently(&self.url, body.next()).await? {
                    Some(chunk) => self.head.extend(chunk?),
                    None => return Err(self.cut_short()),
                },
                None => {
                    // At least doubling keeps the questions few.
                    let end = len.max(2 * self.head.len() as u64).min(self.size);
                    let network = self.network;
                    let more = network.persistently(async || self.range(self.head.len() as u64, end).await).await?;
                    self.head.extend(more);
                }
            }
        }
        Ok(&self.head)
    }

    /// Ends an answer that is still running: who reads the heads of many files wants few connections.
    pub fn pause(&mut self) {
        if self.body.take().is_some() {
            self.head.clear();
        }
    }

    async fn range(&self, start: u64, end: u64) -> Result<Vec<u8>, Failed> {
        let mut response = self.ask(start, end).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.network.patiently(&self.url, response.body.next()).await? {
            bytes.extend(chunk?);
            if bytes.len() as u64 > end - start {
                break;
            }
        }
        match bytes.len() as u64 == end - start {
            true => Ok(bytes),
            false => Err(Error::Network(format!("{}: asked for bytes {start} to {end}, got {}", self.url, bytes.len())).into()),
        }
    }

    /// An answer with bytes `start .. end` of the same file as before.
    async fn ask(&self, start: u64, end: u64) -> Result<Response, Failed> {
        let response = self.network.answer(Request { range: Some(start..end), ..Request::new(&self.url) }).await?;
        let whole = response.headers.range() == Some((start, self.size));
        self.same(response, |response| whole && response.status == 206 && !response.headers.is_encoded())
    }

    /// An answer with all of the file, the same as before.
    async fn ask_for_all(&self) -> Result<Response, Failed> {
        let response = self.network.answer(Request::new(&self.url)).await?;
        self.same(response, |response| response.headers.length.is_none_or(|length| length == self.size || response.headers.is_encoded()))
    }

    /// `response` if it is of the version that the first answer was of, and as `expected`.
    fn same(&self, response: Response, expected: impl Fn(&Response) -> bool) -> Result<Response, Failed> {
        let version = |headers: &Headers| (headers.etag.clone(), headers.validator().map(str::to_owned));
        match version(&response.headers) == version(&self.headers) && expected(&response) {
            true => Ok(response),
            false => Err(Error::Integrity(format!("{}: the file changed while it was read: load it again", self.url)).into()),
        }
    }

    fn cut_short(&self) -> Error {
        let (url, have, size) = (&self.url, self.head.len(), self.size);
        Error::Integrity(format!("{url} is cut short: it ended at byte {have} of {size}: load it again"))
    }

    /// What is known of its head, and as much more as is asked for; the rest of the file is not asked for.
    pub fn headers_only(&mut self) -> ByteStream<'_> {
        let given = 0;
        stream::try_unfold((self, given), |(remote, given)| async move {
            let head = remote.head(given as u64 + 1).await?;
            let more = head[given..].to_vec();
            let end = head.len();
            Ok((!more.is_empty()).then_some((more, (remote, end))))
        })
        .boxed_local()
    }

    /// Whether its server knows ranges.
    pub fn ranges(&self) -> bool {
        self.ranges
    }

    /// Opens it at any byte. What is not known of it is asked for when it is wanted; a connection that breaks is taken up again where it broke, if
    /// the server knows ranges. If it knows none, what is before that byte comes, too, and is dropped.
    pub fn into_open(self) -> impl FnMut(u64) -> ByteStream<'a> + 'a {
        let mut remote = self;
        move |offset| {
            let Remote { network, size, ranges, .. } = remote;
            let (head, body) = (std::mem::take(&mut remote.head), remote.body.take());
            let again = Remote { network, url: remote.url.clone(), size, headers: remote.headers.clone(), head: Vec::new(), body, ranges };
            let reading = match ranges {
                true => Reading { received: offset, chunk: head.get(offset as usize..).map(<[u8]>::to_vec), drop: 0, remote: again },
                false => Reading { received: 0, chunk: Some(head), drop: offset, remote: again },
            };
            stream::try_unfold(reading, |mut reading| async move { Ok(reading.next().await?.map(|chunk| (chunk, reading))) }).boxed_local()
        }
    }
}

/// A file as it streams.
struct Reading<'a> {
    remote: Remote<'a>,
    /// What is there of it.
    chunk: Option<Vec<u8>>,
    /// Bytes of the file up to where the next chunk begins.
    received: u64,
    /// Bytes that come and are not wanted.
    drop: u64,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some(mut chunk) = self.receive().await? {
            let dropped = self.drop.min(chunk.len() as u64);
            self.drop -= dropped;
            if dropped < chunk.len() as u64 {
                drop(chunk.drain(..dropped as usize));
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut chunk = self.chunk.take().filter(|chunk| !chunk.is_empty());
        let mut attempts = Attempts::new(self.remote.network);
        while chunk.is_none() {
            match self.attempt().await {
                Ok(None) => return Ok(None),
                Ok(more) => chunk = more,
                // What was read is converted already: without ranges there is no way back to it.
                Err(failed) if !self.remote.ranges && self.received > 0 => return Err(failed.error),
                Err(failed) => attempts.again(failed).await?,
            }
        }
        self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }

    /// The next piece; none at the end.
    async fn attempt(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let remote = &mut self.remote;
        if remote.body.is_none() {
            if self.received >= remote.size && remote.size > 0 {
                return Ok(None);
            }
            let response = match remote.ranges {
                true => remote.ask(self.received, remote.size).await?,
                false => remote.ask_for_all().await?,
            };
            remote.body = Some(response.body);
        }
        let Some(body) = &mut remote.body else { return Ok(None) };
        let next = remote.network.patiently(&remote.url, body.next()).await.and_then(Option::transpose);
        match next {
            Ok(Some(chunk)) => Ok(Some(chunk)),
            Ok(None) if self.received < remote.size && remote.ranges => {
                remote.body = None;
                Err(Error::Network(format!("{}: the connection ended at byte {} of {}", remote.url, self.received, remote.size)).into())
            }
            Ok(None) => Ok(None),
            Err(error) => {
                remote.body = None;
                Err(error.into())
            }
        }
    }
}
