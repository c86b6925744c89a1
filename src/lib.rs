//! tidegate: a bounded thread-pool server that stays up when the load does not stop.

pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
pub mod limits;
pub mod metrics;
pub mod reason;
pub mod server;
pub mod service;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod stress;
mod sys;
pub mod url;

pub use limits::{Limits, Overload};
pub use server::{BoundServer, BuildError, Builder, Handle, Server, ShutdownReport, Trigger};
pub use service::{
    DatagramService, Echo, Peer, Received, Reply, Service, Session, Stream, Time, Turn, datagrams, handler,
    lines,
};

/// The programs in the documents are compiled as the tests are.
#[cfg(doctest)]
#[doc = include_str!("../docs/from-socketserver.md")]
struct FromSocketserver;
