//! Which workers sleep, and who wakes them: never more than there is work, never one too few.
//!
//! A worker that finds nothing to do announces that it will rest, looks once more, and rests. A
//! thread that has made work publishes it, looks whether anybody is awake, and if not wakes one.
//! Both look after they told (a store, a fence, a load), so one of them sees the other.

use crate::server::sync::{AtomicUsize, Ordering, fence};

/// How many workers are awake: neither asleep nor blocked in the poll.
#[derive(Debug)]
pub(crate) struct Awake(AtomicUsize);

impl Awake {
    pub(crate) fn new(workers: usize) -> Self {
        Self(AtomicUsize::new(workers))
    }

    /// A worker will rest unless it finds work after this call.
    pub(crate) fn rest(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// It is awake again, or is about to be woken by the caller.
    pub(crate) fn rise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How many are awake, after everything the caller has published.
    pub(crate) fn count_after_publishing(&self) -> usize {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::SeqCst)
    }

    /// How many are awake, roughly.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
