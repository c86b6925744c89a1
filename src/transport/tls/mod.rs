//! TLS for the connections of a listener and for those to backends: certificates, the engine that turns records into bytes and
//! back, and what is known of a client after its handshake.
//!
//! Nothing here reads or writes a socket: bytes come in and go out in buffers that the caller owns, so a connection
//! between two turns keeps the state of rustls and nothing else.

mod choices;
#[cfg(feature = "tls")]
mod error;
mod facts;
mod outcome;
mod records;

#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod engine;
#[cfg(all(test, feature = "tls"))]
mod opened;
#[cfg(feature = "tls")]
mod setup;
#[cfg(feature = "tls")]
mod validity;

#[cfg(not(feature = "tls"))]
mod without;

pub use choices::BackendTls;
#[cfg(feature = "tls")]
pub use error::TlsError;
pub use facts::{TlsFacts, TlsVersion};
pub(crate) use outcome::{Advance, Broken, PLAIN_MAX};
pub(crate) use records::Records;

#[cfg(feature = "tls")]
pub(crate) use client::{BackendTlsName, ToBackends};
#[cfg(feature = "tls")]
pub(crate) use engine::RustlsEngine as Engine;
#[cfg(all(test, feature = "tls"))]
pub(crate) use opened::opened;
#[cfg(feature = "tls")]
pub use setup::Tls;
#[cfg(feature = "tls")]
pub(crate) use setup::Tls as Setup;

#[cfg(not(feature = "tls"))]
pub(crate) use without::{
    NoBackendTlsName as BackendTlsName, NoEngine as Engine, NoSetup as Setup, NotToBackends as ToBackends,
};
