//! A request that has a place at a backend and a connection to it: what is sent, and what is heard.

use super::answer::{AnswerFault, AnswerRelay, Answered, Asked};
use super::outbound::Headway;
use super::pending::Pending;
use super::spares::SpareConnection;
use crate::clock::{Nanos, nanos};
use crate::service::proxy::backends::Place;
use crate::service::{Pool, Seat, SocketEvent};
use crate::transport::socket::receive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A request that is being answered. The socket is closed before the place is given back: fields are dropped in their
/// order.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) socket: OwnedFd,
    pub(super) place: Place,
    pub(super) pending: Box<Pending>,
    pub(super) answer: AnswerRelay,
    /// The connection has served other requests.
    reused: bool,
    /// The kernel may have input of the backend.
    unread: bool,
    /// The backend may have ended its half, or its connection failed: read until there is nothing.
    hung_up: bool,
    /// It takes nothing any more.
    pub(super) deaf: bool,
    /// Its socket is watched for what it can take, too.
    pub(super) watched_both: bool,
    is_tcp: bool,
    began: Nanos,
    /// When the backend last did something, or began to be waited for.
    heard: Nanos,
    /// It is not the backend that is waited for.
    paused: bool,
    /// How the client gets on with the body that is passed on as it comes.
    pub(super) upload: Headway,
}

/// What was heard of the backend.
#[derive(Debug)]
pub(super) enum BackendHeard {
    /// There is nothing now.
    Nothing,
    /// Some of the answer.
    Some,
    /// The last of it.
    Done,
    /// The connection goes on as a WebSocket; `after` of the `read` bytes belong to it.
    Switched {
        read: usize,
        after: usize,
    },
    /// The connection ended, and the answer is not whole.
    Lost,
    Fault(AnswerFault),
}

/// How a connection to the backend is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendLine {
    /// It was made for this request; its events may have told of more than that it is made.
    Made { watched_both: bool },
    /// It has served others.
    Reused,
}

impl Exchange {
    pub(super) fn new(
        socket: OwnedFd,
        place: Place,
        pending: Box<Pending>,
        line: BackendLine,
        now: Nanos,
    ) -> Self {
        let is_tcp = place.address().is_tcp();
        Self {
            socket,
            place,
            pending,
            answer: AnswerRelay::new(),
            reused: line == BackendLine::Reused,
            // Of what comes later an event will tell.
            unread: line == BackendLine::Made { watched_both: true },
            hung_up: false,
            deaf: false,
            watched_both: line == BackendLine::Made { watched_both: true },
            is_tcp,
            began: now,
            heard: now,
            paused: false,
            upload: Headway::new(now),
        }
    }

    /// A turn begins with these events of the backend's socket.
    pub(super) fn wake(&mut self, event: SocketEvent, now: Nanos) {
        self.unread |= event != SocketEvent::Nothing;
        self.hung_up |= event == SocketEvent::Hangup;
        if std::mem::take(&mut self.paused) {
            self.heard = now;
        }
    }

    /// It is not the backend that will be waited for: its time stands still.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// The client will be waited for from now on, not before.
    pub(super) fn restart_upload(&mut self, now: Nanos) {
        self.upload = Headway::new(now);
    }

    /// When the backend was silent for too long.
    pub(super) fn deadline(&self, timeout: Duration) -> Nanos {
        self.heard.saturating_add(nanos(timeout))
    }

    /// How long it has had its place.
    pub(super) fn age(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.began)
    }

    /// Gives the backend what it takes of the request; how many bytes. One that takes nothing any more may still answer.
    pub(super) fn push(&mut self, now: Nanos) -> usize {
        if self.deaf {
            return 0;
        }
        match self.pending.push(&self.socket) {
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

    /// Whether the client is waited for, to go on with its body.
    pub(super) fn wants_upload(&self) -> bool {
        !self.deaf && self.pending.is_taken() && !self.pending.has_come()
    }

    /// Reads once what the backend has sent, and writes what the client is to get.
    pub(super) fn hear(
        &mut self,
        buffer: &mut [u8],
        asked: Asked,
        pool: (&Arc<Pool>, usize),
        out: &mut Vec<u8>,
        now: Nanos,
    ) -> BackendHeard {
        if !self.unread {
            return BackendHeard::Nothing;
        }
        let read = match receive(&self.socket, buffer) {
            Ok(Some(0)) => return if self.answer.end(out) { BackendHeard::Done } else { BackendHeard::Lost },
            Ok(Some(read)) => read,
            Ok(None) => {
                self.unread = false;
                return if self.deaf { BackendHeard::Lost } else { BackendHeard::Nothing };
            }
            Err(_) => return BackendHeard::Lost,
        };
        self.unread = read == buffer.len() || !self.is_tcp || self.hung_up || self.deaf;
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

    /// Whether the request may be sent on another connection, after this one was lost: the backend closed it just when it
    /// was used again.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.reused && !self.answer.is_heard() && self.pending.can_be_repeated()
    }

    /// The parts that are left when the answer is whole: the connection, if it can be used again.
    pub(super) fn part(self, seat: Seat) -> (Option<SpareConnection>, Place, Box<Pending>) {
        let Self { socket, place, pending, answer, deaf, .. } = self;
        let again = answer.keeps_backend() && !deaf && pending.has_come() && pending.is_taken();
        let spare = again.then_some(SpareConnection { socket, seat });
        (spare, place, pending)
    }
}

/// Has the kernel acknowledge at once what has come. A server that writes the head and the body of its answer apart, and has
/// not switched Nagle's algorithm off (Python's http.server), sends the body only then; on a connection that was used before
/// the kernel would let it wait for 40 ms.
fn acknowledge(socket: &OwnedFd) {
    // It fails on a socket that is gone only.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_quickack(socket, true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}
