//! A worker: takes entries, gives each a turn, and polls when there are none.

use crate::clock::{Nanos, nanos};
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::{Ledger, Place, WorkerClock};
use crate::reason::{CloseReason, DropReason, TurnOutcome};
use crate::server::accept::acceptor::BURST;
use crate::server::core::{Core, Listener, WORKER_ROWS};
use crate::server::datagram::batch::Batch;
use crate::server::poll::busy_poll::BusyPoll;
use crate::server::poll::poller::{Lead, Source};
use crate::server::queue::connection::{Connection, Registered, Waiting};
use crate::server::queue::cost::SLOW_TURN;
use crate::server::queue::line::{Claim, Entry, Kind};
use crate::server::queue::state::{Generation, Parked};
use crate::server::queue::table::{NEVER, Slot};
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
const SPREAD: Nanos = 100_000;

pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    pub(crate) me: usize,
    buffers: Buffers,
    /// For datagrams; made when the first come.
    pub(crate) batch: Option<Box<Batch>>,
    pub(crate) now: Nanos,
    busy_poll: BusyPoll,
}

/// The connection of the present turn.
struct Present<'a> {
    index: u32,
    generation: Generation,
    slot: &'a Slot,
    ledger: &'a Ledger,
}

/// What becomes of the connection after its turn.
enum Next {
    Park(Waiting),
    /// It has more to do, behind the others with it.
    Again,
    End(CloseReason),
    /// The time for turns is over.
    Cut,
}

/// How a turn ended, as the worker sees it.
enum Verdict {
    Next(Turn),
    Failed(CloseReason),
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, me: usize) -> Self {
        let busy_poll = BusyPoll::new(core.limits.busy_poll);
        Self { core, me, buffers: Buffers::new(), batch: None, now: 0, busy_poll }
    }

    /// Works until the server has stopped. A panic outside of services would be a bug of ours; it
    /// ends the round and not the worker.
    pub(crate) fn run(mut self) {
        // Counted once: the count is a line that all workers share.
        let core = self.core.clone();
        be_nice(core.limits.worker_nice);
        core.dormitory.register(self.me);
        while !core.stopped.load(Relaxed) {
            if catch_unwind(AssertUnwindSafe(|| self.round(&core))).is_err() {
                core.panics.fetch_add(1, Relaxed);
                self.clock().end(core.clock.now());
            }
        }
        // The last one out tells the parker.
        if core.workers_alive.fetch_sub(1, SeqCst) == 1 {
            let _ = core.parker.wake();
        }
    }

    /// Empties the queue, then polls for more, or sleeps if another does.
    fn round(&mut self, core: &Core) {
        self.now = core.clock.now();
        while let Some(entry) = core.queue.pop() {
            match entry.kind {
                Kind::Connection => self.serve(core, entry),
                Kind::Datagram => self.answer_waiting(core, &entry),
                Kind::Receive => self.receive(core, &entry),
                Kind::Tick => self.tick(core),
                Kind::Farewell => self.say_farewell(core),
            }
            if core.stopped.load(Relaxed) {
                return;
            }
        }
        if !core.limits.queue_target.is_zero() {
            core.queue_was_empty.store(self.now, Relaxed);
        }
        core.worker_free();
        match core.poller.lead() {
            Some(lead) => self.lead(core, &lead),
            None => core.dormitory.sleep(self.me, || {
                !core.queue.is_empty() || !core.poller.is_led_after_publishing() || core.stopped.load(Relaxed)
            }),
        }
    }

    /// Waits for events as the leader and puts them into the queue.
    fn lead(&mut self, core: &Core, lead: &Lead<'_>) {
        let row = WORKER_ROWS + self.me;
        // A glance first: under load something is ready, and resting costs more than a look.
        if core.harvest(lead, Duration::ZERO, row) > 0 {
            return;
        }
        let began = self.now;
        if self.busy_poll.is_worth_it() && self.look_on(core, lead, row) {
            return;
        }
        lead.will_block();
        core.dormitory.awake.rest();
        if core.queue.is_empty() && !core.stopped.load(Relaxed) && core.harvest(lead, LEAD_WAIT, row) > 0 {
            self.busy_poll.slept(core.clock.now() - began);
        }
        if lead.unblock() {
            core.dormitory.awake.rise();
        }
    }

    /// Polls for a moment without sleeping; true when there is work.
    fn look_on(&mut self, core: &Core, lead: &Lead<'_>, row: usize) -> bool {
        let began = core.clock.now();
        let mut last = began;
        loop {
            if core.harvest(lead, Duration::ZERO, row) > 0 || !core.queue.is_empty() {
                self.busy_poll.paid();
                return true;
            }
            let now = core.clock.now();
            if self.busy_poll.is_over(began, last, now) {
                return false;
            }
            last = now;
        }
    }

    pub(crate) fn clock(&self) -> &WorkerClock {
        &self.core.worker_clocks[self.me]
    }

    /// Gives one entry its turn.
    fn serve(&mut self, core: &Core, entry: Entry) {
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
        self.share_work(core, core.listeners[slot.listener()].cost.get());
        if entry.claim != Claim::Turn {
            core.queue_place_made();
            let unwelcome = match entry.claim {
                Claim::Surplus => (waited > nanos(BURST)).then_some(DropReason::QueueFull),
                _ => self.unwelcome(core, slot, waited, hangup),
            };
            if let Some(reason) = unwelcome {
                self.finish_clock();
                core.shed(entry.slot, slot, ledger, Place::Queued, reason);
                return;
            }
        }
        ledger.moved(Place::Queued, Place::Active);
        self.turn(core, &present, hangup);
    }

    /// Before a turn of which a whole queue may be waiting for the end: sees to it that others take
    /// what else there is, and that somebody polls.
    pub(crate) fn share_work(&self, core: &Core, cost: Nanos) {
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
    fn unwelcome(&self, core: &Core, slot: &Slot, waited: Nanos, hangup: bool) -> Option<DropReason> {
        if waited > core.patience(self.now) {
            return Some(DropReason::QueueTimeout);
        }
        let mut guard = slot.connection();
        let connection = guard.as_mut()?;
        let service = &core.listeners[slot.listener()].service;
        let look = waited > LOOK_AFTER || hangup;
        let peer = connection.peer;
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

    /// One turn, from the flush of what is kept to the parking. The slot is locked once for all of
    /// it, and free before the connection is anybody else's.
    fn turn(&mut self, core: &Core, present: &Present<'_>, hangup: bool) {
        let mut guard = present.slot.connection();
        let Some(connection) = guard.as_mut() else { return };
        let next = match self.flush_kept(present, connection) {
            Some(next) => next,
            None => self.converse(core, present, connection, hangup),
        };
        let next = match next {
            Next::Park(waiting) => self.prepare_parking(core, present, connection, waiting),
            other => other,
        };
        drop(guard);
        match next {
            Next::Park(waiting) => self.park(core, present, waiting),
            Next::Again => self.again(core, present),
            Next::End(reason) => self.end(core, present, reason),
            Next::Cut => {
                core.cut_in_turns.fetch_add(1, Relaxed);
                core.cut(present.index, present.slot, present.ledger, Place::Active);
            }
        }
    }

    /// Sends what is kept from earlier turns; nothing when all has gone and the service has its turn.
    fn flush_kept(&mut self, present: &Present<'_>, connection: &mut Connection) -> Option<Next> {
        if connection.kept.is_empty() {
            return None;
        }
        match connection.kept.flush(&connection.socket) {
            Ok(0) => {}
            Ok(n) => {
                connection.waiting = Waiting::Flush { since: self.now }.into();
                present.ledger.bytes(0, n as u64);
            }
            Err(_) => return Some(Next::End(CloseReason::Reset)),
        }
        match connection.ending {
            _ if !connection.kept.is_empty() => {
                self.finish_clock();
                Some(Next::Park(connection.waiting.get()))
            }
            Some(reason) => Some(Next::End(reason)),
            None => None,
        }
    }

    /// Gives the service its turn, and says what follows from it.
    fn converse(
        &mut self,
        core: &Core,
        present: &Present<'_>,
        connection: &mut Connection,
        hangup: bool,
    ) -> Next {
        let was_waiting = connection.waiting.get();
        let (turned, verdict) = self.run_service(core, present, connection, hangup);
        if turned.received + turned.sent > 0 {
            present.slot.heard();
        }
        let kept = !connection.kept.is_empty();
        let turn = match verdict {
            // It waited for its client when the time for that was over.
            Verdict::Failed(CloseReason::Shutdown) => return Next::Cut,
            Verdict::Failed(reason) => return Next::End(reason),
            Verdict::Next(turn) => turn,
        };
        let closing = if turned.ended { CloseReason::Client } else { CloseReason::Server };
        if turn == Turn::Close && !kept {
            return Next::End(closing);
        }
        connection.ending = (turn == Turn::Close).then_some(closing);
        let unread = !turned.drained && turned.received > 0 && !turned.ended;
        if !kept && (turn == Turn::Again || unread) {
            if turned.sent > 0 {
                // A request was answered, so what is half read later is another one.
                connection.waiting = Waiting::Request.into();
            }
            return Next::Again;
        }
        Next::Park(match (kept, turn, was_waiting) {
            (true, ..) => Waiting::Flush { since: self.now },
            // An answer was sent, so what is half read now is another request.
            (_, Turn::Partial, Waiting::Rest { since }) if turned.sent == 0 => Waiting::Rest { since },
            (_, Turn::Partial, _) => Waiting::Rest { since: self.now },
            _ => Waiting::Request,
        })
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
        let context = Context {
            limits: &core.limits,
            output_total: &core.output_total,
            input_total: &core.input_total,
            stopping: &core.stopping,
        };
        let probe = listener.cost.probe();
        let Connection { socket, session, kept, peer, .. } = connection;
        let mut stream = Stream::new(socket, peer, &mut self.buffers, kept, context, hangup);
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
                    tell_failed(core, listener, peer, &error);
                    let timeout = matches!(reason, CloseReason::ReadTimeout | CloseReason::WriteTimeout);
                    (if timeout { TurnOutcome::Timeout } else { TurnOutcome::Error }, Verdict::Failed(reason))
                }
            },
            None => {
                core.panics.fetch_add(1, Relaxed);
                tell_failed(core, listener, peer, &io::Error::other("the service panicked"));
                (TurnOutcome::Error, Verdict::Failed(CloseReason::Panic))
            }
        };
        present.ledger.turn(outcome, took);
        (turned, verdict)
    }

    pub(crate) fn finish_clock(&mut self) {
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
        core.enqueue(present.index, present.generation, Claim::Turn, self.now);
    }

    /// Sees to it that events of the connection will come; while the server drains, it may have to
    /// end instead.
    fn prepare_parking(
        &self,
        core: &Core,
        present: &Present<'_>,
        connection: &mut Connection,
        waiting: Waiting,
    ) -> Next {
        let source = Source { slot: present.index, generation: present.generation };
        connection.waiting = waiting.into();
        if register(core, connection, source, matches!(waiting, Waiting::Flush { .. })).is_err() {
            // The kernel's memory or `fs.epoll.max_user_watches`: this connection cannot be parked.
            return Next::End(CloseReason::Error);
        }
        if core.phase() < Phase::Draining {
            return Next::Park(waiting);
        }
        if core.stopping.load(Relaxed) {
            return Next::Cut;
        }
        // Between two requests it ends, unless the next request has come meanwhile.
        match waiting {
            Waiting::Request if has_input(&connection.socket) => Next::Again,
            Waiting::Request => Next::End(CloseReason::Shutdown),
            _ => Next::Park(waiting),
        }
    }

    /// Lets go of the connection until its client does something or a deadline passes.
    fn park(&mut self, core: &Core, present: &Present<'_>, waiting: Waiting) {
        present.slot.deadline.store(deadline(core, waiting, self.now), Relaxed);
        present.ledger.moved(Place::Active, Place::Idle);
        match present.slot.state.park() {
            Parked::Idle => {}
            Parked::Again => {
                present.slot.deadline.store(NEVER, Relaxed);
                present.ledger.moved(Place::Idle, Place::Queued);
                present.slot.state.requeue();
                core.enqueue(present.index, present.generation, core.claim(present.slot), self.now);
            }
        }
    }
}

/// Tells a service, and who reads the log at `-v`, that a turn failed.
fn tell_failed(core: &Core, listener: &Listener, peer: &Peer, error: &io::Error) {
    tracing::debug!(listener = %listener.url, peer = %peer.address, %error, "a turn failed");
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
