//! The admin endpoint: `/metrics`, `/livez`, `/readyz`, `/status` and `/status.json`.
//!
//! ```text
//! scraper, probe, browser -> [front: bounded, epoll, deadlines] -> private socket -> tiny_http -> pages
//! ```
//!
//! It answers while the server is saturated, while the process is out of descriptors, and while it
//! is itself attacked. `tiny_http` does the HTTP, and never meets the outside: the front
//! takes one complete, size-capped request from each of few connections, within deadlines, and
//! relays it over a socket that nobody else can reach. Nothing that is asked here changes the
//! server.
//!
//! Beside it stands the [`Agent`], which tells a balancer how much more the server can take.
//!
//! ```
//! use tidegate::{Echo, Server, admin::Admin};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
//! let admin = Admin::bind("127.0.0.1:0".parse()?, server.observe())?.serve()?;
//! println!("curl http://{}/metrics", admin.address());
//! # admin.shutdown();
//! # Ok(())
//! # }
//! ```

mod agent;
mod banner;
mod connection;
mod front;
mod history;
mod host;
mod limits;
mod link;
mod pages;
mod request;
mod reserve;
mod show;
mod status;

pub use agent::{Agent, AgentBuilder, AgentHandle};
pub use limits::{AdminLimits, AgentLimits};

use crate::metrics::snapshot::Observe;
use front::Front;
use limits::Rules;
use mio::Waker;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;

/// How many completed handshakes may wait in the kernel, which lowers it to `net.core.somaxconn`.
/// It covers a flood between two looks: a handshake beyond it is tried again after a second.
const BACKLOG: i32 = 4096;

/// An admin endpoint in the making: see [`Admin::builder`].
pub struct AdminBuilder {
    address: SocketAddr,
    socket: Option<OwnedFd>,
    observe: Arc<dyn Observe>,
    rules: Rules,
}

impl AdminBuilder {
    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: AdminLimits) -> Self {
        self.rules.limits = limits;
        self
    }

    /// Adds a host name that requests may be for; `*` stands for all. A request that names another host than an
    /// address, `localhost` or one of these is answered with 421, so that no page in a browser can read what is
    /// served here by giving its own name this address.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.rules.hosts.add(name);
        self
    }

    /// Uses a socket that is bound already, as a supervisor hands one over, instead of opening one at the address.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// Binds the address. `[::]` takes IPv4 too, unless `0.0.0.0` is taken already on that port.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the descriptors it holds in reserve cannot be had.
    pub fn bind(self) -> io::Result<Admin> {
        let listener = match self.socket {
            Some(socket) => listen_again(socket)?,
            None => listen(self.address)?,
        };
        let socket = listener.try_clone()?.into();
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let pages = pages::Pages::new(self.observe)?;
        let (front, waker) = Front::new(listener, pages, self.rules, Arc::clone(&stop))?;
        Ok(Admin { front, stop, waker, address, socket })
    }
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder")
            .field("address", &self.address)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// An admin endpoint that is bound and does not serve yet.
pub struct Admin {
    front: Front,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    address: SocketAddr,
    socket: OwnedFd,
}

impl Admin {
    /// Begins to describe the endpoint at `address`, which shows what `observe` sees; port 0 picks a free port.
    ///
    /// ```
    /// use tidegate::{Echo, Server, admin::Admin};
    ///
    /// let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
    /// let admin = Admin::builder("127.0.0.1:0".parse()?, server.observe()).host("gate.example").bind()?.serve()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(address: SocketAddr, observe: Arc<dyn Observe>) -> AdminBuilder {
        let rules = Rules { limits: AdminLimits::default(), hosts: host::Hosts::default() };
        AdminBuilder { address, socket: None, observe, rules }
    }

    /// Binds to `address` with the default limits, for requests by address and for `localhost`; port 0 picks a free
    /// port.
    ///
    /// # Errors
    ///
    /// As [`AdminBuilder::bind`].
    pub fn bind(address: SocketAddr, observe: Arc<dyn Observe>) -> io::Result<Self> {
        Self::builder(address, observe).bind()
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves from a thread of its own until the handle is shut down or dropped.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self) -> io::Result<AdminHandle> {
        let Self { front, stop, waker, address, socket } = self;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || front.run())?;
        Ok(AdminHandle { stop, waker, address, socket: Some(socket), thread: Some(thread) })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A serving admin endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct AdminHandle {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    address: SocketAddr,
    /// For the process that takes this one's place.
    socket: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its listening socket, to be handed over to the program that takes this one's place.
    #[cfg(feature = "cli")]
    pub(crate) fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Ends it and waits until its port is free: a few milliseconds, whatever its clients do.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Release);
        // Should this fail, the front sees the flag when it takes its next sample.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.socket = None;
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Listens at an address. `[::]` takes IPv4 as well, whatever the system's default is; if another listener has that
/// port for IPv4, it takes what is left.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    match listen_as(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_any_ipv6(address) => {
            listen_as(address, true).map_err(|_| error)
        }
        other => other,
    }
}

/// Listens on a socket that another process has bound.
fn listen_again(socket: OwnedFd) -> io::Result<std::net::TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn listen_as(address: SocketAddr, only_ipv6: bool) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if is_any_ipv6(address) {
        socket.set_only_v6(only_ipv6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
