//! A counter that one thread writes and others read, so that counting needs no locked instruction.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// A counter that one thread writes and any thread reads: no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicI64);

impl Tally {
    pub(super) fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(super) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}
