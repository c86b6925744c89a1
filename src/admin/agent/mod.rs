//! The agent: tells a balancer how much more this server can take, in the one line that HAProxy's `agent-check` reads.
//!
//! A balancer connects, gets `up 80%`, `drain` or `down` and a newline, and closes. It needs to say nothing. The share
//! is that of the server's own workers, or of the backends of its fullest gate; it never falls to 0 and is never `down`
//! because of overload: a server that refuses what exceeds its limits still does all the work it can.

mod capacity;
mod desk;

use super::limits::AgentLimits;
use crate::metrics::snapshot::Observe;
use desk::Desk;
use mio::Waker;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;

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
        let listener = match self.socket {
            Some(socket) => super::listen_again(socket)?,
            None => super::listen(self.address)?,
        };
        let socket = listener.try_clone()?.into();
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (desk, waker) = Desk::new(listener, self.observe, self.limits, Arc::clone(&stop))?;
        Ok(Agent { desk, end: AgentEnd { stop, waker }, address, socket })
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
    end: AgentEnd,
    address: SocketAddr,
    socket: OwnedFd,
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
        self.address
    }

    /// Answers from a thread of its own until the handle is shut down or dropped.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self) -> io::Result<AgentHandle> {
        let Self { desk, end, address, socket } = self;
        let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(move || desk.run())?;
        Ok(AgentHandle { end, address, socket: Some(socket), thread: Some(thread) })
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What ends the thread.
#[derive(Debug)]
struct AgentEnd {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

/// An agent that answers. Dropping it ends it.
#[derive(Debug)]
pub struct AgentHandle {
    end: AgentEnd,
    address: SocketAddr,
    /// For the process that takes this one's place.
    socket: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl AgentHandle {
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
        self.finish();
    }

    fn finish(&mut self) {
        self.end.stop.store(true, Release);
        // Should this fail, the thread sees the flag when its wait ends by itself.
        let _ = self.end.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.socket = None;
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.finish();
    }
}
