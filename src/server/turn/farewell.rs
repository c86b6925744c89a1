//! The last word to a session whose connection was ended while it had no worker: by the parker, for a
//! deadline or for the end of the server. `finish` and `drop` are its author's code and may take their
//! time, which the parker does not have. So the connection ends at once, and a worker tells its session.
//!
//! Until then the session keeps the connection's place among the admitted: that is what bounds how many
//! can wait here.

use crate::admit::places::Permit;
use crate::reason::CloseReason;
use crate::server::core::Core;
use crate::server::queue::cost::TurnCost;
use crate::server::queue::line::{Claim, Entry, Kind};
use crate::server::queue::state::Generation;
use crate::server::turn::worker::Worker;
use crate::service::Session;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A session that is to be told why its connection has ended.
pub(crate) struct Farewell {
    session: Box<dyn Session>,
    reason: CloseReason,
    permit: Permit,
}

/// All that are to be told.
pub(crate) struct Farewells {
    waiting: Mutex<VecDeque<Farewell>>,
    /// The one entry for them is in the queue, or in the hand of who will look here.
    called: AtomicBool,
    /// How many wait or are being told.
    pending: AtomicUsize,
    cost: TurnCost,
}

impl Farewells {
    /// Bytes for one that waits; the room for them grows by doubling.
    pub(crate) const BYTES: usize = 2 * size_of::<Farewell>();

    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            called: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            cost: TurnCost::unknown(),
        }
    }

    /// How many connections have ended whose sessions have not been told to the end.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(SeqCst)
    }

    /// Takes the one that has waited longest, and whether there are more.
    fn take(&self) -> Option<(Farewell, bool)> {
        let mut waiting = self.waiting();
        let farewell = waiting.pop_front()?;
        let more = !waiting.is_empty();
        if !more {
            // As many as a whole server has may have waited.
            *waiting = VecDeque::new();
        }
        Some((farewell, more))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Farewell>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Has a worker tell a session that its connection has ended.
    pub(crate) fn bid_farewell(&self, session: Box<dyn Session>, reason: CloseReason, permit: Permit) {
        self.farewells.pending.fetch_add(1, SeqCst);
        self.farewells.waiting().push_back(Farewell { session, reason, permit });
        self.call_for_farewells();
    }

    /// Puts the entry for farewells into the queue, unless it is there.
    fn call_for_farewells(&self) {
        if !self.farewells.called.swap(true, SeqCst) {
            self.requeue_farewells();
        }
    }

    /// Puts the entry for farewells into the queue, for who took it out and did not look after them.
    pub(crate) fn requeue_farewells(&self) {
        let since = self.clock.now();
        let entry =
            Entry { since, slot: 0, generation: Generation(0), claim: Claim::Turn, kind: Kind::Farewell };
        let refused = self.queue.push(entry);
        debug_assert!(refused.is_none(), "the queue has room for the farewells once");
        self.work_queued();
    }

    /// Tells the sessions that no worker was free for while the server was cut, one by one as long as
    /// there is `time`.
    pub(crate) fn say_last_farewells(&self, time: std::time::Duration) {
        let began = std::time::Instant::now();
        while began.elapsed() < time
            && let Some((farewell, _)) = self.farewells.take()
        {
            self.say_farewell(farewell);
        }
    }

    fn say_farewell(&self, farewell: Farewell) {
        let Farewell { session, reason, permit } = farewell;
        self.finish_session(session, reason);
        drop(permit);
        self.farewells.pending.fetch_sub(1, SeqCst);
        self.connection_place_made();
    }
}

impl Worker {
    /// Tells one session that its connection has ended, and leaves the next to whoever comes first.
    pub(crate) fn say_farewell(&mut self, core: &Core) {
        // Before looking: who adds one from now on puts the entry into the queue again.
        core.farewells.called.store(false, SeqCst);
        let Some((farewell, more)) = core.farewells.take() else { return };
        if more {
            core.call_for_farewells();
        }
        let began = self.now;
        self.clock().begin(began);
        self.share_work(core, core.farewells.cost.get());
        core.say_farewell(farewell);
        self.finish_clock();
        core.farewells.cost.note(self.now.saturating_sub(began));
    }
}
