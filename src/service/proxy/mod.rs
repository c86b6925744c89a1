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
//! what the pairs share, so that a quiet pair owns nothing. [`address`] says where a backend is, [`connect`] reaches it.

// Nothing calls it before the server can give a session its client's socket and a second one.
#![cfg_attr(not(test), expect(dead_code, reason = "used when the gate is put into the server"))]

mod address;
mod backends;
mod connect;
mod flow;
mod lent;
mod pipes;
mod relay;

#[cfg(test)]
mod tests;
