//! HTTP/1.0 and HTTP/1.1: a closure for each request, or a trait for bodies as they come.
//!
//! ```no_run
//! use tidegate::{Server, http};
//!
//! let site = http(|request, response| match (request.method(), request.path()) {
//!     ("GET" | "HEAD", "/") => response.html("<h1>It works</h1>"),
//!     ("POST", "/sum") => {
//!         let numbers: Vec<f64> = request.json()?;
//!         response.json(&numbers.iter().sum::<f64>())
//!     }
//!     _ => Err(http::status(404)),
//! });
//! let server = Server::builder().listen("127.0.0.1:8080", site)?.bind()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A request has `read_timeout` from its first byte to its last. Meanwhile its connection is parked, and the bytes
//! that have come count in `input_total`. Between two requests a connection may be idle for `idle_timeout` and owns
//! no buffer. If a client sends several requests without waiting, they are answered in order, and after a millisecond
//! other clients have their turn.
//!
//! Requests are read strictly; [`wire`] gives the rules.

mod access_entry;
mod access_log;
mod caller;
mod config;
mod conversation;
pub(in crate::service) mod date;
mod exchanges;
mod pull;
mod ready;
mod request;
mod response;
mod status;
mod upgrade;
pub mod wire;

pub use access_log::{AccessFormat, AccessLog};
pub use config::Config;
pub use exchanges::{Head, Streaming};
pub use pull::Pull;
pub use ready::{echo, hello, time, work};
pub use request::Request;
pub use response::{Answer, Response};
pub use status::{reason, status};

pub(in crate::service) use access_entry::AccessEntry;
pub(in crate::service) use caller::Caller;
pub(in crate::service) use upgrade::Upgraded;

use super::{Peer, Protocol, Service, Session};
use conversation::Conversation;
use exchanges::{Collecting, Exchanges, Passing};
use std::io;
use std::sync::Arc;

/// Bytes that an access log takes of the machine at most, with this number of connections.
pub(crate) fn access_log_bytes(connections: usize) -> usize {
    AccessLog::BYTES + connections * AccessEntry::BYTES
}

/// The answer to a client that is refused before it has sent a request.
pub(in crate::service) const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry-after}\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 23\r\n\r\nthe server is too busy\n";

/// An HTTP service from a closure that answers one request. A body of up to [`max_body`](Config::max_body) bytes is
/// collected while the connection is parked, and the closure gets it whole.
///
/// If the closure returns an error, the request is answered 500, or with the [`status`] that the error carries. If
/// the closure panics, the connection is reset.
pub fn http<F>(answer: F) -> Http
where
    F: Fn(&Request<'_>, Response<'_, '_>) -> io::Result<Answer> + Send + Sync + 'static,
{
    Http::new(Collecting(answer))
}

/// An HTTP service that takes bodies as they come.
pub fn streaming<S: Streaming>(service: S) -> Http {
    Http::new(Passing(service))
}

/// An HTTP service, made by [`http`] or [`streaming`].
pub struct Http {
    name: String,
    config: Option<Config>,
    open: Box<Open>,
}

type Open = dyn Fn(Option<Config>) -> Box<dyn Session> + Send + Sync;

impl Http {
    fn new<H: Exchanges>(exchanges: H) -> Self {
        let exchanges = Arc::new(exchanges);
        let open = move |config| Box::new(Conversation::new(exchanges.clone(), config)) as Box<dyn Session>;
        Self { name: "http".to_owned(), config: None, open: Box::new(open) }
    }

    /// The `service` label of its metrics. Default: `http`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Limits of this service, instead of those of the server.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, config, .. } = self;
        f.debug_struct("Http").field("name", name).field("config", config).finish_non_exhaustive()
    }
}

impl Service for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        (self.open)(self.config)
    }

    fn busy_reply(&self) -> &[u8] {
        BUSY
    }

    fn answers_overload(&self, _busy_reply: &[u8]) -> bool {
        true
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http
    }
}
