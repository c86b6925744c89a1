//! Times as numbers, which fit an atomic.

use std::time::Duration;

/// Nanoseconds since the server's start (see [`Clock`](crate::sys::Clock)); never 0, which means "no time".
pub(crate) type Nanos = u64;

/// A duration as nanoseconds, saturating.
pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
