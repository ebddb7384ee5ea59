//! The network in a worker: `fetch`, with the body as a stream.

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, ReadableStreamDefaultReader, RequestCache, RequestInit};

use super::js::{message, worker};
use crate::{
    error::{Error, Result},
    weights::network::{Fetch, Headers, Request, Response},
};

/// The browser's `fetch`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BrowserFetch;

impl Fetch for BrowserFetch {
    fn get<'a>(&'a self, request: Request<'a>) -> LocalBoxFuture<'a, Result<Response>> {
        get(request).boxed_local()
    }
}

async fn get(Request { url, range, if_range, token }: Request<'_>) -> Result<Response> {
    let transfer = Transfer(AbortController::new().map_err(|e| failed(url, &e))?);
    let init = RequestInit::new();
    init.set_signal(Some(&transfer.0.signal()));
    // The store keeps what is fetched; the HTTP cache would keep it a second time.
    init.set_cache(RequestCache::NoStore);
    let headers = web_sys::Headers::new().map_err(|e| failed(url, &e))?;
    let set = |name: &str, value: String| headers.set(name, &value).map_err(|e| failed(url, &e));
    if let Some(range) = range.filter(|range| !range.is_empty()) {
        set("Range", format!("bytes={}-{}", range.start, range.end - 1))?;
    }
    if let Some(version) = if_range {
        set("If-Range", version.into())?;
    }
    if let Some(token) = token {
        // The Fetch standard drops this header when another origin is redirected to.
        set("Authorization", format!("Bearer {token}"))?;
    }
    init.set_headers(&headers);
    let response = JsFuture::from(worker().fetch_with_str_and_init(url, &init)).await.map_err(|e| failed(url, &e))?;
    let response: web_sys::Response = response.unchecked_into();
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let headers = Headers {
        length: header("Content-Length").and_then(|text| text.parse().ok()),
        etag: header("ETag"),
        last_modified: header("Last-Modified"),
        encoding: header("Content-Encoding"),
        retry_after: header("Retry-After"),
        redirected: response.redirected(),
        content_range: header("Content-Range"),
        linked_etag: header("X-Linked-ETag"),
        commit: header("X-Repo-Commit"),
    };
    let reader = response.body().map(|body| body.get_reader().unchecked_into::<ReadableStreamDefaultReader>());
    let body = Body { url: url.to_string(), reader, _transfer: transfer };
    let body = stream::unfold(body, |mut body| async move {
        let chunk = body.next().await.transpose()?;
        Some((chunk, body))
    });
    Ok(Response { status: response.status(), headers, body: body.boxed_local() })
}

/// A running transfer; ends when dropped, whether or not it is complete.
struct Transfer(AbortController);

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response's body. It has no reader once it has ended.
struct Body {
    url: String,
    reader: Option<ReadableStreamDefaultReader>,
    _transfer: Transfer,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let chunk = JsFuture::from(reader.read()).await.and_then(|read| Reflect::get(&read, &"value".into()));
        match chunk {
            Ok(value) if value.is_undefined() => {
                self.reader = None;
                Ok(None)
            }
            // The one copy on the way from the network into storage.
            Ok(value) => Ok(Some(value.unchecked_into::<Uint8Array>().to_vec())),
            Err(error) => {
                self.reader = None;
                Err(failed(&self.url, &error))
            }
        }
    }
}

fn failed(url: &str, error: &JsValue) -> Error {
    if worker().navigator().on_line() {
        Error::Network(format!("{url}: {}", message(error)))
    } else {
        Error::Offline(format!("{url} is needed, and the browser is offline"))
    }
}
