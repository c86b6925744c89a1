//! The limits of WebSockets: those of the server, or a service's own.

use crate::limits::Limits;
use std::time::Duration;

/// The limits of a WebSocket service, where they are not those of its server ([`Limits`]). Start from
/// [`WebSocketConfig::default`] and change what must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// Bytes of a message, all its fragments together. A longer one fails its connection with 1009.
    /// Default 1 MiB.
    pub max_message: usize,
    /// A client that was silent for this time is asked for a sign of life; one that stays silent for as long
    /// again is given up. Default 20 s.
    pub ping_every: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

impl WebSocketConfig {
    /// What the limits of a server say.
    pub(super) fn of(limits: &Limits) -> Self {
        Self { max_message: limits.max_message, ping_every: limits.ws_ping }
    }
}
