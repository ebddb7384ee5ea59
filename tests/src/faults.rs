//! A server on which everything goes wrong that goes wrong on the way of a download, as a script says; it notes what is fetched
//! although it is stored already.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use openweights::{
    Error, Result,
    weights::{
        manifest::sha256_hex,
        network::{Clock, Fetch, Headers, Request, Response},
        store_memory::MemoryStorage,
    },
};

use crate::virtual_clock::VirtualClock;

/// What goes wrong in one answer. Positions are taken modulo what the answer has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    Fine,
    /// This status.
    Status(u16),
    /// This status, and when to come back.
    Busy(u16, &'static str),
    /// 403 from the address that the first one redirects to.
    Expired,
    /// No connection.
    Refused,
    /// The connection breaks after so many bytes.
    Broken(usize),
    /// After so many bytes nothing comes any more.
    Stalled(usize),
    /// So many milliseconds before each piece.
    Trickle(u32),
    /// The body ends after so many bytes, and `Content-Length` says the same.
    CutShort(usize),
    /// So many bytes too many.
    Longer(usize),
    /// One bit of this byte.
    Flipped(usize),
    /// From now on the file is another version, of the same bytes.
    Changed,
    /// 206 with a range that nobody asked for.
    WrongRange,
    /// The range is ignored.
    NoRanges,
    /// The file is compressed, and a range is one of the compressed file.
    Gzip,
}

/// What names a version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// An `ETag` that promises equal bytes.
    Strong,
    /// One that does not.
    Weak,
    /// `Last-Modified`.
    Date,
    /// Nothing.
    Unsaid,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The file.
    pub path: String,
    /// Which bytes.
    pub range: Option<Range<u64>>,
    /// Of which version.
    pub if_range: Option<String>,
}

/// Serves files; each answer for a file takes the next fault of its script, then all is well.
pub struct FaultServer {
    /// What addresses begin with.
    pub base: &'static str,
    /// Contents by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Scripts by name.
    pub faults: RefCell<BTreeMap<String, VecDeque<Fault>>>,
    /// All requests.
    pub asked: RefCell<Vec<Asked>>,
    /// Bytes of a piece.
    pub chunk: usize,
    /// Nothing may be asked for.
    pub down: Cell<bool>,
    /// Whether ranges are served at all.
    pub ranges: bool,
    /// Whether the page sees the headers that a browser hides of other origins.
    pub exposed: bool,
    /// Whether requests with `If-Range` pass: pages of other origins need the server's leave.
    pub if_range: bool,
    /// What it says of versions.
    pub version: Version,
    /// Time.
    pub clock: VirtualClock,
    /// What is stored, to know what is fetched again.
    pub storage: MemoryStorage,
    /// Bytes that were asked for although they were stored: because the protocol leaves no choice, and without such a reason.
    pub again: Cell<(u64, u64)>,
    changes: RefCell<BTreeMap<String, usize>>,
    excused: RefCell<BTreeSet<String>>,
}

impl FaultServer {
    /// A server of these files that does everything right.
    pub fn new(base: &'static str, files: BTreeMap<String, Vec<u8>>, clock: VirtualClock, storage: MemoryStorage) -> FaultServer {
        FaultServer {
            base,
            files,
            clock,
            storage,
            chunk: 1000,
            ranges: true,
            exposed: true,
            if_range: true,
            version: Version::Strong,
            faults: RefCell::default(),
            asked: RefCell::default(),
            down: Cell::default(),
            again: Cell::default(),
            changes: RefCell::default(),
            excused: RefCell::default(),
        }
    }

    /// Names of what was asked for since the last call.
    pub fn paths(&self) -> Vec<String> {
        self.asked.take().into_iter().map(|asked| asked.path).collect()
    }

    /// Counts what is asked for although it is there. The protocol forces that where the server has no ranges or sends wrong ones,
    /// where the version changed or bytes were wrong.
    fn count(&self, path: &str, bytes: &[u8], asked: &Range<u64>) {
        let sha256 = sha256_hex(bytes);
        let stored = self.storage.partial_size(&sha256).min(asked.end);
        let twice = stored.saturating_sub(asked.start);
        let (forced, unforced) = self.again.get();
        let excused = !self.ranges || self.excused.borrow().contains(path);
        self.again.set(if excused { (forced + twice, unforced) } else { (forced, unforced + twice) });
    }

    fn headers(&self, path: &str) -> Headers {
        let version = self.changes.borrow().get(path).copied().unwrap_or(0);
        let mut headers = Headers::default();
        match self.version {
            Version::Strong => headers.etag = Some(format!("\"{path}-{version}\"")),
            Version::Weak => headers.etag = Some(format!("W/\"{path}-{version}\"")),
            Version::Date => headers.last_modified = Some(format!("Thu, 01 Jan 2026 00:00:0{version} GMT")),
            Version::Unsaid => {}
        }
        headers
    }

    fn answer(&self, request: &Request<'_>, path: &str) -> Result<Response> {
        let fault = self.faults.borrow_mut().get_mut(path).and_then(VecDeque::pop_front).unwrap_or(Fault::Fine);
        let excuse = || self.excused.borrow_mut().insert(path.to_owned());
        let Some(whole) = self.files.get(path) else { return Ok(refusal(404, Headers::default())) };
        let size = whole.len() as u64;
        self.count(path, whole, &request.range.clone().unwrap_or(0..size));
        if request.if_range.is_some() && !self.if_range {
            return Err(Error::Network("a preflight was refused".into()));
        }
        match fault {
            Fault::Refused => return Err(Error::Network("refused".into())),
            Fault::Status(status) => return Ok(refusal(status, Headers::default())),
            Fault::Busy(status, after) => {
                return Ok(refusal(status, Headers { retry_after: self.exposed.then(|| after.into()), ..Headers::default() }));
            }
            Fault::Expired => return Ok(refusal(403, Headers { redirected: true, ..Headers::default() })),
            Fault::Changed => {
                excuse();
                *self.changes.borrow_mut().entry(path.to_owned()).or_default() += 1;
            }
            Fault::Flipped(_) | Fault::Longer(_) | Fault::WrongRange | Fault::NoRanges | Fault::Gzip => drop(excuse()),
            // A shorter Content-Length is all that a page sees of a wrong range, where other headers are hidden.
            Fault::CutShort(_) if !self.exposed => drop(excuse()),
            _ => {}
        }
        let mut headers = self.headers(path);
        let same = request.if_range.is_none_or(|version| headers.validator() == Some(version));
        let range = request.range.clone().filter(|_| self.ranges && same && fault != Fault::NoRanges);
        let mut status = 200;
        let mut range = match range {
            Some(range) if range.start >= size => return Ok(refusal(416, Headers::default())),
            Some(range) => {
                status = 206;
                range.start..range.end.min(size)
            }
            None => 0..size,
        };
        if fault == Fault::WrongRange && status == 206 {
            range.start /= 2;
        }
        let mut body = whole[range.start as usize..range.end as usize].to_vec();
        headers.content_range = (status == 206).then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1));
        headers.length = Some(body.len() as u64);
        let at = |at: usize| at % body.len().max(1);
        match fault {
            Fault::Broken(n) | Fault::Stalled(n) => body.truncate(at(n)),
            Fault::CutShort(n) => {
                body.truncate(at(n));
                headers.length = Some(body.len() as u64);
            }
            Fault::Longer(by) => {
                body.extend(vec![7; by]);
                headers.length = Some(body.len() as u64);
            }
            Fault::Flipped(n) if !body.is_empty() => {
                let n = at(n);
                body[n] ^= 1 << (n % 8);
            }
            Fault::Gzip => {
                headers.encoding = Some("gzip".into());
                headers.length = Some(size / 2);
                if status == 206 {
                    headers.content_range = Some(format!("bytes {}-{}/{}", range.start, size / 2, size / 2 + 1));
                    body = body.iter().rev().map(|byte| !byte).collect();
                }
            }
            _ => {}
        }
        if !self.exposed {
            // Of these a browser shows a page of another origin only length and date.
            headers = Headers { length: headers.length, last_modified: headers.last_modified, ..Headers::default() };
        }
        let (clock, wait) = (self.clock.clone(), if let Fault::Trickle(ms) = fault { ms } else { 1 });
        let chunks: Vec<Result<Vec<u8>>> = body.chunks(self.chunk).map(|chunk| Ok(chunk.to_vec())).collect();
        let body = stream::iter(chunks).then(move |chunk| {
            let clock = clock.clone();
            async move {
                clock.sleep(f64::from(wait)).await;
                chunk
            }
        });
        let body = match fault {
            Fault::Broken(_) => body.chain(stream::iter([Err(Error::Network("broken".into()))])).boxed_local(),
            Fault::Stalled(_) => body.chain(stream::pending()).boxed_local(),
            _ => body.boxed_local(),
        };
        Ok(Response { status, headers, body })
    }
}

fn refusal(status: u16, headers: Headers) -> Response {
    Response { status, headers, body: stream::empty().boxed_local() }
}

impl Fetch for FaultServer {
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        let path = request.url.strip_prefix(self.base).expect(request.url);
        assert!(request.token.is_none() && !self.down.get(), "{path} was asked for");
        let asked = Asked { path: path.into(), range: request.range.clone(), if_range: request.if_range.map(str::to_owned) };
        self.asked.borrow_mut().push(asked);
        let response = self.answer(&request, path);
        async move {
            self.clock.sleep(10.0).await;
            response
        }
        .boxed_local()
    }
}
