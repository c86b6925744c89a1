//! What is asked of the backends, and what is answered.

use super::wait::WaitLimits;
use crate::admit::turns::accounts::SourceId;
use crate::clock::Nanos;
use crate::reason::RequestFailure;
use std::sync::atomic::{AtomicU64, Ordering};

/// Wakes the session that holds a ticket, once or more; it looks at its ticket then.
pub(crate) trait Wake: Send {
    fn wake(&self);
}

/// Why a client gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many wait as may; or fresher ones wait, and this one has waited longest.
    QueueFull,
    /// It waited for longer than `queue_timeout`.
    QueueTimeout,
    /// No backend can be reached.
    NoBackend,
    /// The client has hung up, and there are too many such to keep.
    ClientGone,
}

/// One backend, in one of its lives: an address that was removed and added again is the same only while a
/// connection to it was open all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendId {
    pub(super) index: u32,
    pub(super) life: u32,
}

#[cfg(test)]
impl BackendId {
    /// Any one, for tests of what only tells them apart.
    pub(crate) fn of(index: u32) -> Self {
        Self { index, life: 0 }
    }
}

/// What went through one backend's connections. Apart from the book, since they are counted without its lock.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(super) to_backend: AtomicU64,
    pub(super) to_client: AtomicU64,
    /// Answers by the first digit of their status, from 1 to 5; the first place is for others.
    pub(super) answers: [AtomicU64; 6],
    pub(super) failures: [AtomicU64; RequestFailure::COUNT],
    pub(super) reused: AtomicU64,
    pub(super) repeated: AtomicU64,
}

impl Passed {
    pub(super) fn answered(&self, status: u16) {
        let class = Some(usize::from(status / 100)).filter(|class| *class < self.answers.len());
        self.answers[class.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    }
}

/// A client that asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) source: SourceId,
    /// It is served before all others, and may have the place that is kept for such.
    pub(crate) priority: bool,
    /// Since when it has waited, in the kernel's backlog and the server's queue.
    pub(crate) since: Nanos,
    /// Backends that could not be reached for this client.
    pub(crate) tried: &'a [BackendId],
    /// The limits of waiting as they are now.
    pub(crate) wait: WaitLimits,
}
