//! How long turns of a service take, from which follows who should run them.

use crate::clock::Nanos;
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

    /// Notes how long a turn took by the clock on the wall, which a preempted worker sees go on. An
    /// outlier counts as a millisecond at most: enough to have the next turns looked at closely.
    pub(crate) fn note(&self, took: Nanos) {
        let cost = self.get();
        let took = took.min(1_000_000);
        self.0.store((cost * 7 + took) / 8, Relaxed);
    }

    /// Notes what a turn really cost: see [`Probe`].
    pub(crate) fn note_probed(&self, cost: Nanos) {
        self.0.store(u64::midpoint(self.get(), cost.min(1_000_000)), Relaxed);
    }

    /// Begins to look closely at a turn, if turns of this service seem slow.
    pub(crate) fn probe(&self) -> Option<Probe> {
        if self.get() <= SLOW_TURN {
            return None;
        }
        crate::sys::thread_usage().map(Probe)
    }

    pub(crate) fn get(&self) -> Nanos {
        self.0.load(Relaxed)
    }
}

/// A close look at a turn that is expected to be slow. On a busy machine a cheap turn can seem slow,
/// since its worker was preempted; to wake another worker then would only add to the load. What
/// counts is whether it waited (the thread gave up the processor by itself), and else the processor
/// time it used.
#[derive(Debug)]
pub(crate) struct Probe(crate::sys::ThreadUsage);

impl Probe {
    /// What the turn cost that lasted so long.
    pub(crate) fn cost(self, took: Nanos) -> Nanos {
        match crate::sys::thread_usage() {
            Some(now) if now.waits == self.0.waits => now.processor.saturating_sub(self.0.processor),
            _ => took,
        }
    }
}
