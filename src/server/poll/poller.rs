//! The server's only epoll.
//!
//! Every connection is registered once, edge-triggered, for its whole life; at its first blocked write it is registered
//! a second time. At most one thread polls at a time, the leader. A worker without work becomes the leader. It keeps the
//! first connection with an event for itself, puts the others into the queue, gives up the lead, and gives that connection
//! its turn. So an event is not handed from thread to thread, and the kernel wakes no thread while the leader works. When
//! all workers are in turns, the timekeeper leads for a moment at every tick.

use super::crew::Lead;
use crate::server::queue::state::{ConnectionId, Generation, Marks};
use crate::service::{EventRoutes, RouteId};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Events taken from the kernel at once: enough to make the call's own cost small, few enough that a batch is handled
/// in about a millisecond.
const BATCH: usize = 256;

const WAKE: Token = Token(usize::MAX);

/// Marks the token of a routed descriptor, of a connection's other socket, of a listener, and of a datagram socket; slots
/// and routes have numbers below 2^24.
const ROUTE_BIT: u32 = 1 << 28;
const OTHER_BIT: u32 = 1 << 29;
const LISTENER_BIT: u32 = 1 << 30;
const DATAGRAM_BIT: u32 = 1 << 31;

// A token holds a slot and its generation.
const _: () = assert!(usize::BITS == 64, "tidegate needs a 64-bit target");

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollEvent {
    /// A connection became ready.
    Connection { id: ConnectionId, marks: Marks },
    /// A descriptor became ready whose events have a route.
    Routed { id: RouteId, hung_up: bool },
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
    /// A descriptor whose events have a route.
    Routed(RouteId),
    Listener(usize),
    Datagrams(usize),
}

impl Source {
    fn token(self) -> Token {
        let (number, generation) = match self {
            Source::Connection(id) => (id.slot, id.generation.0),
            Source::Other(id) => (id.slot | OTHER_BIT, id.generation.0),
            Source::Routed(id) => (id.number | ROUTE_BIT, id.life),
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
        } else if slot & ROUTE_BIT != 0 {
            Source::Routed(RouteId { number: slot & !ROUTE_BIT, life: generation.0 })
        } else {
            Source::Connection(ConnectionId { slot, generation })
        }
    }
}

#[derive(Debug)]
pub(crate) struct Poller {
    poll: Mutex<(Poll, Events)>,
    registry: Registry,
    routes: Arc<EventRoutes>,
}

impl Poller {
    /// The poller, and what makes a thread return that sleeps in it.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let poll = Mutex::new((poll, Events::with_capacity(BATCH)));
        Ok((Self { poll, registry, routes: Arc::default() }, waker))
    }

    /// The ways of the events of descriptors that sessions use one after the other.
    pub(crate) fn routes(&self) -> &Arc<EventRoutes> {
        &self.routes
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
        mut found: impl FnMut(PollEvent),
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
                Source::Connection(id) => {
                    let marks = Marks::of_client(hangup).with_failure(event.is_error());
                    PollEvent::Connection { id, marks }
                }
                Source::Other(id) => PollEvent::Connection { id, marks: Marks::of_other(hangup) },
                Source::Routed(id) => PollEvent::Routed { id, hung_up: hangup },
                Source::Listener(number) => PollEvent::Newcomers(number),
                Source::Datagrams(number) => PollEvent::Datagrams(number),
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
            Source::Connection(id(crate::limits::Limits::CONNECTIONS_MAX as u32 - 1, u32::MAX >> 4)),
            Source::Other(id(0, 0)),
            Source::Other(id(crate::limits::Limits::CONNECTIONS_MAX as u32 - 1, u32::MAX)),
            Source::Routed(RouteId { number: 0, life: 0 }),
            Source::Routed(RouteId { number: (1 << 24) - 1, life: u32::MAX }),
            Source::Listener(0),
            Source::Listener(65_535),
            Source::Datagrams(0),
            Source::Datagrams(65_535),
        ] {
            assert_eq!(Source::of(source.token()), source);
            assert_ne!(source.token(), WAKE);
        }
    }

    #[test]
    fn all_who_ask_have_the_same_routes() {
        let (poller, _) = Poller::new().unwrap();
        assert!(Arc::ptr_eq(poller.routes(), poller.routes()));
    }

    /// A crew of whom nobody needs to be woken: the test's thread leads.
    struct Alone;

    impl crate::server::poll::crew::Rouse for Alone {
        fn leader(&self) {}
        fn worker(&self, _: usize) {}
        fn keeper(&self) {}
        fn nap(&self, _: usize) {}
    }

    /// The events there are now, and how many the poller says there were.
    fn events(poller: &Poller) -> (Vec<PollEvent>, usize) {
        let crew = crate::server::poll::crew::Crew::new(1, Alone);
        let mut found = Vec::new();
        let count = poller.poll(&crew.lead().unwrap(), Duration::ZERO, |event| found.push(event));
        (found, count)
    }

    #[test]
    fn an_event_tells_of_what_was_registered_last_until_it_is_removed() {
        let (poller, _waker) = Poller::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let id = ConnectionId { slot: 3, generation: Generation(5) };
        poller.add(reader.as_fd(), Source::Connection(id)).unwrap();
        assert_eq!(events(&poller), (vec![], 0));
        rustix::io::write(&writer, b"1").unwrap();
        let client = PollEvent::Connection { id, marks: Marks::of_client(false) };
        assert_eq!(events(&poller), (vec![client], 1));
        assert_eq!(events(&poller), (vec![], 0), "an edge is told of once");
        poller.give_to(reader.as_fd(), Source::Listener(7)).unwrap();
        assert_eq!(events(&poller), (vec![PollEvent::Newcomers(7)], 1), "what is there already");
        poller.give_to(reader.as_fd(), Source::Datagrams(8)).unwrap();
        assert_eq!(events(&poller), (vec![PollEvent::Datagrams(8)], 1));
        poller.give_to(reader.as_fd(), Source::Other(id)).unwrap();
        assert_eq!(events(&poller), (vec![PollEvent::Connection { id, marks: Marks::of_other(false) }], 1));
        poller.remove(&reader);
        rustix::io::write(&writer, b"2").unwrap();
        assert_eq!(events(&poller), (vec![], 0));
    }

    #[test]
    fn an_end_is_a_hangup_and_two_events_are_counted_as_two() {
        let (poller, waker) = Poller::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let id = |slot| ConnectionId { slot, generation: Generation(0) };
        poller.add(reader.as_fd(), Source::Connection(id(1))).unwrap();
        poller.add_writable(writer.as_fd(), Source::Connection(id(2)), false).unwrap();
        let writable = PollEvent::Connection { id: id(2), marks: Marks::of_client(false) };
        assert_eq!(events(&poller), (vec![writable], 1), "it can be written to");
        poller.add_writable(writer.as_fd(), Source::Connection(id(4)), true).unwrap();
        let writable = PollEvent::Connection { id: id(4), marks: Marks::of_client(false) };
        assert_eq!(events(&poller), (vec![writable], 1));
        poller.remove(&writer);
        let (other, full) = rustix::pipe::pipe().unwrap();
        poller.add(other.as_fd(), Source::Connection(id(3))).unwrap();
        drop((writer, full));
        let (mut found, count) = events(&poller);
        found.sort_by_key(|event| format!("{event:?}"));
        let ended = |slot| PollEvent::Connection { id: id(slot), marks: Marks::of_client(true) };
        assert_eq!((found, count), (vec![ended(1), ended(3)], 2));
        waker.wake().unwrap();
        assert_eq!(events(&poller), (vec![], 0), "to be woken is no event");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        poller.add(accepted.as_fd(), Source::Connection(id(6))).unwrap();
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let reset = PollEvent::Connection { id: id(6), marks: Marks::of_client(true).with_failure(true) };
        assert_eq!(events(&poller), (vec![reset], 1), "who resets is gone, who only ends may listen");
    }
}
