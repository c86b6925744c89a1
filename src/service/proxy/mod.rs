//! The gate: a service that passes each client's connection on to another server, its *backend*.
//!
//! A *place* is the right to one connection to a backend. A backend has as many places as it may have connections.
//!
//! ```text
//!  first turn -> take a place -> connect -> relay bytes both ways -> close both sockets, give the place back
//!                 | none free     | fails: try another backend, within one deadline
//!                 v               v
//!           park until one is    no backend left: refuse the client
//! ```
//!
//! [`session`] handles one client from its first turn to its end. [`backends`] gives out the places. [`address`] says
//! where a backend is, [`resolve`] looks up its addresses, [`connect`] opens a connection to one, [`socket`] is a connection
//! with its TLS. [`relay`] moves the
//! bytes of one pair of sockets, and [`flow`] those of one direction. [`pipes`] and [`lent`] are shared by all pairs, so
//! that a quiet pair owns no memory. [`tend`] is the thread that checks backends and resolves their names again.
//! [`http`] is the gate for HTTP, which takes a place for each request and not for each connection.

mod address;
mod backends;
mod connect;
mod flow;
mod gate;
mod http;
mod lent;
mod pipes;
mod relay;
mod resolve;
mod service;
mod session;
mod socket;
mod tend;

#[cfg(test)]
mod tests;

pub use address::{BackendName, BackendNameError};
pub use gate::ConnectOn;
pub use http::{FairBy, FairByError, HttpGateConfig, Network, NetworkError};
pub(crate) use http::{HTTP_GATE_CONNECTION_BYTES, http_gate_worker_bytes};
pub use service::{Proxy, ProxyBuilder, proxy};
