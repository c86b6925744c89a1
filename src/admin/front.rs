//! The bounded front: the only part of the admin endpoint that meets the outside.
//!
//! One thread and one epoll. The newest connection always gets in: when there is no room, the
//! oldest one without a whole request goes. A connection is read as soon as it is accepted, so a
//! client that sends its request with its first packet is never the one that goes.

use super::AdminLimits;
use super::connection::Connection;
use super::pages::Pages;
use super::relay::Relay;
use super::request::{Refusal, Request};
use super::reserve::Reserve;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;

/// How often the history is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long accepting rests after an error that will not pass by itself.
const ACCEPT_REST: Duration = Duration::from_millis(10);
/// How many connections are accepted before the others get their turn.
const ACCEPTS_MAX: usize = 256;

/// The front's state; [`Front::run`] is its thread.
pub(super) struct Front {
    poll: Poll,
    listener: TcpListener,
    reserve: Reserve,
    relay: Option<Relay>,
    pages: Pages,
    limits: AdminLimits,
    stop: Arc<AtomicBool>,
    /// By place; a place is also the token.
    connections: Vec<Option<Connection>>,
    arrivals: u64,
    /// Accepting goes on at this time: there may be more to accept though no event will say so.
    accept_at: Option<Instant>,
}

impl Front {
    pub(super) fn new(
        listener: std::net::TcpListener,
        pages: Pages,
        limits: AdminLimits,
        stop: Arc<AtomicBool>,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let reserve = Reserve::new(&listener, limits.reserve_descriptors)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let front = Self {
            poll,
            listener,
            reserve,
            relay: Some(Relay::start()?),
            pages,
            limits,
            stop,
            connections: (0..limits.connections.max(1)).map(|_| None).collect(),
            arrivals: 0,
            accept_at: None,
        };
        Ok((front, waker))
    }

    /// Serves until it is told to stop. No error ends it.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut sample_at = Instant::now();
        while !self.stop.load(Acquire) {
            let now = Instant::now();
            if now >= sample_at {
                self.pages.sample(now);
                // Never catches up with samples that were missed.
                sample_at = (sample_at + SAMPLE_INTERVAL).max(now);
            }
            let wait = self.next_deadline(sample_at).saturating_duration_since(Instant::now());
            if self.poll.poll(&mut events, Some(wait)).is_err() {
                // Only an interruption can be the cause; never spin on what is not one.
                events.clear();
                std::thread::sleep(Duration::from_millis(1));
            }
            self.turn(&events);
        }
    }

    fn next_deadline(&self, sample_at: Instant) -> Instant {
        let connections = self.connections.iter().flatten().map(Connection::deadline);
        connections.chain(self.accept_at).fold(sample_at, Instant::min)
    }

    fn turn(&mut self, events: &Events) {
        let now = Instant::now();
        let mut accept = self.accept_at.is_some_and(|at| at <= now);
        for event in events {
            match event.token() {
                LISTENER => accept = true,
                WAKER => {}
                Token(token) => {
                    if let Some(Some(connection)) = self.connections.get_mut(token - FIRST) {
                        connection.advance(now, &self.limits);
                    }
                }
            }
        }
        if accept {
            self.accept_at = self.accept(now);
        }
        for place in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[place] {
                connection.expire(now, &self.limits);
            }
        }
        self.answer_all(now);
        for place in 0..self.connections.len() {
            if self.connections[place].as_ref().is_some_and(Connection::is_done) {
                self.close(place);
            }
        }
        self.reserve.refill();
    }

    /// Accepts what waits; when to go on, if that is not for an event to say.
    fn accept(&mut self, now: Instant) -> Option<Instant> {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) => match classify(&error) {
                    AcceptFailure::Empty => return None,
                    AcceptFailure::Passing => {}
                    // The kernel says so before it looks whether anybody waits.
                    AcceptFailure::NoDescriptor if !self.somebody_waits() => return None,
                    AcceptFailure::NoDescriptor => {
                        if !self.reserve.give_up() && !self.evict() {
                            return Some(now + ACCEPT_REST);
                        }
                    }
                    AcceptFailure::Resting => return Some(now + ACCEPT_REST),
                },
            }
        }
        Some(now)
    }

    fn somebody_waits(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
        matches!(poll(&mut listener, Some(&at_once)), Ok(1..))
    }

    fn admit(&mut self, stream: mio::net::TcpStream, now: Instant) {
        let free = |connections: &[Option<Connection>]| connections.iter().position(Option::is_none);
        let mut place = free(&self.connections);
        if place.is_none() {
            self.evict();
            place = free(&self.connections);
        }
        let Some(place) = place else {
            // Every connection has a whole request that is being answered.
            self.reserve.close(abort(stream));
            return;
        };
        self.arrivals += 1;
        let mut connection = Connection::new(stream, self.arrivals, now, &self.limits);
        // A flood of connections that say nothing must cost little, so what is not needed yet waits:
        // who has left already is not even registered.
        connection.advance(now, &self.limits);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(FIRST + place);
        let registered = !connection.is_done()
            && self.poll.registry().register(&mut connection.stream, token, interest).is_ok();
        if registered {
            self.connections[place] = Some(connection);
        } else {
            self.end(connection);
        }
    }

    /// Ends the connection that has the least claim to stay; whether there was one.
    fn evict(&mut self) -> bool {
        let candidates = self.connections.iter().enumerate().filter_map(|(place, connection)| {
            connection.as_ref().filter(|c| c.asked().is_none()).map(|c| (c.eviction_order(), place))
        });
        match candidates.min() {
            Some((_, place)) => {
                self.close(place);
                true
            }
            None => false,
        }
    }

    fn close(&mut self, place: usize) {
        let Some(connection) = self.connections[place].take() else {
            return;
        };
        self.end(connection);
    }

    /// Closes a connection, which takes it out of the epoll too: nobody else holds its socket.
    fn end(&mut self, connection: Connection) {
        let settled = connection.is_settled();
        let stream = connection.stream;
        self.reserve.close(if settled { stream.into() } else { abort(stream) });
    }

    /// Answers every whole request. Those for the same page share one answer: each had arrived
    /// before it was made.
    fn answer_all(&mut self, now: Instant) {
        let mut made: HashMap<Request, Arc<[u8]>> = HashMap::new();
        for place in 0..self.connections.len() {
            let Some(request) = self.connections[place].as_ref().and_then(|c| c.asked().cloned()) else {
                continue;
            };
            let answer = match made.get(&request) {
                Some(answer) => Arc::clone(answer),
                None => self.make(&request),
            };
            if let Some(connection) = &mut self.connections[place] {
                connection.answer(Arc::clone(&answer));
                connection.advance(now, &self.limits);
            }
            made.insert(request, answer);
        }
    }

    /// Has one answer made; a relay that failed is replaced.
    fn make(&mut self, request: &Request) -> Arc<[u8]> {
        for _ in 0..2 {
            if self.relay.is_none() {
                self.relay = Relay::start().ok();
            }
            let Some(relay) = &mut self.relay else {
                break;
            };
            match relay.answer(request, |target| self.pages.answer(target)) {
                Ok(answer) => return answer.into(),
                Err(_) => self.relay = None,
            }
        }
        Refusal::Unavailable.response(request.head).into()
    }
}

/// Makes the close of a connection a reset, which leaves nothing behind.
fn abort(stream: mio::net::TcpStream) -> OwnedFd {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    stream.into()
}

#[derive(Debug, PartialEq, Eq)]
enum AcceptFailure {
    /// Nothing waits.
    Empty,
    /// This one was lost; the next may be well.
    Passing,
    /// The process or the system has no descriptor left.
    NoDescriptor,
    /// Anything else: try again later.
    Resting,
}

fn classify(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => AcceptFailure::Empty,
        Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => AcceptFailure::Passing,
        Some(libc::EMFILE | libc::ENFILE) => AcceptFailure::NoDescriptor,
        _ => AcceptFailure::Resting,
    }
}
