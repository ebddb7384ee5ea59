//! `serve`: static files with ranges, cross-origin isolated, with the headers of the directory's own `_headers`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    http::{HeaderName, HeaderValue},
};
use clap::Args;
use openweights::{Error, Result};
use tower_http::{services::ServeDir, set_header::SetResponseHeaderLayer};

#[derive(Args)]
pub struct Serve {
    /// The directory.
    dir: PathBuf,
    /// 0 takes a free port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Serve another directory under a path of the address, as `/path=directory`; may be given several times.
    #[arg(long, value_parser = parse_mount)]
    mount: Vec<(String, PathBuf)>,
}

fn parse_mount(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((path, dir)) if path.starts_with('/') && path.len() > 1 => Ok((path.to_owned(), dir.into())),
        _ => Err(format!("{text:?} is not /path=directory")),
    }
}

/// Headers on every answer: cross-origin isolation (threads need it), and no stale page after a new build.
const HEADERS: [(&str, &str); 5] = [
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-cache"),
    ("x-content-type-options", "nosniff"),
];

impl Serve {
    pub fn run(self) -> Result<()> {
        for dir in std::iter::once(&self.dir).chain(self.mount.iter().map(|m| &m.1)) {
            if !dir.is_dir() {
                return Err(Error::NotFound(format!("{} is not a directory", dir.display())));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| Error::Network(e.to_string()))?.block_on(self.listen())
    }

    async fn listen(self) -> Result<()> {
        let mut app = Router::new().fallback_service(ServeDir::new(&self.dir));
        for (path, dir) in &self.mount {
            app = app.nest_service(path, ServeDir::new(dir));
        }
        let own = headers_file(&self.dir)?;
        let always = HEADERS.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        for (name, value) in always.into_iter().chain(own) {
            app = app.layer(SetResponseHeaderLayer::overriding(name, value));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let network = |e: std::io::Error| Error::Network(format!("{address}: {e}"));
        let listener = tokio::net::TcpListener::bind(address).await.map_err(network)?;
        let address = listener.local_addr().map_err(network)?;
        println!("http://localhost:{}/", address.port());
        // Not axum's graceful end: that waits for every response in flight, and a reader that stalls would hold it for ever.
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served.map_err(network),
            () = interrupted() => Ok(()),
        }
    }
}

/// The headers for every answer that the directory's own `_headers` names, as static hosts read it: below a line `/*`, indented
/// `name: value`.
fn headers_file(dir: &Path) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let Ok(text) = std::fs::read_to_string(dir.join("_headers")) else { return Ok(Vec::new()) };
    let lines = text.lines().skip_while(|line| line.trim_end() != "/*").skip(1).take_while(|line| line.starts_with([' ', '\t']));
    lines
        .map(|line| {
            let wrong = || Error::InvalidInput(format!("_headers: {line:?} is not `name: value`"));
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            Ok((name.trim().parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
        })
        .collect()
}

/// Ctrl-C, or the request to end that a script sends.
async fn interrupted() {
    let ctrl_c = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! { _ = ctrl_c => {}, _ = terminate.recv() => {} }
            return;
        }
    }
    let _ = ctrl_c.await;
}
