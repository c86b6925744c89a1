//! How long a newcomer may wait for its first turn.

use crate::clock::{Nanos, nanos};
use crate::limits::Limits;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A queue that was not empty for this time is a standing one (CoDel's interval, RFC 8289).
const STANDING: Nanos = 100_000_000;

/// `queue_timeout`, or `queue_target` while the queue stands.
#[derive(Debug)]
pub(crate) struct WaitLimit {
    timeout: Nanos,
    target: Nanos,
    /// When the queue was last seen empty.
    was_empty: AtomicU64,
}

impl WaitLimit {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (timeout, target) = (nanos(limits.queue_timeout), nanos(limits.queue_target));
        Self { timeout, target, was_empty: AtomicU64::new(0) }
    }

    /// The queue is empty, at `now`: a clock that is read only where somebody wants to know.
    pub(crate) fn seen_empty(&self, now: impl FnOnce() -> Nanos) {
        if self.target > 0 {
            self.was_empty.store(now(), Relaxed);
        }
    }

    /// How long a newcomer may have waited at `now`.
    pub(crate) fn at(&self, now: Nanos) -> Nanos {
        if self.target > 0 && now.saturating_sub(self.was_empty.load(Relaxed)) > STANDING {
            return self.target;
        }
        self.timeout
    }

    /// How long anybody may wait, whether or not the queue stands.
    pub(crate) fn timeout(&self) -> Nanos {
        self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn patience(target: Duration) -> WaitLimit {
        let mut limits = Limits::default();
        (limits.queue_timeout, limits.queue_target) = (Duration::from_secs(5), target);
        WaitLimit::new(&limits)
    }

    #[test]
    fn a_standing_queue_has_less_of_it() {
        let patience = patience(Duration::from_millis(20));
        patience.seen_empty(|| 1_000);
        assert_eq!(patience.at(1_000 + STANDING), 5_000_000_000);
        assert_eq!(patience.at(1_001 + STANDING), 20_000_000);
        patience.seen_empty(|| 2_000);
        assert_eq!(patience.at(2_000 + STANDING), 5_000_000_000);
        assert_eq!(patience.timeout(), 5_000_000_000);
    }

    #[test]
    fn without_a_target_nobody_looks_at_the_clock() {
        let patience = patience(Duration::ZERO);
        patience.seen_empty(|| unreachable!("the clock was read"));
        assert_eq!(patience.at(u64::MAX), 5_000_000_000);
    }
}
