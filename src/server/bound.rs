//! A server that is bound, and the start of the threads that serve.

use super::accept::acceptor::Acceptor;
use super::accept::newcomers::register_listeners;
use super::accept::relisten::Relisten;
use super::capacity::shelf_limits;
use super::close::farewells::Farewells;
use super::close::late_closes::LateCloses;
use super::close::linger::{Lingering, Lingers};
use super::counts::Counts;
use super::datagram::socket::{DatagramListeners, DatagramSocket};
use super::error::{BuildError, cannot_start};
use super::extras::Extras;
use super::handle::{Handle, Trigger};
use super::in_force::{InForce, LiveLimits};
use super::keep::drain::Drain;
use super::keep::keeper::Timekeeper;
use super::keep::orders::Orders;
use super::lifecycle::Lifecycle;
use super::listeners::Listeners;
use super::poll::crew::Crew;
use super::poll::efforts::Efforts;
use super::poll::poller::Poller;
use super::poll::threads::Threads;
use super::pulse::Pulse;
use super::queue::line::Line;
use super::queue::order::Order;
use super::queue::table::Table;
use super::queue::wheel::Wheel;
use super::refusals::Refusals;
use super::shared::Shared;
use super::start::start_workers;
use super::waking::Hub;
use crate::admit::Admission;
use crate::admit::bell::Bell;
use crate::admit::refusal_budget::RefusalBudget;
use crate::admit::sharing::Sharing;
use crate::clock::nanos;
use crate::limits::Limits;
use crate::metrics::snapshot::Observe;
use crate::phase::Phase;
use crate::sys::Clock;
use crate::transport::address::Address;
use crate::transport::listen::ListenSocket;
use crossbeam_channel::{Receiver, Sender};
use mio::{Poll, Token, Waker};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A server whose addresses are bound; clients wait in the kernel's backlog until it
/// [serves](Self::serve).
#[must_use = "it serves when `serve` is called"]
pub struct BoundServer {
    shared: Arc<Shared>,
    acceptor_poll: Poll,
    keeper_poll: Poll,
    lingerers: Receiver<Lingering>,
    relistens: Receiver<Relisten>,
    orders: Arc<Orders>,
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl BoundServer {
    pub(super) fn new(
        limits: Limits,
        listeners: Listeners,
        datagrams: Listeners<DatagramSocket>,
        extras: Extras,
    ) -> Result<Self, BuildError> {
        let acceptor_poll = Poll::new().map_err(cannot_start("the acceptor"))?;
        let keeper_poll = Poll::new().map_err(cannot_start("the timekeeper"))?;
        let acceptor = waker(&acceptor_poll).map_err(cannot_start("the acceptor"))?;
        let keeper = waker(&keeper_poll).map_err(cannot_start("the timekeeper"))?;
        let (poller, leader) = Poller::new().map_err(cannot_start("the poller"))?;
        let crew = Crew::new(limits.workers, Threads::new(limits.workers_most(), leader, keeper));
        let (lingers, lingerers) = Lingers::new(&limits);
        // One at a time: who sends it waits until it is done.
        let (relisten, relistens) = crossbeam_channel::bounded(1);
        let parts = Parts { poller, crew, lingers, acceptor, relisten };
        let shared = share(limits, listeners, datagrams, extras, parts);
        Ok(Self { shared, acceptor_poll, keeper_poll, lingerers, relistens, orders: Arc::default() })
    }

    /// The parts, for tests of what threads do with them.
    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The real addresses, in the order they were given.
    pub fn addresses(&self) -> Vec<Address> {
        self.shared.addresses()
    }

    /// What the admin endpoint and the metrics look at.
    pub fn observe(&self) -> Arc<dyn Observe> {
        self.shared.clone()
    }

    /// A cloneable order to end, for signal handlers that must be there before the first client is.
    pub fn trigger(&self) -> Trigger {
        Trigger { shared: self.shared.clone(), orders: self.orders.clone() }
    }

    /// Starts the threads: one acceptor, one timekeeper, and the workers.
    pub fn serve(self) -> Result<Handle, BuildError> {
        let Self { shared, acceptor_poll, keeper_poll, lingerers, relistens, orders } = self;
        let sockets: Vec<ListenSocket> = (shared.listeners.iter())
            .filter_map(|listener| listener.socket().as_ref().map(ListenSocket::try_clone))
            .collect::<io::Result<_>>()
            .map_err(cannot_start("the acceptor"))?;
        let acceptor = Acceptor::new(shared.clone(), acceptor_poll, sockets, relistens);
        let keeper = Timekeeper::new(shared.clone(), keeper_poll, lingerers, Drain::new(orders.clone()));
        for (number, socket) in shared.datagrams.sockets.iter().enumerate() {
            socket.register(&shared.poller, number).map_err(cannot_start("the datagram listeners"))?;
        }
        register_listeners(&shared).map_err(cannot_start("the acceptor"))?;
        shared.life.enter(Phase::Serving);
        start_workers(&shared, 0..shared.life.workers_started())?;
        spawn("tidegate-time", move || keeper.run()).map_err(|source| {
            shared.life.stop_workers();
            shared.crew.wake_all();
            BuildError::Start { what: "the timekeeper", source }
        })?;
        // From here on dropping the handle ends what was started.
        let handle = Handle { shared, orders };
        spawn("tidegate-accept", move || acceptor.run()).map_err(|source| {
            // Without an acceptor nobody would close the listeners.
            handle.shared.life.acceptor_ended();
            BuildError::Start { what: "the acceptor", source }
        })?;
        Ok(handle)
    }
}

fn waker(poll: &Poll) -> io::Result<Waker> {
    Waker::new(poll.registry(), Token(usize::MAX))
}

/// Parts that can fail to be made.
struct Parts {
    poller: Poller,
    crew: super::poll::ThreadCrew,
    lingers: Lingers,
    /// Wakes the acceptor.
    acceptor: Waker,
    relisten: Sender<Relisten>,
}

fn share(
    limits: Limits,
    listeners: Listeners,
    datagrams: Listeners<DatagramSocket>,
    extras: Extras,
    parts: Parts,
) -> Arc<Shared> {
    let Parts { poller, crew, lingers, acceptor, relisten } = parts;
    let datagrams = DatagramListeners::new(datagrams, &limits);
    let room = listeners.room();
    let has_tls = listeners.iter().any(|listener| listener.tls.is_some());
    let counts = counts(&limits, &listeners, &datagrams);
    // Each connection, each datagram and its socket, the tick, and one job for all farewells.
    let entries = limits.connections_most() + datagrams.entries() + 2;
    // It fails only when the kernel has no memory; the acceptor's own timeout is the way out.
    let bell = Arc::new(Bell::new(room, move || drop(acceptor.wake())));
    let budget = RefusalBudget::new(limits.refusal_rate, Instant::now());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let shelf = shelf_limits(&limits, datagrams.capacity());
    let in_force = InForce { server: limits.clone(), listeners: of_listeners(&listeners, &limits), since: 0 };
    Arc::new_cyclic(|shared: &std::sync::Weak<Shared>| {
        let host = Arc::new(Hub(shared.clone()));
        let (ring, shared) = (bell.clone(), shared.clone());
        let freed = move |listener, left| {
            ring.connection_ended(listener);
            // The last connection of a server that wants no more has ended: the drain can begin.
            if left == 0
                && let Some(shared) = shared.upgrade()
                && shared.life.has_enough()
            {
                shared.crew.wake_keeper();
            }
        };
        Shared {
            clock: Clock::start(),
            life: Lifecycle::new(limits.workers, extras.end_after),
            admission: Admission::new(&limits, &in_force.listeners, freed),
            bell,
            calls: flags(room),
            holding: flags(room),
            refusal_budget: Mutex::new(budget),
            rest: AtomicBool::new(true),
            shallow_backlog: AtomicUsize::new(limits.backlogs().1),
            wait_estimate: AtomicU64::new(1),
            host,
            wheel: Wheel::new(),
            table: Table::new(limits.connections_most()).with_tls(has_tls),
            line: Line::new(entries, limits.queue),
            order: Order::new(shelf, nanos(limits.queue_target)),
            sharing: Sharing::new(&limits),
            datagrams,
            poller,
            crew,
            counts,
            pulse: Pulse::default(),
            farewells: Farewells::new(),
            lingers,
            late_closes: LateCloses::new(limits.connections_most()),
            refusals: Refusals::new(room),
            tick: extras.tick,
            output_total: Arc::default(),
            input_total: Arc::default(),
            efforts: Efforts::new(processors),
            listeners,
            relistens: relisten,
            limits: LiveLimits::new(in_force),
        }
    })
}

/// The counts of the threads that there can be, at the listeners that there are, and room for more.
fn counts(limits: &Limits, listeners: &Listeners, datagrams: &DatagramListeners) -> Counts {
    let counts = Counts::new(limits.workers_most(), listeners.room()).with_workers(limits.workers);
    let of_datagrams = datagrams.sockets.iter().map(|socket| socket.column);
    counts.open((0..listeners.len()).chain(of_datagrams));
    counts
}

/// The limits in force at each listener, whose room in the queue they are; those of the server at seats that nobody has.
fn of_listeners(listeners: &Listeners, limits: &Limits) -> Box<[Limits]> {
    let each = listeners.iter().map(|listener| {
        let own = listener.own.of(limits);
        listener.newcomers.set_limit(own.queue);
        own
    });
    each.chain(std::iter::repeat_n(limits.clone(), listeners.room() - listeners.len())).collect()
}

/// A flag for each listener.
fn flags(listeners: usize) -> Box<[AtomicBool]> {
    (0..listeners).map(|_| AtomicBool::new(false)).collect()
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}
