//! The network and time as the policies here see them, and patience with both.

use std::{future::Future, ops::Range, pin::pin};

use futures_util::{
    FutureExt, StreamExt,
    future::{Either, LocalBoxFuture, select},
    stream::LocalBoxStream,
};

use super::{
    abort::Abort,
    retry::{Attempts, retry_after_ms},
};
use crate::error::{Error, Result};

/// A connection without a byte for this long counts as broken.
const STALL_MS: f64 = 30_000.0;

/// Most bytes that are set aside on a server's word.
const MOST_AT_ONCE: usize = 48 << 20;

/// Bytes as they come.
pub type ByteStream<'a> = LocalBoxStream<'a, Result<Vec<u8>>>;

/// The network.
pub trait Fetch {
    /// Asks for an address, or for a range of its bytes. A server's answer of any status is a response; a connection that
    /// fails is a `network` error, or `offline` where that is known. Dropping the response ends the transfer. A redirect to
    /// another host must not carry the token along.
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>>;
}

/// A question to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The address.
    pub url: &'a str,
    /// Which bytes; all of them where there is none.
    pub range: Option<Range<u64>>,
    /// For the header `If-Range`: the bytes only if they are of this version ([`Headers::validator`]), else the whole file.
    pub if_range: Option<&'a str>,
    /// For the header `Authorization: Bearer`.
    pub token: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// All bytes at `url`.
    pub fn new(url: &'a str) -> Request<'a> {
        Request { url, ..Request::default() }
    }
}

/// A server's answer.
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// What its headers say.
    pub headers: Headers,
    /// The body as it comes; a broken connection is a `network` error.
    pub body: ByteStream<'static>,
}

/// The headers that matter here; a browser hides most of those of other origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Length`: of the transfer, which may be compressed.
    pub length: Option<u64>,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
    /// `Content-Encoding`: the body has been decoded already, but ranges and `ETag` are those of the encoded file.
    pub encoding: Option<String>,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// Whether another address answered than the one that was asked.
    pub redirected: bool,
    /// `Content-Range`.
    pub content_range: Option<String>,
    /// A hub's `X-Linked-ETag`: the SHA-256 of a large file.
    pub linked_etag: Option<String>,
    /// A hub's `X-Repo-Commit`: the revision that was served.
    pub commit: Option<String>,
}

impl Headers {
    /// First byte and size of the whole, from `bytes 0-99/1234`.
    pub fn range(&self) -> Option<(u64, u64)> {
        let (range, total) = self.content_range.as_deref()?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
    }

    /// Whether the body was compressed on its way.
    pub fn is_encoded(&self) -> bool {
        self.encoding.as_deref().is_some_and(|encoding| !encoding.is_empty() && encoding != "identity")
    }

    /// What names this version of the file: its `ETag` if that promises equal bytes, or else when it was changed.
    pub fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        strong.or(self.last_modified.as_deref()).filter(|_| !self.is_encoded())
    }
}

/// Gives a hub its token, and nobody else.
pub struct Authorized<'a> {
    /// Who asks.
    pub fetch: &'a dyn Fetch,
    /// The hub's [`origin`].
    pub origin: String,
    /// The person's token.
    pub token: Option<String>,
}

impl Fetch for Authorized<'_> {
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let token = self.token.as_deref().filter(|_| origin(request.url) == Some(&self.origin));
        self.fetch.get(Request { token, ..request })
    }
}

/// The network of who may not use it.
pub struct NoNetwork;

impl Fetch for NoNetwork {
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let error = Error::Offline(format!("{} is needed and not stored, and this load may not use the network", request.url));
        async { Err(error) }.boxed_local()
    }
}

/// Scheme and host of an address: `https://host:port`; none where that is not plainly what it begins with. What is before
/// an `@` would be a name and a password, which have no place in an address.
pub fn origin(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) && host.contains(|c: char| c.is_alphanumeric());
    plain.then(|| &url[..url.len() - rest.len() + host.len()])
}

/// Time, so that tests need none.
pub trait Clock {
    /// Milliseconds since any fixed moment.
    fn now_ms(&self) -> f64;
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> f64;
    /// Waits.
    fn sleep(&self, ms: f64) -> LocalBoxFuture<'_, ()>;
}

/// A failed attempt, and whether another may help.
pub(super) struct Failed {
    pub error: Error,
    pub again: bool,
    /// When the server wants to be asked again.
    pub after_ms: Option<f64>,
    /// What it answered with, if it answered.
    pub status: Option<u16>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let again = matches!(error, Error::Network(_));
        Self { error, again, after_ms: None, status: None }
    }
}

impl Failed {
    /// Another attempt may help.
    pub fn once_more(error: Error) -> Failed {
        Failed { again: true, ..error.into() }
    }
}

/// The start of a small file, and what the server said of it.
pub(super) struct Start {
    pub bytes: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
    /// The revision that a hub served.
    pub commit: Option<String>,
}

/// The network, with time and the wish to stop.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    /// Where bytes come from.
    pub fetch: &'a dyn Fetch,
    /// For back-off and stalls.
    pub clock: &'a dyn Clock,
    /// The caller's wish to stop.
    pub abort: &'a Abort,
}

impl Network<'_> {
    /// The small file at `url`; none if there is none. One of more than `most` bytes is refused.
    pub(super) async fn read(&self, url: &str, most: usize) -> Result<Option<Vec<u8>>> {
        match self.start(url, most).await? {
            Some(Start { whole: false, .. }) => Err(Error::InvalidFile(format!("{url} is longer than {most} bytes"))),
            start => Ok(start.map(|start| start.bytes)),
        }
    }

    /// The file at `url`, or its first `most` bytes; none if there is none.
    pub(super) async fn start(&self, url: &str, most: usize) -> Result<Option<Start>> {
        let attempt = async || match self.answer(Request::new(url)).await {
            Ok(response) => self.body(url, response, most).await.map(Some),
            Err(Failed { error: Error::NotFound(_), .. }) => Ok(None),
            Err(failed) => Err(failed),
        };
        self.persistently(attempt).await
    }

    async fn body(&self, url: &str, mut response: Response, most: usize) -> Result<Start, Failed> {
        // As much as is announced, and not twice that while it grows: a tokenizer may have 35 MB.
        let announced = response.headers.length.unwrap_or(0).min(most.min(MOST_AT_ONCE) as u64);
        let mut bytes = Vec::with_capacity(announced as usize);
        while let Some(chunk) = self.patiently(url, response.body.next()).await? {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > most {
                bytes.truncate(most);
                return Ok(Start { bytes, whole: false, commit: response.headers.commit });
            }
        }
        Ok(Start { bytes, whole: true, commit: response.headers.commit })
    }

    /// Asks, and reads the status: a response has status 200 or 206.
    pub(super) async fn answer(&self, request: Request<'_>) -> Result<Response, Failed> {
        let url = request.url;
        let response = self.patiently(url, self.fetch.get(request)).await??;
        match response.status {
            200 | 206 => Ok(response),
            404 | 410 => Err(Error::NotFound(url.to_string()).into()),
            status => {
                let hint = match status {
                    401 | 403 => ": it asks who you are; a hub's gated or private models need a token and, some, their terms accepted",
                    _ => "",
                };
                let error = Error::Network(format!("{url}: the server answered with status {status}{hint}"));
                // An address that was redirected to may have expired: asking the first one again gives another.
                let again = matches!(status, 408 | 425 | 429 | 500..=599) || (matches!(status, 401 | 403) && response.headers.redirected);
                let after = response.headers.retry_after.as_deref().filter(|_| matches!(status, 429 | 503));
                let after_ms = after.and_then(|text| retry_after_ms(text, self.clock.unix_ms()));
                Err(Failed { error, again, after_ms, status: Some(status) })
            }
        }
    }

    /// Repeats `attempt` while that may help, waiting longer each time.
    pub(super) async fn persistently<T>(&self, attempt: impl AsyncFn() -> Result<T, Failed>) -> Result<T> {
        let mut attempts = Attempts::new(*self);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(failed) => attempts.again(failed).await?,
            }
        }
    }

    pub(super) async fn sleep(&self, ms: f64) -> Result<()> {
        self.abort.or(self.clock.sleep(ms).map(Ok)).await
    }

    /// What `work` gives, unless it takes too long or the caller wants to stop.
    pub(super) async fn patiently<T>(&self, url: &str, work: impl Future<Output = T>) -> Result<T> {
        let (work, stall) = (pin!(work), self.clock.sleep(STALL_MS));
        let first = select(work, stall).map(|first| match first {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Error::Network(format!("{url}: nothing came for {} s", STALL_MS / 1000.0))),
        });
        self.abort.or(first).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_and_host() {
        assert_eq!(origin("https://hub.example/a/b"), Some("https://hub.example"));
        assert_eq!(origin("http://127.0.0.1:80?x"), Some("http://127.0.0.1:80"));
        assert_eq!(origin("https://hub.example.evil/"), Some("https://hub.example.evil"));
        // A browser reads what is before the @ as a name, and a backslash as a slash.
        assert_eq!(origin("https://evil\\@hub.example/"), Some("https://evil"));
        for none in ["https://hub.example@evil/", "https://", "https:///path", "https://[", "file:x"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }

    #[test]
    fn a_range_has_its_start_and_the_size_of_the_whole() {
        let range = |text: &str| Headers { content_range: Some(text.into()), ..Headers::default() }.range();
        assert_eq!(range("bytes 5-9/20"), Some((5, 20)));
        assert_eq!(range("bytes */20"), None);
        assert_eq!(range("bytes 0-9/*"), None);
    }
}
