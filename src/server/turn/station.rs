//! What one worker has for itself: its number, its last reading of the clock, its buffers, and the meter of how busy it
//! is.

use crate::clock::Nanos;
use crate::metrics::stats::WorkerClock;
use crate::server::counts::Row;
use crate::server::datagram::batch::Batch;
use crate::server::in_force::LimitsView;
use crate::server::poll::busy_poll::BusyPoll;
use crate::server::poll::efforts::Effort;
use crate::server::queue::cost::{TurnCost, is_slow};
use crate::server::shared::Shared;
use crate::service::{Buffers, TlsBuffers};

/// Cheap turns that have piled up to this much work are worth a second processor.
const SPREAD: Nanos = 100_000;

/// A worker that was missed looks again after this time whether it still is.
const LOOK_AGAIN: Nanos = 1_000_000;

pub(crate) struct Station<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) me: usize,
    /// The worker's ledgers, and its meter of how busy it is: each turn asks several times.
    row: Row<'a>,
    meter: &'a WorkerClock,
    pub(crate) buffers: Buffers,
    pub(crate) tls_buffers: TlsBuffers,
    /// For datagrams; made when the first come.
    pub(crate) batch: Option<Box<Batch>>,
    /// The time, as the worker last read it.
    pub(crate) now: Nanos,
    pub(crate) busy_poll: BusyPoll,
    pub(crate) limits: LimitsView,
    effort: Effort,
    /// When its last turn had ended, enough other workers were at it.
    pub(crate) surplus: bool,
    /// It was missed when it looked last, and looks again then.
    missed_until: Nanos,
    /// The turn that begins is the only thing there was to do a moment ago.
    pub(crate) alone: bool,
}

impl<'a> Station<'a> {
    pub(crate) fn new(shared: &'a Shared, me: usize) -> Self {
        let limits = shared.limits.view();
        let busy_poll = BusyPoll::new(limits.server.busy_poll);
        let (buffers, tls_buffers) = (Buffers::new(), TlsBuffers::default());
        Self {
            shared,
            me,
            row: shared.counts.worker_row(me),
            meter: &shared.counts.meters()[me],
            buffers,
            tls_buffers,
            batch: None,
            now: 0,
            busy_poll,
            limits,
            effort: Effort::default(),
            surplus: false,
            missed_until: 0,
            alone: false,
        }
    }

    /// The worker's ledgers.
    pub(crate) fn row(&self) -> Row<'a> {
        self.row
    }

    /// The worker's meter of how busy it is.
    pub(crate) fn meter(&self) -> &'a WorkerClock {
        self.meter
    }

    /// Sees the limits that are in force now.
    #[inline]
    pub(crate) fn look_at_limits(&mut self) {
        if self.limits.look(&self.shared.limits).is_some() {
            self.busy_poll.set_limit(self.limits.server.busy_poll);
        }
    }

    /// Whether there are more workers than are wanted, and this is one of those.
    pub(crate) fn is_surplus(&self) -> bool {
        self.me >= self.limits.server.workers
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) {
        self.now = self.shared.clock.now();
    }

    /// A turn of a connection begins, of a service whose turns cost this.
    pub(crate) fn begin_turn(&mut self, cost: &TurnCost) {
        // A turn whose end was not noted, since something panicked, still counts.
        if cost.computes() && self.effort == Effort::Cheap {
            self.set_effort(Effort::Computes);
        }
        self.begin(cost.get());
    }

    /// Something begins that counts as busy, and is expected to take `cost`; others take what else there is.
    pub(crate) fn begin(&mut self, cost: Nanos) {
        if is_slow(cost) && self.effort == Effort::Cheap {
            self.set_effort(Effort::MayWait);
        }
        self.meter().begin(self.now);
        self.share_work(cost);
    }

    fn set_effort(&mut self, effort: Effort) {
        self.effort = effort;
        self.shared.efforts.begin(effort);
    }

    /// It has ended, now.
    pub(crate) fn finish(&mut self) {
        let effort = std::mem::take(&mut self.effort);
        self.surplus = self.shared.efforts.end(effort, || self.shared.crew.awake());
        self.read_clock();
        self.meter().end(self.now);
    }

    /// Whether the worker may leave the work that there is to others: enough are at it, by what each was expected to do and by how
    /// long each has been in its turn. The latter is looked at once a millisecond at most, since it is in every worker's own
    /// cache line.
    pub(crate) fn may_stand_back(&mut self) -> bool {
        if !std::mem::take(&mut self.surplus) || self.now < self.missed_until || !self.shared.has_work() {
            return false;
        }
        let is_missed = self.shared.misses_a_worker(self.shared.crew.awake().saturating_sub(1), self.now);
        if is_missed {
            self.missed_until = self.now + LOOK_AGAIN;
        }
        !is_missed
    }

    /// Before a turn for whose end a whole queue may be waiting: sees to it that others take what else there is, and that
    /// somebody polls.
    pub(crate) fn share_work(&self, cost: Nanos) {
        let crew = &self.shared.crew;
        crew.stir();
        if crew.sleeping() == 0 {
            return;
        }
        let waiting = || if self.alone { 0 } else { self.shared.waiting() as u64 };
        let share = if is_slow(cost) {
            let one_too_many = self.effort == Effort::Computes && self.shared.efforts.is_enough();
            !one_too_many && (waiting() > 0 || !crew.is_led())
        } else {
            // In this order: what waits is in four cache lines that every worker writes to.
            self.shared.efforts.has_room(crew.awake(), 0) && waiting() * cost > SPREAD
        };
        if share {
            crew.wake_sleeper();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::server::BoundServer;
    use crate::server::extras::Extras;
    use crate::server::listeners::Listeners;
    use std::time::Duration;

    #[test]
    fn a_worker_spins_as_long_as_the_limit_says_from_its_next_turn_on() {
        let limits = Limits::default().workers(1).max_connections(8).queue(8);
        let server = BoundServer::new(
            limits.clone(),
            Listeners::new(vec![], 0),
            Listeners::new(vec![], 0),
            Extras::default(),
        )
        .unwrap();
        let shared = server.shared();
        let mut station = Station::new(shared, 0);
        (0..64).for_each(|_| station.busy_poll.paid());
        assert!(station.busy_poll.is_worth_it());
        let off = limits.busy_poll(Duration::ZERO);
        shared.set_limits(off, &|_, server| server.clone()).unwrap();
        assert!(station.busy_poll.is_worth_it(), "until its next turn");
        station.look_at_limits();
        assert!(!station.busy_poll.is_worth_it());
        assert_eq!(station.limits.server.busy_poll, Duration::ZERO);
    }
}
