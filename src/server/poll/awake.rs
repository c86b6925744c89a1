//! The number of workers that are awake. It decides whether new work needs a wake-up: there is never one too few, and
//! never more than there is work.
//!
//! A worker without work announces that it will rest, checks for work once more, and rests. A thread that adds work
//! publishes it, checks whether a worker is awake, and wakes one if not. Each of them writes before it reads (a store,
//! a fence, a load), so at least one of the two sees the other.

use crate::sys::sync::{AtomicUsize, Ordering, fence};

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
