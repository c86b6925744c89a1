//! The gate for HTTP: a place at a backend is held for a request, from its first byte sent to the last byte of its
//! answer, and not for a connection. So a client that keeps its connection and asks for nothing costs the backend nothing.
//!
//! ```text
//!             +------------------------ the answer is whole: the place is given back ----------------------+
//!             v                                                                                            |
//!          Reading --- whole, or more than is collected ---> Asking --- place ---> Connecting --> Answering+
//!             |                                                |  none free            | a kept connection  |
//!             | cannot be read: 4xx, close                     v                       | needs none         +-- 101 --> pair
//!             v                                             Waiting --- too late: 503  +-- failed: 502, 504
//!          Ending
//! ```
//!
//! A request is read strictly ([`wire`](crate::service::http::wire)) and written anew ([`forward`]): the backend sees one
//! canonical framing, whatever the client sent, so that both agree on where a request ends. The same holds for answers
//! ([`answer`]). [`intake`] collects a request, [`exchange`] is one that is being answered, [`session`] is a client from
//! its first request to its last, [`turn`] what it does at once, one [`stage`] after the other. [`spares`] are connections to backends between two requests, [`outbound`] is what a
//! client has not taken yet. [`check`] asks backends whether they are well.

mod answer;
mod check;
mod exchange;
mod forward;
mod intake;
mod outbound;
mod pending;
mod session;
mod settings;
mod shared;
mod spares;
mod stage;
mod turn;
mod words;

pub(super) use check::start as keep_house;
pub(super) use session::HttpGateSession;
pub(crate) use session::{
    CONNECTION_BYTES as HTTP_GATE_CONNECTION_BYTES, worker_bytes as http_gate_worker_bytes,
};
pub use settings::{FairBy, FairByError, HttpGateConfig, Network, NetworkError};
pub(super) use shared::HttpGate;
