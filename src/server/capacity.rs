//! How many file descriptors and how much memory a server can come to need under its limits.

use super::close::farewells::Farewells;
use super::close::late_closes::LateCloses;
use super::datagram::socket::DatagramListeners;
use super::error::BuildError;
use super::listener::Listener;
use super::queue::line::Entry;
use super::queue::order::Order;
use super::queue::table::Slot;
use super::queue::wheel::Wheel;
use crate::admit::sources::Sources;
use crate::admit::turns::shelf::ShelfLimits;
use crate::limits::{LimitError, Limits, QueueOrder};
use crate::metrics::stats::Ledgers;
use crate::metrics::web::WebLedger;

/// Bytes for one connection: its slot in the table, its entry in the line with its stamp, its timer, its farewell, its late close, and
/// what a ready service has for it. The socket itself is the kernel's.
const CONNECTION_BYTES: usize = size_of::<Slot>()
    + size_of::<Entry>()
    + size_of::<usize>()
    + Wheel::BYTES
    + Farewells::BYTES
    + LateCloses::BYTES
    + crate::service::CONNECTION_BYTES;

/// What a listener takes beside what is counted of it: its seat and its limits, which every worker has a look at.
const SEAT_BYTES: usize = size_of::<Listener>() + 2 * size_of::<Limits>();

/// What a worker's stack takes of the machine: far less than what is set aside for it, since only what was used counts.
const STACK_BYTES: usize = 48 * 1024;

impl Limits {
    /// The bytes these limits can make a server hold that starts with one listener, or with as many as `listeners_ceiling`: connections, the queue, sources, workers' buffers
    /// and counts, lines that are not complete and replies that were not read, all by what it takes of the machine. What a
    /// service of your own keeps in its sessions, and the program around the server, come on top.
    pub fn memory_ceiling(&self) -> usize {
        self.connections_most() * CONNECTION_BYTES
            + self.workers_most() * (crate::service::Buffers::BYTES + STACK_BYTES)
            + self.listeners_most(1) * self.listener_memory_ceiling()
            + crate::service::SPARE_BYTES
            + Sources::memory_ceiling(self)
            + Order::<Entry>::bytes(&shelf_limits(self, 0))
            + self.input_total
            + self.output_total
    }

    /// The bytes that each listener takes: its seat, and what each thread counts for it.
    pub fn listener_memory_ceiling(&self) -> usize {
        SEAT_BYTES + (self.workers_most() + 2) * (Ledgers::BYTES + WebLedger::BYTES)
    }

    /// The bytes that datagrams can make the server hold on top of that, where it has a listener for them: a place for
    /// each datagram that waits or is being answered, and a batch for each thread that receives.
    pub fn datagram_memory_ceiling(&self) -> usize {
        DatagramListeners::memory_ceiling(self)
    }
}

impl Limits {
    /// The bytes that TLS can make the server hold on top of that, where a listener has it: what each connection keeps, as
    /// much as a handshake takes at its most, and what each worker encrypts and decrypts in.
    pub fn tls_memory_ceiling(&self) -> usize {
        let connection = crate::service::TlsSide::BYTES + size_of::<std::sync::Mutex<Option<Box<()>>>>();
        self.connections_most() * connection + self.workers_most() * crate::service::TlsBuffers::BYTES
    }
}

impl Limits {
    /// The bytes that a gate for HTTP can make the server hold on top of that, where a listener has one: what each request
    /// under way takes more than a request of another service, and what each worker writes requests and answers in. Its
    /// backends come on top, see [`Service::memory`](crate::Service::memory).
    pub fn http_gate_memory_ceiling(&self) -> usize {
        self.connections_most() * crate::service::HTTP_GATE_CONNECTION_BYTES
            + self.workers_most() * crate::service::http_gate_worker_bytes(self)
    }
}

impl Limits {
    /// The bytes that an access log can make the server hold on top of that, where there is one: lines that wait to be
    /// written, and what is noted of the request that is under way on each connection.
    pub fn access_log_memory_ceiling(&self) -> usize {
        crate::service::http::access_log_bytes(self.connections_most())
    }
}

/// The size of the shelf, and how it serves.
pub(crate) fn shelf_limits(limits: &Limits, datagrams: usize) -> ShelfLimits {
    ShelfLimits {
        connections: limits.connections_most(),
        datagrams,
        doubtful_max: doubtful_max(limits),
        fresh: limits.queue_order == QueueOrder::Fresh,
        knows_refused: false,
    }
}

/// How many entries the shelf may keep whose client has probably left.
pub(crate) fn doubtful_max(limits: &Limits) -> usize {
    limits.queue.max(16)
}

/// What is kept for everything but connections: `fd_reserve`, and each listener's socket, which its acceptor
/// and its observers hold.
fn reserve(limits: &Limits, listeners: usize) -> usize {
    limits.fd_reserve + listeners * 2
}

/// How many connections the limit of open files allows, beside what the server itself needs.
pub(crate) fn connections_possible(limits: &Limits, listeners: usize) -> usize {
    connections_within(limits, listeners, crate::sys::raise_open_files(u64::MAX) as usize)
}

/// How many a limit of open files allows.
pub(crate) fn connections_within(limits: &Limits, listeners: usize, open_files: usize) -> usize {
    open_files.saturating_sub(reserve(limits, listeners) + limits.lingering)
}

/// Raises the soft limit of open files as far as needed, and checks that it is enough; `of_services` is what services may
/// have open beside their clients.
pub(crate) fn check_descriptors(
    limits: &Limits,
    listeners: usize,
    of_services: usize,
) -> Result<(), BuildError> {
    let wanted = limits.connections_most() + limits.lingering + reserve(limits, listeners) + of_services;
    let limit = crate::sys::raise_open_files(wanted as u64);
    check_descriptors_within(limits, listeners, of_services, limit as usize)
}

/// Checks that a limit of open files is enough.
pub(crate) fn check_descriptors_within(
    limits: &Limits,
    listeners: usize,
    of_services: usize,
    limit: usize,
) -> Result<(), BuildError> {
    let own = reserve(limits, listeners);
    let (reserve, most) = (own + of_services, limits.connections_most());
    if limit < most + reserve {
        let raise = "or raise the limit (ulimit -n)";
        if own >= limit {
            return Err(LimitError(format!(
                "fd-reserve is {}, and this process may have {limit} open files in all: lower it, {raise}",
                limits.fd_reserve
            ))
            .into());
        }
        if reserve >= limit {
            return Err(LimitError(format!(
                "backends may have {of_services} open files, and this process {limit} in all: lower backend-connections or \
                 backend-total, {raise}"
            ))
            .into());
        }
        if most > limits.max_connections {
            return Err(LimitError(format!(
                "connections-ceiling is {most}, which with {reserve} for the server itself is more than the {limit} open \
                 files this process may have: lower it, or raise the limit (ulimit -n)"
            ))
            .into());
        }
        return Err(BuildError::Descriptors { wanted: most, reserve, limit });
    }
    Ok(())
}
