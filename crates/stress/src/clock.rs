//! The clock of a run. All its threads count nanoseconds from the same instant.

use rustix::event::Timespec;
use std::time::{Duration, Instant};

/// A point in time: nanoseconds since the run's base.
pub(crate) type Nanos = u64;

/// A time that never comes.
pub(crate) const NEVER: Nanos = u64::MAX;

/// Reads the monotonic clock relative to a base that all threads share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the clock began.
    pub(crate) fn now(self) -> Nanos {
        nanos(self.0.elapsed())
    }
}

/// A duration in nanoseconds; what does not fit (584 years) is the greatest value.
pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}

/// Seconds as nanoseconds; negative is 0, too great is [`NEVER`].
pub(crate) fn from_seconds(time: f64) -> Nanos {
    (time * 1e9).round() as Nanos
}

/// A duration for a system call.
pub(crate) fn timespec(time: Nanos) -> Timespec {
    Timespec { tv_sec: (time / 1_000_000_000) as i64, tv_nsec: (time % 1_000_000_000) as i64 }
}
