//! From a description to a bound server.

use crate::limits::{LimitError, Limits, Overload};
use crate::server::bound::BoundServer;
use crate::server::core::{Extras, Listener};
use crate::server::datagram::socket::DatagramSocket;
use crate::server::turn::tick::Tick;
use crate::service::{DatagramService, Service};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

/// Why a server cannot be had, by the phase that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A limit, or a relation between limits, cannot hold.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// No listener was given.
    #[error("there is no listener: give at least one")]
    NoListener,
    /// An address could not be resolved.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// What was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// An address could not be bound.
    #[error("cannot listen on {address}: {}", explain_bind(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There are not enough descriptors for the connections that are allowed.
    #[error(
        "max-connections is {wanted}, which with {reserve} for the server itself is more than the {limit} open files \
         this process may have: lower it, or raise the limit (ulimit -n)"
    )]
    Descriptors {
        /// `max_connections`.
        wanted: usize,
        /// `fd_reserve` and what the threads need.
        reserve: usize,
        /// The limit of the process.
        limit: usize,
    },
    /// The system did not give what serving needs.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What could not be had.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn explain_bind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use: end what listens there, or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: ports below 1024 need a privilege, choose a higher one".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn cannot_start(what: &'static str) -> impl Fn(io::Error) -> BuildError {
    move |source| BuildError::Start { what, source }
}

/// A server in the making; see [`Server::builder`](super::Server::builder).
pub struct Builder {
    limits: Limits,
    said: Said,
    listeners: Vec<(SocketAddr, Arc<dyn Service>)>,
    /// With their places among all listeners.
    datagrams: Vec<(usize, SocketAddr, Arc<dyn DatagramService>)>,
    reuse_address: bool,
    extras: Extras,
}

/// The limits that have a method of their own and were set by it: they hold whatever [`Builder::limits`] says,
/// before or after.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    workers: Option<usize>,
    queue: Option<usize>,
    overload: Option<Overload>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.listeners.iter().map(|(address, _)| address).collect();
        f.debug_struct("Builder")
            .field("limits", &self.effective_limits())
            .field("listeners", &addresses)
            .finish()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            limits: Limits::default(),
            said: Said::default(),
            listeners: Vec::new(),
            datagrams: Vec::new(),
            reuse_address: true,
            extras: Extras::default(),
        }
    }

    /// Threads that run services. Default 32.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.said.workers = Some(workers);
        self
    }

    /// Newcomers that may wait for a worker. Default 128.
    #[must_use]
    pub fn queue(mut self, queue: usize) -> Self {
        self.said.queue = Some(queue);
        self
    }

    /// What happens to a newcomer when the queue is full. Default [`Overload::Reject`].
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.said.overload = Some(overload);
        self
    }

    /// All limits at once, except those that [`workers`](Self::workers), [`queue`](Self::queue) and
    /// [`overload`](Self::overload) set, before or after.
    ///
    /// ```
    /// use tidegate::{Limits, Server};
    /// let limits = Limits::default().max_connections(500).workers(8);
    /// let one = Server::builder().workers(2).limits(limits.clone());
    /// let other = Server::builder().limits(limits).workers(2);
    /// assert_eq!(format!("{one:?}"), format!("{other:?}"));
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits that the server will have.
    fn effective_limits(&self) -> Limits {
        let mut limits = self.limits.clone();
        limits.workers = self.said.workers.unwrap_or(limits.workers);
        limits.queue = self.said.queue.unwrap_or(limits.queue);
        limits.overload = self.said.overload.unwrap_or(limits.overload);
        limits
    }

    /// What every refused client is told, instead of what its service would say
    /// ([`Service::busy_reply`]). Empty: nothing, and the refusal is a reset.
    #[must_use]
    pub fn busy_reply(mut self, words: impl Into<Vec<u8>>) -> Self {
        self.extras.busy_reply = Some(words.into().into_boxed_slice());
        self
    }

    /// Something to be done every `interval` (at least 1 ms) while the server serves: it runs on a
    /// worker, through the queue, so it costs that worker while it runs (with `workers(1)` nobody is
    /// served meanwhile); it is not begun again before it has ended, and a time that was missed is
    /// not made up for. Called again, it replaces the action. Default: nothing.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use std::time::Duration;
    /// use tidegate::{Echo, Server};
    ///
    /// let ticks = Arc::new(AtomicU32::new(0));
    /// let count = ticks.clone();
    /// let action = move || { count.fetch_add(1, Ordering::SeqCst); };
    /// let handle = Server::builder()
    ///     .listen("127.0.0.1:0", Echo)?
    ///     .tick(Duration::from_millis(5), action)
    ///     .bind()?
    ///     .serve()?;
    /// while ticks.load(Ordering::SeqCst) < 2 {
    ///     std::thread::yield_now();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn tick(mut self, interval: std::time::Duration, action: impl Fn() + Send + Sync + 'static) -> Self {
        self.extras.tick = Some(Tick::new(interval, Box::new(action)));
        self
    }

    /// Ends the server in good order after it has admitted so many connections and the last of them
    /// has ended; when the last one is admitted the listeners close, so later clients are refused.
    /// Datagrams do not count. Default: it serves until it is told to end.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use tidegate::{Server, Time};
    ///
    /// let handle = Server::builder().listen("127.0.0.1:0", Time)?.end_after(1).bind()?.serve()?;
    /// let mut said = String::new();
    /// std::net::TcpStream::connect(handle.addresses()[0])?.read_to_string(&mut said)?;
    /// assert!(handle.wait().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn end_after(mut self, connections: u64) -> Self {
        self.extras.end_after = Some(connections);
        self
    }

    /// Whether an address can be bound while old connections of it linger in the kernel
    /// (`SO_REUSEADDR`). For connections only: a datagram listener never has it. Default: yes.
    #[must_use]
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// Adds a listener with its service. Port 0 picks a free port. All listeners share the workers
    /// and the queue. Of a name with several addresses the first is taken. Fails when the address
    /// cannot be resolved.
    pub fn listen(
        mut self,
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl Service,
    ) -> Result<Self, BuildError> {
        self.listeners.push((resolve(address)?, Arc::new(service)));
        Ok(self)
    }

    /// Adds a listener for datagrams with its service, as [`listen`](Self::listen) does for
    /// connections; they share the workers and the queue.
    pub fn listen_datagrams(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl DatagramService,
    ) -> Result<Self, BuildError> {
        let address = resolve(address)?;
        Ok(self.listen_datagrams_shared(address, Arc::new(service)))
    }

    /// Adds a listener for datagrams whose service is shared, or was chosen at run time.
    #[must_use]
    pub fn listen_datagrams_shared(mut self, address: SocketAddr, service: Arc<dyn DatagramService>) -> Self {
        let position = self.listeners.len() + self.datagrams.len();
        self.datagrams.push((position, address, service));
        self
    }

    /// Adds a listener whose service is shared with its owner, or was chosen at run time.
    #[must_use]
    pub fn listen_shared(mut self, address: SocketAddr, service: Arc<dyn Service>) -> Self {
        self.listeners.push((address, service));
        self
    }

    /// Checks the limits and binds the addresses. From then on clients can connect (they wait in the
    /// kernel's backlog), and nothing is served yet.
    pub fn bind(mut self) -> Result<BoundServer, BuildError> {
        self.limits = self.effective_limits();
        self.limits.check()?;
        let all = self.listeners.len() + self.datagrams.len();
        if all == 0 {
            return Err(BuildError::NoListener);
        }
        check_descriptors(&self.limits, all)?;
        let mut listeners = Vec::with_capacity(self.listeners.len());
        for (address, service) in self.listeners {
            let bind_error = |source| BuildError::Bind { address, source };
            let socket = bind(address, &self.limits, self.reuse_address).map_err(bind_error)?;
            let address = socket.local_addr().map_err(bind_error)?;
            listeners.push(Listener::new(format!("tcp://{address}"), address, service, socket));
        }
        let mut datagrams = Vec::with_capacity(self.datagrams.len());
        for (position, address, service) in self.datagrams {
            let bind_error = |source| BuildError::Bind { address, source };
            let socket = bind_datagrams(address, &self.limits).map_err(bind_error)?;
            let address = socket.local_addr().map_err(bind_error)?;
            let column = listeners.len() + datagrams.len();
            datagrams.push(DatagramSocket::new(socket, address, service, position, column));
        }
        BoundServer::new(self.limits, listeners, datagrams, self.extras)
    }
}

/// The first address of what is given.
fn resolve(address: impl ToSocketAddrs + std::fmt::Debug) -> Result<SocketAddr, BuildError> {
    let error = |source| BuildError::Resolve { address: format!("{address:?}"), source };
    let resolved = address.to_socket_addrs().map_err(error)?.next();
    resolved.ok_or_else(|| error(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

/// What is kept for everything but connections: `fd_reserve`, and each listener's socket, which its acceptor
/// and its observers hold.
fn reserve(limits: &Limits, listeners: usize) -> usize {
    limits.fd_reserve + listeners * 2
}

/// How many connections the limit of open files allows, beside what the server itself needs.
pub(super) fn connections_possible(limits: &Limits, listeners: usize) -> usize {
    let limit = crate::sys::raise_open_files(u64::MAX) as usize;
    limit.saturating_sub(reserve(limits, listeners) + limits.lingering)
}

/// Raises the soft limit of open files as far as needed, and checks that it is enough.
pub(crate) fn check_descriptors(limits: &Limits, listeners: usize) -> Result<(), BuildError> {
    let reserve = reserve(limits, listeners);
    let wanted = limits.max_connections + limits.lingering + reserve;
    let limit = crate::sys::raise_open_files(wanted as u64);
    if (limit as usize) < limits.max_connections + reserve {
        return Err(BuildError::Descriptors {
            wanted: limits.max_connections,
            reserve,
            limit: limit as usize,
        });
    }
    Ok(())
}

fn bind(address: SocketAddr, limits: &Limits, reuse_address: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(reuse_address)?;
    if address.is_ipv6() {
        // One listener, one family: `[::]` next to `0.0.0.0` on the same port must work.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, so it costs no call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits.effective_backlog() as i32)?;
    Ok(socket.into())
}

/// The receive buffer that is asked for: the kernel gives at most `net.core.rmem_max`. About 1,300
/// small datagrams, what a worker answers in a few milliseconds.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// Binds a datagram socket. Without `SO_REUSEADDR`, which for datagrams lets two servers have the
/// same address and one of them hear nothing.
fn bind_datagrams(address: SocketAddr, limits: &Limits) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // It fails only where a system has a stricter maximum, and then its own size has to do.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER.max(limits.max_datagram));
    if address.ip().is_unspecified() {
        crate::sys::report_local_address(socket.as_fd(), address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
