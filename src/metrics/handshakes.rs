//! The counters of TLS handshakes, for each listener that has any. Threads share these counters and have no ledgers of
//! their own here: a handshake costs a worker far more than the update of a counter that another processor has in its
//! cache.

use super::histogram::{Histogram, HistogramSnapshot};
use crate::reason::HandshakeFailure;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a handshake ended well: the version that was agreed on, and whether an earlier session was resumed.
pub(crate) const OPENED: [(&str, &str); 4] =
    [("1.2", "full"), ("1.2", "resumed"), ("1.3", "full"), ("1.3", "resumed")];

/// The handshakes of one listener.
#[derive(Debug, Default)]
pub(crate) struct HandshakeCounts {
    opened: [AtomicU64; OPENED.len()],
    failed: [AtomicU64; HandshakeFailure::COUNT],
    busy_nanos: AtomicU64,
    /// Its histogram has one writer at a time.
    duration: Mutex<Histogram>,
}

/// What is known of the handshakes of one listener.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HandshakesSnapshot {
    /// Handshakes that ended well: with TLS 1.2 in full and resumed, with TLS 1.3 in full and resumed.
    pub opened: [u64; OPENED.len()],
    /// Handshakes that failed, by [`HandshakeFailure`].
    pub failed: [u64; HandshakeFailure::COUNT],
    /// From a client's first byte to the end of its handshake.
    pub duration: HistogramSnapshot,
    /// Time that workers have spent in handshakes.
    pub busy: Duration,
    /// When the first certificate of the listener expires, in seconds since the Unix epoch.
    pub certificate_expires_at: u64,
}

impl HandshakeCounts {
    /// One ended well, this time after its first byte.
    pub(crate) fn opened(&self, version: &str, resumed: bool, nanos: u64) {
        let kind = if resumed { "resumed" } else { "full" };
        if let Some(at) = OPENED.iter().position(|opened| *opened == (version, kind)) {
            self.opened[at].fetch_add(1, Relaxed);
        }
        self.duration.lock().unwrap_or_else(PoisonError::into_inner).observe(nanos);
    }

    pub(crate) fn failed(&self, failure: HandshakeFailure) {
        self.failed[failure as usize].fetch_add(1, Relaxed);
    }

    /// A worker has spent this time in a handshake.
    pub(crate) fn worked(&self, nanos: u64) {
        self.busy_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn snapshot(&self, certificate_expires_at: u64) -> HandshakesSnapshot {
        let mut duration = HistogramSnapshot::default();
        self.duration.lock().unwrap_or_else(PoisonError::into_inner).add_to(&mut duration);
        HandshakesSnapshot {
            opened: self.opened.each_ref().map(|count| count.load(Relaxed)),
            failed: self.failed.each_ref().map(|count| count.load(Relaxed)),
            duration,
            busy: Duration::from_nanos(self.busy_nanos.load(Relaxed)),
            certificate_expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_by_how_they_ended() {
        let counts = HandshakeCounts::default();
        counts.opened("1.3", false, 1_000_000);
        counts.opened("1.3", true, 1_000_000);
        counts.opened("1.2", false, 1_000_000);
        counts.failed(HandshakeFailure::Alert);
        counts.worked(7);
        let seen = counts.snapshot(5);
        assert_eq!((seen.opened, seen.duration.count()), ([1, 0, 1, 1], 3));
        assert_eq!((seen.failed.iter().sum::<u64>(), seen.failed[HandshakeFailure::Alert as usize]), (1, 1));
        assert_eq!((seen.busy, seen.certificate_expires_at), (Duration::from_nanos(7), 5));
    }
}
