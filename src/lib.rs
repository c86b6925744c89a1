//! tidegate: a bounded thread-pool server that stays up when the load does not stop.
//!
//! Every resource it can spend (threads, connections, places in the queue, bytes, time, even the
//! work of saying no) has a limit chosen up front: [`Limits`]. What exceeds a limit is refused
//! quickly, visibly and cheaply, and what was admitted is finished.
//!
//! ```text
//!  kernel                        the way of one connection
//!  SYN -> [accept backlog] -> accept -> admit -> [queue] -> turn -> service
//!                                |        |         ^         |
//!                          no descriptor: |         |         +-> close (every ending)
//!                          pause, retry   |         |         |
//!                                         |        poll <-----+   parked: a descriptor in one
//!                                         |                       epoll, no thread, no buffer
//!                                         +-> close (a refused newcomer)
//!  beside it: keep (the timekeeper: deadlines, polite closes, the drain)
//!
//!  folders of src/, each needs only what is below it
//!    cli                                      the program: options, configuration, signals
//!    admin, stress                            the admin endpoint; the load generator, crates/stress
//!    server                                   keep > turn > accept > datagram > close > poll > queue
//!    service                                  what people write, and the ready services
//!    admit                                    places, sources, rates, the order of turns
//!    transport                                sockets, addresses, PROXY headers, TLS
//!    metrics                                  counters and their catalogue
//!    limits                                   every limit, in one table
//!    sys                                      system calls: the only unsafe code
//!    reason, phase, clock, contain, current   small files that all of them use
//!    protocols                                a client's HTTP, WebSocket and TLS: crates/protocols
//!    units                                    times, sizes, rates, URLs: crates/units
//! ```
//!
//! A server is described, bound, served and ended:
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Limits, Server, lines};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits::default().idle_timeout(Duration::from_secs(30));
//! let upper = lines("upper", |line, reply| {
//!     reply.send(&line.to_ascii_uppercase())?;
//!     reply.send(b"\n")
//! });
//! let server = Server::builder().limits(limits).listen("127.0.0.1:0", upper)?.bind()?;
//! println!("listening on {}", server.addresses()[0]);
//! let handle = server.serve()?;
//! // ... until it is to end:
//! let report = handle.shutdown(Duration::from_secs(10));
//! assert!(report.is_clean(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! What it serves is one of these:
//!
//! - [`lines`] and [`lines_with`]: a closure for each line, with or without a state for each connection;
//!   between lines a connection owns no thread and no buffer.
//! - [`handler`]: a closure for a whole connection in plain blocking style, which keeps its worker.
//! - [`datagrams`]: a closure for each datagram.
//! - [`Service`] with its [`Session`]s, and [`DatagramService`]: the traits, for what the closures
//!   leave out.
//!
//! [`Builder`] has what a server can be told, [`Handle`] what a running one can be asked, and
//! `admin` the endpoint that shows it.
//!
//! # Features
//!
//! All are on by default; without them the library is the bare server.
//!
//! - `metrics`: what a server counts as text for Prometheus, or as a collector for a registry of your own
//!   (`metrics::registry`).
//! - `admin`: the endpoint with `/metrics`, `/livez`, `/readyz` and `/status`; it needs `metrics`.
//! - `tls`: TLS for listeners ([`Listen::tls`]).
//! - `cli`: the `tidegate` program; it needs `metrics` and `admin`.

#[cfg(feature = "admin")]
pub mod admin;
mod admit;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod contain;
mod current;
pub mod limits;
pub mod metrics;
mod phase;
pub mod reason;
pub mod server;
pub mod service;
mod sys;
mod transport;

/// The PROXY protocol, for programs that accept connections themselves. A listener with [`Listen::accept_proxy`] reads it for its
/// service.
pub mod proxy_header {
    pub use crate::transport::proxy_header::{Header, HeaderError, MAX_BYTES, Origin, ProxyVersion, parse};
}

pub use limits::{DryRun, Fair, Limits, Overload, QueueOrder, RefusalRate};
pub use reason::CloseReason;
pub use server::{
    BoundServer, BuildError, Builder, Handle, LimitChange, Listen, Server, SetLimitsError, ShutdownReport,
    Trigger,
};
pub use service::http::{AccessFormat, AccessLog};
pub use service::{
    Blocking, ConnectOn, DatagramService, Datagrams, Echo, Handler, LineReply, Lines, Peer, Protocol, Proxy,
    ProxyBuilder, ProxyVersion, Received, Reply, Service, Session, Stream, Time, Turn, Waker, datagrams,
    handler, http, lines, lines_with, proxy, websocket,
};
pub use tidegate_units::url;
pub use transport::address::{Address, ClientAddress, UnixClient, UnixName, UnixNameError};
#[cfg(feature = "tls")]
pub use transport::tls::{Tls, TlsError};
pub use transport::tls::{TlsFacts, TlsVersion};

/// The programs in the documents are compiled as the tests are.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/from-socketserver.md")]
struct FromSocketserver;

#[cfg(doctest)]
#[doc = include_str!("../docs/http.md")]
struct HttpPage;

#[cfg(all(doctest, feature = "tls"))]
#[doc = include_str!("../docs/tls.md")]
struct TlsPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/websocket.md")]
struct WebSocketPage;
