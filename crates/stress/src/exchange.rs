//! The steps of one client: connect, send, read, end, and again.
//!
//! ```text
//! begin -> connect -> established -> flush -> read -> complete -> release -> (closed loop) begin
//! ```
//! A failure at any step ends in `complete` too, with its outcome.

use super::arrive::LATE;
use super::clock::{NEVER, Nanos, nanos};
use super::load::{Loader, OPENING, RETRY};
use super::outcome::Outcome;
use super::phase::Phase;
use super::plan::{Mode, Pace, Reuse, Think};
use super::slot::{Slot, State};
use super::socket;
use super::step::Step;
use super::timers::Wait;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

/// The run ends when this many connections have failed and none was ever established; with more clients than this, when
/// as many have failed as there are clients, up to [`OPENING`].
const HOPELESS: usize = 10;
/// Between two tries to connect to a Unix socket whose backlog is full.
const KNOCK: Nanos = 1_000_000;
/// The most reads of one connection in a row; then other connections have their turn.
pub(super) const READS: usize = 64;

impl Loader<'_> {
    /// Opens a connection before the run begins.
    pub(super) fn open_ahead(&mut self, i: usize) {
        let now = self.clock.now();
        self.opening += 1;
        match self.connect(i, now) {
            Ok(()) if self.plan.is_datagram() => {
                self.opening -= 1;
                self.slots[i].state = State::Idle;
            }
            Ok(()) => {}
            Err(error) => self.open_failed(i, socket::outcome(error, true), now),
        }
    }

    pub(super) fn open_failed(&mut self, i: usize, outcome: Outcome, now: Nanos) {
        self.opening -= 1;
        self.timeouts.clear(i);
        self.recorder.connections().open_failed += 1;
        self.connect_failed(i, outcome, now);
        self.disconnect(i);
    }

    /// A closed loop's next request.
    fn begin_closed(&mut self, i: usize, now: Nanos) {
        if self.phase != Phase::Running || now >= self.stop_at || self.quota == 0 {
            return;
        }
        let measured = now >= self.measure_from;
        self.quota -= u64::from(measured && self.quota != NEVER);
        self.recorder.offered(measured, now);
        self.begin(i, now, now);
    }

    /// Begins a request that was intended for an instant, on a slot that has none under way.
    pub(super) fn begin(&mut self, i: usize, intended: Nanos, now: Nanos) {
        let slot = &mut self.slots[i];
        slot.requesting = true;
        slot.intended = intended;
        slot.sent = 0;
        slot.whole = false;
        slot.sent_at = NEVER;
        slot.payload = self.next_payload;
        self.next_payload = self.next_payload.wrapping_add(self.plan.threads);
        self.in_flight += 1;
        match (slot.fd.is_some(), self.plan.mode) {
            (true, Mode::Request) => return self.send_first(i, now),
            // A slow sender is as slow with its next request.
            (true, _) => return self.enter_mode(i, now),
            (false, _) => {}
        }
        if let Err(error) = self.connect(i, now) {
            return self.failed(i, error);
        }
        if self.plan.is_datagram() {
            self.send_first(i, now);
        } else if self.plan.mode == Mode::Request
            && self.slots[i].state == State::Connecting
            && !self.plan.has_handshake()
        {
            // On a fast path the connection stands before connect() is back: sending tells, at once.
            let now = self.clock.now();
            self.flush(i, now);
        }
    }

    /// Opens a socket, and waits for its connection.
    fn connect(&mut self, i: usize, now: Nanos) -> Result<(), Errno> {
        let source = self.plan.sources.map(|sources| sources.get(self.source_of(i)));
        let slot = &mut self.slots[i];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Connecting;
        slot.connecting_since = now;
        slot.used = 0;
        slot.unread = false;
        slot.tls = None;
        if self.plan.wire.socket().is_some() {
            slot.reply.forget();
        }
        slot.fd = Some(socket::open(self.plan, source)?);
        if !self.plan.is_datagram() {
            self.timeouts.set(i, Wait::Connect, now);
        }
        self.knock(i, now)
    }

    /// Which of the source addresses the slot's next connection comes from. Where connections stand, each client keeps
    /// its address; where they come and go, they go through all of them.
    fn source_of(&mut self, i: usize) -> u64 {
        if self.plan.opens_ahead() {
            return self.first_source + i as u64;
        }
        self.next_source = self.next_source.wrapping_add(1);
        self.next_source - 1
    }

    /// Begins to connect the slot's socket, or has it tried again.
    fn knock(&mut self, i: usize, now: Nanos) -> Result<(), Errno> {
        let slot = &mut self.slots[i];
        let Some(fd) = &slot.fd else { return Ok(()) };
        if socket::connect(self.plan, fd)? {
            let token = u64::from(slot.generation) << 32 | i as u64;
            slot.state = State::Connecting;
            return socket::register(&self.epoll, fd, self.plan.is_datagram(), token);
        }
        slot.state = State::Knocking;
        self.wake_at(i, now + KNOCK);
        Ok(())
    }

    /// It is time to try again.
    fn knock_again(&mut self, i: usize, now: Nanos) {
        match self.knock(i, now) {
            Ok(()) => {}
            Err(error) if self.slots[i].requesting => self.failed(i, error),
            Err(error) => self.open_failed(i, socket::outcome(error, true), now),
        }
    }

    /// The connection stands since `now`.
    fn established(&mut self, i: usize, now: Nanos) {
        if !self.established {
            self.established = true;
            self.control.establish();
        }
        let since = self.slots[i].connecting_since;
        self.recorder.connected(now.saturating_sub(since), false);
        if !self.slots[i].requesting {
            self.opening -= 1;
            self.timeouts.clear(i);
            self.slots[i].state = State::Idle;
        } else if self.plan.mode != Mode::Request {
            self.enter_mode(i, now);
        }
    }

    /// Sends the first bytes of a request on a connection that stands.
    pub(super) fn send_first(&mut self, i: usize, now: Nanos) {
        let slot = &mut self.slots[i];
        slot.state = State::Busy;
        slot.sent_at = now;
        self.timeouts.set(i, Wait::Reply, now);
        if self.plan.is_datagram() {
            return self.send_datagram(i);
        }
        let unread = std::mem::take(&mut slot.unread);
        self.flush(i, now);
        if unread && self.slots[i].state == State::Busy {
            self.read(i, false);
        }
    }

    /// Sends as much of the request as the kernel takes. On a connection that does not stand yet, success
    /// means that it stands since `now`.
    fn flush(&mut self, i: usize, now: Nanos) {
        loop {
            let slot = &mut self.slots[i];
            let request = self.plan.wire.request(slot.payload);
            slot.whole = slot.sent == request.len();
            if slot.whole && slot.state == State::Busy {
                return;
            }
            match slot.send(&request[slot.sent..]) {
                Ok(sent) => {
                    slot.sent += sent;
                    slot.whole = slot.sent == request.len();
                    let whole = slot.whole;
                    self.recorder.connections().bytes_sent += sent as u64;
                    if slot.state == State::Connecting {
                        self.established(i, now);
                        self.slots[i].state = State::Busy;
                        self.slots[i].sent_at = now;
                        self.timeouts.set(i, Wait::Reply, now);
                    }
                    if whole {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::PIPE | Errno::CONNRESET)) if slot.state == State::Busy => {
                    return self.read_last(i, error);
                }
                Err(error) => return self.failed(i, error),
            }
        }
    }

    /// Something happened to a socket.
    pub(super) fn on_event(&mut self, token: u64, flags: EventFlags) {
        let i = (token & u64::from(u32::MAX)) as usize;
        let slot = &mut self.slots[i];
        if u64::from(slot.generation) != token >> 32 || slot.fd.is_none() {
            return;
        }
        if self.plan.is_datagram() {
            return self.read_datagrams(i);
        }
        if flags.contains(EventFlags::OUT) {
            slot.flush();
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let readable = ended || flags.contains(EventFlags::IN);
        match slot.state {
            State::Connecting if ended || flags.contains(EventFlags::OUT) => {
                self.on_connected(i, readable, ended);
            }
            State::Idle if ended => {
                self.recorder.connections().closed_idle += 1;
                self.disconnect(i);
            }
            State::Shaking => self.shake(i, ended),
            State::Greeting => self.on_greeting_event(i, flags, readable, ended),
            State::Idle if readable && self.plan.wire.socket().is_some() => {
                if self.hear_unasked(i) {
                    self.recorder.connections().closed_idle += 1;
                    self.disconnect(i);
                }
            }
            State::Idle => slot.unread |= readable,
            State::Busy => {
                // Edges report room on every event; it matters while there is something to send.
                if !slot.whole && flags.contains(EventFlags::OUT) {
                    let now = self.clock.now();
                    self.flush(i, now);
                }
                if readable && self.slots[i].state == State::Busy {
                    self.read(i, ended);
                }
            }
            State::Closing if ended => {
                self.timeouts.clear(i);
                self.disconnect(i);
                let now = self.clock.now();
                self.release(i, false, now);
            }
            State::Holding | State::Dripping | State::Sipping => self.on_mode_event(i, flags, ended),
            State::Connecting | State::Knocking | State::Closing | State::Vacant => {}
        }
    }

    fn on_connected(&mut self, i: usize, readable: bool, ended: bool) {
        let Some(fd) = &self.slots[i].fd else { return };
        let now = self.clock.now();
        if let Err(error) = socket::error(fd) {
            if self.slots[i].requesting {
                return self.failed(i, error);
            }
            return self.open_failed(i, socket::outcome(error, true), now);
        }
        if self.plan.tls.is_some() {
            return self.begin_tls(i, now, ended);
        }
        if self.plan.wire.socket().is_some() {
            return self.greet(i);
        }
        self.welcome(i, now, readable, ended);
    }

    /// A connection is ready for requests.
    pub(super) fn welcome(&mut self, i: usize, now: Nanos, readable: bool, ended: bool) {
        self.established(i, now);
        if self.slots[i].requesting && self.plan.mode == Mode::Request {
            self.send_first(i, now);
            if readable && self.slots[i].state == State::Busy {
                self.read(i, ended);
            }
        } else if self.slots[i].state == State::Idle {
            self.slots[i].unread = readable;
        } else if readable && self.slots[i].state.stays() {
            // As an edge it would not be reported again.
            self.on_mode_event(i, EventFlags::empty(), ended);
        }
    }

    /// Reads what has come of a reply. `ended`: the server has ended the connection, perhaps after it.
    fn read(&mut self, i: usize, ended: bool) {
        self.read_until(i, ended, Outcome::EofEarly);
    }

    /// Reads what came before sending failed: the server may have said why it hung up, and a busy reply is worth
    /// reading. The error is told only once, so that reading sees no more than an end.
    pub(super) fn read_last(&mut self, i: usize, error: Errno) {
        let early = if error == Errno::CONNRESET { Outcome::Reset } else { Outcome::EofEarly };
        self.read_until(i, true, early);
    }

    /// Reads it, where an end before the whole reply means `early`.
    fn read_until(&mut self, i: usize, ended: bool, early: Outcome) {
        for _ in 0..READS {
            let slot = &mut self.slots[i];
            let got = match slot.receive(&mut self.buffer) {
                Ok(got) => got,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(error) => return self.failed(i, error),
            };
            let now = self.clock.now();
            self.read_at = Some(now);
            // What TLS gives is a record, and there may be more of them.
            let is_plain = slot.tls.is_none();
            let step = if got == 0 {
                // Only an end in order can be the end of a reply.
                let end = match early {
                    Outcome::Reset => None,
                    _ => self.plan.wire.end(&mut slot.reply),
                };
                end.unwrap_or(Step::Done(early, false))
            } else {
                self.recorder.connections().bytes_received += got as u64;
                let request = self.plan.wire.request(slot.payload);
                let step = self.plan.wire.read(&mut slot.reply, request, &self.buffer[..got]);
                if self.plan.wire.socket().is_some() {
                    self.send_pongs(i);
                }
                step
            };
            match step {
                Step::Done(outcome, keep) => {
                    let slot = &mut self.slots[i];
                    if let Some(answer) = self.plan.wire.answer(&slot.reply) {
                        self.recorder.answered(slot.intended >= self.measure_from, answer);
                    }
                    // A whole reply to half a request leaves the connection out of step.
                    let keep = keep && !ended && slot.whole;
                    return self.complete(i, outcome, keep, now);
                }
                Step::More if got < self.buffer.len() && !ended && is_plain => return,
                Step::More => {}
            }
        }
        // Still more to read: as an edge it would not be reported again, so the slot wakes itself.
        let now = self.clock.now();
        self.wake_at(i, now);
    }

    /// Reads once more what may have come before the slot began to look.
    pub(super) fn read_again(&mut self, i: usize, ended: bool) {
        self.read(i, ended);
    }

    /// A system call on the slot's connection failed.
    pub(super) fn failed(&mut self, i: usize, error: Errno) {
        let connecting = self.slots[i].state.is_connecting();
        let now = self.clock.now();
        self.complete(i, socket::outcome(error, connecting), false, now);
    }

    /// A request has ended.
    pub(super) fn complete(&mut self, i: usize, outcome: Outcome, keep: bool, now: Nanos) {
        let outcome = self.whose(i, outcome);
        self.timeouts.clear(i);
        self.in_flight -= 1;
        let slot = &mut self.slots[i];
        slot.requesting = false;
        slot.reply.reset();
        slot.used = slot.used.saturating_add(1);
        let timed = matches!(self.plan.mode, Mode::Request | Mode::ConnectFlood);
        let response = timed.then(|| now.saturating_sub(slot.intended));
        let service = (timed && slot.sent_at != NEVER).then(|| now.saturating_sub(slot.sent_at));
        let measured = slot.intended >= self.measure_from;
        self.recorder.ended(measured, outcome, now, response, service);
        if outcome == Outcome::Ok {
            self.note_reply(i, measured, now);
        }
        let slot = &self.slots[i];
        let fresh = match self.plan.reuse {
            Reuse::Forever => true,
            Reuse::Times(times) => slot.used < times,
        };
        if slot.state.is_connecting() || outcome == Outcome::Refused {
            self.connect_failed(i, outcome, now);
        }
        let good = matches!(outcome, Outcome::Ok | Outcome::Busy);
        if keep && fresh {
            self.slots[i].state = State::Idle;
        } else if self.end_connection(i, good, now) {
            return;
        }
        self.release(i, !good, now);
    }

    /// A good reply came: in time, or too late to be of use.
    fn note_reply(&mut self, i: usize, measured: bool, now: Nanos) {
        let useful = !self.is_too_late(i, now);
        if !useful {
            self.recorder.came_too_late(measured);
        }
        if (self.measure_from..=self.stop_at).contains(&now) {
            self.recorder.replied(useful);
        }
    }

    /// Whether the client's patience was over when the reply came. In an open loop it begins at the instant at which the
    /// request was due, so the wait for a connection counts; the timeout, which makes an outcome of its own, begins when
    /// the request is sent. The generator's absences count for neither.
    fn is_too_late(&self, i: usize, now: Nanos) -> bool {
        let Slot { intended, sent_at, .. } = self.slots[i];
        let patience = nanos(self.plan.timeout);
        self.open.is_some()
            && self.plan.mode == Mode::Request
            // One that was sent when it was due was in time for the timeout, and so it was for its client.
            && sent_at.saturating_sub(intended) > LATE
            && now.saturating_sub(intended) > patience.saturating_add(self.presence.away_since(intended))
    }

    /// A server that gave up on a request whose rest had yet to be sent, while this thread was away, waited for the
    /// generator.
    fn whose(&self, i: usize, outcome: Outcome) -> Outcome {
        let cut = matches!(outcome, Outcome::Reset | Outcome::EofEarly | Outcome::TlsFailed);
        let owed = self.plan.mode == Mode::Request && !self.plan.is_datagram() && !self.slots[i].whole;
        match cut && owed && !self.presence.has_caught_up() {
            true => Outcome::GeneratorLate,
            false => outcome,
        }
    }

    /// Counts a connection that was not established, and despairs when none ever is.
    fn connect_failed(&mut self, i: usize, outcome: Outcome, now: Nanos) {
        // The end of the run says nothing of the target.
        if outcome == Outcome::UnansweredAtEnd {
            return;
        }
        // Only what stands can be reset, or say that it is busy: the target exists.
        if matches!(outcome, Outcome::Reset | Outcome::Busy | Outcome::GeneratorLate) {
            self.established = true;
            return self.control.establish();
        }
        if outcome == Outcome::ConnectTimeout {
            let since = self.slots[i].connecting_since;
            self.recorder.connected(now.saturating_sub(since), true);
        }
        self.connect_failures += 1;
        if !self.established
            && self.connect_failures >= HOPELESS.max(self.slots.len().min(OPENING))
            && !self.control.is_established()
        {
            self.hopeless = Some(outcome);
        }
    }

    /// Ends the slot's connection; true if the server's end is awaited first.
    fn end_connection(&mut self, i: usize, good: bool, now: Nanos) -> bool {
        if good {
            self.slots[i].say_end();
        }
        if good
            && let Some(fd) = self.slots[i].fd.take()
            && let Some(fd) = socket::close(fd, self.plan.close)
        {
            self.slots[i].fd = Some(fd);
            self.slots[i].state = State::Closing;
            self.timeouts.set(i, Wait::Close, now);
            return true;
        }
        self.disconnect(i);
        false
    }

    /// Drops the slot's socket.
    pub(super) fn disconnect(&mut self, i: usize) {
        self.slots[i].fd = None;
        self.slots[i].tls = None;
        self.slots[i].state = State::Vacant;
    }

    /// The slot is free for its next request.
    fn release(&mut self, i: usize, failed: bool, now: Nanos) {
        if self.phase != Phase::Running {
            return;
        }
        if let Some(open) = &mut self.open {
            return open.free.push_back(i as u32);
        }
        let think = match &self.plan.pace {
            Pace::Closed(Think::Fixed(time)) => nanos(*time),
            Pace::Closed(Think::Exponential(mean)) => {
                (nanos(*mean) as f64 * self.random.exponential()) as Nanos
            }
            Pace::Open { .. } => 0,
        };
        match (failed, think) {
            (true, _) => self.wake_at(i, now + think.max(RETRY)),
            (false, 0) => self.begin_closed(i, now),
            (false, _) => self.wake_at(i, now + think),
        }
    }

    /// The slot's own wake-up.
    pub(super) fn on_wake(&mut self, i: usize) {
        let now = self.clock.now();
        match self.slots[i].state {
            State::Vacant | State::Idle if self.open.is_none() => self.begin_closed(i, now),
            State::Busy => self.read(i, false),
            State::Knocking => self.knock_again(i, now),
            State::Dripping | State::Sipping => self.on_mode_wake(i, now),
            _ => {}
        }
    }

    /// A wait is over.
    pub(super) fn on_timeout(&mut self, i: usize, wait: Wait, now: Nanos) {
        match wait {
            Wait::Connect if self.slots[i].requesting => {
                self.complete(i, Outcome::ConnectTimeout, false, now);
            }
            Wait::Connect => self.open_failed(i, Outcome::ConnectTimeout, now),
            Wait::Reply if self.plan.is_datagram() => {
                self.lost = true;
                self.slots[i].window.give_up();
                self.complete(i, Outcome::Lost, true, now);
            }
            Wait::Reply => self.complete(i, Outcome::ReadTimeout, false, now),
            Wait::Close => {
                self.disconnect(i);
                self.release(i, false, now);
            }
        }
    }
}
