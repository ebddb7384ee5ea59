//! Networks and clocks for tests of what is fetched: hosts with scripted faults, and time that passes only while all waits.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    ops::Range,
    rc::Rc,
    task::Poll,
};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::{
    Error, Result,
    weights::network::{Clock, Fetch, Headers, Request, Response},
};

/// Comes back after `n` polls.
pub async fn yields(mut n: usize) {
    poll_fn(|cx| {
        if n == 0 {
            return Poll::Ready(());
        }
        n -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Time passes only while everything waits.
#[derive(Default)]
pub struct FakeClock(Cell<f64>);

impl Clock for FakeClock {
    fn now_ms(&self) -> f64 {
        self.0.get()
    }

    fn unix_ms(&self) -> f64 {
        self.0.get()
    }

    fn sleep(&self, ms: f64) -> LocalBoxFuture<'_, ()> {
        async move {
            yields(200).await;
            self.0.set(self.0.get() + ms);
        }
        .boxed_local()
    }
}

/// A request as a host saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The address.
    pub url: String,
    /// The bytes.
    pub range: Option<Range<u64>>,
    /// The token.
    pub token: Option<String>,
}

/// What goes wrong in one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// None: the next one is for the next answer.
    Fine,
    /// This status, and nothing else.
    Status(u16),
    /// The connection breaks after so many bytes.
    Broken(usize),
    /// The file is another one by now.
    Changed,
}

/// Files at addresses.
pub struct Host {
    /// Contents by address.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is said of them besides.
    pub headers: BTreeMap<String, Headers>,
    /// Whether ranges are served.
    pub ranges: bool,
    /// Whether a browser would see `Content-Range`.
    pub exposed: bool,
    /// Each answer for an address takes the next of its faults.
    pub faults: RefCell<BTreeMap<String, VecDeque<Fault>>>,
    /// All requests.
    pub asked: RefCell<Vec<Asked>>,
    /// Bytes of a chunk.
    pub chunk: usize,
    /// Bytes that were given out, by address.
    pub sent: Rc<RefCell<BTreeMap<String, u64>>>,
}

impl Default for Host {
    fn default() -> Host {
        let (files, headers) = (BTreeMap::new(), BTreeMap::new());
        let (faults, asked, sent) = Default::default();
        Host { files, headers, ranges: true, exposed: true, faults, asked, chunk: 10_000, sent }
    }
}

impl Host {
    /// The addresses that were asked for since the last call.
    pub fn urls(&self) -> Vec<String> {
        self.asked.take().into_iter().map(|asked| asked.url).collect()
    }

    fn answer(&self, url: &str, range: Option<Range<u64>>) -> Response {
        let fault = self.faults.borrow_mut().get_mut(url).and_then(VecDeque::pop_front);
        let Some(bytes) = self.files.get(url) else { return Self::status(404) };
        let mut headers = self.headers.get(url).cloned().unwrap_or_default();
        let (mut status, mut start, mut end) = (200, 0, bytes.len());
        if let Some(range) = range.filter(|_| self.ranges) {
            (status, start, end) = (206, range.start as usize, bytes.len().min(range.end as usize));
            if start >= bytes.len() {
                return Self::status(416);
            }
            headers.content_range = self.exposed.then(|| format!("bytes {start}-{}/{}", end - 1, bytes.len()));
        }
        headers.length = Some((end - start) as u64);
        let mut broken = None;
        match fault {
            Some(Fault::Status(code)) => return Self::status(code),
            Some(Fault::Broken(after)) => {
                end = end.min(start + after);
                broken = Some(Err(Error::Network("broken".into())));
            }
            Some(Fault::Changed) if headers.last_modified.is_some() => headers.last_modified = Some("changed".into()),
            Some(Fault::Changed) => headers.etag = Some("changed".into()),
            Some(Fault::Fine) | None => {}
        }
        let chunks: Vec<Result<Vec<u8>>> = bytes[start..end].chunks(self.chunk).map(|c| Ok(c.to_vec())).chain(broken).collect();
        let (sent, url) = (self.sent.clone(), url.to_owned());
        let body = stream::iter(chunks).then(move |chunk| {
            *sent.borrow_mut().entry(url.clone()).or_default() += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            async {
                yields(1).await;
                chunk
            }
        });
        Response { status, headers, body: body.boxed_local() }
    }

    fn status(status: u16) -> Response {
        Response { status, headers: Headers::default(), body: stream::empty().boxed_local() }
    }
}

impl Fetch for Host {
    fn get<'a>(&'a self, Request { url, range, token, .. }: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        self.asked.borrow_mut().push(Asked { url: url.into(), range: range.clone(), token: token.map(str::to_owned) });
        let response = self.answer(url, range);
        async move {
            yields(1).await;
            Ok(response)
        }
        .boxed_local()
    }
}
