//! The acceptor: one thread that takes what is waiting, admits or refuses it, and never waits for a
//! client. While there is no overload the leader takes newcomers on the way (see
//! [`entrance`](super::entrance)) and the acceptor sleeps; it is called when one must be refused,
//! held, or cannot be had.

use crate::limits::Overload;
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::Place;
use crate::reason::{AcceptError, DropReason};
use crate::server::accept::entrance::Gate;
use crate::server::core::{ACCEPTOR_ROW, AcceptorWaits, Core};
use crate::server::queue::line::{Claim, Entry, Kind};
use mio::net::TcpListener;
use mio::{Events, Poll};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Accepts from one listener before the next has its turn.
const ACCEPT_BATCH: usize = 64;

/// The longest wait without a reason; wakes and connections end it.
const WAIT: Duration = Duration::from_secs(1);

/// How often a wait for a place looks by itself, should nobody call.
const LOOK: Duration = Duration::from_millis(20);

/// A full queue is a burst, which workers may be about to take, before it is an overload: so long
/// newcomers are left in the kernel's backlog instead of being refused.
pub(crate) const BURST: Duration = Duration::from_millis(25);

/// Back-off after an error of accept.
const BACK_OFF_FIRST: Duration = Duration::from_millis(5);
const BACK_OFF_LAST: Duration = Duration::from_secs(1);

/// So many entries are looked at for a newcomer that can be dropped.
const LOOKED_AT: usize = 64;

/// Descriptors held so that a connection can be accepted and refused when there is no other.
const SPARES: usize = 2;

pub(crate) struct Acceptor {
    core: Arc<Core>,
    poll: Poll,
    doors: Vec<Door>,
    /// The door that is looked at first.
    first: usize,
    spares: Vec<OwnedFd>,
    back_off: Duration,
}

/// One listener's socket.
struct Door {
    socket: TcpListener,
    /// The kernel may have connections for us: true until it says that it has none.
    ready: bool,
    /// Since when newcomers have found a full queue, until there was a place, for `wait:D`.
    full_since: Option<Instant>,
    /// The same, until the kernel had no more of them.
    burst_since: Option<Instant>,
}

impl Door {
    fn new(socket: TcpListener) -> Self {
        Self { socket, ready: true, full_since: None, burst_since: None }
    }

    /// The kernel has no more; an event will tell of the next.
    fn empty(&mut self) {
        self.ready = false;
        self.full_since = None;
        self.burst_since = None;
    }

    /// Whether the kernel has a connection for us, without taking it.
    fn is_waited_at(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&now));
        // When the kernel cannot say, accept will.
        polled.map_or(true, |ready| ready > 0)
    }
}

/// What came of trying to accept one connection.
enum Step {
    /// Try the next.
    Next,
    /// The kernel has no more.
    Empty,
    /// Accept nothing for so long, or until somebody calls.
    Hold(Duration),
}

impl Acceptor {
    pub(crate) fn new(core: Arc<Core>, poll: Poll, sockets: Vec<std::net::TcpListener>) -> Self {
        let doors = sockets.into_iter().map(TcpListener::from_std).map(Door::new).collect();
        let spares = (0..SPARES).map_while(|_| spare().ok()).collect();
        Self { core, poll, doors, first: 0, spares, back_off: BACK_OFF_FIRST }
    }

    /// Accepts when called until the server drains; then takes what the kernel had completed, and
    /// ends.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1);
        let mut hold = None;
        while self.core.phase() < Phase::Draining {
            if self.core.enough.load(Relaxed) {
                self.close_doors();
            }
            let ready = self.doors.iter().any(|door| door.ready);
            let timeout = hold.unwrap_or(if ready { Duration::ZERO } else { WAIT });
            // It fails with EINTR only, and then the loop looks at everything again.
            let _ = self.poll.poll(&mut events, Some(timeout));
            self.core.set_acceptor_waits(AcceptorWaits::Nothing);
            self.take_calls();
            if hold.is_some() {
                // The leader passes by and calls to no door meanwhile: without a look at each, the one that is
                // overloaded would be the only one.
                self.look_everywhere();
            }
            hold = self.guarded(Self::accept_all).flatten();
            if self.core.entrance.acceptor_holds(hold.is_some()) && hold.is_none() {
                // The leader passed newcomers by until just now: look once more, for their sake.
                self.look_everywhere();
                hold = self.guarded(Self::accept_all).flatten();
                self.core.entrance.acceptor_holds(hold.is_some());
            }
        }
        self.guarded(Self::drain);
        self.core.accepting.store(false, SeqCst);
    }

    /// Marks the doors at which the leader has left newcomers standing.
    fn take_calls(&mut self) {
        for (index, door) in self.doors.iter_mut().enumerate() {
            door.ready |= self.core.entrance.take_call(index);
        }
    }

    fn look_everywhere(&mut self) {
        self.doors.iter_mut().for_each(|door| door.ready = true);
    }

    /// A panic here would be a bug of ours; it ends the step and not the thread.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| step(self)));
        if done.is_err() {
            self.core.panics.fetch_add(1, Relaxed);
        }
        done.ok()
    }

    /// Takes from every listener in turn until the kernel has no more, or until accepting must
    /// pause: then for how long.
    fn accept_all(&mut self) -> Option<Duration> {
        if self.doors.is_empty() {
            return None;
        }
        // Each begins in turn, so that a pause that one calls for does not fall to the others always.
        self.first = (self.first + 1) % self.doors.len();
        for nth in 0..self.doors.len() {
            let index = (self.first + nth) % self.doors.len();
            for _ in 0..ACCEPT_BATCH {
                if !self.doors[index].ready || self.core.enough.load(Relaxed) {
                    break;
                }
                match self.step(index) {
                    Step::Next => {}
                    Step::Empty => self.doors[index].empty(),
                    Step::Hold(time) => return Some(time),
                }
            }
        }
        None
    }

    fn step(&mut self, index: usize) -> Step {
        match self.core.gate() {
            Gate::Open => {
                self.doors[index].full_since = None;
                match self.accept(index) {
                    Ok((socket, peer)) => self.admit(index, socket, peer),
                    Err(step) => step,
                }
            }
            Gate::Shut(reason) => self.overload(index, reason),
        }
    }

    /// The gate is shut: refuse one within the budget, or leave it in the kernel's backlog until
    /// there is a place, a token, or no patience left.
    fn overload(&mut self, index: usize, reason: DropReason) -> Step {
        let door = &mut self.doors[index];
        if !door.is_waited_at() {
            return Step::Empty;
        }
        let now = Instant::now();
        if reason == DropReason::QueueFull {
            let full = now.saturating_duration_since(*door.full_since.get_or_insert(now));
            let burst = now.saturating_duration_since(*door.burst_since.get_or_insert(now));
            let patience = match self.core.limits.overload {
                Overload::Wait(patience) => patience.saturating_sub(full),
                _ => BURST.saturating_sub(burst),
            };
            if !patience.is_zero() {
                return self.hold(reason, patience);
            }
        }
        if !self.core.entrance.budget().take(now) {
            let next = self.core.entrance.budget().next(now);
            return self.hold(reason, next.unwrap_or(WAIT));
        }
        let (socket, peer) = match self.accept(index) {
            Ok(accepted) => accepted,
            Err(step) => {
                self.core.entrance.budget().give_back();
                return step;
            }
        };
        let ledger = self.core.ledger(ACCEPTOR_ROW, index);
        let oldest = reason == DropReason::QueueFull && self.core.limits.overload == Overload::DropOldest;
        if oldest && self.drop_oldest() {
            return self.admit(index, socket, peer);
        }
        self.core.refuse(index, socket, ledger, reason);
        Step::Next
    }

    /// Waits for a place, at most so long, unless there is one by now.
    fn hold(&self, reason: DropReason, time: Duration) -> Step {
        self.core.set_acceptor_waits(match reason {
            DropReason::MaxConnections => AcceptorWaits::ConnectionPlace,
            _ => AcceptorWaits::QueuePlace,
        });
        if matches!(self.core.gate(), Gate::Open) {
            return Step::Next;
        }
        Step::Hold(time.min(LOOK))
    }

    /// Refuses the newcomer that has waited longest. Connections with more to do are in the queue
    /// too; they were admitted, are not refused and keep their places. False if there was no
    /// newcomer to refuse.
    fn drop_oldest(&self) -> bool {
        let newcomer = |entry: &Entry| entry.kind == Kind::Connection && entry.claim != Claim::Turn;
        let oldest = self.core.queue.pop_first(LOOKED_AT, newcomer);
        self.core.work_queued();
        let Some(entry) = oldest else { return false };
        let Some(slot) = self.core.table.get(entry.slot) else { return false };
        let mine = slot.state.take(entry.generation).is_some();
        if mine {
            let ledger = self.core.ledger(ACCEPTOR_ROW, slot.listener());
            self.core.shed(entry.slot, slot, ledger, Place::Queued, DropReason::QueueFull);
        }
        mine
    }

    /// Admits a socket, and wakes a worker for it if none is awake.
    fn admit(&self, index: usize, socket: TcpStream, peer: SocketAddr) -> Step {
        self.core.admit(index, socket, peer, ACCEPTOR_ROW);
        self.core.work_queued();
        Step::Next
    }

    fn close_doors(&mut self) {
        for index in 0..self.doors.len() {
            self.core.lock_socket(index).take();
        }
        self.doors.clear();
    }

    fn accept(&mut self, index: usize) -> Result<(TcpStream, SocketAddr), Step> {
        match self.doors[index].socket.accept() {
            Ok((socket, peer)) => {
                self.back_off = BACK_OFF_FIRST;
                Ok((TcpStream::from(OwnedFd::from(socket)), peer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Step::Empty),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Step::Next),
            Err(error) => Err(self.accept_failed(index, &error)),
        }
    }

    /// Counts an error of accept by its class and says how to go on: never by ending, never by
    /// trying again at once for ever.
    fn accept_failed(&mut self, index: usize, error: &io::Error) -> Step {
        let class = classify(error);
        let no_descriptor = matches!(class, AcceptError::Emfile | AcceptError::Enfile);
        if no_descriptor && !self.doors[index].is_waited_at() {
            // The kernel says so before it looks whether anybody waits.
            return Step::Empty;
        }
        let counters = &self.core.listeners[index].accept_errors;
        counters[class as usize].fetch_add(1, Relaxed);
        if class == AcceptError::Aborted {
            // The client is at fault, and only this one.
            return Step::Next;
        }
        if no_descriptor && self.refuse_on_spare(index) {
            // Nobody is kept waiting, so there is nothing to back off from.
            self.back_off = BACK_OFF_FIRST;
            return Step::Next;
        }
        let pause = self.back_off;
        self.back_off = (pause * 2).min(BACK_OFF_LAST);
        Step::Hold(pause)
    }

    /// Out of descriptors: gives up a spare one, accepts on it, refuses, and takes it back. Within
    /// the budget of refusals; false when nothing could be done.
    fn refuse_on_spare(&mut self, index: usize) -> bool {
        if !self.core.entrance.budget().take(Instant::now()) {
            return false;
        }
        self.spares.pop();
        let accepted = self.doors[index].socket.accept();
        let refused = accepted.is_ok();
        if !refused {
            self.core.entrance.budget().give_back();
        }
        if let Ok((socket, _)) = accepted {
            let ledger = self.core.ledger(ACCEPTOR_ROW, index);
            self.core.refuse(index, TcpStream::from(OwnedFd::from(socket)), ledger, DropReason::FdReserve);
        }
        while self.spares.len() < SPARES {
            match spare() {
                Ok(fd) => self.spares.push(fd),
                Err(_) => break,
            }
        }
        refused
    }

    /// Closes the listeners without resetting clients that the kernel has welcomed already: no
    /// more handshakes, then accept what there is.
    fn drain(&mut self) {
        for index in 0..self.doors.len() {
            let socket = &self.doors[index].socket;
            ignore_newcomers(socket);
            let _ = rustix::net::listen(socket, 0);
            // Bounded, should the filter be impossible: with a backlog of 0 the kernel still completes
            // one handshake at a time.
            for _ in 0..self.core.limits.effective_backlog() + ACCEPT_BATCH {
                match self.accept(index) {
                    Ok((socket, peer)) => {
                        self.admit(index, socket, peer);
                    }
                    Err(Step::Next) => {}
                    Err(_) => break,
                }
            }
        }
        self.close_doors();
    }
}

/// From here on the kernel drops what asks for a new connection, so that none is completed between the last
/// accept and the close of the listener, which would reset it. Who asked asks again, and finds the next server
/// or none.
fn ignore_newcomers(socket: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::SockFilter;
        const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        const SYN_ACK: u32 = 0x12;
        let program = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
            SockFilter::new(AND, 0, 0, SYN_ACK),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        // It fails only without memory; then a newcomer at the wrong moment is reset.
        let _ = socket2::SockRef::from(socket).attach_filter(&program);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

fn spare() -> io::Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from)
}

/// The class of an error of accept.
pub(crate) fn classify(error: &io::Error) -> AcceptError {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => AcceptError::Emfile,
        Some(Errno::NFILE) => AcceptError::Enfile,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptError::Nobufs,
        // accept(2) asks to treat the network's errors like a client that gave up.
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::PERM,
        ) => AcceptError::Aborted,
        _ => AcceptError::Other,
    }
}
