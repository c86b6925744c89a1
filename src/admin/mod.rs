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
//! server, unless its owner takes an order here: [`AdminBuilder::on_reload`].
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
mod configuration;
mod connection;
mod front;
mod history;
mod host;
mod limits;
mod link;
mod pages;
mod request;
mod reserve;
mod serving;
mod show;
mod status;

pub use agent::{Agent, AgentBuilder, AgentHandle};
pub use limits::{AdminLimits, AgentLimits};

use crate::metrics::snapshot::Observe;
use front::Front;
use limits::{OnReload, Rules};
use serving::{Serving, Site};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An admin endpoint in the making: see [`Admin::builder`].
pub struct AdminBuilder {
    address: SocketAddr,
    socket: Option<OwnedFd>,
    observe: Arc<dyn Observe>,
    rules: Rules,
    on_reload: Option<OnReload>,
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

    /// Takes `POST /reload`, the order to read the configuration again, and answers 202 after this has returned, or 503 if
    /// it fails. Everybody who reaches the endpoint may give the order, but no page in a browser. It is called by the thread
    /// that answers here, so it must not wait: have another thread do the work. Default: the order is answered with 403.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use tidegate::{Echo, Server, admin::Admin};
    ///
    /// let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
    /// let (order, orders) = channel();
    /// let admin = Admin::builder("127.0.0.1:0".parse()?, server.observe());
    /// let admin = admin.on_reload(move || order.send(()).map_err(std::io::Error::other)).bind()?.serve()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_reload(mut self, reload: impl Fn() -> io::Result<()> + Send + 'static) -> Self {
        self.rules.control = true;
        self.on_reload = Some(Box::new(reload));
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
        let (front, site) = Site::bind(self.address, self.socket, |listener, stop| {
            let pages = pages::Pages::new(self.observe, self.on_reload)?;
            Front::new(listener, pages, self.rules, stop)
        })?;
        Ok(Admin { front, site })
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
    site: Site,
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
        let rules = Rules { limits: AdminLimits::default(), hosts: host::Hosts::default(), control: false };
        AdminBuilder { address, socket: None, observe, rules, on_reload: None }
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
        self.site.address
    }

    /// Serves from a thread of its own until the handle is shut down or dropped.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self) -> io::Result<AdminHandle> {
        let Self { front, site } = self;
        Ok(AdminHandle(site.serve("admin", move || front.run())?))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.site.address).finish_non_exhaustive()
    }
}

/// A serving admin endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct AdminHandle(Serving);

impl AdminHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Its listening socket, to be handed over to the program that takes this one's place.
    #[cfg(feature = "cli")]
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.0.socket
    }

    /// Ends it and waits until its port is free: a few milliseconds, whatever its clients do.
    pub fn shutdown(self) {}
}
