//! Time since the server's start as one number, so that it fits an atomic.

use std::time::{Duration, Instant};

/// Nanoseconds since the server's start; never 0, which means "no time".
pub(crate) type Nanos = u64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Nanos {
        // 584 years fit.
        (self.0.elapsed().as_nanos() as u64).max(1)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A duration as nanoseconds, saturating.
pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
