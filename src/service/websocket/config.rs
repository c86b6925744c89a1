//! The limits of a WebSocket service: the server's, or its own.

use crate::limits::Limits;
use std::time::Duration;

/// Limits of a WebSocket service that differ from those of its server ([`Limits`]). Start from
/// [`WebSocketConfig::default`] and change what must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// Bytes of a message, all its fragments together. A longer one ends its connection with close code 1009.
    /// Default: 1 MiB.
    pub max_message: usize,
    /// A client that is silent for this time is sent a ping. If it stays silent for the same time again, its
    /// connection ends. Default: 20 s.
    pub ping_every: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

impl WebSocketConfig {
    /// The server's limits.
    pub(super) fn of(limits: &Limits) -> Self {
        Self { max_message: limits.max_message, ping_every: limits.ws_ping }
    }
}
