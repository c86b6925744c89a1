//! A worker: takes entries, gives each a turn, and polls when there are none.

use super::batch::Batch;
use super::clock::{Nanos, nanos};
use super::connection::{Connection, Registered, Waiting};
use super::core::{Core, Listener, WORKER_ROWS};
use super::cost::SLOW_TURN;
use super::poller::Source;
use super::queue::{Entry, Kind};
use super::state::{Generation, Parked};
use super::table::{NEVER, Slot};
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::{Ledger, Place, WorkerClock};
use crate::reason::{CloseReason, DropReason, TurnOutcome};
use crate::service::{Buffers, Context, Fault, Peer, Stream, Turn, Turned};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

/// The leader's wait in the poll has this deadline, though an event or a wake ends it.
const LEAD_WAIT: Duration = Duration::from_secs(1);

/// A newcomer that waited longer is looked at before its turn: it may have left. (A younger one is
/// hardly gone, and the look is a system call.)
const LOOK_AFTER: Nanos = 5_000_000;

/// Cheap turns that have piled up to so much work are worth a second processor.
const SPREAD: Nanos = 500_000;

pub(crate) struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) me: usize,
    buffers: Buffers,
    /// For datagrams; made when the first come.
    pub(super) batch: Option<Box<Batch>>,
    pub(super) now: Nanos,
}

/// The connection of the present turn.
struct Present<'a> {
    index: u32,
    generation: Generation,
    slot: &'a Slot,
    ledger: &'a Ledger,
}

/// How a turn ended, as the worker sees it.
enum Verdict {
    Next(Turn),
    Failed(CloseReason),
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, me: usize) -> Self {
        Self { core, me, buffers: Buffers::new(), batch: None, now: 0 }
    }

    /// Works until the server has stopped. A panic outside of services would be a bug of ours; it
    /// ends the round and not the worker.
    pub(crate) fn run(mut self) {
        be_nice(self.core.limits.worker_nice);
        self.core.dormitory.register(self.me);
        while !self.core.stopped.load(Relaxed) {
            if catch_unwind(AssertUnwindSafe(|| self.round())).is_err() {
                self.core.panics.fetch_add(1, Relaxed);
                self.clock().end(self.core.clock.now());
            }
        }
        // The last one out tells the parker.
        if self.core.workers_alive.fetch_sub(1, SeqCst) == 1 {
            let _ = self.core.parker.wake();
        }
    }

    /// Empties the queue, then polls for more, or sleeps if another does.
    fn round(&mut self) {
        let core = self.core.clone();
        self.now = core.clock.now();
        while let Some(entry) = core.queue.pop() {
            match entry.kind {
                Kind::Connection => self.serve(entry),
                Kind::Datagram => self.answer_waiting(&entry),
                Kind::Receive => self.receive(&entry),
                Kind::Tick => self.tick(),
                Kind::Farewell => self.say_farewell(),
            }
            if core.stopped.load(Relaxed) {
                return;
            }
        }
        core.queue_was_empty.store(self.now, Relaxed);
        core.worker_free();
        if let Some(lead) = core.poller.lead() {
            let row = WORKER_ROWS + self.me;
            // A glance first: under load something is ready, and resting costs more than a look.
            if core.harvest(&lead, Duration::ZERO, row) > 0 {
                return;
            }
            lead.will_block();
            core.dormitory.awake.rest();
            if core.queue.is_empty() && !core.stopped.load(Relaxed) {
                core.harvest(&lead, LEAD_WAIT, row);
            }
            if lead.unblock() {
                core.dormitory.awake.rise();
            }
        } else {
            core.dormitory.sleep(self.me, || {
                !core.queue.is_empty() || !core.poller.is_led_after_publishing() || core.stopped.load(Relaxed)
            });
        }
    }

    pub(super) fn clock(&self) -> &WorkerClock {
        &self.core.worker_clocks[self.me]
    }

    /// Gives one entry its turn.
    fn serve(&mut self, entry: Entry) {
        let core = self.core.clone();
        let Some(slot) = core.table.get(entry.slot) else {
            return;
        };
        let Some(hangup) = slot.state.take(entry.generation) else {
            return;
        };
        slot.deadline.store(NEVER, Relaxed);
        let ledger = core.ledger(WORKER_ROWS + self.me, slot.listener());
        let waited = self.now.saturating_sub(entry.since);
        ledger.waited(waited);
        let present = Present { index: entry.slot, generation: entry.generation, slot, ledger };
        // The service's `verify` and `connect` are part of the first turn: they may be slow too.
        self.clock().begin(self.now);
        self.share_work(core.listeners[slot.listener()].cost.get());
        if entry.newcomer {
            core.queue_place_made();
            if let Some(reason) = self.unwelcome(slot, waited, hangup) {
                self.finish_clock();
                core.shed(entry.slot, slot, ledger, Place::Queued, reason);
                return;
            }
        }
        ledger.moved(Place::Queued, Place::Active);
        self.turn(&core, &present, hangup);
    }

    /// Before a turn of which a whole queue may be waiting for the end: sees to it that others take
    /// what else there is, and that somebody polls.
    pub(super) fn share_work(&self, cost: Nanos) {
        let core = &*self.core;
        if !core.activity.load(Relaxed) {
            core.activity.store(true, Relaxed);
            // The parker announces its sleep and then looks at the mark; this is the other half.
            fence(SeqCst);
            core.rouse_parker();
        }
        if core.dormitory.sleeping() == 0 {
            return;
        }
        let waiting = core.queue.len() as u64;
        let share = if cost > SLOW_TURN {
            waiting > 0 || !core.poller.is_led()
        } else {
            waiting * cost > SPREAD && core.dormitory.awake.count() < core.processors
        };
        if share {
            core.dormitory.wake_one();
        }
    }

    /// Why a newcomer gets no turn, if it gets none.
    fn unwelcome(&self, slot: &Slot, waited: Nanos, hangup: bool) -> Option<DropReason> {
        let core = &*self.core;
        if waited > core.patience(self.now) {
            return Some(DropReason::QueueTimeout);
        }
        let mut guard = slot.connection();
        let connection = guard.as_mut()?;
        let service = &core.listeners[slot.listener()].service;
        let look = waited > LOOK_AFTER || hangup;
        let peer = Peer { address: connection.peer };
        let opened = catch_unwind(AssertUnwindSafe(|| {
            if look && has_left(&connection.socket, service.client_speaks_first()) {
                return Err(DropReason::ClientGone);
            }
            if service.verify(&peer) { Ok(service.connect(&peer)) } else { Err(DropReason::Denied) }
        }));
        match opened {
            Ok(Ok(session)) => connection.session = Some(session),
            Ok(Err(reason)) => return Some(reason),
            // Without a session the turn ends it, as a panic.
            Err(_) => {}
        }
        None
    }

    /// One turn, from the flush of what is kept to the parking.
    fn turn(&mut self, core: &Core, present: &Present<'_>, hangup: bool) {
        let mut guard = present.slot.connection();
        let Some(connection) = guard.as_mut() else { return };
        if !connection.kept.is_empty() {
            match connection.kept.flush(&connection.socket, &core.output_total) {
                Ok(0) => {}
                Ok(n) => {
                    connection.waiting = Waiting::Flush { since: self.now };
                    present.ledger.bytes(0, n as u64);
                }
                Err(_) => {
                    drop(guard);
                    return self.end(core, present, CloseReason::Reset);
                }
            }
            let done = connection.kept.is_empty();
            match connection.ending {
                Some(reason) if done => {
                    drop(guard);
                    return self.end(core, present, reason);
                }
                None if done => {}
                _ => {
                    let waiting = connection.waiting;
                    drop(guard);
                    self.finish_clock();
                    return self.park(core, present, waiting);
                }
            }
        }
        let was_waiting = connection.waiting;
        let (turned, verdict) = self.run_service(core, present, connection, hangup);
        let kept = !connection.kept.is_empty();
        let closing = if turned.ended { CloseReason::Client } else { CloseReason::Server };
        match verdict {
            Verdict::Failed(CloseReason::Shutdown) => {
                // It waited for its client when the time for that was over.
                drop(guard);
                core.cut_in_turns.fetch_add(1, Relaxed);
                core.cut(present.index, present.slot, present.ledger, Place::Active);
            }
            Verdict::Failed(reason) => {
                drop(guard);
                self.end(core, present, reason);
            }
            Verdict::Next(Turn::Close) if !kept => {
                drop(guard);
                self.end(core, present, closing);
            }
            Verdict::Next(turn) => {
                connection.ending = (turn == Turn::Close).then_some(closing);
                drop(guard);
                let next = match (kept, turn, was_waiting) {
                    (true, ..) => Waiting::Flush { since: self.now },
                    // An answer was sent, so what is half read now is another request.
                    (_, Turn::Partial, Waiting::Rest { since }) if turned.sent == 0 => {
                        Waiting::Rest { since }
                    }
                    (_, Turn::Partial, _) => Waiting::Rest { since: self.now },
                    _ => Waiting::Request,
                };
                if !kept && !turned.drained && turned.received > 0 && !turned.ended {
                    return self.again(core, present);
                }
                self.park(core, present, next);
            }
        }
    }

    /// Calls the service, and counts what it did.
    fn run_service(
        &mut self,
        core: &Core,
        present: &Present<'_>,
        connection: &mut Connection,
        hangup: bool,
    ) -> (Turned, Verdict) {
        let listener = &core.listeners[present.slot.listener()];
        let peer = Peer { address: connection.peer };
        let context = Context {
            limits: &core.limits,
            output_total: &core.output_total,
            input_total: &core.input_total,
            stopping: &core.stopping,
        };
        let probe = listener.cost.probe();
        let Connection { socket, session, kept, .. } = connection;
        let mut stream = Stream::new(socket, &peer, &mut self.buffers, kept, context, hangup);
        let result = match session {
            Some(session) => catch_unwind(AssertUnwindSafe(|| session.turn(&mut stream))).ok(),
            None => None,
        };
        let (turned, flushed) = stream.finish();
        let began = self.now;
        self.finish_clock();
        let took = self.now.saturating_sub(began);
        match probe {
            Some(probe) => listener.cost.note_probed(probe.cost(took)),
            None => listener.cost.note(took),
        }
        present.ledger.bytes(turned.received, turned.sent);
        let (outcome, verdict) = match result {
            // What a failing service had said before it failed was sent, if it could be.
            Some(result) => match result.and_then(|turn| flushed.map(|()| turn)) {
                Ok(turn) => (TurnOutcome::Ok, Verdict::Next(turn)),
                Err(error) => {
                    let reason = failure(&error, core);
                    tell_failed(core, listener, &peer, &error);
                    let timeout = matches!(reason, CloseReason::ReadTimeout | CloseReason::WriteTimeout);
                    (if timeout { TurnOutcome::Timeout } else { TurnOutcome::Error }, Verdict::Failed(reason))
                }
            },
            None => {
                core.panics.fetch_add(1, Relaxed);
                tell_failed(core, listener, &peer, &io::Error::other("the service panicked"));
                (TurnOutcome::Error, Verdict::Failed(CloseReason::Panic))
            }
        };
        present.ledger.turn(outcome, took);
        (turned, verdict)
    }

    pub(super) fn finish_clock(&mut self) {
        self.now = self.core.clock.now();
        self.clock().end(self.now);
    }

    fn end(&mut self, core: &Core, present: &Present<'_>, reason: CloseReason) {
        self.finish_clock();
        core.close(present.index, present.slot, present.ledger, Place::Active, reason);
    }

    /// The connection has more to do: behind the others with it.
    fn again(&mut self, core: &Core, present: &Present<'_>) {
        if core.stopping.load(Relaxed) {
            // Nobody comes back to it.
            core.cut_in_turns.fetch_add(1, Relaxed);
            return core.cut(present.index, present.slot, present.ledger, Place::Active);
        }
        present.ledger.moved(Place::Active, Place::Queued);
        present.slot.state.requeue();
        core.enqueue(present.index, present.generation, false, self.now);
    }

    /// Lets go of the connection until its client does something or a deadline passes.
    fn park(&mut self, core: &Core, present: &Present<'_>, waiting: Waiting) {
        let source = Source { slot: present.index, generation: present.generation };
        let registered = {
            let mut guard = present.slot.connection();
            let Some(connection) = guard.as_mut() else { return };
            connection.waiting = waiting;
            register(core, connection, source, matches!(waiting, Waiting::Flush { .. }))
        };
        if registered.is_err() {
            // The kernel's memory or `fs.epoll.max_user_watches`: this connection cannot be parked.
            return core.close(
                present.index,
                present.slot,
                present.ledger,
                Place::Active,
                CloseReason::Error,
            );
        }
        if core.phase() >= Phase::Draining {
            if core.stopping.load(Relaxed) {
                core.cut_in_turns.fetch_add(1, Relaxed);
                return core.cut(present.index, present.slot, present.ledger, Place::Active);
            }
            if waiting == Waiting::Request {
                return self.leave_drained(core, present);
            }
        }
        present.slot.deadline.store(deadline(core, waiting, self.now), Relaxed);
        present.ledger.moved(Place::Active, Place::Idle);
        match present.slot.state.park() {
            Parked::Idle => {}
            Parked::Again => {
                present.slot.deadline.store(NEVER, Relaxed);
                present.ledger.moved(Place::Idle, Place::Queued);
                present.slot.state.requeue();
                core.enqueue(present.index, present.generation, false, self.now);
            }
        }
    }

    /// While the server drains, a connection between two requests ends, unless the next request has
    /// come meanwhile.
    fn leave_drained(&mut self, core: &Core, present: &Present<'_>) {
        let more = present.slot.connection().as_ref().is_some_and(|c| has_input(&c.socket));
        if more {
            return self.again(core, present);
        }
        core.close(present.index, present.slot, present.ledger, Place::Active, CloseReason::Shutdown);
    }
}

/// Tells a service that a turn of it failed.
fn tell_failed(core: &Core, listener: &Listener, peer: &Peer, error: &io::Error) {
    if catch_unwind(AssertUnwindSafe(|| listener.service.turn_failed(peer, error))).is_err() {
        core.panics.fetch_add(1, Relaxed);
    }
}

/// Registers a connection as far as it must be.
fn register(core: &Core, connection: &mut Connection, source: Source, writable: bool) -> io::Result<()> {
    use std::os::fd::AsFd;
    let fd = connection.socket.as_fd();
    match (connection.registered, writable) {
        (Registered::No, false) => {
            core.poller.add(fd, source)?;
            connection.registered = Registered::Readable;
        }
        (Registered::No | Registered::Readable, true) => {
            core.poller.add_writable(fd, source, connection.registered == Registered::Readable)?;
            connection.registered = Registered::Writable;
        }
        _ => {}
    }
    Ok(())
}

/// When the parker must end an idle connection.
fn deadline(core: &Core, waiting: Waiting, now: Nanos) -> Nanos {
    let limits = &core.limits;
    match waiting {
        Waiting::Request => now.saturating_add(nanos(limits.idle_timeout)),
        Waiting::Rest { since } => since.saturating_add(nanos(limits.read_timeout)),
        Waiting::Flush { since } => since.saturating_add(nanos(limits.write_timeout)),
    }
}

/// The reason that an error of a turn is counted as.
fn failure(error: &io::Error, core: &Core) -> CloseReason {
    match Fault::of(error) {
        Some(Fault::OutputLimit) => return CloseReason::OutputLimit,
        Some(Fault::InputLimit) => return CloseReason::InputLimit,
        Some(Fault::ReadTimeout) => return CloseReason::ReadTimeout,
        Some(Fault::WriteTimeout) => return CloseReason::WriteTimeout,
        Some(Fault::Shutdown) => return CloseReason::Shutdown,
        Some(Fault::LineTooLong) => return CloseReason::Protocol,
        None => {}
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => CloseReason::Reset,
        io::ErrorKind::UnexpectedEof => CloseReason::Client,
        io::ErrorKind::InvalidData => CloseReason::Protocol,
        io::ErrorKind::TimedOut => CloseReason::ReadTimeout,
        _ if core.stopping.load(Relaxed) => CloseReason::Shutdown,
        _ => CloseReason::Error,
    }
}

/// Whether a client is gone: its connection failed, or it ended without a word where it should
/// have spoken first.
fn has_left(socket: &std::net::TcpStream, client_speaks_first: bool) -> bool {
    use rustix::net::RecvFlags;
    match rustix::net::recv(socket, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => client_speaks_first,
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Whether a client has sent something that was not read.
pub(crate) fn has_input(socket: &std::net::TcpStream) -> bool {
    use rustix::net::RecvFlags;
    let peeked = rustix::net::recv(socket, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    peeked.is_ok_and(|(n, _)| n > 0)
}

/// Lowers this thread's priority by `nice`.
fn be_nice(nice: i32) {
    // On Linux the call is about the calling thread; elsewhere threads share the priority of their
    // process and nothing would be won.
    #[cfg(target_os = "linux")]
    if nice > 0 {
        let thread = Some(rustix::thread::gettid());
        if let Ok(now) = rustix::process::getpriority_process(thread) {
            // More niceness never needs a privilege.
            let _ = rustix::process::setpriority_process(thread, (now + nice).min(19));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
