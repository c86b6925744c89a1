//! Recent refusals, summed up once a second: one line in the log for each listener and reason, whatever their number, and
//! the list that the status page shows.

use super::counts::Counts;
use super::listener::Listener;
use super::listeners::Listeners;
use crate::metrics::snapshot::{ListenerSnapshot, RefusalEntry};
use crate::metrics::sources::RefusedSources;
use crate::metrics::web::WebSnapshot;
use crate::reason::{AcceptError, DropReason, TurnShed};
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
    last: Mutex<VecDeque<RefusalEntry>>,
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
    /// HTTP requests for which a gate had no place.
    refused: [AtomicU64; DropReason::COUNT],
    /// Requests that got no turn.
    shed: [AtomicU64; TurnShed::COUNT],
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
    pub(crate) fn last(&self) -> Vec<RefusalEntry> {
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
            let now = read(listener, counts, index);
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
            self.note_refusals(listener, &now, &self.seen[index], &mut worst);
            let errors = listener.accept_errors();
            for (at, &error) in AcceptError::ALL.iter().enumerate() {
                let count = growth(&self.seen[index].accept_errors[at], errors[at]);
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

    /// Notes what one listener has turned away since the last summary: a line in the log and an entry of the list for each
    /// reason, apart for connections and for requests of open connections.
    fn note_refusals(&self, listener: &Listener, now: &ListenerSnapshot, seen: &Seen, worst: &mut (u64, u8)) {
        let refused = now.requests_refused();
        for (at, &reason) in DropReason::ALL.iter().enumerate() {
            let dropped = growth(&seen.dropped[at], now.dropped[at]);
            let refused = growth(&seen.refused[at], refused[at]);
            let refusal = |count, requests| {
                let (at_unix_ms, listener) = (unix_ms(), listener.position);
                RefusalEntry { at_unix_ms, listener, reason, requests, count }
            };
            let shed = shed_for(reason)
                .map_or(0, |why| growth(&seen.shed[why as usize], now.turns_shed[why as usize]));
            if dropped > 0 {
                tracing::warn!(listener = %listener.url, reason = %reason, count = dropped, "connections dropped");
                self.push(refusal(dropped, false));
            }
            if refused + shed > 0 {
                let count = refused + shed;
                tracing::warn!(listener = %listener.url, reason = %reason, count, "requests refused");
                self.push(refusal(count, true));
            }
            // Requests that got no turn are no newcomers.
            if dropped + refused > worst.0 && reason != DropReason::ClientGone {
                *worst = (dropped + refused, reason as u8);
            }
        }
    }

    fn push(&self, refusal: RefusalEntry) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.truncate(KEPT - 1);
        last.push_front(refusal);
    }
}

/// What is counted for one listener, of a gate for HTTP with the requests that it has refused.
fn read(listener: &Listener, counts: &Counts, index: usize) -> ListenerSnapshot {
    let mut now = counts.read_counts(index);
    if listener.web.is_some() {
        now.web = Some(WebSnapshot::default());
        now.backends = counts.contain(|| listener.service.backends()).flatten();
    }
    now
}

/// How much a counter has grown since the last summary.
fn growth(seen: &AtomicU64, now: u64) -> u64 {
    now.saturating_sub(seen.swap(now, Relaxed))
}

/// What a request is counted as that got no turn for this reason.
fn shed_for(reason: DropReason) -> Option<TurnShed> {
    match reason {
        DropReason::QueueTimeout => Some(TurnShed::QueueTimeout),
        DropReason::ClientGone => Some(TurnShed::ClientGone),
        _ => None,
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
