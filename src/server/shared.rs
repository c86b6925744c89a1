//! The parts of a server, which all its threads share. It has getters only: what parts do together, stages do.

use super::close::Closer;
use super::close::farewells::Farewells;
use super::close::linger::Lingers;
use super::counts::Counts;
use super::datagram::post::Intake;
use super::datagram::socket::Datagrams;
use super::extras::Tick;
use super::lifecycle::Lifecycle;
use super::listener::Listener;
use super::poll::ThreadCrew;
use super::poll::poller::Poller;
use super::pulse::Pulse;
use super::queue::line::{Claim, Line};
use super::queue::patience::WaitLimit;
use super::queue::table::{Slot, Table};
use super::queue::wheel::Wheel;
use super::refusals::Refusals;
use crate::admit::Admission;
use crate::admit::bell::Bell;
use crate::admit::bucket::Bucket;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::service::{Context, Holdings, Host, Pool};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) life: Lifecycle,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) datagrams: Datagrams,
    pub(crate) admission: Arc<Admission>,
    /// The acceptor waits for it.
    pub(crate) bell: Arc<Bell>,
    /// For each listener: newcomers stand there that the leader did not take, so the acceptor must.
    pub(crate) calls: Box<[AtomicBool]>,
    /// The acceptor holds newcomers back: the leader passes them by.
    pub(crate) holding: AtomicBool,
    /// Refusals that may be made, `refusal_rate`: locked for each, and they are few.
    pub(crate) refusal_budget: Mutex<Bucket>,
    /// The server as sessions see it.
    pub(crate) host: Arc<dyn Host>,
    /// When sessions that asked for it are called.
    pub(crate) wheel: Wheel,
    pub(crate) table: Table,
    pub(crate) line: Line,
    pub(crate) patience: WaitLimit,
    pub(crate) poller: Poller,
    pub(crate) crew: ThreadCrew,
    pub(crate) counts: Counts,
    pub(crate) pulse: Pulse,
    pub(crate) farewells: Farewells,
    pub(crate) lingers: Lingers,
    pub(crate) refusals: Refusals,
    pub(crate) tick: Option<Tick>,
    /// Memory for replies that clients have not taken, of all connections together.
    pub(crate) output_total: Arc<Pool>,
    /// Memory for requests that are not answered, of all connections together.
    pub(crate) input_total: Arc<Holdings>,
    /// Processors this process may use.
    pub(crate) processors: usize,
}

impl Shared {
    /// What ends connections.
    pub(crate) fn closer(&self) -> Closer<'_> {
        Closer {
            clock: &self.clock,
            table: &self.table,
            line: &self.line,
            poller: &self.poller,
            crew: &self.crew,
            counts: &self.counts,
            farewells: &self.farewells,
            lingers: &self.lingers,
        }
    }

    /// What puts datagrams into the line.
    pub(crate) fn intake(&self) -> Intake<'_> {
        Intake { datagrams: &self.datagrams, line: &self.line, counts: &self.counts }
    }

    /// What turns share.
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            limits: &self.limits,
            output_total: &self.output_total,
            input_total: &self.input_total,
            stopping: self.life.stopping_flag(),
            draining: self.life.draining_flag(),
            host: &self.host,
        }
    }

    /// Whether one more newcomer may wait for a worker.
    pub(crate) fn has_queue_place(&self) -> bool {
        self.line.has_place(|| self.counts.free_workers())
    }

    /// What the queue owes a connection that has something to do after its first turn. A connection that was silent when
    /// it was admitted took no queue place: if its first request finds the queue full, the bound holds here.
    pub(crate) fn claim(&self, slot: &Slot) -> Claim {
        if slot.is_unheard() && !self.has_queue_place() { Claim::Surplus } else { Claim::Turn }
    }

    pub(crate) fn refusal_budget(&self) -> MutexGuard<'_, Bucket> {
        self.refusal_budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a refused client of this listener is told.
    pub(crate) fn words(&self, listener: usize) -> &[u8] {
        self.listeners[listener].words(&self.counts)
    }

    /// The addresses of all listeners, in the order they were given.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let streams = self.listeners.iter().map(|listener| (listener.position, listener.address));
        let datagrams = self.datagrams.sockets.iter().map(|socket| (socket.position, socket.address));
        let mut all: Vec<_> = streams.chain(datagrams).collect();
        all.sort_unstable_by_key(|&(position, _)| position);
        all.into_iter().map(|(_, address)| address).collect()
    }
}
