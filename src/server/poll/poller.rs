//! The one epoll, and who holds it.
//!
//! Every connection is registered once, edge-triggered, for its whole life (a second time only at
//! its first blocked write). At most one thread polls at a time, the *leader*: a worker that has no
//! work becomes leader, puts what is ready into the queue, stops leading, and takes the first entry
//! itself. So an event costs no hand-off, and while the leader works the kernel wakes nobody. When
//! all workers are in turns, the parker leads for a moment at every tick.

use crate::server::poll::leadership::Leadership;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::server::queue::state::Generation;

/// Events taken from the kernel at once: enough to make the call's own cost small, few enough
/// that a batch is handled in about a millisecond.
const BATCH: usize = 256;

const WAKE: Token = Token(usize::MAX);

// A token holds a slot and its generation.
const _: () = assert!(usize::BITS == 64, "tidegate needs a 64-bit target");

/// A connection that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) slot: u32,
    pub(crate) generation: Generation,
    /// The client has closed its half, or the connection failed.
    pub(crate) hangup: bool,
}

/// The connection that a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) slot: u32,
    pub(crate) generation: Generation,
}

impl Source {
    fn token(self) -> Token {
        Token((self.generation.0 as usize) << 32 | self.slot as usize)
    }
}

#[derive(Debug)]
pub(crate) struct Poller {
    leadership: Leadership,
    poll: Mutex<(Poll, Events)>,
    registry: Registry,
    waker: Waker,
}

/// The right to poll, until dropped.
pub(crate) struct Lead<'a>(&'a Poller);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let poll = Mutex::new((poll, Events::with_capacity(BATCH)));
        Ok(Self { leadership: Leadership::new(), poll, registry, waker })
    }

    /// Registers a source: an event follows for whatever is ready already.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), source.token(), Interest::READABLE)
    }

    /// Registers a listener or a datagram socket under a number that no slot has.
    pub(crate) fn add_number(&self, fd: BorrowedFd<'_>, number: u32) -> io::Result<()> {
        let token = Source { slot: number, generation: Generation(0) }.token();
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    }

    /// Asks for events of writability too: one follows at once if it is writable already, so no
    /// edge is lost.
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

    /// Becomes the leader, if there is none.
    pub(crate) fn lead(&self) -> Option<Lead<'_>> {
        // Lazily: a `Lead` that is made only to be dropped would end another's.
        self.leadership.take().then(|| Lead(self))
    }

    /// Whether a thread leads, after everything the caller has published.
    pub(crate) fn is_led_after_publishing(&self) -> bool {
        self.leadership.is_led_after_publishing()
    }

    /// Whether a thread leads, roughly.
    pub(crate) fn is_led(&self) -> bool {
        self.leadership.is_led()
    }

    /// Whether the leader sleeps in the poll, where an event or [`wake`](Self::wake) reaches it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.leadership.is_blocked()
    }

    /// Makes a sleeping leader return from the poll; false if none sleeps or another woke it.
    pub(crate) fn wake(&self) -> bool {
        let mine = self.leadership.unblock();
        if mine {
            // It fails only when the kernel has no memory; the leader's own timeout is the way out.
            let _ = self.waker.wake();
        }
        mine
    }

    /// Forgets a source whose socket lives on.
    pub(crate) fn remove(&self, socket: &std::net::TcpStream) {
        // It fails only when it is not registered, which is what is wanted.
        let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
    }
}

impl Lead<'_> {
    /// Says that the next poll may sleep, so that who queues work wakes it.
    pub(crate) fn will_block(&self) {
        self.0.leadership.block();
    }

    /// Takes that back; false if somebody woke the leader meanwhile.
    pub(crate) fn unblock(&self) -> bool {
        self.0.leadership.unblock()
    }

    /// Waits for events for at most `timeout` and gives each to `found`; how many there were.
    pub(crate) fn poll(&self, timeout: Duration, mut found: impl FnMut(Event)) -> usize {
        // Nobody else holds the lock, since there is one leader.
        let mut guard = self.0.poll.lock().unwrap_or_else(PoisonError::into_inner);
        let (poll, events) = &mut *guard;
        if poll.poll(events, Some(timeout)).is_err() {
            // EINTR; anything else would be a bug of ours, and the next poll tells again.
            return 0;
        }
        let mut count = 0;
        for event in events.iter() {
            let Token(token) = event.token();
            if event.token() == WAKE {
                continue;
            }
            count += 1;
            found(Event {
                slot: token as u32,
                generation: Generation((token >> 32) as u32),
                hangup: event.is_read_closed() || event.is_error(),
            });
        }
        count
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.leadership.release();
    }
}
