//! How connections end: every ending is here, and counted here.

use crate::clock::{Clock, Nanos, nanos};
use crate::limits::Limits;
use crate::metrics::stats::{Ledger, Place};
use crate::reason::{CloseReason, DropReason};
use crate::server::core::Core;
use crate::server::queue::table::{NEVER, Slot};
use rustix::net::{RecvFlags, SendFlags};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How a socket is put away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// RST: no TIME_WAIT, and what the kernel still holds for the client is thrown away.
    Reset,
    /// FIN, at once: the client has ended, or owes nothing.
    Fin,
    /// FIN, then what the client still sends is discarded until its FIN: a close with unread input
    /// is an RST, which can destroy a reply on its way.
    Polite,
}

fn ending(reason: CloseReason) -> Ending {
    match reason {
        CloseReason::Client | CloseReason::IdleTimeout => Ending::Fin,
        CloseReason::Server
        | CloseReason::Protocol
        | CloseReason::ReadTimeout
        | CloseReason::InputLimit
        | CloseReason::Shutdown => Ending::Polite,
        CloseReason::WriteTimeout
        | CloseReason::Reset
        | CloseReason::Panic
        | CloseReason::OutputLimit
        | CloseReason::Error => Ending::Reset,
    }
}

/// Who tells a session that its connection has ended.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// The worker that ends it.
    Here(CloseReason),
    /// Another thread ends it, which has other things to do than to run its code: any worker.
    Later(CloseReason),
}

impl Told {
    fn of(from: Place, reason: CloseReason) -> Self {
        if from == Place::Active { Told::Here(reason) } else { Told::Later(reason) }
    }
}

impl Core {
    /// Ends a connection that the caller owns, whose place is `from`.
    pub(crate) fn close(&self, index: u32, slot: &Slot, ledger: &Ledger, from: Place, reason: CloseReason) {
        let told = Told::of(from, reason);
        self.end(index, slot, ending(reason), told, |_| ledger.closed(from, reason));
    }

    /// Cuts a connection that the caller owns: RST, whatever it was doing.
    pub(crate) fn cut(&self, index: u32, slot: &Slot, ledger: &Ledger, from: Place) {
        let reason = CloseReason::Shutdown;
        let told = Told::of(from, reason);
        self.end(index, slot, Ending::Reset, told, |_| ledger.closed(from, reason));
    }

    /// Turns a connection away before its first request; the caller owns it.
    pub(crate) fn shed(&self, index: u32, slot: &Slot, ledger: &Ledger, from: Place, reason: DropReason) {
        let says = match reason {
            DropReason::ClientGone | DropReason::Draining => b"",
            _ => self.busy_reply(slot.listener()),
        };
        let ending = if says.is_empty() { Ending::Reset } else { Ending::Polite };
        // Whose first request came late has a session, which learns of its end.
        let told = Told::of(from, CloseReason::Server);
        self.end(index, slot, ending, told, |socket| {
            say(socket, says);
            ledger.shed(from, reason);
        });
    }

    fn end(&self, index: u32, slot: &Slot, ending: Ending, told: Told, count: impl FnOnce(&TcpStream)) {
        let connection = slot.connection().take();
        slot.deadline.store(NEVER, Ordering::Relaxed);
        if let Some(mut connection) = connection {
            connection.kept.discard();
            let session = connection.session.take();
            let later = match (session, told) {
                (Some(session), Told::Here(reason)) => {
                    self.finish_session(session, reason);
                    None
                }
                (Some(session), Told::Later(reason)) => Some((session, reason)),
                (None, _) => None,
            };
            // Counted before the client can see it, so that who sees the end can see the count.
            count(&connection.socket);
            let registered = connection.is_registered();
            let crate::server::queue::connection::Connection { socket, _permit: permit, .. } = connection;
            slot.state.release();
            self.table.give_back(index);
            self.put_away(socket, ending, registered);
            if let Some((session, reason)) = later {
                // The place is given back when the session has been told.
                return self.bid_farewell(session, reason, permit);
            }
            drop(permit);
        }
        self.connection_place_made();
    }

    pub(crate) fn finish_session(&self, mut session: Box<dyn crate::service::Session>, reason: CloseReason) {
        // Dropping a session runs its author's code too; apart, since a panic while another unwinds
        // would abort the process.
        let finished = catch_unwind(AssertUnwindSafe(|| session.finish(reason)));
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(session)));
        let panics = u64::from(finished.is_err()) + u64::from(dropped.is_err());
        if panics > 0 {
            self.panics.fetch_add(panics, Ordering::Relaxed);
        }
    }

    /// Refuses a socket that was accepted and has no slot.
    pub(crate) fn refuse(&self, listener: usize, socket: TcpStream, ledger: &Ledger, reason: DropReason) {
        ledger.refused(reason);
        let says = self.busy_reply(listener);
        let told = !says.is_empty() && say(&socket, says);
        self.put_away(socket, if told { Ending::Polite } else { Ending::Reset }, false);
    }

    /// Refuses such a socket without a word and without waiting for its client.
    pub(crate) fn refuse_cheaply(&self, socket: TcpStream, ledger: &Ledger, reason: DropReason) {
        ledger.refused(reason);
        self.put_away(socket, Ending::Reset, false);
    }

    fn put_away(&self, socket: TcpStream, ending: Ending, registered: bool) {
        match ending {
            Ending::Fin => {}
            Ending::Reset => reset_on_close(&socket),
            Ending::Polite => self.linger(socket, registered),
        }
    }

    /// Sends FIN, and lets the parker wait for the client's.
    fn linger(&self, socket: TcpStream, registered: bool) {
        if socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut left = self.limits.linger_bytes;
        if discard(&socket, &mut left) != Discarded::Open {
            return;
        }
        let limits = &self.limits;
        let Some(lingering) = Lingering::new(socket, left, &self.clock, limits, &self.lingering) else {
            // Past the budget the close does not wait.
            return;
        };
        if registered {
            // The poller must not be woken by what is only discarded.
            self.poller.remove(&lingering.socket);
        }
        if self.lingerers.try_send(lingering).is_ok() {
            self.rouse_parker();
        }
    }
}

/// One non-blocking send: whoever cannot take a few bytes at once is not told.
fn say(socket: &TcpStream, words: &[u8]) -> bool {
    if words.is_empty() {
        return false;
    }
    rustix::net::send(socket, words, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        .is_ok_and(|n| n == words.len())
}

fn reset_on_close(socket: &TcpStream) {
    // It fails only when the connection is gone, and then there is nothing to reset.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// What discarding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// The client has not ended yet.
    Open,
    /// It has, or has sent more than is discarded: close.
    Ended,
}

/// Reads and throws away what a client sends, at most `left` bytes.
pub(crate) fn discard(socket: &TcpStream, left: &mut usize) -> Discarded {
    let mut bin = [0u8; 4096];
    loop {
        match rustix::net::recv(socket, &mut bin, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Discarded::Ended,
            Ok((n, _)) if n < *left => *left -= n,
            Ok(_) => {
                reset_on_close(socket);
                return Discarded::Ended;
            }
            Err(rustix::io::Errno::AGAIN) => return Discarded::Open,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Discarded::Ended,
        }
    }
}

/// A socket whose polite close is under way: it has a place among `lingering` and a deadline.
#[derive(Debug)]
pub(crate) struct Lingering {
    pub(crate) socket: TcpStream,
    pub(crate) left: usize,
    pub(crate) deadline: Nanos,
    gauge: Arc<AtomicUsize>,
}

impl Lingering {
    fn new(
        socket: TcpStream,
        left: usize,
        clock: &Clock,
        limits: &Limits,
        gauge: &Arc<AtomicUsize>,
    ) -> Option<Self> {
        let place = gauge
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < limits.lingering).then_some(n + 1));
        place.ok()?;
        let deadline = clock.now().saturating_add(nanos(limits.linger_timeout));
        Some(Self { socket, left, deadline, gauge: gauge.clone() })
    }

    /// Past its deadline a lingering socket is reset, unless its client is still taking what it was
    /// sent: a reset would destroy that, so the rest is the kernel's to deliver.
    pub(crate) fn give_up(self) {
        if crate::sys::unacknowledged(&self.socket) == 0 {
            reset_on_close(&self.socket);
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::AcqRel);
    }
}
