//! The gate: a service that passes each connection on to a server that somebody else wrote.
//!
//! ```text
//!  client's turn -> place at a backend -> connect -> relay, both ways -> both ends closed, place given back
//!                     | none free           | refused, late: another backend, within one deadline
//!                     v                     v
//!                  waits, parked         told, or reset
//! ```
//!
//! [`relay`] moves the bytes of one pair of sockets, [`flow`] one direction of it; [`pipes`] and [`lent`] are
//! what the pairs share, so that a quiet pair owns nothing. [`session`] is one client from its first turn to its end.
//! [`address`] says where a backend is, [`resolve`] finds its addresses, [`connect`] reaches it.
//! [`http`] is the gate that reads what passes, and holds a place for a request.

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
mod tend;

#[cfg(test)]
mod tests;

pub use address::{BackendName, BackendNameError};
pub use gate::ConnectOn;
pub use http::{FairBy, FairByError, HttpGateConfig, Network, NetworkError};
pub use service::{Proxy, ProxyBuilder, proxy};
