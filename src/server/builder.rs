//! The builder: it collects the description of a server, checks it, and binds its sockets.

use super::bound::BoundServer;
use super::capacity::check_descriptors;
use super::datagram::socket::column_of;
use super::error::BuildError;
use super::extras::{Extras, Tick};
use super::listen::{Around, Listen, ListenOffer};
use super::listeners::Listeners;
use crate::limits::{Limits, Overload};
use crate::service::http::AccessLog;
use crate::service::{DatagramService, Service};
use crate::transport::address::Address;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// A server in the making; see [`Server::builder`](super::Server::builder).
pub struct Builder {
    limits: Limits,
    said: Said,
    /// In the order they were given.
    listeners: Vec<Listen>,
    /// Addresses that this process listens on for connections besides these.
    beside: Vec<SocketAddr>,
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
        let addresses: Vec<_> = self.listeners.iter().map(|listen| listen.address).collect();
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
            beside: Vec::new(),
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
        self.extras.busy_reply = Some(words.into().into());
        self
    }

    /// Logs a line for each HTTP request to any of the listeners. Default: there is no such log.
    #[must_use]
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.extras.access_log = Some(log);
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

    /// Ends the server in good order after it has admitted this number of connections and the last of them
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
    /// and the queue. Of a name with several addresses the first is taken. `[::]` takes clients of IPv6 and of
    /// IPv4, unless another listener has the same port on an IPv4 address. Fails when the address cannot be
    /// resolved.
    pub fn listen(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl Service,
    ) -> Result<Self, BuildError> {
        Ok(self.listener(Listen::new(address, service)?))
    }

    /// Adds a listener for datagrams with its service, as [`listen`](Self::listen) does for
    /// connections; they share the workers and the queue.
    pub fn listen_datagrams(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl DatagramService,
    ) -> Result<Self, BuildError> {
        Ok(self.listener(Listen::datagrams(address, service)?))
    }

    /// Adds a listener for datagrams whose service is shared, or was chosen at run time.
    #[must_use]
    pub fn listen_datagrams_shared(self, address: SocketAddr, service: Arc<dyn DatagramService>) -> Self {
        self.listener(Listen::datagrams_shared(address, service))
    }

    /// Adds a listener whose service is shared with its owner, or was chosen at run time.
    #[must_use]
    pub fn listen_shared(self, address: impl Into<Address>, service: Arc<dyn Service>) -> Self {
        self.listener(Listen::shared(address, service))
    }

    /// Adds a listener that has limits of its own.
    #[must_use]
    pub fn listener(mut self, listen: Listen) -> Self {
        self.listeners.push(listen);
        self
    }

    /// Another address on which this process listens for connections, as an admin endpoint does: a listener on `[::]`
    /// with the same port leaves the IPv4 clients to it.
    #[must_use]
    pub fn beside(mut self, address: SocketAddr) -> Self {
        self.beside.push(address);
        self
    }

    /// The addresses of one protocol: those of listeners for connections with what stands beside them, or those of
    /// listeners for datagrams.
    fn neighbours(&self, connections: bool) -> Vec<SocketAddr> {
        let same = self.listeners.iter().filter(|listen| listen.offer.takes_datagrams() != connections);
        let beside = self.beside.iter().copied().filter(|_| connections);
        same.filter_map(|listen| listen.address.ip()).chain(beside).collect()
    }

    /// Checks the limits of the server and of each listener, and that there is a listener.
    pub fn check(&self) -> Result<(), BuildError> {
        let limits = self.effective_limits();
        limits.check()?;
        if self.listeners.is_empty() {
            return Err(BuildError::NoListener);
        }
        self.listeners.iter().try_for_each(|listen| listen.effective(&limits).map(drop))
    }

    /// Checks the limits and binds the addresses. From then on clients can connect (they wait in the
    /// kernel's backlog), and nothing is served yet.
    ///
    /// No thread is started here: [`BoundServer::serve`] starts them all, and fails with [`BuildError::Start`] where
    /// the system does not give one.
    pub fn bind(mut self) -> Result<BoundServer, BuildError> {
        self.check()?;
        self.limits = self.effective_limits();
        let of_services = self.listeners.iter().map(|listen| listen.offer.descriptors());
        check_descriptors(&self.limits, self.listeners.len(), of_services.sum())?;
        let (streams, others) = (self.neighbours(true), self.neighbours(false));
        let around = Around {
            neighbours: &streams,
            of_datagrams: &others,
            reuse_address: self.reuse_address,
            busy_reply: self.extras.busy_reply.clone(),
            access_log: self.extras.access_log.clone(),
        };
        let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
        for (position, mut listen) in self.listeners.into_iter().enumerate() {
            let limits = listen.effective(&self.limits)?;
            match listen.offer {
                ListenOffer::Stream(ref service) => {
                    let (service, socket) = (service.clone(), listen.open(&limits, &around)?);
                    listeners.push(listen.seated(socket, service, position, &limits, &around)?);
                }
                ListenOffer::Datagrams(ref service) => {
                    let (service, socket) = (service.clone(), listen.open_datagrams(&limits, &around)?);
                    datagrams.push(listen.seated_datagrams(socket, service, position)?);
                }
            }
        }
        let most = self.limits.listeners_most(listeners.len() + datagrams.len());
        for (number, socket) in datagrams.iter_mut().enumerate() {
            socket.column = column_of(number, most);
        }
        // Each seat is there for both kinds, and they take no more together than there are.
        let [free, others_free] = [listeners.len(), datagrams.len()].map(|taken| most - taken);
        let listeners = Listeners::new(listeners, free);
        BoundServer::new(self.limits, listeners, Listeners::new(datagrams, others_free), self.extras)
    }
}
