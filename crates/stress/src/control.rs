//! The state that load threads share: whether to stop, whether any connection was ever established, and when the schedule
//! begins.

use super::clock::{Clock, Nanos};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The one start of runs that go on beside each other, such as a load and its probe: none begins before the threads
/// of all are ready.
#[derive(Debug)]
pub(crate) struct Start {
    clock: Clock,
    /// Of all runs.
    threads: usize,
    ready: AtomicUsize,
    /// When the schedule begins, plus 1; 0 while it is not known.
    at: AtomicU64,
}

impl Start {
    /// A start for this many threads. Their times are read from this clock.
    pub(crate) fn new(clock: Clock, threads: usize) -> Arc<Self> {
        Arc::new(Self { clock, threads, ready: AtomicUsize::new(0), at: AtomicU64::new(0) })
    }
}

/// Shared by the threads of one run.
#[derive(Debug)]
pub(crate) struct Control {
    stop: AtomicBool,
    established: AtomicBool,
    start: Arc<Start>,
}

impl Control {
    /// For a run that begins with this start.
    pub(crate) fn new(start: Arc<Start>) -> Self {
        Self { stop: AtomicBool::new(false), established: AtomicBool::new(false), start }
    }

    /// The clock of the run.
    pub(crate) fn clock(&self) -> Clock {
        self.start.clock
    }

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

    /// A thread has opened its connections. When all have, the schedule begins.
    pub(crate) fn ready(&self, now: Nanos) {
        if self.start.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.start.threads {
            self.start.at.store(now + 1, Ordering::Release);
        }
    }

    /// When the schedule begins; none before all threads are ready.
    pub(crate) fn start(&self) -> Option<Nanos> {
        self.start.at.load(Ordering::Acquire).checked_sub(1)
    }
}
