//! The parker: one thread that keeps time. It ends what has waited too long, runs the lingering
//! closes, sees to it that somebody polls while all workers are in turns, sums up refusals once a
//! second, and leads the drain. Nothing in it blocks.

use crate::clock::{Nanos, nanos};
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::Place;
use crate::reason::{CloseReason, DropReason};
use crate::server::close::closing::{Discarded, Lingering, discard};
use crate::server::core::{Core, PARKER_ROW};
use crate::server::datagram::batch::Batch;
use crate::server::keep::drain::Drain;
use crate::server::queue::connection::Waiting;
use crate::server::queue::line::{Claim, Entry, Kind};
use crate::server::queue::state::Generation;
use crate::server::queue::table::{NEVER, Slot};
use crossbeam_channel::Receiver;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

const WAKE: Token = Token(usize::MAX);

/// While workers work, the parker looks at them this often: what a surprisingly slow turn can delay
/// others by.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without work before the parker sleeps long.
const QUIET_TICKS: u32 = 16;

/// The longest sleep; it bounds how late a summary or a scan can be.
const SLEEP: Duration = Duration::from_millis(250);

/// So many entries are looked at for a newcomer that has waited too long.
const LOOKED_AT: usize = 64;

/// Summaries come this often.
const SECOND: Nanos = 1_000_000_000;

pub(crate) struct Parker {
    core: Arc<Core>,
    poll: Poll,
    incoming: Receiver<Lingering>,
    lingering: Vec<Option<Lingering>>,
    scan_every: Nanos,
    next_scan: Nanos,
    next_summary: Nanos,
    next_tick: Nanos,
    quiet: u32,
    /// For datagrams, when all workers are in turns.
    batch: Option<Box<Batch>>,
    drain: Drain,
}

impl Parker {
    pub(crate) fn new(core: Arc<Core>, poll: Poll, incoming: Receiver<Lingering>, drain: Drain) -> Self {
        let limits = &core.limits;
        let shortest =
            limits.idle_timeout.min(limits.read_timeout).min(limits.write_timeout).min(limits.queue_timeout);
        // An eighth late at most, a pass over the table at most every 5 ms.
        let scan_every = nanos(shortest / 8).clamp(5_000_000, 250_000_000);
        Self {
            core,
            poll,
            incoming,
            lingering: Vec::new(),
            scan_every,
            next_scan: 0,
            next_summary: SECOND,
            next_tick: 0,
            quiet: 0,
            batch: None,
            drain,
        }
    }

    /// Keeps time until the server has stopped. A panic here would be a bug of ours; it ends the
    /// round and not the thread.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let round = std::panic::AssertUnwindSafe(|| self.round(&mut events));
            match std::panic::catch_unwind(round) {
                Ok(false) => {}
                Ok(true) => return,
                Err(_) => {
                    self.core.panics.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// One round; true when the server has stopped.
    fn round(&mut self, events: &mut Events) -> bool {
        let timeout = self.sleep_time();
        if self.poll.poll(events, Some(timeout)).is_ok() {
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.linger_on(event.token().0);
            }
        }
        self.core.parker_sleeps.store(false, Relaxed);
        self.take_lingerers();
        self.mind_workers();
        let now = self.core.clock.now();
        self.core.datagrams.retry(&self.core, now);
        if now >= self.next_scan || self.drain.is_draining() {
            self.next_scan = now + self.scan_every;
            self.expire_lingering(now);
            let expired = self.scan(now);
            self.shed_expired(expired, now);
        }
        if now >= self.next_summary {
            self.next_summary = now + SECOND;
            self.core.refusals.sum_up(&self.core);
            self.core.datagrams.sum_up(&self.core);
        }
        self.tick(now);
        self.drain.step(&self.core, now)
    }

    /// Asks for the owner's housekeeping when it is due.
    fn tick(&mut self, now: Nanos) {
        if let Some(tick) = &self.core.tick
            && now >= self.next_tick
            && self.core.phase() < Phase::Draining
        {
            self.next_tick = now + tick.interval();
            tick.ask(&self.core, now);
        }
    }

    /// A tick while there is work, longer when the leader sleeps in the poll and nothing is queued:
    /// then an event wakes it without the parker.
    fn sleep_time(&mut self) -> Duration {
        let core = &*self.core;
        if self.drain.is_draining() {
            return TICK * 5;
        }
        let resting = || core.poller.is_blocked() && core.queue.is_empty();
        let active = core.activity.swap(false, Relaxed);
        self.quiet = if active || !resting() { 0 } else { self.quiet + 1 };
        if self.quiet < QUIET_TICKS {
            return TICK;
        }
        core.parker_sleeps.store(true, SeqCst);
        fence(SeqCst);
        if core.activity.load(Relaxed) || !resting() || !self.incoming.is_empty() {
            core.parker_sleeps.store(false, Relaxed);
            return TICK;
        }
        let until_tick = match core.tick {
            Some(_) => Duration::from_nanos(self.next_tick.saturating_sub(core.clock.now())),
            None => SLEEP,
        };
        SLEEP.min(Duration::from_nanos(self.scan_every)).min(until_tick)
    }

    /// Sees to it that events are taken while all workers are in turns, and that a queue that does
    /// not move gets another worker.
    fn mind_workers(&mut self) {
        let core = &*self.core;
        if let Some(lead) = core.poller.lead() {
            core.harvest(&lead, Duration::ZERO, PARKER_ROW);
        }
        core.receive_for_busy_workers(&mut self.batch);
        // After leading: a worker that saw the parker lead may have gone to sleep over it.
        // Where a worker leads and nothing waits, nobody needs waking.
        if !core.queue.is_empty() || !core.poller.is_led_after_publishing() {
            core.work_queued();
        }
        let stalled = !core.queue.is_empty() || !core.poller.is_led();
        if stalled && !core.activity.load(Relaxed) {
            // The leader first: with all others in long turns it may be the only one left, and it sleeps in
            // the poll, where what the acceptor queues does not reach it.
            core.wake_worker();
        }
    }

    /// Takes newly lingering sockets in.
    fn take_lingerers(&mut self) {
        while let Ok(lingering) = self.incoming.try_recv() {
            let place = self.lingering.iter().position(Option::is_none).unwrap_or_else(|| {
                // At most `lingering` of them exist, so this does not grow further.
                self.lingering.push(None);
                self.lingering.len() - 1
            });
            let fd = lingering.socket.as_raw_fd();
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

    /// Ends idle connections whose deadline has passed, and counts newcomers in the queue whose has.
    fn scan(&self, now: Nanos) -> usize {
        let mut expired = 0;
        for (index, slot) in self.core.table.iter() {
            if slot.deadline.load(Relaxed) > now {
                continue;
            }
            let Some(generation) = slot.state.generation() else {
                continue;
            };
            if slot.state.claim(generation) {
                self.expire(index, slot, generation, now);
            } else if slot.state.is_queued() {
                expired += 1;
            }
        }
        expired
    }

    /// A connection that was claimed because its deadline seemed to have passed.
    fn expire(&self, index: u32, slot: &Slot, generation: Generation, now: Nanos) {
        let core = &*self.core;
        let ledger = core.ledger(PARKER_ROW, slot.listener());
        // It may have had a turn between the look and the claim: look again, as its owner.
        if slot.deadline.load(Relaxed) > now {
            if slot.state.park() == crate::server::queue::state::Parked::Again {
                slot.deadline.store(NEVER, Relaxed);
                ledger.moved(Place::Idle, Place::Queued);
                slot.state.requeue();
                core.enqueue(index, generation, core.claim(slot), now);
            }
            return;
        }
        let waiting = slot.connection().as_ref().map(|connection| connection.waiting.get());
        let reason = match waiting {
            Some(Waiting::Rest { .. }) => CloseReason::ReadTimeout,
            Some(Waiting::Flush { .. }) => CloseReason::WriteTimeout,
            _ => CloseReason::IdleTimeout,
        };
        core.close(index, slot, ledger, Place::Idle, reason);
    }

    /// Sheds newcomers that have waited too long, without waiting for a worker: as many as were seen
    /// to have. The queue is in order, so they are near its head.
    fn shed_expired(&self, expired: usize, now: Nanos) {
        let core = &*self.core;
        let patience = nanos(core.limits.queue_timeout);
        let overdue = |entry: &Entry| {
            entry.kind == Kind::Connection
                && entry.claim == Claim::Newcomer
                && now.saturating_sub(entry.since) > patience
        };
        for _ in 0..expired {
            let Some(entry) = core.queue.pop_first(LOOKED_AT, overdue) else { break };
            if let Some(slot) = core.table.get(entry.slot)
                && slot.state.take(entry.generation).is_some()
            {
                let ledger = core.ledger(PARKER_ROW, slot.listener());
                core.shed(entry.slot, slot, ledger, Place::Queued, DropReason::QueueTimeout);
            }
        }
        if expired > 0 {
            core.work_queued();
        }
    }
}
