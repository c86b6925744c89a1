//! How a server ends: from the order to the last connection, with a deadline for each step.

use crate::clock::{Nanos, nanos};
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::Place;
use crate::reason::{CloseReason, DatagramDrop, DropReason};
use crate::server::core::{Core, PARKER_ROW};
use crate::server::queue::connection::Waiting;
use crate::server::queue::line::{Claim, Kind};
use crate::server::queue::table::NEVER;
use crate::server::turn::worker::has_input;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// After the cut, turns in progress get so long to return before their threads are left behind.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// What became of what there was to do when the server was told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// How long it took, `drain_delay` included.
    pub elapsed: Duration,
    /// Connections that ended in good order.
    pub drained: u64,
    /// Connections that were cut.
    pub aborted: u64,
    /// Datagrams that were received and not answered.
    pub datagrams_dropped: u64,
    /// Workers whose turn did not return; their threads are left behind.
    pub workers_left: usize,
}

impl ShutdownReport {
    /// Whether nothing was cut or dropped.
    pub fn is_clean(&self) -> bool {
        self.aborted == 0 && self.datagrams_dropped == 0 && self.workers_left == 0
    }
}

impl std::fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { elapsed, drained, aborted, datagrams_dropped, workers_left } = self;
        write!(f, "drained {drained} connections in {:.1} s, cut {aborted}", elapsed.as_secs_f64())?;
        if *datagrams_dropped > 0 {
            write!(f, ", dropped {datagrams_dropped} datagrams")?;
        }
        if *workers_left > 0 {
            write!(f, ", left {workers_left} workers in turns that do not return")?;
        }
        Ok(())
    }
}

/// The orders to end, and the report when they were carried out.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    drain: AtomicBool,
    cut: AtomicBool,
    grace: Mutex<Option<Duration>>,
    report: Mutex<Option<ShutdownReport>>,
    done: Condvar,
}

impl Orders {
    pub(crate) fn drain(&self) {
        self.drain.store(true, SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.drain.store(true, SeqCst);
        self.cut.store(true, SeqCst);
    }

    pub(crate) fn set_grace(&self, grace: Duration) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = Some(grace);
    }

    /// The grace that was set since the last call.
    fn take_grace(&self) -> Option<Nanos> {
        self.grace.lock().unwrap_or_else(PoisonError::into_inner).take().map(nanos)
    }

    fn finish(&self, report: ShutdownReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.done.notify_all();
    }

    /// Waits for the report, at most so long.
    pub(crate) fn wait_timeout(&self, time: Duration) -> Option<ShutdownReport> {
        let guard = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = self.done.wait_timeout_while(guard, time, |report| report.is_none());
        *report.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for the report.
    pub(crate) fn wait(&self) -> ShutdownReport {
        let guard = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = self.done.wait_while(guard, |report| report.is_none());
        report.unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }
}

enum Stage {
    Serving,
    Leaving,
    Draining { until: Nanos },
    Cutting { until: Nanos },
    Stopping { until: Nanos, report: ShutdownReport },
}

/// The drain in progress; stepped by the parker.
pub(crate) struct Drain {
    orders: std::sync::Arc<Orders>,
    stage: Stage,
    ordered_at: Nanos,
    closed_before: u64,
    /// Connections that were cut, and newcomers that were before their first turn.
    cut: u64,
    shed: u64,
}

impl Drain {
    pub(crate) fn new(orders: std::sync::Arc<Orders>) -> Self {
        Self { orders, stage: Stage::Serving, ordered_at: 0, closed_before: 0, cut: 0, shed: 0 }
    }

    /// Whether connections are being ended: then the parker looks often.
    pub(crate) fn is_draining(&self) -> bool {
        !matches!(self.stage, Stage::Serving | Stage::Leaving)
    }

    /// Goes as far as it can now; true when the server has stopped.
    pub(crate) fn step(&mut self, core: &Core, now: Nanos) -> bool {
        match self.stage {
            Stage::Serving if self.orders.drain.load(SeqCst) => self.leave(core, now),
            // As many connections as were wanted have come, and the last of them has ended.
            Stage::Serving if core.enough.load(SeqCst) && core.admission.open() == 0 => self.leave(core, now),
            Stage::Leaving => {
                let delay = nanos(core.limits.drain_delay);
                if now.saturating_sub(self.ordered_at) >= delay || self.orders.cut.load(SeqCst) {
                    self.begin(core, now);
                }
            }
            Stage::Draining { mut until } => {
                if let Some(grace) = self.orders.take_grace() {
                    // The drain had begun already, with more time.
                    until = until.min(now.saturating_add(grace));
                    self.stage = Stage::Draining { until };
                }
                self.end_idle(core, now);
                let answered = core.datagrams.drained();
                let empty = core.admission.open() == 0 && !core.accepting.load(SeqCst) && answered;
                if empty && core.lingering.load(SeqCst) == 0 {
                    self.stop(core, now);
                } else if now >= until || self.orders.cut.load(SeqCst) {
                    core.stopping.store(true, SeqCst);
                    self.cut(core);
                    self.stage = Stage::Cutting { until: now.saturating_add(nanos(CUT_GRACE)) };
                }
            }
            Stage::Cutting { until } => {
                // In this order: what the acceptor still admitted is cut.
                let all_are_in = !core.accepting.load(SeqCst);
                self.cut(core);
                if all_are_in && now >= until {
                    core.say_last_farewells(CUT_GRACE);
                }
                if all_are_in && (core.admission.open() == 0 || now >= until) {
                    self.stop(core, now);
                }
            }
            Stage::Stopping { until, mut report } => {
                let left = core.workers_alive.load(SeqCst);
                if left == 0 || now >= until {
                    // What workers on their way out have put into the queue.
                    self.cut(core);
                    core.say_last_farewells(CUT_GRACE);
                    report.workers_left = left;
                    report.datagrams_dropped = core.datagrams_dropped_at_end();
                    self.orders.finish(report);
                    return true;
                }
                core.dormitory.wake_all();
                core.poller.wake();
            }
            Stage::Serving => {}
        }
        false
    }

    fn leave(&mut self, core: &Core, now: Nanos) {
        self.ordered_at = now;
        self.closed_before = core.closed_total();
        core.enter(Phase::Leaving);
        self.stage = Stage::Leaving;
        if core.limits.drain_delay.is_zero() {
            self.begin(core, now);
        }
    }

    fn begin(&mut self, core: &Core, now: Nanos) {
        core.enter(Phase::Draining);
        let _ = core.acceptor.wake();
        core.datagrams.begin_drain(core, now);
        let timeout = self.orders.take_grace().unwrap_or(nanos(core.limits.drain_timeout));
        self.stage = Stage::Draining { until: now.saturating_add(timeout) };
    }

    /// Ends connections between two requests with FIN; those that have sent one already get their
    /// turn first. A half request has until its own deadline.
    fn end_idle(&self, core: &Core, now: Nanos) {
        for (index, slot) in core.table.iter() {
            if !slot.state.is_idle() {
                continue;
            }
            let Some(generation) = slot.state.generation() else {
                continue;
            };
            if !slot.state.claim(generation) {
                continue;
            }
            let ledger = core.ledger(PARKER_ROW, slot.listener());
            let (waiting, more) = match slot.connection().as_ref() {
                // Nothing is read of a client that does not take its replies.
                Some(connection) if matches!(connection.waiting.get(), Waiting::Flush { .. }) => {
                    (connection.waiting.get(), false)
                }
                Some(connection) => (connection.waiting.get(), has_input(&connection.socket)),
                None => (Waiting::Request, false),
            };
            if waiting == Waiting::Request && !more {
                core.close(index, slot, ledger, Place::Idle, CloseReason::Shutdown);
            } else if more || slot.state.park() == crate::server::queue::state::Parked::Again {
                slot.deadline.store(NEVER, Relaxed);
                ledger.moved(Place::Idle, Place::Queued);
                slot.state.requeue();
                core.enqueue(index, generation, Claim::Turn, now);
                core.work_queued();
            }
        }
    }

    /// Resets what is idle or queued; what has a worker is cut by it when its turn returns.
    fn cut(&mut self, core: &Core) {
        let mut farewells = false;
        while let Some(entry) = core.queue.pop() {
            match entry.kind {
                Kind::Connection => {}
                Kind::Datagram => {
                    core.drop_waiting(&entry, PARKER_ROW, DatagramDrop::Draining);
                    continue;
                }
                Kind::Receive | Kind::Tick => continue,
                Kind::Farewell => {
                    farewells = true;
                    continue;
                }
            }
            let Some(slot) = core.table.get(entry.slot) else {
                continue;
            };
            if slot.state.take(entry.generation).is_none() {
                continue;
            }
            let ledger = core.ledger(PARKER_ROW, slot.listener());
            if entry.claim != Claim::Turn {
                self.shed += 1;
                core.shed(entry.slot, slot, ledger, Place::Queued, DropReason::Draining);
            } else {
                self.cut += 1;
                core.cut(entry.slot, slot, ledger, Place::Queued);
            }
        }
        for (index, slot) in core.table.iter() {
            let Some(generation) = slot.state.generation() else {
                continue;
            };
            if slot.state.claim(generation) {
                self.cut += 1;
                core.cut(index, slot, core.ledger(PARKER_ROW, slot.listener()), Place::Idle);
            }
        }
        if farewells {
            core.requeue_farewells();
        }
    }

    /// Everything has ended, or has had its time: the threads return.
    fn stop(&mut self, core: &Core, now: Nanos) {
        core.stopping.store(true, SeqCst);
        core.enter(Phase::Stopped);
        core.datagrams.close();
        core.stopped.store(true, SeqCst);
        // Of those that have a place, some have ended already, and only their sessions are being told.
        let in_turns = core.admission.open().saturating_sub(core.farewells.pending()) as u64;
        let cut = self.cut + core.cut_in_turns.load(Relaxed);
        let closed = core.closed_total() - self.closed_before;
        let report = ShutdownReport {
            elapsed: Duration::from_nanos(now - self.ordered_at),
            drained: closed.saturating_sub(cut),
            aborted: cut + self.shed + in_turns,
            datagrams_dropped: 0,
            workers_left: 0,
        };
        self.stage = Stage::Stopping { until: now.saturating_add(nanos(CUT_GRACE)), report };
    }
}
