//! The timekeeper: one thread that closes what has waited too long, runs the polite closes, polls while all workers are
//! in turns, sums up refusals once a second, and leads the drain. None of its work blocks.

use super::drain::Drain;
use super::pressure::Pressure;
use super::trim::Trim;
use super::{closed, deadlines};
use crate::clock::{Nanos, nanos};
use crate::server::close::late_closes::CLOSED_AT_ONCE;
use crate::server::close::linger::Lingering;
use crate::server::counts::{KEEPER_ROW, Row};
use crate::server::datagram::batch::Batch;
use crate::server::in_force::{InForce, LimitsView};
use crate::server::pulse::Vital;
use crate::server::queue::connection::{Connection, Waiting};
use crate::server::queue::owned::Owned;
use crate::server::queue::state::{ConnectionId, Marks};
use crate::server::shared::Shared;
use crate::server::turn::answer::receive_for_busy_workers;
use crate::server::turn::handshake;
use crate::server::turn::harvest::{harvest, ready};
use crate::server::turn::parking::{late, park_or_requeue, requeue};
use crate::transport::socket::{Discarded, discard, has_news, takes_more};
use crossbeam_channel::Receiver;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const WAKE: Token = Token(usize::MAX);

/// While workers work, the timekeeper looks at them this often: what a surprisingly slow turn can delay
/// others by.
const TICK: Duration = Duration::from_millis(1);

/// They have no time to spare for looks while the queue stands and the processors are busy: each is a switch of threads.
const PRESSED_TICK: Duration = Duration::from_millis(2);

/// Ticks without work before the timekeeper sleeps long.
const QUIET_TICKS: u32 = 16;

/// A scan is at most this long after the one before it: so late a timeout can be.
const SCAN_MOST: Nanos = 100_000_000;

/// The longest sleep; it bounds how late a summary or a scan can be.
const SLEEP: Duration = Duration::from_millis(250);

/// Summaries come this often.
const SECOND: Nanos = 1_000_000_000;

pub(crate) struct Timekeeper {
    shared: Arc<Shared>,
    poll: Poll,
    incoming: Receiver<Lingering>,
    lingering: Vec<Option<Lingering>>,
    limits: LimitsView,
    scan_every: Nanos,
    next_scan: Nanos,
    next_summary: Nanos,
    next_tick: Nanos,
    quiet: u32,
    /// For datagrams, when all workers are in turns.
    batch: Option<Box<Batch>>,
    pressure: Pressure,
    drain: Drain,
    trim: Trim,
}

impl Timekeeper {
    pub(crate) fn new(shared: Arc<Shared>, poll: Poll, incoming: Receiver<Lingering>, drain: Drain) -> Self {
        let limits = shared.limits.view();
        Self {
            scan_every: scan_every(&limits),
            limits,
            shared,
            poll,
            incoming,
            lingering: Vec::new(),
            next_scan: 0,
            next_summary: SECOND,
            next_tick: 0,
            quiet: 0,
            batch: None,
            pressure: Pressure::new(),
            drain,
            trim: Trim::default(),
        }
    }

    /// Keeps time until the server has stopped. A panic here would be a bug of ours; it ends the round and not the
    /// thread.
    pub(crate) fn run(mut self) {
        crate::sys::ask_for_short_slices();
        let shared = self.shared.clone();
        let mut events = Events::with_capacity(64);
        while shared.counts.contain(|| self.round(&mut events)) != Some(true) {}
    }

    /// The timekeeper's ledgers.
    fn row(&self) -> Row<'_> {
        self.shared.counts.row(KEEPER_ROW)
    }

    /// One round; true when the server has stopped.
    fn round(&mut self, events: &mut Events) -> bool {
        self.shared.pulse.beat(Vital::Timekeeper);
        let timeout = self.sleep_time();
        if self.poll.poll(events, Some(timeout)).is_ok() {
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.linger_on(event.token().0);
            }
        }
        self.shared.crew.keeper_rises();
        self.look_at_limits();
        self.take_lingerers();
        self.mind_workers();
        let shared = self.shared.clone();
        let now = shared.clock.now();
        if shared.datagrams.retry(&shared.line, now) {
            shared.crew.work_queued();
        }
        if now >= self.next_scan || self.drain.is_draining() {
            self.next_scan = now + self.scan_every;
            self.expire_lingering(now);
            self.scan(now);
            if !self.drain.is_draining() {
                closed::see_off(&shared, now);
            }
        }
        self.pressure.mind(&shared, &self.limits, shared.counts.row(KEEPER_ROW), now);
        if now >= self.next_summary {
            self.next_summary = now + SECOND;
            shared.refusals.sum_up(&shared.listeners, &shared.counts, shared.bell.is_awaited());
            shared.intake().sum_up();
            if self.trim.is_due(shared.admission.open()) {
                crate::sys::give_memory_back();
            }
        }
        self.call_sessions(now);
        self.tick(now);
        self.close_late(now);
        self.drain.step(&shared, now)
    }

    /// Does what follows for the timekeeper if limits have changed.
    fn look_at_limits(&mut self) {
        let Some(before) = self.limits.look(&self.shared.limits) else { return };
        self.scan_every = scan_every(&self.limits);
        self.next_scan = 0;
        self.pressure.limits_changed(&self.shared, &self.limits);
        deadlines::renew(&self.shared, &before, &self.limits, self.row(), self.shared.clock.now());
    }

    /// Closes sockets of clients that have left: a few while the workers need the time, soon all others.
    fn close_late(&self, now: Nanos) {
        let (shared, late) = (&*self.shared, &self.shared.late_closes);
        if self.drain.is_draining() {
            late.close(usize::MAX);
        } else if shared.is_pressed() {
            late.close_due(now);
        } else {
            late.close(CLOSED_AT_ONCE);
        }
    }

    /// Gives a turn to the sessions that asked to be called by now.
    fn call_sessions(&self, now: Nanos) {
        let (shared, mut queued) = (&*self.shared, false);
        shared.wheel.advance(now, |id| queued |= ready(shared, id, Marks::NONE, self.row(), &mut || now));
        if queued {
            shared.crew.work_queued();
        }
    }

    /// Asks for the owner's housekeeping when it is due.
    fn tick(&mut self, now: Nanos) {
        if let Some(tick) = &self.shared.tick
            && now >= self.next_tick
            && !self.shared.life.is_draining()
        {
            self.next_tick = tick.after(now);
            if tick.ask(&self.shared.line, now) {
                self.shared.crew.work_queued();
            }
        }
    }

    /// A tick while there is work, longer when the leader sleeps in the poll and nothing is queued: then an event wakes it
    /// without the timekeeper.
    fn sleep_time(&mut self) -> Duration {
        let shared = &*self.shared;
        if self.drain.is_draining() {
            return TICK * 5;
        }
        let resting =
            || shared.crew.is_leader_asleep() && !shared.has_work() && shared.late_closes.len() == 0;
        let active = shared.crew.take_stir();
        self.quiet = if active || !resting() { 0 } else { self.quiet + 1 };
        if self.quiet < QUIET_TICKS || !shared.crew.keeper_rests(|| !resting() || !self.incoming.is_empty()) {
            return if shared.is_pressed() { PRESSED_TICK } else { TICK };
        }
        let until_tick = match shared.tick {
            Some(_) => Duration::from_nanos(self.next_tick.saturating_sub(shared.clock.now())),
            None => SLEEP,
        };
        let until_call = Duration::from_nanos(shared.wheel.earliest().saturating_sub(shared.clock.now()));
        let until_scan = match shared.admission.open() {
            0 => SLEEP,
            _ => SLEEP.min(Duration::from_nanos(self.scan_every)),
        };
        until_scan.min(until_tick).min(until_call)
    }

    /// Sees to it that events are taken while all workers are in turns, and that a line that does not move gets another
    /// worker.
    fn mind_workers(&mut self) {
        let shared = &*self.shared;
        let crew = &shared.crew;
        if let Some(lead) = crew.lead() {
            harvest(shared, &lead, Duration::ZERO, self.row(), false);
        }
        receive_for_busy_workers(shared, &self.limits.server, &mut self.batch);
        // After leading: a worker that saw the timekeeper lead may have gone to sleep over it. Where a worker leads and
        // nothing waits, nobody needs waking.
        if shared.has_work() || !crew.is_led_after_publishing() {
            crew.work_queued();
        }
        let stalled = shared.has_work() || !crew.is_led();
        if stalled && !crew.is_stirred() {
            // The leader first: with all others in long turns it may be the only one left, and it sleeps in the poll, where
            // what the acceptor queues does not reach it.
            crew.wake_worker();
        }
    }

    /// Takes newly lingering sockets in.
    fn take_lingerers(&mut self) {
        while let Ok(lingering) = self.incoming.try_recv() {
            let place = self.lingering.iter().position(Option::is_none).unwrap_or_else(|| {
                // At most `lingering` of them exist at any time, so this does not grow further.
                self.lingering.push(None);
                self.lingering.len() - 1
            });
            let fd = lingering.socket.as_fd().as_raw_fd();
            let registered =
                self.poll.registry().register(&mut SourceFd(&fd), Token(place), Interest::READABLE);
            if registered.is_ok() {
                self.lingering[place] = Some(lingering);
            }
        }
    }

    /// A lingering client said something: discard it, or end when it has.
    fn linger_on(&mut self, place: usize) {
        let Some(entry) = self.lingering.get_mut(place) else {
            return;
        };
        if let Some(lingering) = entry
            && discard(&lingering.socket, &mut lingering.left) == Discarded::Ended
        {
            *entry = None;
        }
    }

    fn expire_lingering(&mut self, now: Nanos) {
        for entry in &mut self.lingering {
            if entry.as_ref().is_some_and(|lingering| lingering.deadline <= now)
                && let Some(lingering) = entry.take()
            {
                lingering.give_up();
            }
        }
    }

    /// Ends idle connections whose deadline has passed.
    fn scan(&self, now: Nanos) {
        for (number, slot) in self.shared.table.iter() {
            if slot.deadline.load(Relaxed) > now {
                continue;
            }
            let Some(generation) = slot.state.generation() else {
                continue;
            };
            if let Some(owned) = Owned::claim(slot, ConnectionId { slot: number, generation }, self.row()) {
                self.expire(owned, now);
            }
        }
    }

    /// A connection that was claimed because its deadline seemed to have passed.
    fn expire(&self, owned: Owned<'_>, now: Nanos) {
        // It may have had a turn between the look and the claim: look again, as its owner.
        let deadline = owned.slot.deadline.load(Relaxed);
        if deadline > now {
            park_or_requeue(&self.shared, owned, deadline, now);
            return;
        }
        let mut waiting = Waiting::Request;
        let in_time = owned.connection().as_mut().is_some_and(|connection| {
            waiting = connection.waiting.get();
            connection.overdue = has_come(connection);
            connection.overdue
        });
        if in_time {
            requeue(&self.shared, owned, now);
            return self.shared.crew.work_queued();
        }
        if handshake::ends_late(&self.shared, &owned) {
            return self.shared.closer().abandon(owned);
        }
        self.shared.closer().close(owned, late(waiting));
    }
}

/// How often the table is looked through: an eighth of the shortest time, so that none is kept later than that, and
/// every 5 ms at most.
fn scan_every(limits: &InForce) -> Nanos {
    let InForce { server, listeners, .. } = limits;
    let idle = listeners.iter().map(|listener| listener.idle_timeout).min();
    let idle = idle.unwrap_or(server.idle_timeout);
    let shortest = idle.min(server.read_timeout).min(server.write_timeout).min(limits.queue_timeout_least());
    nanos(shortest / 8).clamp(5_000_000, SCAN_MOST)
}

/// Whether something has come of a client that nobody has looked at yet, because the process or its workers had no
/// processor, say: it is not judged by its deadline before that.
fn has_come(connection: &Connection) -> bool {
    match connection.waiting.get() {
        Waiting::Request | Waiting::Hello { .. } | Waiting::Rest { .. } => has_news(&connection.socket),
        Waiting::Flush { .. } => takes_more(&connection.socket),
        Waiting::Call { .. } => false,
    }
}
