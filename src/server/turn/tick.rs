//! Housekeeping that a server's owner wants done now and then, as `service_actions` of Python's
//! `socketserver` is: on a worker, one at a time. It costs that worker while it runs; with one
//! worker nobody is served meanwhile, as in Python.

use crate::clock::{Nanos, nanos};
use crate::server::core::Core;
use crate::server::queue::line::{Claim, Entry, Kind};
use crate::server::queue::state::Generation;
use crate::server::turn::worker::Worker;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// An action and how often it is done.
pub(crate) struct Tick {
    interval: Nanos,
    action: Box<dyn Fn() + Send + Sync>,
    /// It waits for a worker, or has one: it is not asked for again before it has ended.
    wanted: AtomicBool,
}

impl Tick {
    pub(crate) fn new(interval: Duration, action: Box<dyn Fn() + Send + Sync>) -> Self {
        // A millisecond is how often the parker looks.
        let interval = nanos(interval.max(Duration::from_millis(1)));
        Self { interval, action, wanted: AtomicBool::new(false) }
    }

    pub(crate) fn interval(&self) -> Nanos {
        self.interval
    }

    /// Puts the action into the queue, unless the last one has not ended.
    pub(crate) fn ask(&self, core: &Core, now: Nanos) {
        if self.wanted.swap(true, SeqCst) {
            return;
        }
        let entry =
            Entry { since: now, slot: 0, generation: Generation(0), claim: Claim::Turn, kind: Kind::Tick };
        let refused = core.queue.push(entry);
        debug_assert!(refused.is_none(), "the queue has room for the tick once");
        core.work_queued();
    }
}

impl Worker {
    /// Does what is to be done at each tick.
    pub(crate) fn tick(&mut self, core: &Core) {
        let Some(tick) = &core.tick else { return };
        self.clock().begin(self.now);
        // Nobody knows how long it takes: others go on with what there is.
        self.share_work(core, Nanos::MAX);
        if catch_unwind(AssertUnwindSafe(|| (tick.action)())).is_err() {
            core.panics.fetch_add(1, Relaxed);
        }
        self.finish_clock();
        tick.wanted.store(false, SeqCst);
    }
}
