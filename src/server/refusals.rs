//! Recent refusals, summed up once a second: one line in the log for each listener and reason, whatever their number, and
//! the list that the status page shows.

use super::counts::Counts;
use super::listeners::Listeners;
use crate::metrics::snapshot::Refusal;
use crate::metrics::sources::RefusedSources;
use crate::reason::{AcceptError, DropReason};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries that are kept.
const KEPT: usize = 50;

const NONE: u8 = u8::MAX;

#[derive(Debug)]
pub(crate) struct Refusals {
    last: Mutex<VecDeque<Refusal>>,
    seen: Box<[Seen]>,
    panics_seen: AtomicU64,
    /// The sources that are refused for being who they are.
    pub(crate) sources: RefusedSources,
    /// The most frequent reason of the last second, or [`NONE`].
    shedding: AtomicU8,
}

/// What was counted up to the last summary.
#[derive(Debug, Default)]
struct Seen {
    dropped: [AtomicU64; DropReason::COUNT],
    accept_errors: [AtomicU64; AcceptError::COUNT],
}

impl Refusals {
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            last: Mutex::new(VecDeque::with_capacity(KEPT)),
            seen: (0..listeners).map(|_| Seen::default()).collect(),
            panics_seen: AtomicU64::new(0),
            sources: RefusedSources::default(),
            shedding: AtomicU8::new(NONE),
        }
    }

    /// The last refusals, newest first.
    pub(crate) fn last(&self) -> Vec<Refusal> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Why newcomers are being refused, if they are.
    pub(crate) fn shedding(&self) -> Option<DropReason> {
        DropReason::ALL.get(usize::from(self.shedding.load(Relaxed))).copied()
    }

    /// Sums up what has been counted since the last call; the timekeeper calls it once a second. `held` says whether
    /// newcomers are being held in the kernel's backlog.
    pub(crate) fn sum_up(&self, listeners: &Listeners, counts: &Counts, held: bool) {
        let mut worst = (0, if held { DropReason::QueueFull as u8 } else { NONE });
        for (index, listener) in listeners.iter().enumerate() {
            let now = counts.read_counts(index);
            tracing::debug!(
                listener = %listener.url,
                accepted = now.accepted,
                turns = now.turns[0],
                queued = now.queued,
                active = now.active,
                idle = now.idle,
                closed = ?now.closed,
                "state"
            );
            for (at, &reason) in DropReason::ALL.iter().enumerate() {
                let count = now.dropped[at]
                    .saturating_sub(self.seen[index].dropped[at].swap(now.dropped[at], Relaxed));
                if count == 0 {
                    continue;
                }
                tracing::warn!(listener = %listener.url, reason = %reason, count, "connections dropped");
                self.push(Refusal { at_unix_ms: unix_ms(), listener: listener.position, reason, count });
                if count > worst.0 && reason != DropReason::ClientGone {
                    worst = (count, reason as u8);
                }
            }
            let errors = listener.accept_errors();
            for (at, &error) in AcceptError::ALL.iter().enumerate() {
                let total = errors[at];
                let count = total.saturating_sub(self.seen[index].accept_errors[at].swap(total, Relaxed));
                if count > 0 {
                    tracing::warn!(listener = %listener.url, error = %error, count, "accept failed");
                }
            }
        }
        self.shedding.store(worst.1, Relaxed);
        let sources = self.sources.next_second();
        if !sources.is_empty() {
            let most = sources.iter().map(|source| format!("{} ({})", source.source, source.count));
            let most = most.collect::<Vec<_>>().join(", ");
            tracing::warn!(sources = most, "the sources that were refused most for their own limits");
        }
        let panics = counts.panics();
        let count = panics.saturating_sub(self.panics_seen.swap(panics, Relaxed));
        if count > 0 {
            tracing::error!(count, "turns panicked; their connections were closed");
        }
    }

    fn push(&self, refusal: Refusal) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.truncate(KEPT - 1);
        last.push_front(refusal);
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
