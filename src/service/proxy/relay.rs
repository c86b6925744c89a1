//! A pair of sockets: what a client says goes to its backend and the other way round, unchanged, with the ends
//! of both kept apart. FIN stays FIN and a reset stays a reset.
//!
//! A turn does what can be done without waiting, on both sockets. It needs an edge of readiness for its next
//! turn: after one, each direction has either read all there is, or met a reader that takes nothing.

use super::connect::has_failed;
use super::flow::{End, Fault, Flow, Pumped};
use super::lent::Lent;
use crate::clock::{Nanos, nanos};
use crate::service::{SocketEvent, SocketEvents};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairSide {
    Client,
    Backend,
}

impl PairSide {
    fn other(self) -> Self {
        match self {
            PairSide::Client => PairSide::Backend,
            PairSide::Backend => PairSide::Client,
        }
    }
}

/// How a pair has ended, and so how both sockets are to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both have said all they had to say, this one first. Each was told; both can be closed.
    Finished(PairSide),
    /// This side's connection was reset, or failed; the other one is to be reset.
    Reset(PairSide),
    /// What the pairs keep for slow readers has outgrown its limit; both are to be reset.
    NoRoom,
}

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairProgress {
    /// Wait for an event on either socket, at most until [`Relay::deadline`].
    Park,
    /// There is more to do, after others have had their turns.
    More,
    /// Close both.
    Ended(Ended),
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turned {
    pub(crate) progress: PairProgress,
    /// Bytes that the backend was given.
    pub(crate) to_backend: u64,
    /// Bytes that the client was given.
    pub(crate) to_client: u64,
}

/// How long a pair may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// With both directions open.
    pub(crate) idle: Duration,
    /// After one side has ended.
    pub(crate) half_closed: Duration,
}

/// The two sockets of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets<'a> {
    pub(crate) client: BorrowedFd<'a>,
    pub(crate) backend: BorrowedFd<'a>,
    pub(crate) client_is_tcp: bool,
    pub(crate) backend_is_tcp: bool,
}

/// A pair's two directions. It does not own the sockets.
#[derive(Debug)]
pub(crate) struct Relay {
    /// From the client to the backend.
    up: Flow,
    /// From the backend to the client.
    down: Flow,
    /// When the last byte went either way, or the pair began.
    last: Nanos,
    first_end: Option<PairSide>,
    /// A side whose connection failed while something of it may still be read.
    failed: Option<PairSide>,
    begun: bool,
}

impl Relay {
    /// Begins with two connected sockets. What they have told before is to be told to the first turn.
    pub(crate) fn new(now: Nanos) -> Self {
        Self { up: Flow::new(), down: Flow::new(), last: now, first_end: None, failed: None, begun: false }
    }

    /// Goes on with two sockets on which bytes have gone both ways.
    pub(crate) fn resumed(now: Nanos) -> Self {
        Self { begun: true, ..Self::new(now) }
    }

    /// When the pair has been silent for too long, if nothing happens until then.
    pub(crate) fn deadline(&self, patience: Patience) -> Nanos {
        let time = match self.first_end {
            Some(_) => patience.half_closed.min(patience.idle),
            None => patience.idle,
        };
        self.last.saturating_add(nanos(time))
    }

    /// Whether this side does not take what it is to be given, so that an event must tell when it does.
    pub(crate) fn awaits_output(&self, side: PairSide) -> bool {
        match side {
            PairSide::Client => self.down.is_blocked(),
            PairSide::Backend => self.up.is_blocked(),
        }
    }

    /// Whether one of both has ended, or bytes have gone either way: another backend could not begin anew.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Bytes that are kept for slow readers.
    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.up.kept_bytes() + self.down.kept_bytes()
    }

    /// One turn.
    pub(crate) fn turn(
        &mut self,
        sockets: Sockets<'_>,
        events: SocketEvents,
        lent: &mut Lent<'_>,
        now: Nanos,
    ) -> Turned {
        let client =
            End { socket: sockets.client, event: events.client, short_is_all: sockets.client_is_tcp };
        let backend =
            End { socket: sockets.backend, event: events.other, short_is_all: sockets.backend_is_tcp };
        let mut turned = Turned { progress: PairProgress::Park, to_backend: 0, to_client: 0 };
        let ended = self.pump(client, backend, lent, &mut turned);
        if turned.to_backend + turned.to_client > 0 {
            self.last = now;
        }
        if let Err(ended) = ended {
            turned.progress = PairProgress::Ended(ended);
        }
        turned
    }

    fn pump(
        &mut self,
        client: End<'_>,
        backend: End<'_>,
        lent: &mut Lent<'_>,
        turned: &mut Turned,
    ) -> Result<(), Ended> {
        let were_done = (self.up.is_done(), self.down.is_done());
        let (mut up, mut down) = (Pumped::default(), Pumped::default());
        let mut pumped = self.pump_one(PairSide::Client, client, backend, lent, &mut up);
        if pumped.is_ok() {
            pumped = self.pump_one(PairSide::Backend, backend, client, lent, &mut down);
        }
        if pumped.is_ok() && self.failed == Some(PairSide::Client) {
            // The client's failure was met by writing to it: what it said before is still to be read.
            let client = End { event: SocketEvent::Hangup, ..client };
            pumped = self.pump_one(PairSide::Client, client, backend, lent, &mut up);
        }
        turned.to_backend = up.bytes;
        turned.to_client = down.bytes;
        pumped?;
        match (self.up.is_done() && self.down.is_done(), self.failed) {
            (true, Some(side)) => return Err(Ended::Reset(side)),
            (true, None) => return Err(Ended::Finished(self.first_end.unwrap_or(PairSide::Client))),
            _ => {}
        }
        // Of a side whose end was read a reset is told by no read.
        for (side, end, done) in
            [(PairSide::Client, client, were_done.0), (PairSide::Backend, backend, were_done.1)]
        {
            if done && end.event == SocketEvent::Hangup && has_failed(end.socket) {
                return Err(Ended::Reset(side));
            }
        }
        turned.progress = if up.more || down.more { PairProgress::More } else { PairProgress::Park };
        Ok(())
    }

    /// Moves what `side` says to the other.
    fn pump_one(
        &mut self,
        side: PairSide,
        from: End<'_>,
        to: End<'_>,
        lent: &mut Lent<'_>,
        pumped: &mut Pumped,
    ) -> Result<(), Ended> {
        let (flow, other) = match side {
            PairSide::Client => (&mut self.up, &self.down),
            PairSide::Backend => (&mut self.down, &self.up),
        };
        let was_done = flow.is_done();
        // The last end of a pair is told by its close.
        let is_last = other.is_done() && self.failed.is_none();
        match flow.pump(from, to, is_last, lent, pumped) {
            Ok(()) => {}
            Err(Fault::Read) => return Err(Ended::Reset(side)),
            Err(Fault::Room) => return Err(Ended::NoRoom),
            Err(Fault::Write) => {
                // The reader is gone. What it said before may still be read, so the other direction decides.
                flow.give_up();
                self.failed.get_or_insert(side.other());
                self.begun = true;
            }
        }
        let is_done = flow.is_done();
        self.begun |= is_done || pumped.bytes > 0 || flow.is_blocked();
        if is_done && !was_done {
            self.first_end.get_or_insert(side);
        }
        // A client that has left frees its place at once, whatever its backend has not taken. What a backend said
        // before it failed is delivered first, as slow as the client may be.
        let gone =
            || self.failed == Some(side) || from.event == SocketEvent::Hangup && has_failed(from.socket);
        if side == PairSide::Client && flow.is_blocked() && gone() {
            return Err(Ended::Reset(side));
        }
        Ok(())
    }
}
