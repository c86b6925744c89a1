//! The entrance: how a newcomer becomes a connection, and who takes it.
//!
//! The listeners stand in the one epoll too. The leader that finds newcomers there takes them
//! itself while the gate is open: no thread is woken for a connection, which on a busy machine costs
//! more than to accept it. When the gate is shut, or accept fails, it calls the acceptor, whose
//! thread runs before the workers' and does the rest: refuse, hold, back off.

use crate::admit::places::Bucket;
use crate::clock::nanos;
use crate::limits::Limits;
use crate::metrics::snapshot::Phase;
use crate::metrics::stats::Ledger;
use crate::reason::{AcceptError, DropReason};
use crate::server::accept::acceptor::classify;
use crate::server::core::Core;
use crate::server::queue::connection::{Connection, Registered, Waiting};
use crate::server::queue::line::Claim;
use crate::service::{Kept, Peer};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Marks a listener in the poller, where slots have numbers below 2^24.
pub(crate) const DOOR_BIT: u32 = 1 << 30;

/// Newcomers that the leader takes before it turns to those it has; the acceptor takes the rest.
const TAKEN_ON_THE_WAY: usize = 64;

/// Whether a newcomer can be admitted now.
pub(crate) enum Gate {
    Open,
    /// Not for this reason.
    Shut(DropReason),
}

/// What the leader and the acceptor tell each other.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// For each listener: newcomers stand there whom the leader did not take.
    calls: Box<[AtomicBool]>,
    /// The acceptor holds newcomers back: the leader passes them by.
    holding: AtomicBool,
    /// Connections admitted so far.
    admitted: AtomicU64,
    /// Refusals that may be made: locked for each, and they are few.
    budget: Mutex<Bucket>,
}

impl Entrance {
    pub(crate) fn new(listeners: usize, limits: &Limits) -> Self {
        let rate = limits.refusal_rate;
        // A tenth of a second's worth at once: bursts of refusals are as costly as floods.
        let depth = (rate / 10.0).max(f64::from(rate > 0.0));
        Self {
            calls: (0..listeners).map(|_| AtomicBool::new(false)).collect(),
            holding: AtomicBool::new(false),
            admitted: AtomicU64::new(0),
            budget: Mutex::new(Bucket::with_depth(rate, depth, Instant::now())),
        }
    }

    /// The budget of refusals, `refusal_rate`.
    pub(crate) fn budget(&self) -> MutexGuard<'_, Bucket> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The acceptor says whether it holds newcomers back; whether it did before.
    pub(crate) fn acceptor_holds(&self, holds: bool) -> bool {
        self.holding.swap(holds, SeqCst)
    }

    /// Whether the acceptor was called to a listener since it last asked.
    pub(crate) fn take_call(&self, listener: usize) -> bool {
        self.calls[listener].load(Relaxed) && self.calls[listener].swap(false, SeqCst)
    }
}

impl Core {
    /// Puts the listeners into the poller; an event follows for what waits there already.
    pub(crate) fn open_entrance(&self) -> io::Result<()> {
        for index in 0..self.listeners.len() {
            if let Some(socket) = &*self.lock_socket(index) {
                self.poller.add_number(socket.as_fd(), DOOR_BIT | index as u32)?;
            }
        }
        Ok(())
    }

    pub(crate) fn gate(&self) -> Gate {
        if self.admission.is_full() {
            Gate::Shut(DropReason::MaxConnections)
        } else if !self.has_queue_place() {
            Gate::Shut(DropReason::QueueFull)
        } else {
            Gate::Open
        }
    }

    /// Newcomers stand at a listener: takes those that can be admitted now, for the thread whose
    /// ledgers are in `row`, and calls the acceptor for the others. The caller sees to it that a
    /// worker knows.
    pub(crate) fn take_newcomers(&self, index: usize, row: usize) {
        if self.entrance.holding.load(SeqCst) {
            return;
        }
        let guard = self.lock_socket(index);
        let Some(socket) = &*guard else { return };
        for _ in 0..TAKEN_ON_THE_WAY {
            let open = matches!(self.gate(), Gate::Open);
            if !open || self.enough.load(Relaxed) || self.phase() >= Phase::Draining {
                break;
            }
            match socket.accept() {
                Ok((newcomer, peer)) => self.admit(index, newcomer, peer, row),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A client that gave up: no other accept will tell of it.
                Err(error) if classify(&error) == AcceptError::Aborted => {
                    let aborted = AcceptError::Aborted as usize;
                    self.listeners[index].accept_errors[aborted].fetch_add(1, Relaxed);
                }
                // The acceptor meets it too, counts it, and knows what to do.
                Err(_) => break,
            }
        }
        self.entrance.calls[index].store(true, SeqCst);
        let _ = self.acceptor.wake();
    }

    /// Gives a socket its place and puts it into the queue, or refuses it.
    pub(crate) fn admit(&self, index: usize, socket: TcpStream, peer: SocketAddr, row: usize) {
        let ledger = self.ledger(row, index);
        let permit = match self.admission.admit(peer.ip(), Instant::now()) {
            Ok(permit) => permit,
            Err(reason) => return self.turn_away(index, socket, ledger, reason),
        };
        // A permit is given back after its slot, so there is a slot for every permit.
        let Some((number, slot)) = self.table.take() else {
            return self.turn_away(index, socket, ledger, DropReason::MaxConnections);
        };
        let generation = slot.state.open();
        slot.set_listener(index);
        *slot.connection() = Some(Connection {
            session: None,
            kept: Kept::default(),
            waiting: Waiting::Request.into(),
            socket,
            registered: Registered::No,
            ending: None,
            peer: Peer { address: peer },
            _permit: permit,
        });
        ledger.admitted();
        if let Some(enough) = self.end_after
            && self.entrance.admitted.fetch_add(1, Relaxed) + 1 >= enough
        {
            self.enough.store(true, SeqCst);
        }
        let now = self.clock.now();
        slot.deadline.store(now.saturating_add(nanos(self.limits.queue_timeout)), Relaxed);
        slot.state.requeue();
        self.enqueue(number, generation, Claim::Newcomer, now);
    }

    /// Refuses a newcomer whose source is known by its accept only, so that it could not be left to the
    /// kernel. Past the budget that is done as cheaply as it can be.
    fn turn_away(&self, index: usize, socket: TcpStream, ledger: &Ledger, reason: DropReason) {
        if self.entrance.budget().take(Instant::now()) {
            self.refuse(index, socket, ledger, reason);
        } else {
            self.refuse_cheaply(socket, ledger, reason);
        }
    }
}
