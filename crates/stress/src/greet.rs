//! Connections that begin with a handshake: it is part of establishing them.

use super::clock::Nanos;
use super::kernel::{Kernel, errno};
use super::load::Loader;
use super::outcome::Outcome;
use super::slot::State;
use super::websocket::{Unasked, Welcome};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use tidegate_protocols::tls::Shaken;

/// Reads in a row of what a server says unasked.
const READS: usize = 64;

impl Loader<'_> {
    /// The connection stands: TLS begins.
    pub(super) fn begin_tls(&mut self, i: usize, now: Nanos, ended: bool) {
        let Some(tls) = &self.plan.tls else { return };
        let slot = &mut self.slots[i];
        slot.state = State::Shaking;
        slot.shaking_since = now;
        slot.tls = tls.begin();
        if slot.tls.is_none() {
            return self.greeting_failed(i, Outcome::TlsFailed);
        }
        self.shake(i, ended);
    }

    /// Moves the handshake of TLS on.
    pub(super) fn shake(&mut self, i: usize, ended: bool) {
        let slot = &mut self.slots[i];
        let (Some(tls), Some(session), Some(fd)) = (&self.plan.tls, &mut slot.tls, &slot.fd) else { return };
        match session.shake(tls, &mut Kernel(fd)) {
            Shaken::Done => {}
            Shaken::Waits => return,
            Shaken::Ended => return self.greeting_failed(i, Outcome::EofEarly),
            Shaken::Broken(error) => return self.greeting_broke(i, errno(&error)),
            Shaken::Failed => return self.greeting_failed(i, Outcome::TlsFailed),
        }
        let now = self.clock.now();
        let since = slot.shaking_since;
        self.recorder.shaken(now.saturating_sub(since));
        match self.plan.wire.socket() {
            Some(_) => self.greet(i),
            // What came with the end of the handshake would not be reported again.
            None => self.welcome(i, now, true, ended),
        }
    }

    /// The connection stands: its handshake begins.
    pub(super) fn greet(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        slot.state = State::Greeting;
        (slot.sent, slot.whole) = (0, false);
        self.push_greeting(i);
    }

    /// Something happened to a connection that is in its handshake.
    pub(super) fn on_greeting_event(&mut self, i: usize, flags: EventFlags, readable: bool, ended: bool) {
        if !self.slots[i].whole && flags.contains(EventFlags::OUT) {
            self.push_greeting(i);
        }
        if readable && self.slots[i].state == State::Greeting {
            self.read_greeting(i, ended);
        }
    }

    fn push_greeting(&mut self, i: usize) {
        let Some(socket) = self.plan.wire.socket() else { return };
        loop {
            let slot = &mut self.slots[i];
            let rest = &socket.handshake()[slot.sent..];
            slot.whole = rest.is_empty();
            if slot.whole {
                return;
            }
            match slot.send(rest) {
                Ok(sent) => {
                    slot.sent += sent;
                    self.recorder.connections().bytes_sent += sent as u64;
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => return self.greeting_broke(i, error),
            }
        }
    }

    fn read_greeting(&mut self, i: usize, ended: bool) {
        let Some(socket) = self.plan.wire.socket() else { return };
        loop {
            let slot = &mut self.slots[i];
            let got = match slot.receive(&mut self.buffer) {
                Ok(0) => return self.greeting_failed(i, Outcome::EofEarly),
                Ok(got) => got,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(error) => return self.greeting_broke(i, error),
            };
            self.recorder.connections().bytes_received += got as u64;
            let reply = slot.reply.of_socket();
            let greeting = reply.greet(socket, &self.buffer[..got]);
            if greeting != Welcome::More {
                let answer = super::answers::Answer { status: reply.status(), ..Default::default() };
                let measured = slot.requesting && slot.intended >= self.measure_from;
                self.recorder.answered(measured, answer);
            }
            match greeting {
                Welcome::More => {}
                Welcome::Refused(outcome) => return self.greeting_failed(i, outcome),
                Welcome::Open(used) => {
                    let unasked = self.slots[i].reply.of_socket().unasked(&self.buffer[used..got]);
                    if unasked == Unasked::Over {
                        return self.greeting_failed(i, Outcome::EofEarly);
                    }
                    self.slots[i].sent = 0;
                    let now = self.clock.now();
                    return self.welcome(i, now, ended, ended);
                }
            }
        }
    }

    fn greeting_broke(&mut self, i: usize, error: Errno) {
        self.greeting_failed(i, super::socket::outcome(error, true));
    }

    fn greeting_failed(&mut self, i: usize, outcome: Outcome) {
        let now = self.clock.now();
        match self.slots[i].requesting {
            true => self.complete(i, outcome, false, now),
            false => self.open_failed(i, outcome, now),
        }
    }

    /// Reads what a server says while nothing was asked, and answers its pings; true if the connection is over.
    pub(super) fn hear_unasked(&mut self, i: usize) -> bool {
        for _ in 0..READS {
            let slot = &mut self.slots[i];
            let got = match slot.receive(&mut self.buffer) {
                Ok(0) => return true,
                Ok(got) => got,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => continue,
                Err(_) => return true,
            };
            self.recorder.connections().bytes_received += got as u64;
            let over = slot.reply.of_socket().unasked(&self.buffer[..got]) == Unasked::Over;
            self.send_pongs(i);
            if over {
                return true;
            }
        }
        let now: Nanos = self.clock.now();
        self.wake_at(i, now);
        false
    }

    /// Answers pings. A kernel that has no room for so few bytes has a server that does not read; it is not owed more.
    pub(super) fn send_pongs(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        let pongs = slot.reply.of_socket().take_pongs();
        // Within a request that is half sent a frame would be part of it.
        if pongs.is_empty() || (slot.sent > 0 && !slot.whole) {
            return;
        }
        if let Ok(sent) = slot.send(&pongs) {
            self.recorder.connections().bytes_sent += sent as u64;
        }
    }
}
