//! A server that is bound, and the threads it starts to serve.

use crate::admit::places::Admission;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::metrics::snapshot::{Observe, Phase};
use crate::metrics::stats::{Ledgers, WorkerClock};
use crate::server::accept::acceptor::Acceptor;
use crate::server::accept::entrance::Entrance;
use crate::server::builder::{BuildError, cannot_start};
use crate::server::close::closing::Lingering;
use crate::server::core::{Core, Extras, Listener, WORKER_ROWS};
use crate::server::datagram::socket::{DatagramSocket, Datagrams};
use crate::server::handle::{Handle, Trigger};
use crate::server::keep::drain::{Drain, Orders};
use crate::server::keep::keeper::Parker;
use crate::server::poll::poller::Poller;
use crate::server::poll::sleep::Dormitory;
use crate::server::queue::line::Queue;
use crate::server::queue::table::Table;
use crate::server::refusals::Refusals;
use crate::server::turn::farewell::Farewells;
use crate::server::turn::worker::Worker;
use crossbeam_channel::{Receiver, Sender};
use mio::{Poll, Token, Waker};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

/// A server whose addresses are bound; clients wait in the kernel's backlog until it
/// [serves](Self::serve).
#[must_use = "it serves when `serve` is called"]
pub struct BoundServer {
    core: Arc<Core>,
    acceptor_poll: Poll,
    parker_poll: Poll,
    lingerers: Receiver<Lingering>,
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
        listeners: Vec<Listener>,
        datagrams: Vec<DatagramSocket>,
        extras: Extras,
    ) -> Result<Self, BuildError> {
        let acceptor_poll = Poll::new().map_err(cannot_start("the acceptor"))?;
        let parker_poll = Poll::new().map_err(cannot_start("the parker"))?;
        let (sender, lingerers) = crossbeam_channel::bounded(limits.lingering.max(1));
        let wakers = (
            Waker::new(acceptor_poll.registry(), Token(usize::MAX)).map_err(cannot_start("the acceptor"))?,
            Waker::new(parker_poll.registry(), Token(usize::MAX)).map_err(cannot_start("the parker"))?,
        );
        let poller = Poller::new().map_err(cannot_start("the poller"))?;
        let core = Arc::new(core(limits, listeners, datagrams, extras, poller, wakers, sender));
        Ok(Self { core, acceptor_poll, parker_poll, lingerers, orders: Arc::default() })
    }

    /// The real addresses, in the order they were given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.core.addresses()
    }

    /// What the admin endpoint and the metrics look at.
    pub fn observe(&self) -> Arc<dyn Observe> {
        self.core.clone()
    }

    /// A cloneable order to end, for signal handlers that must be there before the first client is.
    pub fn trigger(&self) -> Trigger {
        Trigger { core: self.core.clone(), orders: self.orders.clone() }
    }

    /// Starts the threads: one acceptor, one parker, and the workers.
    pub fn serve(self) -> Result<Handle, BuildError> {
        let Self { core, acceptor_poll, parker_poll, lingerers, orders } = self;
        let doors: Vec<TcpListener> = (0..core.listeners.len())
            .filter_map(|index| core.lock_socket(index).as_ref().map(TcpListener::try_clone))
            .collect::<io::Result<_>>()
            .map_err(cannot_start("the acceptor"))?;
        let acceptor = Acceptor::new(core.clone(), acceptor_poll, doors);
        let parker = Parker::new(core.clone(), parker_poll, lingerers, Drain::new(orders.clone()));
        for (number, socket) in core.datagrams.sockets.iter().enumerate() {
            socket.register(&core, number).map_err(cannot_start("the datagram listeners"))?;
        }
        core.open_entrance().map_err(cannot_start("the acceptor"))?;
        core.enter(Phase::Serving);
        start_workers(&core)?;
        spawn("tidegate-parker", move || parker.run()).map_err(|source| {
            core.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
            core.dormitory.wake_all();
            core.poller.wake();
            BuildError::Start { what: "the parker", source }
        })?;
        // From here on dropping the handle ends what was started.
        let handle = Handle { core, orders };
        spawn("tidegate-accept", move || acceptor.run()).map_err(|source| {
            // Without an acceptor nobody would close the listeners.
            handle.core.accepting.store(false, std::sync::atomic::Ordering::SeqCst);
            BuildError::Start { what: "the acceptor", source }
        })?;
        Ok(handle)
    }
}

fn core(
    limits: Limits,
    listeners: Vec<Listener>,
    datagrams: Vec<DatagramSocket>,
    extras: Extras,
    poller: Poller,
    (acceptor, parker): (Waker, Waker),
    lingerers: Sender<Lingering>,
) -> Core {
    let workers = limits.workers;
    let datagrams = Datagrams::new(datagrams, &limits);
    let columns = listeners.len() + datagrams.sockets.len();
    // Each connection, and one entry for all farewells.
    let entries = limits.max_connections + datagrams.entries() + usize::from(extras.tick.is_some()) + 1;
    Core {
        clock: Clock::start(),
        phase: AtomicU8::new(0),
        admission: Admission::new(&limits),
        table: Table::new(limits.max_connections),
        queue: Queue::new(entries),
        datagrams,
        poller,
        entrance: Entrance::new(listeners.len(), &limits),
        dormitory: Dormitory::new(workers),
        ledgers: Ledgers::new(WORKER_ROWS + workers, columns),
        worker_clocks: (0..workers).map(|_| WorkerClock::default()).collect(),
        output_total: Arc::default(),
        input_total: Arc::default(),
        farewells: Farewells::new(),
        panics: AtomicU64::new(0),
        refusals: Refusals::new(listeners.len()),
        busy_reply: extras.busy_reply,
        tick: extras.tick,
        end_after: extras.end_after,
        enough: AtomicBool::new(extras.end_after == Some(0)),
        queue_was_empty: AtomicU64::new(0),
        lingerers,
        lingering: Arc::new(AtomicUsize::new(0)),
        stopping: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        workers_alive: AtomicUsize::new(workers),
        accepting: AtomicBool::new(true),
        cut_in_turns: AtomicU64::new(0),
        acceptor_waits: AtomicU8::new(0),
        acceptor,
        parker_sleeps: AtomicBool::new(false),
        activity: AtomicBool::new(false),
        parker,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        listeners,
        limits,
    }
}

/// Starts the pool: each worker is one job that ends with the server.
fn start_workers(core: &Arc<Core>) -> Result<(), BuildError> {
    let workers = core.limits.workers;
    let builder = threadpool::Builder::new().num_threads(workers).thread_name("tidegate-worker".to_owned());
    // The pool panics when the system has no thread for it.
    let pool = std::panic::catch_unwind(|| builder.build()).map_err(|_| BuildError::Start {
        what: "the workers",
        source: io::Error::other(format!("the system does not give {workers} threads")),
    })?;
    for me in 0..workers {
        let worker = Worker::new(core.clone(), me);
        pool.execute(move || worker.run());
    }
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}
