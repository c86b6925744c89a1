//! The settings of a server that are neither limits nor listeners.

use super::queue::line::{Entry, Job, Line};
use crate::clock::{Nanos, nanos};
use crate::service::http::AccessLog;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) busy_reply: Option<Arc<[u8]>>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) tick: Option<Tick>,
    pub(crate) end_after: Option<u64>,
}

/// Housekeeping that a server's owner wants done now and then, as `service_actions` of Python's `socketserver` is: on a
/// worker, one at a time. It costs that worker while it runs; with one worker nobody is served meanwhile, as in Python.
pub(crate) struct Tick {
    interval: Nanos,
    action: Box<dyn Fn() + Send + Sync>,
    /// It waits for a worker, or has one: it is not asked for again before it has ended.
    wanted: AtomicBool,
}

impl Tick {
    pub(crate) fn new(interval: Duration, action: Box<dyn Fn() + Send + Sync>) -> Self {
        // A millisecond is how often the timekeeper looks.
        let interval = nanos(interval.max(Duration::from_millis(1)));
        Self { interval, action, wanted: AtomicBool::new(false) }
    }

    /// When it is due again after `now`.
    pub(crate) fn after(&self, now: Nanos) -> Nanos {
        now.saturating_add(self.interval)
    }

    /// Puts the job into the line, unless the last one has not ended; whether it did.
    pub(crate) fn ask(&self, line: &Line, now: Nanos) -> bool {
        let asked = !self.wanted.swap(true, SeqCst);
        if asked {
            line.push(Entry { since: now, job: Job::Tick });
        }
        asked
    }

    /// Does what is to be done at each tick.
    pub(crate) fn run(&self) {
        (self.action)();
    }

    /// It has ended, well or not: it may be asked for again.
    pub(crate) fn ended(&self) {
        self.wanted.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_asked_for_once_until_it_has_ended() {
        let (line, tick) = (Line::new(4, 4), Tick::new(Duration::ZERO, Box::new(|| {})));
        assert_eq!(tick.after(5), 1_000_005, "a millisecond at least");
        assert!(tick.ask(&line, 1) && !tick.ask(&line, 2));
        assert_eq!((line.pop(), line.pop()), (Some(Entry { since: 1, job: Job::Tick }), None));
        assert!(!tick.ask(&line, 3), "it is being done");
        tick.ended();
        assert!(tick.ask(&line, 4));
    }

    #[test]
    fn an_interval_without_end_is_never_due_again() {
        assert_eq!(Tick::new(Duration::MAX, Box::new(|| {})).after(7), u64::MAX);
    }
}
