//! What the server keeps of one connection. An idle one owns no thread and no buffer.

use crate::admit::Permit;
use crate::clock::Nanos;
use crate::reason::CloseReason;
use crate::service::{Kept, Peer, Session, TlsSide};
use crate::transport::socket::{has_input, say};
use std::net::TcpStream;

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
    /// For the first byte of a TLS client that was admitted then: `read_timeout`.
    Hello { since: Nanos },
    /// For the rest of a request that began then: `read_timeout`, in all.
    Rest { since: Nanos },
    /// For its client to take replies, which it last did then: `write_timeout`.
    Flush { since: Nanos },
    /// For anything, until then: the session keeps its own time.
    Call { at: Nanos },
}

/// A [`Waiting`] in one word: three bits say for what, the others since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedWaiting(u64);

impl PackedWaiting {
    const SINCE: u64 = u64::MAX >> 3;

    pub(crate) fn get(self) -> Waiting {
        // 73 years of nanoseconds fit.
        let since = self.0 & Self::SINCE;
        match self.0 >> 61 {
            0 => Waiting::Request,
            1 => Waiting::Rest { since },
            2 => Waiting::Flush { since },
            3 => Waiting::Hello { since },
            _ => Waiting::Call { at: since },
        }
    }
}

impl From<Waiting> for PackedWaiting {
    fn from(waiting: Waiting) -> Self {
        let (what, since) = match waiting {
            Waiting::Request => (0, 0),
            Waiting::Rest { since } => (1, since),
            Waiting::Flush { since } => (2, since),
            Waiting::Hello { since } => (3, since),
            Waiting::Call { at } => (4, at.min(Self::SINCE)),
        };
        Self(what << 61 | since & Self::SINCE)
    }
}

/// In the order of use: with the slot's own words, what a turn touches when all goes well is one
/// cache line. With thousands of connections each line is a trip to the last cache or to memory.
#[repr(C)]
pub(crate) struct Connection {
    /// Made at the first turn.
    pub(crate) session: Option<Box<dyn Session>>,
    /// Replies the kernel did not take.
    pub(crate) kept: Kept,
    pub(crate) waiting: PackedWaiting,
    /// Made when a TLS client's first byte is there.
    pub(crate) tls: Option<Box<TlsSide>>,
    pub(crate) socket: TcpStream,
    pub(crate) registered: Registered,
    /// Its session has had a turn since the server began to end.
    pub(crate) knows_of_drain: bool,
    /// It has ended for this reason, and closes when its replies are flushed.
    pub(crate) ending: Option<CloseReason>,
    pub(crate) peer: Peer,
    /// Its place among the admitted; given back when it is dropped, after the socket.
    pub(crate) _permit: Permit,
}

impl Connection {
    pub(crate) fn is_registered(&self) -> bool {
        self.registered != Registered::No
    }

    /// Whether its client has sent something that the session has not read.
    pub(crate) fn has_input(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_input()) || has_input(&self.socket)
    }

    /// Whether its TLS handshake has begun and is not over.
    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_open())
    }

    /// Tells a TLS client that this was all, if nothing is left to be sent before that.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls
            && self.kept.is_empty()
        {
            say(&self.socket, &tls.close_notify());
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("waiting", &self.waiting.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for since in [1, 5_000_000_000, PackedWaiting::SINCE] {
            for waiting in [
                Waiting::Request,
                Waiting::Hello { since },
                Waiting::Rest { since },
                Waiting::Flush { since },
                Waiting::Call { at: since },
            ] {
                assert_eq!(PackedWaiting::from(waiting).get(), waiting);
            }
        }
    }
}
