//! The few words that load threads share.

use super::clock::Nanos;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Shared by the threads of one run.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    established: AtomicBool,
    ready: AtomicUsize,
    /// When the schedule begins, plus 1; 0 while it is not known.
    start: AtomicU64,
}

impl Control {
    /// Asks all threads to end at once.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the run shall end at once.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Some connection was established: the target exists.
    pub(crate) fn establish(&self) {
        self.established.store(true, Ordering::Relaxed);
    }

    /// Whether any connection ever was.
    pub(crate) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }

    /// A thread has opened its connections. When all of `threads` have, the schedule begins.
    pub(crate) fn ready(&self, threads: usize, now: Nanos) {
        if self.ready.fetch_add(1, Ordering::AcqRel) + 1 == threads {
            self.start.store(now + 1, Ordering::Release);
        }
    }

    /// When the schedule begins; none before all threads are ready.
    pub(crate) fn start(&self) -> Option<Nanos> {
        self.start.load(Ordering::Acquire).checked_sub(1)
    }
}
