//! Requests for a place at a backend, and the answers to them.

use super::wait::WaitLimits;
use crate::admit::turns::accounts::SourceId;
use crate::clock::Nanos;
use crate::reason::{DropReason, RequestFailure};
use crate::service::Waker;
use std::sync::atomic::{AtomicU64, Ordering};

/// Wakes the session that holds a ticket, so that it looks at the ticket. It may be woken more than once.
pub(crate) enum Wake {
    Session(Waker),
    /// The same for a session that has nothing to say to a client that is refused. Its connection is then turned away without
    /// a turn, where that can be.
    Silent(Waker),
    #[cfg(test)]
    Test(Box<dyn Fn() + Send>),
}

impl Wake {
    /// `refusal` says why, if the answer of the ticket is that the client is refused.
    fn wake(&self, refusal: Option<Refusal>) {
        match (self, refusal) {
            (Wake::Silent(waker), Some(refusal)) => waker.turn_away(refusal.reason()),
            // A turn that gives a place back does little after that.
            (Wake::Session(waker) | Wake::Silent(waker), _) => waker.wake_next(),
            #[cfg(test)]
            (Wake::Test(wake), _) => wake(),
        }
    }
}

/// Those that a change of the book wakes: mostly none, or one.
#[derive(Default)]
pub(super) struct Woken {
    first: Option<(Wake, Option<Refusal>)>,
    others: Vec<(Wake, Option<Refusal>)>,
}

impl Woken {
    pub(super) fn push(&mut self, wake: Wake, refusal: Option<Refusal>) {
        match &self.first {
            None => self.first = Some((wake, refusal)),
            Some(_) => self.others.push((wake, refusal)),
        }
    }

    pub(super) fn wake(self) {
        self.first.iter().chain(&self.others).for_each(|(wake, refusal)| wake.wake(*refusal));
    }
}

/// Why a client gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The list of those that wait is full, and this client is the new one, or the one that had to go for it.
    QueueFull,
    /// It waited for longer than `queue_timeout`.
    QueueTimeout,
    /// No backend can be reached.
    NoBackend,
    /// The client has hung up, and too many such clients wait.
    ClientGone,
}

impl Refusal {
    /// The reason that a connection is counted with which ends for this.
    pub(crate) fn reason(self) -> DropReason {
        match self {
            Refusal::QueueFull => DropReason::QueueFull,
            Refusal::QueueTimeout => DropReason::QueueTimeout,
            Refusal::NoBackend => DropReason::NoBackend,
            Refusal::ClientGone => DropReason::ClientGone,
        }
    }
}

/// Names a backend. An address that was removed and added again has the same id only if a connection to it was open all
/// the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendId {
    pub(super) index: u32,
    pub(super) life: u32,
}

#[cfg(test)]
impl BackendId {
    /// Some id, for tests that only tell backends apart.
    pub(crate) fn of(index: u32) -> Self {
        Self { index, life: 0 }
    }
}

/// Counters of what went through one backend's connections. They are not in the book, since workers count without its
/// lock.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(super) to_backend: AtomicU64,
    pub(super) to_client: AtomicU64,
    /// Answers by the first digit of their status, 1 to 5. Index 0 counts any other status.
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
    /// The request is served before all others, and may have the place that is kept for such requests.
    pub(crate) priority: bool,
    /// Since when the client has waited, including its time in the kernel's backlog and the server's queue.
    pub(crate) since: Nanos,
    /// The time, as the client's turn knows it.
    pub(crate) now: Nanos,
    /// Backends that could not be reached for this client.
    pub(crate) tried: &'a [BackendId],
    /// The present limits on waiting.
    pub(crate) wait: WaitLimits,
}
