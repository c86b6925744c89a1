//! What the timekeeper does about overload. It notices that the queue stands while all workers are in long turns,
//! refuses requests that have waited too long, and while the queue stands it keeps the kernel's backlog short and lets few
//! newcomers wait. It also measures what other threads need to know: whether processors are idle, and how long the server
//! needs for what waits.

use super::rest::RestMeter;
use crate::admit::turns::standing::INTERVAL;
use crate::clock::{Nanos, nanos};
use crate::reason::{TurnOutcome, WouldDrop};
use crate::server::close::shedding::{Shedding, shed, shelve};
use crate::server::counts::Row;
use crate::server::in_force::InForce;
use crate::server::queue::line::Entry;
use crate::server::queue::order::retry_after;
use crate::server::shared::Shared;
use crate::transport::listen::set_backlog;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often the line is looked at for what waits too long.
const LOOK: Nanos = 10_000_000;
/// How often rest and rates are measured.
const MEASURE: Nanos = 200_000_000;
/// While the queue stands, the kernel's backlog holds as many newcomers as the workers serve in this part of a second, 50 ms.
/// With 25 ms it overflowed more often. The kernel drops the end of the handshake of a client that does not fit, so the
/// client's request is sent again after 200 ms: README's demonstration had a p99 of 0.38 to 0.55 s, and 0.07 to 0.09 s with 50 ms.
const BACKLOG_PART: f64 = 1.0 / 20.0;
/// As many newcomers as the workers serve in this part of a second, 25 ms, may wait for a worker then, and one more for each turn under
/// way. The freshest of them come first, so the others wait only to be turned away, and are better told soon: in three runs of
/// `tidegate-bench scene surge-http` 99 of 100 knew after 31 to 43 ms, and after 64 to 154 with 50 ms. Turns that sleep end many at
/// once, and their workers all want newcomers then. With 25 ms and nothing for turns under way README's demonstration had a p99 of 0.2 to 1 s in
/// ten of sixteen runs, with 15 ms and one for each turn 0.40 to 0.49 s; it has 0.06 to 0.08 s now, as with 50 ms.
const SHELF_PART: f64 = 1.0 / 40.0;
/// The shallowest backlog.
const BACKLOG_LEAST: usize = 8;

#[derive(Debug)]
pub(crate) struct Pressure {
    next_look: Nanos,
    next_measure: Nanos,
    /// How deep the backlog is, if it is shallow.
    shallow: Option<usize>,
    rest: RestMeter,
    /// Turns at the last measurement.
    turns: u64,
    measured_at: Nanos,
    /// Turns a second, lately.
    rate: f64,
}

impl Pressure {
    pub(crate) fn new() -> Self {
        Self {
            next_look: 0,
            next_measure: 0,
            shallow: None,
            rest: RestMeter::new(),
            turns: 0,
            measured_at: 0,
            rate: 0.0,
        }
    }

    /// Looks at what waits, as often as is needed.
    pub(crate) fn mind(&mut self, shared: &Shared, limits: &InForce, row: Row<'_>, now: Nanos) {
        if now >= self.next_look {
            self.next_look = now + LOOK;
            shelve_the_old(shared, row, now);
            if !limits.server.dry_run.has(WouldDrop::QueueTimeout) {
                expire(shared, limits, row, now);
            }
            self.set_backlogs(shared, limits, now);
        }
        if now >= self.next_measure {
            self.next_measure = now + MEASURE;
            self.measure_rest(shared);
            self.measure_rate(shared, now);
        }
    }

    /// Shallow as soon as the queue stands, deep again when it has been calm for a while.
    fn set_backlogs(&mut self, shared: &Shared, limits: &InForce, now: Nanos) {
        let standing = shared.order.standing();
        if standing.stands() {
            let busy = !shared.rest.load(Relaxed) && self.rate > 0.0;
            let few = busy && shared.displaces_oldest(limits.server.overload);
            let newcomers = if few { self.few_newcomers(shared) } else { usize::MAX };
            shared.line.newcomers().shrink_to(newcomers);
            let wanted = self.shallow_backlog(limits.server.backlogs().1, busy);
            // Small changes are not worth a system call for each listener.
            if self.shallow.is_none_or(|now| now.abs_diff(wanted) > now / 4) {
                self.shallow = Some(wanted);
                shared.shallow_backlog.store(wanted, Relaxed);
                self.apply_backlogs(shared, limits);
            }
        } else if self.shallow.is_some() && standing.is_calm(now) {
            self.shallow = None;
            shared.line.newcomers().grow();
            self.apply_backlogs(shared, limits);
        }
    }

    /// Limits have changed: each listener has the backlog that they say.
    pub(crate) fn limits_changed(&mut self, shared: &Shared, limits: &InForce) {
        shared.shallow_backlog.store(self.shallow.unwrap_or(limits.server.backlogs().1), Relaxed);
        self.apply_backlogs(shared, limits);
    }

    fn apply_backlogs(&self, shared: &Shared, limits: &InForce) {
        // While the server drains, nobody is to be let in any more.
        if shared.life.is_draining() {
            return;
        }
        let open = shared.listeners.iter().zip(&limits.listeners);
        for (listener, limits) in open.filter(|(listener, _)| listener.closed_at().is_none()) {
            if let Some(socket) = &*listener.socket() {
                let (deep, shallow) = limits.backlogs();
                set_backlog(
                    socket,
                    self.shallow.map_or(deep, |wanted| shallow.min(wanted.max(limits.backlog))),
                );
            }
        }
    }

    /// What the workers do in a moment while processors are `busy`, but at most `most`; and `most` while they have rest: then
    /// nobody stands there for long, since all are taken in or told, and a backlog that overflows for a moment leaves a
    /// client hanging.
    fn shallow_backlog(&self, most: usize, busy: bool) -> usize {
        if busy { self.done_in(BACKLOG_PART).min(most) } else { most }
    }

    /// How many newcomers may wait for a worker while few may.
    fn few_newcomers(&self, shared: &Shared) -> usize {
        self.done_in(SHELF_PART) + shared.counts.busy_workers()
    }

    /// How many turns the workers do in this part of a second.
    fn done_in(&self, part: f64) -> usize {
        ((self.rate * part) as usize).max(BACKLOG_LEAST)
    }

    fn measure_rest(&mut self, shared: &Shared) {
        let wanted = self.shallow.is_some() || shared.bell.is_awaited();
        if !wanted {
            self.rest.forget();
            shared.rest.store(true, Relaxed);
        } else if let Some(rest) = self.rest.had_rest() {
            shared.rest.store(rest, Relaxed);
        }
    }

    /// Estimates the time to work off what waits, from how many turns are done in a second.
    fn measure_rate(&mut self, shared: &Shared, now: Nanos) {
        let waiting = shared.waiting();
        if waiting == 0 && self.rate == 0.0 {
            self.measured_at = 0;
            return;
        }
        let of_datagrams = shared.datagrams.sockets.iter().map(|socket| socket.column);
        let columns = (0..shared.listeners.len()).chain(of_datagrams);
        let done = |column| shared.counts.read_counts(column).turns[TurnOutcome::Ok as usize];
        let turns: u64 = columns.map(done).sum();
        if self.measured_at > 0 {
            let seconds = Duration::from_nanos(now.saturating_sub(self.measured_at)).as_secs_f64();
            let rate = turns.saturating_sub(self.turns) as f64 / seconds.max(1e-3);
            self.rate = if self.rate == 0.0 { rate } else { self.rate * 0.7 + rate * 0.3 };
        }
        (self.turns, self.measured_at) = (turns, now);
        let turn = Duration::try_from_secs_f64(1.0 / self.rate).unwrap_or(Duration::from_secs(1));
        shared.wait_estimate.store(retry_after(waiting, turn, 1).as_secs(), Relaxed);
        if waiting == 0 && self.rate < 1.0 {
            self.rate = 0.0;
        }
    }
}

/// Moves what workers in long turns do not come to take to the shelf, where its order and its deadline hold.
fn shelve_the_old(shared: &Shared, row: Row<'_>, now: Nanos) {
    if shared.line.is_empty() {
        return;
    }
    let proof = shared.order.standing().target().saturating_add(INTERVAL);
    let old = |entry: &Entry| now.saturating_sub(entry.since) > proof;
    let first = match shared.order.len() {
        // What waits in front is the oldest: it is taken out only if it is old enough.
        0 => match shared.line.pop_first(1, old) {
            Some(first) => Some(first),
            None => return shared.crew.work_queued(),
        },
        _ => None,
    };
    shelve(shared, row, first, now);
}

/// Gives up what has waited longer than the `queue_timeout` of its listener.
fn expire(shared: &Shared, limits: &InForce, row: Row<'_>, now: Nanos) {
    let timeout = |entry: &Entry| {
        let slot = entry.turn().and_then(|(id, _)| shared.table.get(id.slot));
        let own = slot.map_or(&limits.server, |slot| &limits.listeners[slot.listener()]);
        nanos(own.queue_timeout)
    };
    let late = shared
        .order
        .expire_late(now, nanos(limits.queue_timeout_least()), |entry, waited| waited > timeout(entry));
    for entry in late {
        shed(shared, row, &entry, Shedding::TooLong, now);
    }
}
