//! Clients that misbehave on purpose: floods of connections, silent clients, slow senders and slow readers.

use super::clock::{Nanos, nanos};
use super::load::Loader;
use super::outcome::Outcome;
use super::phase::Phase;
use super::plan::Mode;
use super::slot::State;
use super::timers::Wait;
use super::websocket::Unasked;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

/// Reads in a row of what the server says to a silent client.
const DISCARDS: usize = 64;
/// The most bytes of requests that a slow reader sends at once: more than the kernel takes for a peer that does not
/// read.
const FILL: usize = 4 << 20;
/// The most bytes of short requests that go out together in one system call.
const BATCH: usize = 64 << 10;

impl Loader<'_> {
    /// A connection stands, and its mode takes over.
    pub(super) fn enter_mode(&mut self, i: usize, now: Nanos) {
        if self.plan.mode.stays() && self.phase != Phase::Running {
            // It stands after the end: there is nothing left to stay for.
            return self.complete(i, Outcome::Ok, false, now);
        }
        match self.plan.mode {
            Mode::Request => {}
            Mode::ConnectFlood => return self.complete(i, Outcome::Ok, false, now),
            Mode::Hold => self.slots[i].state = State::Holding,
            Mode::SlowSend => {
                self.slots[i].state = State::Dripping;
                self.wake_at(i, now);
            }
            Mode::SlowRead => {
                self.slots[i].state = State::Sipping;
                self.wake_at(i, now + nanos(self.plan.drip));
                self.timeouts.clear(i);
                return self.fill(i);
            }
        }
        self.timeouts.clear(i);
    }

    /// Something happened to a connection in its mode.
    pub(super) fn on_mode_event(&mut self, i: usize, flags: EventFlags, ended: bool) {
        match self.slots[i].state {
            State::Sipping if !ended => {
                if flags.contains(EventFlags::OUT) {
                    self.fill(i);
                }
            }
            // A slow reader leaves the server's bytes, but its end counts.
            State::Sipping => self.ended_by_server(i),
            // A reply may begin, or be whole, before its request is: an echo, or a word of refusal.
            State::Dripping => self.read_again(i, ended),
            _ => self.discard(i),
        }
    }

    /// A byte's time has come.
    pub(super) fn on_mode_wake(&mut self, i: usize, now: Nanos) {
        let next = now + nanos(self.plan.drip);
        if self.slots[i].state == State::Sipping {
            match self.slots[i].receive(&mut self.buffer[..1]) {
                Ok(0) => return self.ended_by_server(i),
                Ok(_) => self.recorder.connections().bytes_received += 1,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return self.failed(i, error),
            }
            self.wake_at(i, next);
            return self.fill(i);
        }
        let slot = &mut self.slots[i];
        let request = self.plan.wire.request(slot.payload);
        if let Some(byte) = request.get(slot.sent..slot.sent + 1) {
            match slot.send(byte) {
                Ok(sent) => {
                    slot.sent += sent;
                    self.recorder.connections().bytes_sent += sent as u64;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error @ (Errno::PIPE | Errno::CONNRESET)) => return self.read_last(i, error),
                Err(error) => return self.failed(i, error),
            }
        }
        if self.slots[i].sent < request.len() {
            self.wake_at(i, next);
        } else {
            // All of it is out: from here on it is a request like any other.
            self.slots[i].state = State::Busy;
            self.slots[i].whole = true;
            self.slots[i].sent_at = now;
            self.timeouts.set(i, Wait::Reply, now);
            self.read_again(i, false);
        }
    }

    /// Sends requests until the kernel takes no more, without reading their replies.
    fn fill(&mut self, i: usize) {
        let mut filled = 0;
        while filled < FILL {
            let slot = &mut self.slots[i];
            let request = self.plan.wire.request(slot.payload);
            if request.is_empty() {
                return;
            }
            let bytes = match request.len() {
                BATCH.. => &request[slot.sent..],
                _ => {
                    let batch = &mut self.buffer[..BATCH];
                    let again = request.iter().cycle().skip(slot.sent);
                    batch.iter_mut().zip(again).for_each(|(to, from)| *to = *from);
                    &*batch
                }
            };
            match slot.send(bytes) {
                Ok(sent) => {
                    filled += sent;
                    slot.sent = (slot.sent + sent) % request.len();
                    self.recorder.connections().bytes_sent += sent as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => return self.failed(i, error),
            }
        }
    }

    /// Reads and drops what the server says to a silent client, up to its end.
    fn discard(&mut self, i: usize) {
        for _ in 0..DISCARDS {
            match self.slots[i].receive(&mut self.buffer) {
                Ok(0) => return self.ended_by_server(i),
                Ok(got) => {
                    self.recorder.connections().bytes_received += got as u64;
                    if self.plan.wire.socket().is_some() {
                        let over = self.slots[i].reply.of_socket().unasked(&self.buffer[..got]);
                        self.send_pongs(i);
                        if over == Unasked::Over {
                            return self.ended_by_server(i);
                        }
                    } else if self.says_busy(got) {
                        let now = self.clock.now();
                        return self.complete(i, Outcome::Busy, false, now);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => return self.failed(i, error),
            }
        }
    }

    fn says_busy(&self, got: usize) -> bool {
        let busy = self.plan.wire.busy.as_deref();
        busy.is_some_and(|text| self.buffer[..got].starts_with(text))
    }

    /// The server has ended a connection that the mode wanted to go on.
    fn ended_by_server(&mut self, i: usize) {
        let reset = match &self.slots[i].fd {
            Some(fd) => super::socket::error(fd).is_err(),
            None => false,
        };
        let now = self.clock.now();
        let outcome = if reset { Outcome::Reset } else { Outcome::EofEarly };
        self.complete(i, outcome, false, now);
    }

    /// The run's time is over: what is still held has done what it should.
    pub(super) fn end_mode(&mut self, now: Nanos) {
        for i in 0..self.slots.len() {
            if self.slots[i].state.stays() && self.slots[i].requesting {
                self.complete(i, Outcome::Ok, false, now);
            }
        }
    }
}
