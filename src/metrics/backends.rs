//! A reading of what a gate counts of its backends.

use super::histogram::HistogramSnapshot;
use crate::reason::{BackendFailure, DropReason, RequestFailure};
use std::time::Duration;

/// What is known of all backends.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackendsSnapshot {
    /// Each backend.
    pub backends: Vec<BackendSnapshot>,
    /// Whether the server may say that it is ready: always, unless the gate's `ready_needs_backend` is set and no backend
    /// is up, or none has been reached yet.
    pub ready: bool,
    /// Places in use at all backends together.
    pub in_use: u64,
    /// The most of them.
    pub limit: u64,
    /// Places taken since the start: `taken = given back + in use`.
    pub taken: u64,
    /// Places given back.
    pub given_back: u64,
    /// Clients that wait for a place.
    pub waiting: u64,
    /// How many may wait.
    pub waiting_limit: u64,
    /// How long the one has waited that has waited longest.
    pub oldest: Option<Duration>,
    /// For how long the wait has stood: since then `queue_order` and `fair` say who is next.
    pub stood_for: Option<Duration>,
    /// How long clients waited until they had their place, also those who found one free; the kernel's backlog and the
    /// server's queue are included.
    pub wait: HistogramSnapshot,
    /// Clients turned away because as many waited as may.
    pub queue_full: u64,
    /// Clients turned away because they had waited for `queue_timeout`.
    pub queue_timeout: u64,
    /// Clients turned away because no backend could be reached.
    pub no_backend: u64,
    /// Clients that left while they waited.
    pub client_gone: u64,
}

impl BackendsSnapshot {
    /// Clients that got no place, by why.
    pub fn refused(&self) -> [(DropReason, u64); 4] {
        [
            (DropReason::QueueFull, self.queue_full),
            (DropReason::QueueTimeout, self.queue_timeout),
            (DropReason::NoBackend, self.no_backend),
            (DropReason::ClientGone, self.client_gone),
        ]
    }

    /// Whether a backend is used: not set aside, not leaving.
    pub fn is_any_up(&self) -> bool {
        self.backends.iter().any(|backend| !backend.leaving && backend.aside_for.is_none())
    }

    /// Whether every place that was taken is in use or was given back.
    pub fn conserved(&self) -> bool {
        let of_backends: u64 = self.backends.iter().map(|backend| backend.in_use).sum();
        self.taken == self.given_back + self.in_use
            && of_backends == self.in_use
            && self.backends.iter().all(|one| one.taken == one.given_back + one.in_use)
    }
}

/// What is known of one backend.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackendSnapshot {
    /// Where it is.
    pub address: String,
    /// It was removed, and its last connections have not ended.
    pub leaving: bool,
    /// Connections that it may have.
    pub limit: u64,
    /// Its places in use.
    pub in_use: u64,
    /// Its places taken since the start.
    pub taken: u64,
    /// Those given back.
    pub given_back: u64,
    /// Connections that reached it.
    pub connected: u64,
    /// Attempts to connect that failed, by [`BackendFailure`].
    pub failures: [u64; BackendFailure::COUNT],
    /// How long connecting took.
    pub connect: HistogramSnapshot,
    /// Why the last attempt failed that did.
    pub last_failure: Option<BackendFailure>,
    /// More about that failure, for a person; may be empty.
    pub last_failure_why: String,
    /// For how long it has been set aside; `None` while it is up.
    pub aside_for: Option<Duration>,
    /// Bytes that it was given.
    pub to_backend: u64,
    /// Bytes that it gave.
    pub to_client: u64,
    /// Its answers to HTTP requests by the first digit of their status, from 1 to 5; the first place is for others.
    pub answers: [u64; 6],
    /// HTTP requests that it did not answer as it should, by [`RequestFailure`].
    pub request_failures: [u64; RequestFailure::COUNT],
    /// HTTP requests that were sent on a connection which had served others.
    pub reused: u64,
    /// HTTP requests that were sent again, since their connection was closed when it was used again.
    pub repeated: u64,
}

impl BackendSnapshot {
    /// The names of the classes in [`answers`](Self::answers).
    pub const CLASSES: [&'static str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
}
