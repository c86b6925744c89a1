//! The description of a listener before it is bound: its address, its service, and the settings it does not share with
//! others.

use super::datagram::socket::DatagramSocket;
use super::error::BuildError;
use super::in_force::OwnLimits;
use super::listener::Listener;
use crate::limits::{LimitError, Limits};
use crate::service::http::AccessLog;
use crate::service::{DatagramService, Network, Service};
use crate::transport::address::{Address, UnixName};
use crate::transport::listen::{
    ListenSocket, bind, bind_datagrams, bind_unix, ipv6_only, listen_again, receive_again,
};
use crate::transport::tls::Setup;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A listener that a [`Builder`](super::Builder) adds, with limits of its own.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Echo, Listen, Server};
///
/// let patient = Listen::new("127.0.0.1:0", Echo)?
///     .limits(|limits| limits.idle_timeout(Duration::from_secs(600)))
///     .busy_reply("come back later\n");
/// let server = Server::builder().listen("127.0.0.1:0", Echo)?.listener(patient).bind()?;
/// assert_eq!(server.addresses().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder adds it"]
pub struct Listen {
    pub(super) address: Address,
    pub(super) offer: ListenOffer,
    pub(super) busy_reply: Option<Arc<[u8]>>,
    pub(super) tls: Option<Setup>,
    /// The balancers whose PROXY headers are believed.
    pub(super) balancers: Vec<Network>,
    /// It is bound already.
    pub(super) socket: Option<OwnedFd>,
    /// What else there is to that socket.
    pub(super) bound: BoundSocket,
    /// The mode of a Unix socket's file.
    pub(super) socket_mode: u32,
    pub(super) own: OwnLimits,
}

/// What there is to a socket that another process has bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BoundSocket {
    /// It has a file, which this process removes at its end.
    pub(crate) has_file: bool,
    /// The other process, a supervisor, has it too: what this process does not accept is left for the next.
    pub(crate) is_shared: bool,
}

/// What a listener shares with others of its server.
pub(crate) struct Around<'a> {
    /// The internet addresses on which this process listens for connections.
    pub(crate) neighbours: &'a [SocketAddr],
    /// Those on which it listens for datagrams.
    pub(crate) of_datagrams: &'a [SocketAddr],
    pub(crate) reuse_address: bool,
    pub(crate) busy_reply: Option<Arc<[u8]>>,
    pub(crate) access_log: Option<AccessLog>,
}

/// Listens on a socket that another process has bound.
fn take_over(socket: OwnedFd, limits: &Limits, bound: BoundSocket) -> io::Result<ListenSocket> {
    let mut socket = listen_again(socket, limits)?;
    if bound.has_file {
        socket.take_file()?;
    }
    if bound.is_shared {
        socket.share();
    }
    Ok(socket)
}

/// What a listener offers.
#[derive(Clone)]
pub(crate) enum ListenOffer {
    Stream(Arc<dyn Service>),
    Datagrams(Arc<dyn DatagramService>),
}

impl ListenOffer {
    /// Descriptors that the service may have open beside those of its clients.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            ListenOffer::Stream(service) => service.descriptors(),
            ListenOffer::Datagrams(_) => 0,
        }
    }

    /// Bytes that the service may take beside what its connections take.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program says what its limits come to"))]
    pub(crate) fn memory(&self, limits: &Limits) -> usize {
        match self {
            ListenOffer::Stream(service) => service.memory(limits),
            ListenOffer::Datagrams(_) => 0,
        }
    }

    /// Whether it is for datagrams.
    pub(crate) fn takes_datagrams(&self) -> bool {
        matches!(self, ListenOffer::Datagrams(_))
    }
}

impl std::fmt::Debug for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listen").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listen {
    /// A listener for connections. Port 0 picks a free port; of a name with several addresses the first is taken.
    ///
    /// # Errors
    ///
    /// The address cannot be resolved.
    pub fn new(
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl Service,
    ) -> Result<Self, BuildError> {
        Ok(Self::shared(resolve(address)?, Arc::new(service)))
    }

    /// A listener for connections at a Unix socket.
    ///
    /// A file that a dead server has left at its path is replaced. Where a server answers, or where something else than a
    /// socket is, the server does not start. At the end the file is removed, if it is still the same.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use tidegate::{Echo, Listen, Server, UnixName};
    ///
    /// let directory = std::env::temp_dir().join(format!("tidegate-{}", std::process::id()));
    /// std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("echo.sock");
    /// let listen = Listen::unix(UnixName::path(&path)?, Echo).socket_mode(0o600);
    /// let server = Server::builder().listener(listen).bind()?.serve()?;
    /// let mut client = std::os::unix::net::UnixStream::connect(&path)?;
    /// client.write_all(b"ping")?;
    /// let mut reply = [0; 4];
    /// client.read_exact(&mut reply)?;
    /// assert_eq!(&reply, b"ping");
    /// drop(server);
    /// assert!(!path.exists());
    /// # std::fs::remove_dir(directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unix(name: UnixName, service: impl Service) -> Self {
        Self::shared(name, Arc::new(service))
    }

    /// A listener for datagrams.
    ///
    /// # Errors
    ///
    /// The address cannot be resolved.
    pub fn datagrams(
        address: impl ToSocketAddrs + std::fmt::Debug,
        service: impl DatagramService,
    ) -> Result<Self, BuildError> {
        Ok(Self::datagrams_shared(resolve(address)?, Arc::new(service)))
    }

    /// A listener for connections whose service is shared with its owner, or was chosen at run time.
    pub fn shared(address: impl Into<Address>, service: Arc<dyn Service>) -> Self {
        Self::offering(address.into(), ListenOffer::Stream(service))
    }

    /// A listener for datagrams whose service is shared with its owner, or was chosen at run time.
    pub fn datagrams_shared(address: SocketAddr, service: Arc<dyn DatagramService>) -> Self {
        Self::offering(address.into(), ListenOffer::Datagrams(service))
    }

    /// A listener for either.
    pub(crate) fn offering(address: Address, offer: ListenOffer) -> Self {
        Self {
            address,
            offer,
            busy_reply: None,
            balancers: Vec::new(),
            tls: None,
            socket: None,
            bound: BoundSocket::default(),
            socket_mode: SOCKET_MODE,
            own: OwnLimits::default(),
        }
    }

    /// Takes connections from these balancers only, and expects each to begin with a PROXY header (version 1 or 2), within
    /// `read_timeout`; with TLS the handshake comes after it. From then on its client has the address that the header says,
    /// for the service and where sources take turns; `max_per_source` and `source_rate` see the balancer. Others are reset,
    /// and counted as `proxy_header`. An empty list is the default: connections begin with their clients' own bytes. At a
    /// Unix socket the list counts as empty unless it has `unix`, and `unix` means nothing elsewhere.
    pub fn accept_proxy(mut self, balancers: impl IntoIterator<Item = Network>) -> Self {
        self.balancers = balancers.into_iter().collect();
        self
    }

    /// Limits of its own, made of those of the server. Only some can differ by listener (README's table says which);
    /// the server does not start with others. A listener for datagrams has none of its own.
    pub fn limits(mut self, change: impl Fn(Limits) -> Limits + Send + Sync + 'static) -> Self {
        self.own = OwnLimits::new(Box::new(change));
        self
    }

    /// Uses a socket that is bound already, as a supervisor hands one over, instead of opening one at the address.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use tidegate::{Echo, Listen, Server};
    ///
    /// let socket = TcpListener::bind("127.0.0.1:0")?;
    /// let address = socket.local_addr()?;
    /// let server = Server::builder().listener(Listen::new(address, Echo)?.socket(socket)).bind()?;
    /// assert_eq!(server.addresses(), [address]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// The same somewhere else.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens listeners again"))]
    pub(crate) fn at(mut self, address: Address) -> Self {
        self.address = address;
        self
    }

    /// The mode of the file of a Unix socket: who may connect must be able to write to it. Default `0o660`.
    pub fn socket_mode(mut self, mode: u32) -> Self {
        self.socket_mode = mode;
        self
    }

    /// What else there is to the socket that is bound already.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn bound(mut self, bound: BoundSocket) -> Self {
        self.bound = bound;
        self
    }

    /// What a client that is refused here is told, instead of what the service or the server would say. Empty: nothing,
    /// and the refusal is a reset.
    pub fn busy_reply(mut self, words: impl Into<Vec<u8>>) -> Self {
        self.busy_reply = Some(words.into().into());
        self
    }

    /// Its connections speak TLS. A client that is refused before the end of its handshake is reset without a reply, which
    /// would cost the handshake. Datagrams have no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Setup) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Opens its socket, or takes the one that is bound already.
    pub(super) fn open(&mut self, limits: &Limits, around: &Around<'_>) -> Result<ListenSocket, BuildError> {
        let address = self.address;
        let socket = match self.socket.take() {
            Some(socket) => take_over(socket, limits, self.bound),
            None => match address {
                Address::Ip(ip) => {
                    let only = ipv6_only(ip, around.neighbours.iter().copied());
                    bind(ip, only, limits, around.reuse_address)
                }
                Address::Unix(name) => bind_unix(name, limits, self.socket_mode),
            },
        };
        socket.map_err(|source| BuildError::Bind { address, source })
    }

    /// The listener on its socket, with what it has of its own and what it shares with others.
    pub(super) fn seated(
        self,
        socket: ListenSocket,
        service: Arc<dyn Service>,
        position: usize,
        limits: &Limits,
        around: &Around<'_>,
    ) -> Result<Listener, BuildError> {
        let address = self.address;
        let address = socket.address().map_err(|source| BuildError::Bind { address, source })?;
        let words = self.busy_reply.or_else(|| around.busy_reply.clone());
        let listener = Listener::new(socket, address, service, position, words).limited(limits, self.own);
        let listener = listener.logging(around.access_log.clone());
        Ok(listener.accepting_proxy(self.balancers).secured(self.tls))
    }

    /// Whether it is a listener for datagrams.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens listeners again"))]
    pub(super) fn takes_datagrams(&self) -> bool {
        self.offer.takes_datagrams()
    }

    /// The same of a listener for datagrams.
    pub(super) fn open_datagrams(
        &mut self,
        limits: &Limits,
        around: &Around<'_>,
    ) -> Result<UdpSocket, BuildError> {
        let address = self.address;
        let socket = match (self.socket.take(), address) {
            (Some(socket), _) => receive_again(socket, limits),
            (None, Address::Ip(ip)) => {
                bind_datagrams(ip, ipv6_only(ip, around.of_datagrams.iter().copied()), limits)
            }
            (None, Address::Unix(_)) => Err(io::ErrorKind::Unsupported.into()),
        };
        socket.map_err(|source| BuildError::Bind { address, source })
    }

    /// The listener for datagrams on its socket.
    pub(super) fn seated_datagrams(
        self,
        socket: UdpSocket,
        service: Arc<dyn DatagramService>,
        position: usize,
    ) -> Result<DatagramSocket, BuildError> {
        let address = self.address;
        let address = socket.local_addr().map_err(|source| BuildError::Bind { address, source })?;
        Ok(DatagramSocket::new(socket, address, service, position).shared(self.bound.is_shared))
    }

    /// The limits in force here, beside those of the server.
    pub(super) fn effective(&self, server: &Limits) -> Result<Limits, BuildError> {
        let own = self.own.of(server);
        let checked = own.check_beside(server).and_then(|()| match self.offer {
            ListenOffer::Datagrams(_) if own != *server => {
                Err(LimitError("a listener for datagrams has no limits of its own".to_owned()))
            }
            ListenOffer::Datagrams(_) if !self.balancers.is_empty() => {
                Err(LimitError("a listener for datagrams has no PROXY headers".to_owned()))
            }
            _ => Ok(()),
        });
        checked.map_err(|error| LimitError(format!("listener {}: {error}", self.address)))?;
        Ok(own)
    }
}

/// The owner of the file of a Unix socket, and its group, may connect.
const SOCKET_MODE: u32 = 0o660;

/// The first address of what is given.
fn resolve(address: impl ToSocketAddrs + std::fmt::Debug) -> Result<SocketAddr, BuildError> {
    let error = |source| BuildError::Resolve { address: format!("{address:?}"), source };
    let resolved = address.to_socket_addrs().map_err(error)?.next();
    resolved.ok_or_else(|| error(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}
