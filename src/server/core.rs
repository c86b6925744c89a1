//! What the threads of a server share: each stage knows the next one by what stands here.

use crate::admit::places::Admission;
use crate::clock::{Clock, Nanos, nanos};
use crate::limits::Limits;
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::{Ledger, Ledgers, Place, WorkerClock};
use crate::reason::AcceptError;
use crate::server::accept::entrance::{DOOR_BIT, Entrance};
use crate::server::close::closing::Lingering;
use crate::server::datagram::socket::{DatagramSocket, Datagrams, SOCKET_BIT};
use crate::server::poll::poller::Poller;
use crate::server::poll::sleep::Dormitory;
use crate::server::queue::cost::TurnCost;
use crate::server::queue::line::{Claim, Entry, Kind, Queue};
use crate::server::queue::state::{Generation, Ready};
use crate::server::queue::table::{Slot, Table};
use crate::server::refusals::Refusals;
use crate::server::turn::farewell::Farewells;
use crate::server::turn::tick::Tick;
use crate::service::{Pool, Service};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// A queue that was not empty for so long is a standing one (CoDel's interval, RFC 8289).
const STANDING: Nanos = 100_000_000;

/// Rows of the ledgers: the acceptor's, the parker's, then one for each worker.
pub(crate) const ACCEPTOR_ROW: usize = 0;
pub(crate) const PARKER_ROW: usize = 1;
pub(crate) const WORKER_ROWS: usize = 2;

/// One listener and its service.
pub(crate) struct Listener {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) accept_errors: [AtomicU64; AcceptError::COUNT],
    pub(crate) cost: TurnCost,
    /// Open until the server drains; locked by the acceptor to take it, and by scrapes.
    pub(crate) socket: Mutex<Option<TcpListener>>,
}

impl Listener {
    pub(crate) fn new(
        url: String,
        address: SocketAddr,
        service: Arc<dyn Service>,
        socket: TcpListener,
    ) -> Self {
        let cost = TurnCost::unknown();
        let accept_errors = Default::default();
        Self { url, address, service, accept_errors, cost, socket: Mutex::new(Some(socket)) }
    }
}

/// What the acceptor waits for before it accepts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptorWaits {
    Nothing = 0,
    QueuePlace = 1,
    ConnectionPlace = 2,
}

/// What a server may be told beside its limits and listeners.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) busy_reply: Option<Box<[u8]>>,
    pub(crate) tick: Option<Tick>,
    pub(crate) end_after: Option<u64>,
}

pub(crate) struct Core {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(super) phase: AtomicU8,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) table: Table,
    pub(crate) queue: Queue,
    pub(crate) datagrams: Datagrams,
    pub(crate) poller: Poller,
    pub(crate) entrance: Entrance,
    pub(crate) dormitory: Dormitory,
    pub(crate) ledgers: Ledgers,
    pub(crate) worker_clocks: Box<[WorkerClock]>,
    pub(crate) output_total: Arc<Pool>,
    /// Shared with the sessions that hold some of it.
    pub(crate) input_total: Arc<Pool>,
    pub(crate) farewells: Farewells,
    pub(crate) panics: AtomicU64,
    pub(crate) refusals: Refusals,
    pub(crate) busy_reply: Option<Box<[u8]>>,
    pub(crate) tick: Option<Tick>,
    /// Connections that are admitted before no more are wanted.
    pub(crate) end_after: Option<u64>,
    /// No more connections are wanted.
    pub(crate) enough: AtomicBool,
    /// When the queue was last seen empty.
    pub(crate) queue_was_empty: AtomicU64,
    /// Lingering sockets on their way to the parker, and how many there are in all.
    pub(crate) lingerers: crossbeam_channel::Sender<Lingering>,
    pub(crate) lingering: Arc<AtomicUsize>,
    /// Turns that wait in plain blocking style must give up.
    pub(crate) stopping: AtomicBool,
    /// Connections that were cut when their turn returned too late.
    pub(crate) cut_in_turns: AtomicU64,
    /// Workers must return.
    pub(crate) stopped: AtomicBool,
    pub(crate) workers_alive: AtomicUsize,
    /// The acceptor has not closed the listeners yet.
    pub(crate) accepting: AtomicBool,
    /// The acceptor waits for a place; who makes one wakes it. See [`AcceptorWaits`].
    pub(super) acceptor_waits: AtomicU8,
    pub(crate) acceptor: mio::Waker,
    /// The parker sleeps long; who starts work wakes it.
    pub(crate) parker_sleeps: AtomicBool,
    /// A turn began since the parker last looked.
    pub(crate) activity: AtomicBool,
    pub(crate) parker: mio::Waker,
    /// Processors this process may use.
    pub(crate) processors: usize,
}

impl Core {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            3 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Goes on to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Starting => 0,
            Phase::Serving => 1,
            Phase::Leaving => 2,
            Phase::Draining => 3,
            Phase::Stopped => 4,
        };
        self.phase.fetch_max(number, SeqCst);
    }

    /// Puts a connection into the queue whose state says that it is there.
    pub(crate) fn enqueue(&self, slot: u32, generation: Generation, claim: Claim, since: Nanos) {
        if !self.limits.queue_target.is_zero() && self.queue.is_empty() {
            // Seen empty here too: workers in long turns do not look.
            self.queue_was_empty.store(self.clock.now(), Relaxed);
        }
        let refused = self.queue.push(Entry { since, slot, generation, claim, kind: Kind::Connection });
        debug_assert!(refused.is_none(), "the queue holds every admitted connection once");
    }

    /// What the queue owes a connection that has something to do after its first turn. Whose first
    /// request comes later than the connection was admitted past the queue's bound, which counts
    /// those that wait: when more of them ask at once than may wait, the bound holds here.
    pub(crate) fn claim(&self, slot: &Slot) -> Claim {
        if slot.is_unheard() && !self.has_queue_place() { Claim::Surplus } else { Claim::Turn }
    }

    /// Polls as the leader for at most `timeout`, queues what is ready, and says how many that were.
    pub(crate) fn harvest(
        &self,
        lead: &crate::server::poll::poller::Lead<'_>,
        timeout: std::time::Duration,
        row: usize,
    ) -> usize {
        let mut now = 0;
        lead.poll(timeout, |event| {
            let Some(slot) = self.table.get(event.slot) else {
                let index = (event.slot & !(SOCKET_BIT | DOOR_BIT)) as usize;
                if event.slot & DOOR_BIT != 0 {
                    self.take_newcomers(index, row);
                } else if let Some(socket) = self.datagrams.sockets.get(index) {
                    socket.schedule(self, index, self.clock.now());
                }
                return;
            };
            if slot.state.ready(event.generation, event.hangup) == Ready::Enqueue {
                if now == 0 {
                    now = self.clock.now();
                }
                slot.deadline.store(crate::server::queue::table::NEVER, Relaxed);
                self.ledgers.of(row, slot.listener()).moved(Place::Idle, Place::Queued);
                self.enqueue(event.slot, event.generation, self.claim(slot), now);
            }
        })
    }

    /// After work was queued: wakes a worker if none is awake to find it.
    pub(crate) fn work_queued(&self) {
        if self.dormitory.awake.count_after_publishing() == 0 {
            self.wake_worker();
        } else {
            // Who is awake may be in a long turn; the parker sees to that, unless it sleeps long.
            self.rouse_parker();
        }
    }

    /// Wakes the leader if it sleeps in the poll, else a sleeper.
    pub(crate) fn wake_worker(&self) {
        if self.poller.wake() {
            self.dormitory.awake.rise();
        } else {
            self.dormitory.wake_one();
        }
    }

    /// Wakes the parker from a long sleep; nothing while it ticks.
    pub(crate) fn rouse_parker(&self) {
        if self.parker_sleeps.load(Relaxed) && self.parker_sleeps.swap(false, SeqCst) {
            let _ = self.parker.wake();
        }
    }

    /// What the acceptor waits for; it looks once more after it has said so.
    pub(crate) fn set_acceptor_waits(&self, waits: AcceptorWaits) {
        self.acceptor_waits.store(waits as u8, SeqCst);
        fence(SeqCst);
    }

    /// Whether newcomers are being held in the kernel's backlog, for want of places.
    pub(crate) fn acceptor_waits(&self) -> bool {
        self.acceptor_waits.load(Relaxed) != AcceptorWaits::Nothing as u8
    }

    /// A newcomer left the queue. The acceptor is woken when an eighth of it is free, not for each
    /// place: under overload that would be a switch of threads for each turn.
    pub(crate) fn queue_place_made(&self) {
        let waits = AcceptorWaits::QueuePlace as u8;
        if self.acceptor_waits.load(Relaxed) == waits
            && self.queue.len() <= self.limits.queue - self.limits.queue.div_ceil(8)
        {
            self.rouse_acceptor(waits);
        }
    }

    /// A connection gave its place back.
    pub(crate) fn connection_place_made(&self) {
        if self.enough.load(Relaxed) && self.admission.open() == 0 {
            let _ = self.parker.wake();
        }
        let waits = AcceptorWaits::ConnectionPlace as u8;
        if self.acceptor_waits.load(Relaxed) == waits {
            self.rouse_acceptor(waits);
        }
    }

    fn rouse_acceptor(&self, waits: u8) {
        let nothing = AcceptorWaits::Nothing as u8;
        if self.acceptor_waits.compare_exchange(waits, nothing, SeqCst, Relaxed).is_ok() {
            let _ = self.acceptor.wake();
        }
    }

    /// A worker is free and the queue is empty: with a queue of 0 that is the place a newcomer
    /// waits for.
    pub(crate) fn worker_free(&self) {
        let waits = AcceptorWaits::QueuePlace as u8;
        if self.acceptor_waits.load(Relaxed) == waits {
            self.rouse_acceptor(waits);
        }
    }

    /// Workers that are not in a turn.
    pub(crate) fn free_workers(&self) -> usize {
        self.worker_clocks.iter().filter(|clock| !clock.is_busy()).count()
    }

    /// Whether one more newcomer may wait: fewer wait for a worker than `queue` says, those that a
    /// free worker is about to take not counted.
    pub(crate) fn has_queue_place(&self) -> bool {
        let (waiting, limit) = (self.waiting(), self.limits.queue);
        waiting < limit || waiting < limit + self.free_workers()
    }

    /// How many datagrams could be put into the queue now.
    pub(crate) fn queue_room(&self) -> usize {
        (self.limits.queue + self.free_workers()).saturating_sub(self.waiting())
    }

    /// Entries that wait for a worker; that a socket has datagrams is no such entry.
    fn waiting(&self) -> usize {
        self.queue.len().saturating_sub(self.datagrams.scheduled.load(Relaxed))
    }

    /// How long a newcomer may wait for its first turn: `queue_timeout`, or `queue_target` while
    /// the queue has stood for longer than [`STANDING`].
    pub(crate) fn patience(&self, now: Nanos) -> Nanos {
        let target = nanos(self.limits.queue_target);
        if target > 0 && now.saturating_sub(self.queue_was_empty.load(Relaxed)) > STANDING {
            return target;
        }
        nanos(self.limits.queue_timeout)
    }

    /// What a refused client of this listener is told. The acceptor asks, so a service that panics
    /// over it is caught: its clients are told nothing.
    pub(crate) fn busy_reply(&self, listener: usize) -> &[u8] {
        if let Some(words) = self.busy_reply.as_deref() {
            return words;
        }
        let service = &self.listeners[listener].service;
        catch_unwind(AssertUnwindSafe(|| service.busy_reply())).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Relaxed);
            b""
        })
    }

    /// The addresses of all listeners, in the order they were given.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.listeners.iter().map(|listener| listener.address).collect();
        // In ascending order of position, so each is right when it is put in.
        for socket in &self.datagrams.sockets {
            all.insert(socket.position, socket.address);
        }
        all
    }

    /// The place of a stream listener among all listeners, as they were given.
    pub(crate) fn position(&self, listener: usize) -> usize {
        let before = |at: usize, socket: &DatagramSocket| at + usize::from(socket.position <= at);
        self.datagrams.sockets.iter().fold(listener, before)
    }

    pub(crate) fn ledger(&self, row: usize, listener: usize) -> &Ledger {
        self.ledgers.of(row, listener)
    }

    pub(crate) fn lock_socket(&self, listener: usize) -> std::sync::MutexGuard<'_, Option<TcpListener>> {
        self.listeners[listener].socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
