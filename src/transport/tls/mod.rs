//! TLS for the connections of a listener: its certificates, the engine that turns records into bytes and back, and
//! what is known of a client after its handshake.
//!
//! Nothing here reads or writes a socket: bytes come in and go out in buffers that the caller owns, so a connection
//! between two turns keeps the state of rustls and nothing else.

#[cfg(feature = "tls")]
mod error;
mod facts;
mod outcome;
mod records;

#[cfg(feature = "tls")]
mod certificates;
#[cfg(feature = "tls")]
mod engine;
#[cfg(feature = "tls")]
mod setup;
#[cfg(feature = "tls")]
mod validity;

#[cfg(not(feature = "tls"))]
mod without;

#[cfg(feature = "tls")]
pub use error::TlsError;
pub use facts::{TlsFacts, TlsVersion};
pub(crate) use outcome::{Advance, Broken, PLAIN_MAX};
pub(crate) use records::Records;

#[cfg(feature = "tls")]
pub(crate) use engine::RustlsEngine as Engine;
#[cfg(feature = "tls")]
pub use setup::Tls;
#[cfg(feature = "tls")]
pub(crate) use setup::Tls as Setup;

#[cfg(not(feature = "tls"))]
pub(crate) use without::{NoEngine as Engine, NoSetup as Setup};
