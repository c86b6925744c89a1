//! The station of a worker: its number, its last reading of the clock, its buffers, its meter.

use crate::clock::Nanos;
use crate::metrics::stats::WorkerClock;
use crate::server::counts::Row;
use crate::server::datagram::batch::Batch;
use crate::server::poll::busy_poll::BusyPoll;
use crate::server::queue::cost::{SLOW_TURN, TurnCost};
use crate::server::shared::Shared;
use crate::service::{Buffers, TlsBuffers};

/// Cheap turns that have piled up to this much work are worth a second processor.
const SPREAD: Nanos = 100_000;

pub(crate) struct Station<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) me: usize,
    pub(crate) buffers: Buffers,
    pub(crate) tls_buffers: TlsBuffers,
    /// For datagrams; made when the first come.
    pub(crate) batch: Option<Box<Batch>>,
    /// The time, as the worker last read it.
    pub(crate) now: Nanos,
    pub(crate) busy_poll: BusyPoll,
    /// Its turn is one that computes.
    computing: bool,
    /// When the last such turn had ended, enough other workers computed.
    pub(crate) surplus: bool,
}

impl<'a> Station<'a> {
    pub(crate) fn new(shared: &'a Shared, me: usize) -> Self {
        let busy_poll = BusyPoll::new(shared.limits.busy_poll);
        let (buffers, tls_buffers) = (Buffers::new(), TlsBuffers::default());
        Self {
            shared,
            me,
            buffers,
            tls_buffers,
            batch: None,
            now: 0,
            busy_poll,
            computing: false,
            surplus: false,
        }
    }

    /// The worker's ledgers.
    pub(crate) fn row(&self) -> Row<'a> {
        self.shared.counts.worker_row(self.me)
    }

    /// The worker's meter of how busy it is.
    pub(crate) fn meter(&self) -> &'a WorkerClock {
        &self.shared.counts.meters()[self.me]
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) {
        self.now = self.shared.clock.now();
    }

    /// A turn of a connection begins, of a service whose turns cost this.
    pub(crate) fn begin_turn(&mut self, cost: &TurnCost) {
        // A turn whose end was not noted, since something panicked, still counts.
        if cost.computes() && !self.computing {
            self.computing = true;
            self.shared.computing.enter();
        }
        self.begin(cost.get());
    }

    /// Something begins that counts as busy, and is expected to take `cost`; others take what else there is.
    pub(crate) fn begin(&self, cost: Nanos) {
        self.meter().begin(self.now);
        self.share_work(cost);
    }

    /// It has ended, now.
    pub(crate) fn finish(&mut self) {
        if std::mem::take(&mut self.computing) {
            self.surplus = self.shared.computing.leave();
        }
        self.read_clock();
        self.meter().end(self.now);
    }

    /// Before a turn for whose end a whole queue may be waiting: sees to it that others take what else there is, and that
    /// somebody polls.
    pub(crate) fn share_work(&self, cost: Nanos) {
        let crew = &self.shared.crew;
        crew.stir();
        if crew.sleeping() == 0 {
            return;
        }
        let waiting = self.shared.waiting() as u64;
        let share = if cost > SLOW_TURN {
            let one_too_many = self.computing && self.shared.computing.is_enough();
            !one_too_many && (waiting > 0 || !crew.is_led())
        } else {
            waiting * cost > SPREAD && crew.awake() < self.shared.processors
        };
        if share {
            crew.wake_sleeper();
        }
    }
}
