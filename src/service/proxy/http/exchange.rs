//! A request that has a place at a backend and a connection to it. The exchange sends the request and reads the answer.

use super::answer::{AnswerFault, AnswerRelay, Answered, Asked};
use super::outbound::Headway;
use super::pending::Pending;
use super::spares::SpareConnection;
use crate::clock::{Nanos, nanos};
use crate::service::proxy::backends::Place;
use crate::service::proxy::socket::{BackendSocket, Store};
use crate::service::{Decrypted, EventRoute, SocketEvent};
use std::time::Duration;

/// A request that is being answered. Fields are dropped in their order, so the socket is closed before the place is given
/// back.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) socket: BackendSocket,
    /// The way of the socket's events; `None` if they go to this session for good.
    pub(super) route: Option<EventRoute>,
    pub(super) place: Place,
    pub(super) pending: Box<Pending>,
    pub(super) answer: AnswerRelay,
    /// Whether the connection has served other requests before.
    reused: bool,
    /// Whether the kernel may have bytes from the backend.
    unread: bool,
    /// Whether the backend may have closed, or its connection failed. Then reads go on until nothing is left.
    hung_up: bool,
    /// Whether writing to the backend has failed. It may still answer.
    pub(super) deaf: bool,
    /// Whether the poller watches the backend's socket for room to write as well as for input.
    pub(super) watched_both: bool,
    is_tcp: bool,
    began: Nanos,
    /// When the backend last took or sent bytes; or since when the exchange waits for it, if that is later.
    heard: Nanos,
    /// Whether the exchange waits for the client, so that the backend's time does not run.
    paused: bool,
    /// Whether the client sends its body fast enough.
    pub(super) upload: Headway,
}

/// The outcome of reading from the backend.
#[derive(Debug)]
pub(super) enum BackendHeard {
    /// There is nothing to read now.
    Nothing,
    /// A part of the answer has come.
    Some,
    /// The answer is complete.
    Done,
    /// The connection has become a WebSocket. Of the `read` bytes the last `after` belong to that.
    Switched {
        read: usize,
        after: usize,
    },
    /// The connection ended before the answer was complete.
    Lost,
    Fault(AnswerFault),
}

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct BackendLine {
    pub(super) socket: BackendSocket,
    pub(super) route: Option<EventRoute>,
    /// Whether the poller watches it for room to write as well as for input.
    pub(super) watched_both: bool,
    /// Whether it has served other requests before. Otherwise, if it is watched for both, an event reported the connection,
    /// and that event may have reported input too.
    pub(super) reused: bool,
}

impl Exchange {
    pub(super) fn new(
        BackendLine { socket, route, watched_both, reused }: BackendLine,
        place: Place,
        pending: Box<Pending>,
        now: Nanos,
    ) -> Self {
        let is_tcp = place.address().is_tcp();
        // Bytes may have come with the end of a TLS handshake.
        let shaken = socket.is_secured() && !reused;
        Self {
            socket,
            route,
            place,
            pending,
            answer: AnswerRelay::new(),
            reused,
            // Later input will be reported by an event.
            unread: shaken || !reused && watched_both,
            hung_up: false,
            deaf: false,
            watched_both,
            is_tcp,
            began: now,
            heard: now,
            paused: false,
            upload: Headway::new(now),
        }
    }

    /// Notes the event of the backend's socket with which a turn begins.
    pub(super) fn wake(&mut self, event: SocketEvent, now: Nanos) {
        self.unread |= event != SocketEvent::Nothing;
        let has_hung_up = || self.route.as_ref().is_some_and(EventRoute::has_hung_up);
        self.hung_up |= event == SocketEvent::Hangup || event != SocketEvent::Nothing && has_hung_up();
        if std::mem::take(&mut self.paused) {
            self.heard = now;
        }
    }

    /// The exchange waits for the client, so the backend's time does not run.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// The time that the client has for its body begins now.
    pub(super) fn restart_upload(&mut self, now: Nanos) {
        self.upload = Headway::new(now);
    }

    /// The time at which the backend will have been silent for too long.
    pub(super) fn deadline(&self, timeout: Duration) -> Nanos {
        self.heard.saturating_add(nanos(timeout))
    }

    /// How long the request has had its place.
    pub(super) fn age(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.began)
    }

    /// Writes as much of the request as the backend takes, and returns how many bytes. A failed write does not end the
    /// exchange: the backend may have answered already.
    pub(super) fn push(&mut self, store: Store<'_>, now: Nanos) -> usize {
        if self.deaf {
            return 0;
        }
        let Self { socket, pending, .. } = self;
        match socket.flush().and_then(|()| pending.push(socket, store)) {
            Ok(0) => 0,
            Ok(sent) => {
                self.heard = now;
                self.place.passed(sent as u64, 0);
                sent
            }
            Err(_) => {
                self.deaf = true;
                self.unread = true;
                0
            }
        }
    }

    /// Whether the backend has taken all of the request that has come.
    pub(super) fn is_taken(&self) -> bool {
        self.pending.is_taken() && !self.socket.has_unsent()
    }

    /// Whether the exchange waits for more of the client's body.
    pub(super) fn wants_upload(&self) -> bool {
        !self.deaf && self.is_taken() && !self.pending.has_come()
    }

    /// Reads from the backend once, and writes to `out` what the client is to get.
    pub(super) fn hear(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        pool: Store<'_>,
        out: &mut Vec<u8>,
        now: Nanos,
    ) -> BackendHeard {
        if !self.unread {
            return BackendHeard::Nothing;
        }
        if let Some(route) = &self.route {
            route.clear();
        }
        let (read, drained) = match self.socket.receive(buffer, self.hung_up, pool) {
            Ok(Decrypted::End) => {
                return if self.answer.end(out) { BackendHeard::Done } else { BackendHeard::Lost };
            }
            Ok(Decrypted::Bytes { bytes, drained }) => (bytes, drained),
            Ok(Decrypted::Nothing) => {
                self.unread = false;
                return if self.deaf { BackendHeard::Lost } else { BackendHeard::Nothing };
            }
            Err(_) => return BackendHeard::Lost,
        };
        self.unread = !drained || self.hung_up || self.deaf;
        let before = out.len();
        let answered = self.answer.take(&buffer[..read], asked, pool, out);
        if out.len() > before {
            self.heard = now;
        }
        match answered {
            Ok(Answered::More) => {
                if self.is_tcp && !self.unread {
                    acknowledge(&self.socket);
                }
                BackendHeard::Some
            }
            Ok(Answered::Done) => BackendHeard::Done,
            Ok(Answered::Switched(after)) => BackendHeard::Switched { read, after },
            Err(fault) => BackendHeard::Fault(fault),
        }
    }

    /// Whether the request may be sent once more, on a new connection, after this one was lost. It may if this was a used
    /// connection on which nothing was heard: the backend has then most likely closed it just as it was used again.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.reused && !self.answer.is_heard() && self.pending.can_be_repeated()
    }

    /// The same after something was heard that is no answer. On a used connection the backend has most likely sent it before
    /// it had the request: too many bytes of the answer before.
    pub(super) fn can_be_repeated_after_noise(&self) -> bool {
        self.reused && !self.answer.was_passed_on() && self.pending.can_be_repeated()
    }

    /// Takes the exchange apart when the answer is complete. The connection is among the parts if it can be used again.
    pub(super) fn part(self) -> (Option<SpareConnection>, Place, Box<Pending>) {
        let Self { socket, route, watched_both, place, pending, answer, deaf, .. } = self;
        let taken = pending.is_taken() && !socket.has_unsent();
        let again = answer.keeps_backend() && !deaf && pending.has_come() && taken;
        let spare =
            again.then(|| SpareConnection { socket, route, watched_both, framed: answer.is_framed() });
        (spare, place, pending)
    }
}

/// Makes the kernel acknowledge received bytes at once. Some servers (Python's `http.server`) write the head and the body
/// of an answer separately and leave Nagle's algorithm on: they send the body only when the head was acknowledged. On a
/// connection that was used before, the kernel would delay that by 40 ms.
fn acknowledge(socket: &BackendSocket) {
    // This fails only on a broken socket, which the next read will report.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_quickack(socket, true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}
