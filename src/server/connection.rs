//! What the server keeps of one connection. An idle one owns no thread and no buffer.

use super::admission::Permit;
use super::clock::Nanos;
use crate::reason::CloseReason;
use crate::service::{Kept, Session};
use std::net::{SocketAddr, TcpStream};

/// How far a connection's registration with the poller goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    No,
    Readable,
    Writable,
}

/// What an idle connection waits for; each has a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For a request: `idle_timeout`.
    Request,
    /// For the rest of a request that began then: `read_timeout`, in all.
    Rest { since: Nanos },
    /// For its client to take replies, which it last did then: `write_timeout`.
    Flush { since: Nanos },
}

pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) registered: Registered,
    pub(crate) waiting: Waiting,
    /// It has ended for this reason, and closes when its replies are flushed.
    pub(crate) ending: Option<CloseReason>,
    /// Made at the first turn.
    pub(crate) session: Option<Box<dyn Session>>,
    /// Replies the kernel did not take.
    pub(crate) kept: Kept,
    /// Its place among the admitted; given back when it is dropped, after the socket.
    pub(crate) _permit: Permit,
}

impl Connection {
    pub(crate) fn is_registered(&self) -> bool {
        self.registered != Registered::No
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
