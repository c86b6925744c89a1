//! The one epoll.
//!
//! Every connection is registered once, edge-triggered, for its whole life (a second time only at its first blocked
//! write). At most one thread polls at a time, the leader: a worker that has no work becomes leader, puts what is ready
//! into the queue, stops leading, and takes the first entry itself. So an event costs no hand-off, and while the leader
//! works the kernel wakes nobody. When all workers are in turns, the timekeeper leads for a moment at every tick.

use super::crew::Lead;
use crate::server::queue::state::{ConnectionId, Generation, Marks};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Events taken from the kernel at once: enough to make the call's own cost small, few enough that a batch is handled
/// in about a millisecond.
const BATCH: usize = 256;

const WAKE: Token = Token(usize::MAX);

/// Marks the token of a connection's other socket, of a listener, and of a datagram socket; slots have numbers below
/// 2^24.
const OTHER_BIT: u32 = 1 << 29;
const LISTENER_BIT: u32 = 1 << 30;
const DATAGRAM_BIT: u32 = 1 << 31;

// A token holds a slot and its generation.
const _: () = assert!(usize::BITS == 64, "tidegate needs a 64-bit target");

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection became ready.
    Connection { id: ConnectionId, marks: Marks },
    /// Newcomers stand at the listener of this number.
    Newcomers(usize),
    /// The datagram socket of this number can be read.
    Datagrams(usize),
}

/// What is registered, and so what an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Connection(ConnectionId),
    /// The other socket of a connection.
    Other(ConnectionId),
    Listener(usize),
    Datagrams(usize),
}

impl Source {
    fn token(self) -> Token {
        let (number, generation) = match self {
            Source::Connection(id) => (id.slot, id.generation.0),
            Source::Other(id) => (id.slot | OTHER_BIT, id.generation.0),
            Source::Listener(number) => (number as u32 | LISTENER_BIT, 0),
            Source::Datagrams(number) => (number as u32 | DATAGRAM_BIT, 0),
        };
        Token((generation as usize) << 32 | number as usize)
    }

    fn of(Token(token): Token) -> Self {
        let (slot, generation) = (token as u32, Generation((token >> 32) as u32));
        let number = (slot & !(LISTENER_BIT | DATAGRAM_BIT)) as usize;
        if slot & DATAGRAM_BIT != 0 {
            Source::Datagrams(number)
        } else if slot & LISTENER_BIT != 0 {
            Source::Listener(number)
        } else if slot & OTHER_BIT != 0 {
            Source::Other(ConnectionId { slot: slot & !OTHER_BIT, generation })
        } else {
            Source::Connection(ConnectionId { slot, generation })
        }
    }
}

#[derive(Debug)]
pub(crate) struct Poller {
    poll: Mutex<(Poll, Events)>,
    registry: Registry,
}

impl Poller {
    /// The poller, and what makes a thread return that sleeps in it.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let poll = Mutex::new((poll, Events::with_capacity(BATCH)));
        Ok((Self { poll, registry }, waker))
    }

    /// Registers a source: an event follows for whatever is ready already.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), source.token(), Interest::READABLE)
    }

    /// Asks for events of writability too: one follows at once if it is writable already, so no edge is lost.
    pub(crate) fn add_writable(
        &self,
        fd: BorrowedFd<'_>,
        source: Source,
        registered: bool,
    ) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let fd = fd.as_raw_fd();
        if registered {
            self.registry.reregister(&mut SourceFd(&fd), source.token(), both)
        } else {
            self.registry.register(&mut SourceFd(&fd), source.token(), both)
        }
    }

    /// From now on a registered descriptor tells of another source, and of its input only.
    pub(crate) fn give_to(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        self.registry.reregister(&mut SourceFd(&fd.as_raw_fd()), source.token(), Interest::READABLE)
    }

    /// Forgets a source whose socket lives on.
    pub(crate) fn remove(&self, socket: impl AsFd) {
        // It fails only when it is not registered, which is what is wanted.
        let _ = self.registry.deregister(&mut SourceFd(&socket.as_fd().as_raw_fd()));
    }

    /// Waits for events for at most `timeout` and gives each to `found`; how many there were. Only the leader may.
    pub(crate) fn poll<R>(
        &self,
        _lead: &Lead<'_, R>,
        timeout: Duration,
        mut found: impl FnMut(Event),
    ) -> usize {
        // Nobody else holds the lock, since there is one leader.
        let mut guard = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
        let (poll, events) = &mut *guard;
        if poll.poll(events, Some(timeout)).is_err() {
            // EINTR; anything else would be a bug of ours, and the next poll tells again.
            return 0;
        }
        let mut count = 0;
        for event in events.iter().filter(|event| event.token() != WAKE) {
            count += 1;
            let hangup = event.is_read_closed() || event.is_error();
            found(match Source::of(event.token()) {
                Source::Connection(id) => Event::Connection { id, marks: Marks::of_client(hangup) },
                Source::Other(id) => Event::Connection { id, marks: Marks::of_other(hangup) },
                Source::Listener(number) => Event::Newcomers(number),
                Source::Datagrams(number) => Event::Datagrams(number),
            });
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_was_registered() {
        let id = |slot, generation| ConnectionId { slot, generation: Generation(generation) };
        for source in [
            Source::Connection(id(0, 0)),
            Source::Connection(id(crate::Limits::CONNECTIONS_MAX as u32 - 1, u32::MAX >> 4)),
            Source::Other(id(0, 0)),
            Source::Other(id(crate::Limits::CONNECTIONS_MAX as u32 - 1, u32::MAX)),
            Source::Listener(0),
            Source::Listener(65_535),
            Source::Datagrams(0),
            Source::Datagrams(65_535),
        ] {
            assert_eq!(Source::of(source.token()), source);
            assert_ne!(source.token(), WAKE);
        }
    }
}
