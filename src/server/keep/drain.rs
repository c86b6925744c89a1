//! The drain: how a server ends, from the order to the last connection, with a deadline for each step.

use super::orders::{Orders, ShutdownReport};
use crate::clock::{Nanos, nanos};
use crate::phase::Phase;
use crate::reason::{CloseReason, DatagramDrop, DropReason};
use crate::server::close::last_words::LastWords;
use crate::server::counts::KEEPER_ROW;
use crate::server::datagram::socket::DatagramSocket;
use crate::server::queue::connection::Waiting;
use crate::server::queue::line::{Claim, Entry, Job};
use crate::server::queue::owned::Owned;
use crate::server::queue::state::ConnectionId;
use crate::server::queue::table::Slot;
use crate::server::shared::Shared;
use crate::server::turn::parking::{park_or_requeue, requeue};
use crate::service::{Protocol, Service};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// After the cut, turns in progress have this time to return; then their threads are left behind.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// What requests that are being worked at have left when the clients of a server that was handed over have had their time.
pub(super) const LAST_GRACE: Duration = Duration::from_secs(5);

enum DrainStage {
    Serving,
    Leaving,
    /// Another process accepts. What was admitted here goes on until its clients leave.
    HandedOver {
        until: Nanos,
    },
    Draining {
        until: Nanos,
    },
    Cutting {
        until: Nanos,
    },
    Stopping {
        until: Nanos,
        report: ShutdownReport,
    },
    Telling {
        until: Nanos,
        report: ShutdownReport,
    },
}

/// The drain in progress; stepped by the timekeeper.
pub(crate) struct Drain {
    orders: Arc<Orders>,
    stage: DrainStage,
    ordered_at: Nanos,
    closed_before: u64,
    /// Connections that were cut.
    cut: u64,
    /// Newcomers that had been turned away because of the drain when the cut began.
    shed_before: Option<u64>,
    /// For each listener of a server that was handed over, once its clients have had their time: whether its connections are
    /// pairs of a gate. A pair has no requests that the gate knows, so there is none to wait for.
    pairs: Vec<bool>,
}

impl Drain {
    pub(crate) fn new(orders: Arc<Orders>) -> Self {
        Self {
            orders,
            stage: DrainStage::Serving,
            ordered_at: 0,
            closed_before: 0,
            cut: 0,
            shed_before: None,
            pairs: Vec::new(),
        }
    }

    /// Whether connections are being ended: then the timekeeper looks often.
    pub(crate) fn is_draining(&self) -> bool {
        !matches!(self.stage, DrainStage::Serving | DrainStage::Leaving | DrainStage::HandedOver { .. })
    }

    /// Goes as far as it can now; true when the server has stopped.
    pub(crate) fn step(&mut self, shared: &Arc<Shared>, now: Nanos) -> bool {
        let life = &shared.life;
        match self.stage {
            DrainStage::Serving if self.orders.are_to_hand_over() => self.hand_over(shared, now),
            DrainStage::Serving if self.orders.are_to_drain() => self.leave(shared, now),
            // As many connections as were wanted have come, and the last of them has ended.
            DrainStage::Serving if life.has_enough() && shared.admission.open() == 0 => {
                self.leave(shared, now)
            }
            DrainStage::Serving => {}
            DrainStage::Leaving => {
                let delay = nanos(shared.limits.current().server.drain_delay);
                if now.saturating_sub(self.ordered_at) >= delay || self.orders.are_to_cut() {
                    self.begin(shared, now);
                }
            }
            DrainStage::HandedOver { until } => self.see_off(shared, now, until),
            DrainStage::Draining { until } => self.drain(shared, now, until),
            DrainStage::Cutting { until } => {
                // In this order: what the acceptor still admitted is cut.
                let all_are_in = !life.is_accepting();
                self.cut(shared);
                if all_are_in && (shared.admission.open() == 0 || now >= until) {
                    self.stop(shared, now);
                }
            }
            DrainStage::Stopping { until, report } => {
                if life.workers_alive() == 0 || now >= until {
                    self.count_what_is_left(shared, report, now);
                } else {
                    shared.crew.wake_all();
                }
            }
            DrainStage::Telling { until, report } => {
                let untold = shared.farewells.pending();
                if untold == 0 || now >= until {
                    self.orders.finish(ShutdownReport { sessions_left: untold, ..report });
                    return true;
                }
            }
        }
        false
    }

    fn leave(&mut self, shared: &Shared, now: Nanos) {
        self.ordered_at = now;
        self.closed_before = closed_total(shared);
        shared.life.enter(Phase::Leaving);
        self.stage = DrainStage::Leaving;
        if shared.limits.current().server.drain_delay.is_zero() {
            self.begin(shared, now);
        }
    }

    /// Stops accepting without closing the sockets to anybody: another process has them too.
    fn hand_over(&mut self, shared: &Shared, now: Nanos) {
        self.ordered_at = now;
        self.closed_before = closed_total(shared);
        shared.life.enter(Phase::Leaving);
        shared.life.hand_over();
        shared.bell.call();
        if shared.datagrams.begin_drain(&shared.line, now) {
            shared.crew.work_queued();
        }
        let until = now.saturating_add(nanos(shared.limits.current().server.drain_timeout));
        self.stage = DrainStage::HandedOver { until };
    }

    /// Waits for the clients of a server that was handed over to leave by themselves, and drains when they have, when the
    /// time is over, or when it is told to.
    fn see_off(&mut self, shared: &Shared, now: Nanos, until: Nanos) {
        let answered = shared.datagrams.drained();
        let empty = shared.admission.open() == 0 && !shared.life.is_accepting() && answered;
        if now >= until {
            self.orders.set_grace(LAST_GRACE);
            self.pairs =
                shared.listeners.iter().map(|listener| is_gate_of_pairs(&*listener.service)).collect();
        }
        if empty || now >= until || self.orders.are_to_drain() {
            self.begin(shared, now);
        }
    }

    fn begin(&mut self, shared: &Shared, now: Nanos) {
        shared.life.enter(Phase::Draining);
        shared.bell.call();
        if !shared.life.is_handed_over() && shared.datagrams.begin_drain(&shared.line, now) {
            shared.crew.work_queued();
        }
        let timeout = self.orders.take_grace().unwrap_or(nanos(shared.limits.current().server.drain_timeout));
        self.stage = DrainStage::Draining { until: now.saturating_add(timeout) };
    }

    /// Ends what is idle, until nothing is left or the time is over.
    fn drain(&mut self, shared: &Shared, now: Nanos, mut until: Nanos) {
        if let Some(grace) = self.orders.take_grace() {
            // The drain had begun already, with more time.
            until = until.min(now.saturating_add(grace));
            self.stage = DrainStage::Draining { until };
        }
        if self.pairs.contains(&true) {
            self.cut += cut_pairs(shared, now, |listener| self.pairs.get(listener) == Some(&true));
        }
        end_idle(shared, now, |_| true);
        let answered = shared.datagrams.drained();
        let empty = shared.admission.open() == 0 && !shared.life.is_accepting() && answered;
        if empty && shared.lingers.count() == 0 {
            self.stop(shared, now);
        } else if now >= until || self.orders.are_to_cut() {
            self.shed_before = Some(shed_total(shared));
            shared.life.stop_turns();
            self.cut(shared);
            self.stage = DrainStage::Cutting { until: now.saturating_add(nanos(CUT_GRACE)) };
        }
    }

    /// Resets what is idle or waits; what has a worker is cut by it when its turn returns.
    fn cut(&mut self, shared: &Shared) {
        let row = shared.counts.row(KEEPER_ROW);
        let mut farewells = false;
        while let Some(entry) = shared.line.pop().or_else(|| shared.order.drain_one()) {
            match entry.job {
                Job::Turn(..) | Job::Overloaded(_) => self.cut_waiting(shared, entry),
                Job::Datagram(slot) => shared.intake().drop_waiting(slot, row, DatagramDrop::Draining),
                Job::Receive(_) | Job::Tick => {}
                Job::Farewell => farewells = true,
            }
        }
        for (number, slot) in shared.table.iter() {
            let Some(generation) = slot.state.generation() else {
                continue;
            };
            if let Some(owned) = Owned::claim(slot, ConnectionId { slot: number, generation }, row) {
                self.cut += 1;
                shared.closer().cut(owned);
            }
        }
        if farewells {
            shared.closer().queue_farewells();
        }
    }

    fn cut_waiting(&mut self, shared: &Shared, entry: Entry) {
        let (id, claim) = match entry.job {
            Job::Turn(id, claim) => (id, claim),
            Job::Overloaded(id) => (id, Claim::Turn),
            _ => return,
        };
        if claim == Claim::Newcomer {
            shared.newcomer_left(id);
        }
        let row = shared.counts.row(KEEPER_ROW);
        let Some((owned, _)) = Owned::take(&shared.table, id, claim, row) else { return };
        if claim == Claim::Turn {
            self.cut += 1;
            shared.closer().cut(owned);
        } else {
            shared.closer().shed(owned, DropReason::Draining, &LastWords::default());
        }
    }

    /// Everything has ended, or has had its time: the threads return.
    fn stop(&mut self, shared: &Shared, now: Nanos) {
        shared.life.stop_turns();
        shared.life.enter(Phase::Stopped);
        shared.datagrams.close();
        shared.life.stop_workers();
        // Of those that have a place, some have ended already, and only their sessions are being told.
        let in_turns = shared.admission.open().saturating_sub(shared.farewells.pending()) as u64;
        let cut = self.cut + shared.counts.cut_in_turns();
        let closed = closed_total(shared) - self.closed_before;
        let shed = self.shed_before.map_or(0, |before| shed_total(shared) - before);
        let report = ShutdownReport {
            elapsed: Duration::from_nanos(now - self.ordered_at),
            drained: closed.saturating_sub(cut),
            aborted: cut + shed + in_turns,
            datagrams_dropped: 0,
            workers_left: 0,
            sessions_left: 0,
        };
        self.stage = DrainStage::Stopping { until: now.saturating_add(nanos(CUT_GRACE)), report };
    }

    /// The workers have returned, or have had their time.
    fn count_what_is_left(&mut self, shared: &Arc<Shared>, mut report: ShutdownReport, now: Nanos) {
        report.workers_left = shared.life.workers_alive();
        // What workers on their way out have put into the line.
        self.cut(shared);
        report.datagrams_dropped = datagrams_dropped(shared);
        if shared.farewells.pending() > 0 {
            say_last_farewells(shared);
        }
        self.stage = DrainStage::Telling { until: now.saturating_add(nanos(CUT_GRACE)), report };
    }
}

/// Claims the connection of a slot, if it is idle and came from one of these listeners.
pub(super) fn claim_of<'a>(
    shared: &'a Shared,
    (number, slot): (u32, &'a Slot),
    now: Nanos,
    of: impl Fn(usize) -> bool,
) -> Option<Owned<'a>> {
    // The life first: if it is over by now, nothing is claimed.
    let id = ConnectionId { slot: number, generation: slot.state.generation()? };
    if !of(slot.listener()) {
        return None;
    }
    let owned = Owned::claim(slot, id, shared.counts.row(KEEPER_ROW))?;
    if of(owned.listener()) {
        return Some(owned);
    }
    // Its life had just begun, and it came from another listener.
    let deadline = owned.slot.deadline.load(Relaxed);
    if park_or_requeue(shared, owned, deadline, now) {
        shared.crew.work_queued();
    }
    None
}

/// Ends connections of these listeners between two requests with FIN; those that have sent one already get their turn
/// first. A half request has until its own deadline.
pub(super) fn end_idle(shared: &Shared, now: Nanos, of: impl Fn(usize) -> bool) {
    for (number, slot) in shared.table.iter().filter(|(_, slot)| slot.state.is_idle()) {
        let Some(owned) = claim_of(shared, (number, slot), now, &of) else {
            continue;
        };
        let (waiting, more) = match owned.connection().as_ref() {
            // Nothing is read of a client that does not take its replies; a session that keeps its own time may have left
            // something unread on purpose.
            Some(connection)
                if matches!(connection.waiting.get(), Waiting::Flush { .. } | Waiting::Call { .. }) =>
            {
                (connection.waiting.get(), false)
            }
            Some(connection) => (connection.waiting.get(), shared.table.has_input(number, connection)),
            None => (Waiting::Request, false),
        };
        let unaware = matches!(waiting, Waiting::Call { .. })
            && owned.connection().as_ref().is_some_and(|connection| !connection.in_drain.is_known());
        let queued = if more || unaware {
            // A session that keeps its own time learns of the drain by a turn.
            requeue(shared, owned, now);
            true
        } else if matches!(waiting, Waiting::Request | Waiting::Hello { .. }) {
            shared.closer().close(owned, CloseReason::Shutdown);
            false
        } else {
            let deadline = owned.slot.deadline.load(Relaxed);
            park_or_requeue(shared, owned, deadline, now)
        };
        if queued {
            shared.crew.work_queued();
        }
    }
}

/// Cuts the connections of these listeners whose sessions keep their own time; how many those were.
fn cut_pairs(shared: &Shared, now: Nanos, of: impl Fn(usize) -> bool) -> u64 {
    let mut cut = 0;
    for place in shared.table.iter().filter(|(_, slot)| slot.state.is_idle()) {
        let Some(owned) = claim_of(shared, place, now, &of) else { continue };
        let is_pair = owned
            .connection()
            .as_ref()
            .is_some_and(|connection| matches!(connection.waiting.get(), Waiting::Call { .. }));
        if is_pair {
            shared.closer().cut(owned);
            cut += 1;
            continue;
        }
        let deadline = owned.slot.deadline.load(Relaxed);
        if park_or_requeue(shared, owned, deadline, now) {
            shared.crew.work_queued();
        }
    }
    cut
}

/// Whether a service is a gate that passes bytes on and knows nothing of requests.
fn is_gate_of_pairs(service: &dyn Service) -> bool {
    service.protocol() == Protocol::Stream && service.backends().is_some()
}

/// Tells the sessions that no worker was free for while the server was cut, one by one. What they do then is their author's
/// code and may never return, so it has a thread of its own, which is left behind if it does not.
fn say_last_farewells(shared: &Arc<Shared>) {
    let name = "tidegate-farewell".to_owned();
    let teller = shared.clone();
    let started = std::thread::Builder::new().name(name).spawn(move || {
        while let Some((farewell, _)) = teller.farewells.take() {
            teller.closer().say_farewell(farewell);
        }
    });
    if started.is_err() {
        // Dropping them would run their author's code here.
        while let Some((farewell, _)) = shared.farewells.take() {
            std::mem::forget(farewell.session);
        }
    }
}

/// Connections that have ended since the start, on all listeners.
fn closed_total(shared: &Shared) -> u64 {
    (0..shared.listeners.len()).map(|index| shared.counts.read_counts(index).closed_total()).sum()
}

/// Newcomers that were turned away since the start because the server ended: by this thread, or by a worker that took one
/// from the line after the cut.
fn shed_total(shared: &Shared) -> u64 {
    let shed = |index| shared.counts.read_counts(index).dropped[DropReason::Draining as usize];
    (0..shared.listeners.len()).map(shed).sum()
}

/// Datagrams that were received and not answered because the server ended.
fn datagrams_dropped(shared: &Shared) -> u64 {
    let dropped = |socket: &DatagramSocket| {
        let counts = shared.counts.read_counts(socket.column);
        // What a listener that was closed before did not answer in time is not of this drain.
        let too_late = if socket.closed_at().is_none() { socket.too_late() } else { 0 };
        counts.datagrams_dropped[DatagramDrop::Draining as usize] + too_late
    };
    shared.datagrams.sockets.iter().map(dropped).sum()
}
