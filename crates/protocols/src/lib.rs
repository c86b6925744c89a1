//! A client's side of HTTP/1.1, WebSocket and TLS: the bytes of what is sent, and where a reply ends.
//!
//! The crate knows no socket and no clock. A caller hands over the bytes that have come, in pieces of any size, and is told what
//! they come to; [`tls::Session`] reads and writes through whatever the caller gives it. Every buffer has a limit. The load
//! generator and `tidegate client` speak through this crate, so a reply ends at the same byte for both.

mod form;
pub mod http;
pub mod tls;
pub mod websocket;

pub use form::RequestForm;
