//! Whether the queue *stands*: what waits longest has waited longer than the target, for a whole interval.
//!
//! A queue that is full for a moment absorbs a burst, and that is its purpose. A queue that is never empty only makes
//! everyone late. CoDel (RFC 8289) tells the two apart by time: a burst is gone within an interval. The interval is
//! CoDel's, 100 ms. The default target is a fifth of it. CoDel's own default is a twentieth, for packets; a turn is
//! longer than a packet (a millisecond), and workers that share a processor are switched every few milliseconds, so
//! at 5 ms a server at nine tenths of its capacity would be said to stand half of the time. At 20 ms a client with a
//! second of patience has lost a fiftieth of it.
//!
//! The threads that take entries tell what they see, so nobody else has to look. An entry that was taken in the order of
//! arrival was the one that waited longest, and it tells the past too: while it waited, nothing older than it stood
//! behind it. So an entry that has waited for the target and the interval is proof enough by itself, which matters
//! where turns are long and entries are taken seldom.

use crate::clock::Nanos;
use std::sync::atomic::{AtomicU64, Ordering};

/// For how long the wait must be above the target before the queue stands.
pub(crate) const INTERVAL: Nanos = 100_000_000;

/// The default target.
#[cfg(test)]
pub(crate) const TARGET: Nanos = 20_000_000;

/// After something had to be shed for want of room or time the queue stands for this time at least: where the oldest are
/// shed at once nothing waits for long, and yet there is no calm.
const AFTER_SHEDDING: Nanos = INTERVAL;

/// For how long the queue must not have stood before the backlog may be deep again. An overload that goes on would fill it
/// each time, and those clients would all be served late.
const CALM: Nanos = 10 * INTERVAL;

/// "Not now."
const NO: Nanos = 0;

/// What is known of the queue's wait; any thread may say what it saw.
#[derive(Debug)]
pub(crate) struct Standing {
    target: AtomicU64,
    /// Since when the longest wait has been above the target, or [`NO`].
    above_since: AtomicU64,
    /// Since when the queue has stood, or [`NO`].
    stands_since: AtomicU64,
    /// When something was last shed.
    shed_at: AtomicU64,
    /// When the queue last ceased to stand, or [`NO`].
    rested_at: AtomicU64,
}

impl Standing {
    /// With a target of 0 every queue that was not empty for the interval stands.
    pub(crate) fn new(target: Nanos) -> Self {
        let [above_since, stands_since, shed_at, rested_at] = [const { AtomicU64::new(NO) }; 4];
        Self { target: AtomicU64::new(target), above_since, stands_since, shed_at, rested_at }
    }

    pub(crate) fn target(&self) -> Nanos {
        self.target.load(Ordering::Relaxed)
    }

    /// Changes the target of a server that runs.
    pub(crate) fn set_target(&self, target: Nanos) {
        self.target.store(target, Ordering::Relaxed);
    }

    /// What waits longest has waited since `oldest`; `None` when nothing waits. Says whether the queue stands now.
    ///
    /// This is called for each entry, so it writes only when something changes.
    pub(crate) fn observe(&self, now: Nanos, oldest: Option<Nanos>) -> bool {
        let above = oldest.map(|since| since.saturating_add(self.target())).filter(|&above| above < now);
        let Some(above) = above else {
            self.rest(now);
            return self.stands();
        };
        let known = self.above_since.load(Ordering::Relaxed);
        let since = if known == NO { above.max(1) } else { known };
        if known == NO {
            self.above_since.store(since, Ordering::Relaxed);
        }
        // Another thread may have seen the queue a moment ago and be ahead of this one's clock.
        if now.saturating_sub(since) < INTERVAL {
            return self.stands();
        }
        if !self.stands() {
            self.stands_since.store(now, Ordering::Relaxed);
        }
        true
    }

    /// Whether the queue is as it mostly is: it does not stand, is not about to, and what was taken now has not waited
    /// longer than the target. Then [`observe`](Self::observe) would change nothing.
    pub(crate) fn is_at_rest(&self, now: Nanos, since: Nanos) -> bool {
        now <= since.saturating_add(self.target())
            && self.above_since.load(Ordering::Relaxed) == NO
            && !self.stands()
    }

    /// Nothing waits, or what waits has waited for less than the target.
    fn rest(&self, now: Nanos) {
        if self.above_since.load(Ordering::Relaxed) != NO {
            self.above_since.store(NO, Ordering::Relaxed);
        }
        if self.stands() && now.saturating_sub(self.shed_at.load(Ordering::Relaxed)) > AFTER_SHEDDING {
            self.stands_since.store(NO, Ordering::Relaxed);
            self.rested_at.store(now, Ordering::Relaxed);
        }
    }

    /// An entry was shed because there was no room for it, or no time. That keeps a queue that stands from being said
    /// to be calm for a while.
    pub(crate) fn shed(&self, now: Nanos) {
        self.shed_at.store(now, Ordering::Relaxed);
    }

    pub(crate) fn stands(&self) -> bool {
        self.stands_since.load(Ordering::Relaxed) != NO
    }

    /// Whether the queue does not stand, and has not for a while: see [`CALM`].
    pub(crate) fn is_calm(&self, now: Nanos) -> bool {
        let rested = self.rested_at.load(Ordering::Relaxed);
        !self.stands() && (rested == NO || now.saturating_sub(rested) > CALM)
    }

    /// For how long the queue has stood; `None` if it does not.
    pub(crate) fn stood_for(&self, now: Nanos) -> Option<Nanos> {
        let since = self.stands_since.load(Ordering::Relaxed);
        (since != NO).then(|| now.saturating_sub(since))
    }
}
