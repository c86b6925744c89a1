//! The bounded front: the only part of the admin endpoint that meets the outside.
//!
//! One thread and one epoll. When every place is taken, the newest connection gets in and the oldest one that is not
//! being served goes. A connection is being served while its request is on its way or its answer is being taken, each
//! for a fraction of a second; while every place is taken by such connections, newcomers wait in the kernel.

use super::connection::AdminConnection;
use super::limits::Rules;
use super::link::{AdminAnswer, PrivateLink};
use super::pages::Pages;
use super::request::{AdminRequest, Rejected};
use super::reserve::Reserve;
use crate::contain::contain;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;

/// How often the history is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long accepting rests after an error that will not pass by itself.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(10);
/// How many connections are accepted before the others get their turn.
const ACCEPTS_MAX: usize = 256;

/// When there may be more to accept though no event will say so.
#[derive(Clone, Copy, Debug)]
enum More {
    /// An event will say so.
    None,
    At(Instant),
    /// When there is a place, and at this time at the latest.
    WhenRoom(Instant),
}

impl More {
    fn at(self) -> Option<Instant> {
        match self {
            More::None => None,
            More::At(at) | More::WhenRoom(at) => Some(at),
        }
    }
}

/// The front's state; [`Front::run`] is its thread.
pub(super) struct Front {
    poll: Poll,
    listener: TcpListener,
    reserve: Reserve,
    link: Option<PrivateLink>,
    pages: Pages,
    rules: Rules,
    stop: Arc<AtomicBool>,
    /// By place; a place is also the token.
    connections: Vec<Option<AdminConnection>>,
    arrivals: u64,
    more: More,
}

impl Front {
    pub(super) fn new(
        listener: std::net::TcpListener,
        pages: Pages,
        rules: Rules,
        stop: Arc<AtomicBool>,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let reserve = Reserve::new(&listener, rules.limits.reserve_descriptors)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let front = Self {
            poll,
            listener,
            reserve,
            link: Some(PrivateLink::start()?),
            pages,
            connections: (0..rules.limits.connections.max(1)).map(|_| None).collect(),
            rules,
            stop,
            arrivals: 0,
            more: More::None,
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
                // A service's own code may be called for a sample: should it panic, the next one comes in a second.
                let _ = contain(|| self.pages.sample(now));
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
        let connections = self.connections.iter().flatten().map(AdminConnection::deadline);
        connections.chain(self.more.at()).fold(sample_at, Instant::min)
    }

    fn turn(&mut self, events: &Events) {
        let now = Instant::now();
        let mut accept = self.more.at().is_some_and(|at| at <= now);
        for event in events {
            match event.token() {
                LISTENER => accept = true,
                WAKER => {}
                Token(token) => {
                    if let Some(Some(connection)) = self.connections.get_mut(token - FIRST) {
                        connection.advance(now, &self.rules);
                    }
                }
            }
        }
        if accept {
            self.more = self.accept(now);
        }
        for connection in self.connections.iter_mut().flatten() {
            connection.expire(now, &self.rules);
        }
        self.answer_all(now);
        for place in 0..self.connections.len() {
            if self.connections[place].as_ref().is_some_and(AdminConnection::is_done) {
                self.close(place);
            }
        }
        if matches!(self.more, More::WhenRoom(_)) && self.has_room(now) {
            self.more = More::At(now);
        }
        self.reserve.refill();
    }

    /// Whether a newcomer could have a place.
    fn has_room(&self, now: Instant) -> bool {
        let served =
            |connection: &AdminConnection| connection.protected_until(false).is_some_and(|at| at > now);
        !self.connections.iter().all(|connection| connection.as_ref().is_some_and(served))
    }

    /// Accepts what waits.
    fn accept(&mut self, now: Instant) -> More {
        for _ in 0..ACCEPTS_MAX {
            if self.free_place().is_none() {
                if !somebody_waits(&self.listener) {
                    return More::None;
                }
                if let Err(full_until) = self.evict(now) {
                    return More::WhenRoom(full_until);
                }
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) => match classify(&error) {
                    AcceptFailure::Empty => return More::None,
                    AcceptFailure::Passing => {}
                    // The kernel says so before it looks whether anybody waits.
                    AcceptFailure::NoDescriptor if !somebody_waits(&self.listener) => return More::None,
                    AcceptFailure::NoDescriptor => {
                        if !self.reserve.give_up() && self.evict(now).is_err() {
                            return More::At(now + ACCEPT_REST);
                        }
                    }
                    AcceptFailure::Resting => return More::At(now + ACCEPT_REST),
                },
            }
        }
        More::At(now)
    }

    fn free_place(&self) -> Option<usize> {
        self.connections.iter().position(Option::is_none)
    }

    fn admit(&mut self, stream: mio::net::TcpStream, now: Instant) {
        let Some(place) = self.free_place() else {
            self.reserve.close(abort(stream));
            return;
        };
        self.arrivals += 1;
        let mut connection = AdminConnection::new(stream, self.arrivals, now, &self.rules);
        // A flood of connections that say nothing must cost little, so what is not needed yet waits:
        // who has left already is not even registered.
        connection.advance(now, &self.rules);
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

    /// Ends the connection that has the least claim to stay, if there is one that is not being served; else says
    /// when there will be.
    fn evict(&mut self, now: Instant) -> Result<(), Instant> {
        let backlog = crate::metrics::kernel::listen_backlog(self.listener.as_fd());
        let crowded = backlog.is_some_and(|backlog| backlog.connections > self.connections.len() as u64);
        let mut candidates = Vec::with_capacity(self.connections.len());
        let mut first_end = now + SAMPLE_INTERVAL;
        for (place, connection) in self.connections.iter().enumerate() {
            let Some(connection) = connection else { continue };
            match connection.protected_until(crowded).filter(|&until| until > now) {
                Some(until) => first_end = first_end.min(until),
                None => candidates.push((connection.eviction_order(), place)),
            }
        }
        let (_, place) = candidates.into_iter().min().ok_or(first_end)?;
        self.close(place);
        Ok(())
    }

    fn close(&mut self, place: usize) {
        let Some(connection) = self.connections[place].take() else {
            return;
        };
        self.end(connection);
    }

    /// Closes a connection, which takes it out of the epoll too: nobody else holds its socket.
    fn end(&mut self, connection: AdminConnection) {
        let settled = connection.is_settled();
        let stream = connection.stream;
        self.reserve.close(if settled { stream.into() } else { abort(stream) });
    }

    /// Answers every whole request. Those for the same page share one answer: each had arrived
    /// before it was made.
    fn answer_all(&mut self, now: Instant) {
        let mut made: HashMap<AdminRequest, Arc<[u8]>> = HashMap::new();
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
                connection.advance(now, &self.rules);
            }
            made.insert(request, answer);
        }
    }

    /// Has one answer made; a link that failed is replaced.
    fn make(&mut self, request: &AdminRequest) -> Arc<[u8]> {
        if request.reload {
            let answer = contain(|| self.pages.reload());
            return answer.unwrap_or_else(|_| Rejected::Unavailable.response(false)).into();
        }
        for _ in 0..2 {
            if self.link.is_none() {
                self.link = PrivateLink::start().ok();
            }
            let Some(link) = &mut self.link else {
                break;
            };
            match link.answer(request, |target| answer_or_panic(&self.pages, target, request.html)) {
                Ok(answer) => return answer.into(),
                Err(_) => self.link = None,
            }
        }
        Rejected::Unavailable.response(request.head).into()
    }
}

/// Makes an answer. It may call a service's own code, whose panic must not end this thread.
fn answer_or_panic(pages: &Pages, target: &str, html: bool) -> AdminAnswer {
    contain(|| pages.answer(target, html)).unwrap_or_else(|_| Pages::panicked())
}

/// Whether a client waits to be accepted.
pub(super) fn somebody_waits(listener: &TcpListener) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut listener = [PollFd::new(listener, PollFlags::IN)];
    matches!(poll(&mut listener, Some(&at_once)), Ok(1..))
}

/// Makes the close of a connection a reset, which leaves nothing behind.
pub(super) fn abort(stream: mio::net::TcpStream) -> OwnedFd {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    stream.into()
}

/// Why nobody was accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AcceptFailure {
    /// Nothing waits.
    Empty,
    /// This one was lost; the next may be well.
    Passing,
    /// The process or the system has no descriptor left.
    NoDescriptor,
    /// Anything else: try again later.
    Resting,
}

/// What follows from an error of accept.
pub(super) fn classify(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => AcceptFailure::Empty,
        Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => AcceptFailure::Passing,
        Some(libc::EMFILE | libc::ENFILE) => AcceptFailure::NoDescriptor,
        _ => AcceptFailure::Resting,
    }
}
