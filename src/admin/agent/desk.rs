//! The thread of the agent: one epoll, few connections, each answered the moment it is accepted.

use super::super::front::{ACCEPT_REST, AcceptFailure, abort, classify, somebody_waits};
use super::super::limits::AgentLimits;
use super::super::reserve::Reserve;
use super::capacity::{Advice, Capacity};
use crate::contain::contain;
use crate::metrics::process::AGENT;
use crate::metrics::snapshot::Observe;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST: usize = 2;

/// How often the server is read while balancers ask. Between two readings each is told the same.
const READ_EVERY: Duration = Duration::from_millis(100);
/// It is read no more when nobody has asked for this time.
const ASLEEP_AFTER: Duration = Duration::from_secs(10);
/// The deadline of a wait that nothing else ends.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// For how long after its first question a balancer is told that this server is ready. HAProxy lets a server that has
/// once said `drain` have clients again only when it says so; said for ever, it would undo what an operator has set there.
const READY_FOR: Duration = Duration::from_secs(60);
/// How many balancers are remembered; one that is forgotten is told once more that the server is ready.
const BALANCERS_MAX: usize = 64;
/// How much is read and thrown away of what a balancer says.
const INPUT_MAX: usize = 4096;
/// How many connections are accepted before the others are looked at.
const ACCEPTS_MAX: usize = 64;

/// A connection that has had its answer.
#[derive(Debug)]
struct ToldBalancer {
    stream: TcpStream,
    until: Instant,
    read: usize,
    over: bool,
}

/// The state of the thread.
pub(super) struct Desk {
    poll: Poll,
    listener: TcpListener,
    reserve: Reserve,
    observe: Arc<dyn Observe>,
    limits: AgentLimits,
    stop: Arc<AtomicBool>,
    /// By place; a place is also the token.
    answered: Vec<Option<ToldBalancer>>,
    capacity: Capacity,
    advice: Advice,
    read_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// Each balancer, and when it asked first.
    balancers: VecDeque<(IpAddr, Instant)>,
    /// When there may be more to accept though no event will say so.
    accept_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(
        listener: std::net::TcpListener,
        observe: Arc<dyn Observe>,
        limits: AgentLimits,
        stop: Arc<AtomicBool>,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let reserve = Reserve::new(&listener, limits.reserve_descriptors)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let desk = Self {
            poll,
            listener,
            reserve,
            observe,
            answered: (0..limits.connections.max(1)).map(|_| None).collect(),
            limits,
            stop,
            capacity: Capacity::default(),
            advice: Advice::Down("starting"),
            read_at: None,
            asked_at: None,
            balancers: VecDeque::new(),
            accept_at: None,
        };
        Ok((desk, waker))
    }

    /// Answers until it is told to stop. No error ends it.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.stop.load(Acquire) {
            let now = Instant::now();
            let wait = self.next_deadline(now).saturating_duration_since(now);
            if self.poll.poll(&mut events, Some(wait)).is_err() {
                // Only an interruption can be the cause; never spin on what is not one.
                events.clear();
                std::thread::sleep(Duration::from_millis(1));
            }
            self.turn(&events);
        }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let ends = self.answered.iter().flatten().map(|one| one.until);
        let reading = match (self.asked_at, self.read_at) {
            (Some(asked), Some(read)) if now < asked + ASLEEP_AFTER => Some(read + READ_EVERY),
            _ => None,
        };
        ends.chain(reading).chain(self.accept_at).fold(now + SLEEP_MAX, Instant::min)
    }

    fn turn(&mut self, events: &Events) {
        let now = Instant::now();
        let mut accept = self.accept_at.is_some_and(|at| at <= now);
        for event in events {
            match event.token() {
                LISTENER => accept = true,
                WAKER => {}
                Token(token) => {
                    if let Some(Some(one)) = self.answered.get_mut(token - FIRST) {
                        one.discard();
                    }
                }
            }
        }
        let awake = self.asked_at.is_some_and(|asked| now < asked + ASLEEP_AFTER);
        if accept || awake {
            self.read(now);
        }
        if accept {
            self.accept_at = self.accept(now);
        }
        for place in 0..self.answered.len() {
            if self.answered[place].as_ref().is_some_and(|one| one.over || one.until <= now) {
                self.close(place);
            }
        }
        self.reserve.refill();
    }

    /// Reads the server, unless it was read a moment ago. A service's own code may be called for it: should it panic, the
    /// last answer stands.
    fn read(&mut self, now: Instant) {
        if self.read_at.is_some_and(|at| now < at + READ_EVERY) {
            return;
        }
        self.read_at = Some(now);
        let (capacity, observe) = (&mut self.capacity, &self.observe);
        if let Ok(advice) = contain(|| capacity.read(now, &observe.snapshot())) {
            self.advice = advice;
            AGENT.says(match advice {
                Advice::Up(percent) => percent,
                Advice::Drain | Advice::Down(_) => 0,
            });
        }
    }

    /// Accepts who waits; when to look again, if no event will say so.
    fn accept(&mut self, now: Instant) -> Option<Instant> {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((stream, from)) => self.answer(stream, from.ip().to_canonical(), now),
                Err(error) => match classify(&error) {
                    AcceptFailure::Empty => return None,
                    AcceptFailure::Passing => {}
                    // The kernel says so before it looks whether anybody waits.
                    AcceptFailure::NoDescriptor if !somebody_waits(&self.listener) => return None,
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

    /// Answers a newcomer. A line of this length always fits into the buffer of a new connection.
    fn answer(&mut self, mut stream: TcpStream, from: IpAddr, now: Instant) {
        self.asked_at = Some(now);
        let line = self.line(from, now);
        if !stream.write(line.as_bytes()).is_ok_and(|taken| taken == line.len()) {
            self.reserve.close(abort(stream));
            return;
        }
        AGENT.answered(match self.advice {
            Advice::Up(_) => 0,
            Advice::Drain => 1,
            Advice::Down(_) => 2,
        });
        let _ = stream.shutdown(Shutdown::Write);
        let mut one = ToldBalancer { stream, until: now + self.limits.total_time, read: 0, over: false };
        one.discard();
        if one.over {
            self.reserve.close(one.stream.into());
            return;
        }
        let place = match self.answered.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                self.evict();
                self.answered.iter().position(Option::is_none).unwrap_or(0)
            }
        };
        if self.poll.registry().register(&mut one.stream, Token(FIRST + place), Interest::READABLE).is_ok() {
            self.answered[place] = Some(one);
        } else {
            self.reserve.close(one.stream.into());
        }
    }

    /// The line for this balancer.
    fn line(&mut self, from: IpAddr, now: Instant) -> String {
        let first = match self.balancers.iter().find(|(known, _)| *known == from) {
            Some(&(_, first)) => first,
            None => {
                if self.balancers.len() == BALANCERS_MAX {
                    self.balancers.pop_front();
                }
                self.balancers.push_back((from, now));
                now
            }
        };
        let ready = if now < first + READY_FOR { "ready " } else { "" };
        match self.advice {
            Advice::Up(percent) => format!("up {ready}{percent}%\n"),
            Advice::Drain => "drain\n".to_owned(),
            Advice::Down(why) => format!("down #{why}\n"),
        }
    }

    /// Ends the oldest connection; whether there was one.
    fn evict(&mut self) -> bool {
        let held = self.answered.iter().enumerate();
        let oldest = held.filter_map(|(place, one)| Some((one.as_ref()?.until, place))).min();
        oldest.is_some_and(|(_, place)| {
            self.close(place);
            true
        })
    }

    /// Closes a connection, which takes it out of the epoll too: nobody else holds its socket.
    fn close(&mut self, place: usize) {
        if let Some(one) = self.answered[place].take() {
            self.reserve.close(one.stream.into());
        }
    }
}

impl ToldBalancer {
    /// Throws away what has come, so that a close does not take the answer with it.
    fn discard(&mut self) {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    self.read += n;
                    if self.read > INPUT_MAX {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.over = true;
    }
}
