//! How long turns of a service take, from which follows who should run them.

use super::clock::Nanos;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A turn that is expected to last longer than this is worth waking another worker for: several
/// times what waking costs (about 5 us with the switch to it).
pub(crate) const SLOW_TURN: Nanos = 50_000;

/// A moving average in nanoseconds.
#[derive(Debug)]
pub(crate) struct TurnCost(AtomicU64);

impl TurnCost {
    /// Unknown services count as slow: waking one worker too many costs little.
    pub(crate) fn unknown() -> Self {
        Self(AtomicU64::new(2 * SLOW_TURN))
    }

    /// Notes how long a turn took. An outlier (a preempted worker) counts as a millisecond at
    /// most, so that it is forgotten after some eight turns.
    pub(crate) fn note(&self, took: Nanos) {
        let cost = self.get();
        let took = took.min(1_000_000);
        self.0.store((cost * 7 + took) / 8, Relaxed);
    }

    pub(crate) fn get(&self) -> Nanos {
        self.0.load(Relaxed)
    }
}
