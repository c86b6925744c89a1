//! A pair of sockets: the relay copies the client's bytes to the backend and the backend's to the client, unchanged. Each
//! direction ends by itself: a FIN is passed on as a FIN, and a reset as a reset.
//!
//! A turn does what can be done without waiting, in both directions. After it each direction has either read all that had
//! come, or met a reader that takes nothing. So an edge-triggered event is enough to know when the next turn is due.

use super::connect::has_failed;
use super::flow::{End, Flow, FlowFault, Pumped};
use super::lent::Lent;
use crate::clock::{Nanos, nanos};
use crate::service::{SocketEvent, SocketEvents, SocketTls};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// One side of a pair.
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
    /// Both sides have ended their streams in good order, this side first. Both sockets can be closed.
    Finished(PairSide),
    /// This side's connection was reset or has failed. The other side's must be reset.
    Reset(PairSide),
    /// There is no memory left to keep bytes for a slow reader. Both connections must be reset.
    NoRoom,
}

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairProgress {
    /// Wait for an event on either socket, at most until [`Relay::deadline`].
    Park,
    /// There is more to move, after other connections have had their turns.
    More,
    /// Close both.
    Ended(Ended),
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayTurn {
    pub(crate) progress: PairProgress,
    /// Bytes written to the backend.
    pub(crate) to_backend: u64,
    /// Bytes written to the client.
    pub(crate) to_client: u64,
}

/// How long a pair may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// While both directions are open.
    pub(crate) idle: Duration,
    /// After one side has ended its stream.
    pub(crate) half_closed: Duration,
}

/// The two sockets of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets<'a> {
    pub(crate) client: BorrowedFd<'a>,
    /// The client's TLS, if it speaks TLS.
    pub(crate) client_tls: Option<&'a dyn SocketTls>,
    pub(crate) backend: BorrowedFd<'a>,
    /// The backend's TLS, if it speaks TLS.
    pub(crate) backend_tls: Option<&'a dyn SocketTls>,
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
    /// When the last byte was written in either direction; at first, when the pair began.
    last: Nanos,
    first_end: Option<PairSide>,
    /// A side to which a write failed. What it had sent before may still be read.
    failed: Option<PairSide>,
    begun: bool,
}

impl Relay {
    /// Begins with two connected sockets. Events that they have had before must be handed to the first turn.
    pub(crate) fn new(now: Nanos) -> Self {
        Self { up: Flow::new(), down: Flow::new(), last: now, first_end: None, failed: None, begun: false }
    }

    /// Goes on with two sockets that have exchanged bytes before, by way of the gate for HTTP.
    pub(crate) fn resumed(now: Nanos) -> Self {
        Self { begun: true, ..Self::new(now) }
    }

    /// The time at which the pair will have been silent for too long.
    pub(crate) fn deadline(&self, patience: Patience) -> Nanos {
        let time = match self.first_end {
            Some(_) => patience.half_closed.min(patience.idle),
            None => patience.idle,
        };
        self.last.saturating_add(nanos(time))
    }

    /// Whether bytes are kept for this side, so that the poller must say when its socket takes more.
    pub(crate) fn awaits_output(&self, side: PairSide) -> bool {
        match side {
            PairSide::Client => self.down.is_blocked(),
            PairSide::Backend => self.up.is_blocked(),
        }
    }

    /// Whether a byte went either way or a side has ended. From then on no other backend can take over.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// How many bytes are kept for slow readers.
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
    ) -> RelayTurn {
        let client = End {
            socket: sockets.client,
            tls: sockets.client_tls,
            event: events.client,
            short_is_all: sockets.client_is_tcp,
        };
        let backend = End {
            socket: sockets.backend,
            tls: sockets.backend_tls,
            event: events.other,
            short_is_all: sockets.backend_is_tcp,
        };
        let mut turned = RelayTurn { progress: PairProgress::Park, to_backend: 0, to_client: 0 };
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
        turned: &mut RelayTurn,
    ) -> Result<(), Ended> {
        let were_done = (self.up.is_done(), self.down.is_done());
        let (mut up, mut down) = (Pumped::default(), Pumped::default());
        let mut pumped = self.pump_one(PairSide::Client, client, backend, lent, &mut up);
        if pumped.is_ok() {
            pumped = self.pump_one(PairSide::Backend, backend, client, lent, &mut down);
        }
        if pumped.is_ok() && self.failed == Some(PairSide::Client) {
            // A write found that the client is gone. What the client sent before that still goes to the backend.
            let client = End { event: SocketEvent::Hangup, ..client };
            pumped = self.pump_one(PairSide::Client, client, backend, lent, &mut up);
        }
        if client.tls.is_some() && pumped.is_ok() && self.down.answer_tls(client, lent, &mut down).is_err() {
            pumped = Err(Ended::Reset(PairSide::Client));
        }
        if backend.tls.is_some() && pumped.is_ok() && self.up.answer_tls(backend, lent, &mut up).is_err() {
            pumped = Err(Ended::Reset(PairSide::Backend));
        }
        turned.to_backend = up.bytes;
        turned.to_client = down.bytes;
        pumped?;
        match (self.up.is_done() && self.down.is_done(), self.failed) {
            (true, Some(side)) => return Err(Ended::Reset(side)),
            (true, None) => return Err(Ended::Finished(self.first_end.unwrap_or(PairSide::Client))),
            _ => {}
        }
        // Once a side's end was read, no read will report its reset, so the socket is asked for an error.
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

    /// Moves bytes from `side` to the other side.
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
        if flow.has_nothing_for(from.event) {
            return Ok(());
        }
        let was_done = flow.is_done();
        // Closing the sockets passes the second end on.
        let is_last = other.is_done() && self.failed.is_none();
        match flow.pump(from, to, is_last, lent, pumped) {
            Ok(()) => {}
            Err(FlowFault::Read) => return Err(Ended::Reset(side)),
            Err(FlowFault::Room) => return Err(Ended::NoRoom),
            Err(FlowFault::Write) => {
                // The reader is gone. What it sent before may still be read, so the pair ends when the other direction does.
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
        // A client that is gone frees its place at once, even if the backend has not taken all of its bytes. A backend
        // that is gone does not: what it sent is delivered first, however slow the client is.
        let gone =
            || self.failed == Some(side) || from.event == SocketEvent::Hangup && has_failed(from.socket);
        if side == PairSide::Client && flow.is_blocked() && gone() {
            return Err(Ended::Reset(side));
        }
        Ok(())
    }
}
