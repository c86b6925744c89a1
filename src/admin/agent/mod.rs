//! The agent: tells a balancer how much more this server can take, in the one line that HAProxy's `agent-check` reads.
//!
//! A balancer connects, gets `up 80%`, `drain` or `down` and a newline, and closes. It needs to say nothing. The share
//! is that of the server's own workers, or of the backends of its fullest gate; it never falls to 0 and is never `down`
//! because of overload: a server that refuses what exceeds its limits still does all the work it can.

mod capacity;
mod desk;

use super::limits::AgentLimits;
use super::serving::{Serving, Site};
use crate::metrics::snapshot::Observe;
use desk::Desk;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An agent in the making: see [`Agent::builder`].
pub struct AgentBuilder {
    address: SocketAddr,
    socket: Option<OwnedFd>,
    observe: Arc<dyn Observe>,
    limits: AgentLimits,
}

impl AgentBuilder {
    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: AgentLimits) -> Self {
        self.limits = limits;
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
    pub fn bind(self) -> io::Result<Agent> {
        let (desk, site) = Site::bind(self.address, self.socket, |listener, stop| {
            Desk::new(listener, self.observe, self.limits, stop)
        })?;
        Ok(Agent { desk, site })
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder")
            .field("address", &self.address)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// An agent that is bound and does not answer yet: who connects waits.
pub struct Agent {
    desk: Desk,
    site: Site,
}

impl Agent {
    /// Begins to describe the agent at `address`, which tells of what `observe` sees; port 0 picks a free port.
    ///
    /// ```
    /// use std::io::Read;
    /// use tidegate::{Echo, Server, admin::Agent};
    ///
    /// let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
    /// let agent = Agent::builder("127.0.0.1:0".parse()?, server.observe()).bind()?.serve()?;
    /// let mut said = String::new();
    /// std::net::TcpStream::connect(agent.address())?.read_to_string(&mut said)?;
    /// assert_eq!(said, "up ready 100%\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(address: SocketAddr, observe: Arc<dyn Observe>) -> AgentBuilder {
        AgentBuilder { address, socket: None, observe, limits: AgentLimits::default() }
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// Answers from a thread of its own until the handle is shut down or dropped.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self) -> io::Result<AgentHandle> {
        let Self { desk, site } = self;
        Ok(AgentHandle(site.serve("agent", move || desk.run())?))
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("address", &self.site.address).finish_non_exhaustive()
    }
}

/// An agent that answers. Dropping it ends it.
#[derive(Debug)]
pub struct AgentHandle(Serving);

impl AgentHandle {
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
