//! How a new connection is accepted and admitted, and by which thread.
//!
//! The listening sockets are registered in the server's epoll, as connections are. The leader that finds newcomers
//! there accepts them itself while they can be admitted, so no other thread is woken for a connection: on a busy
//! machine a wake-up costs more than the accept. When newcomers cannot be admitted, or accept fails, the leader wakes
//! the acceptor. Its thread has a higher priority than the workers and does the rest: it refuses newcomers, leaves them
//! in the backlog, or pauses after an error.

use super::errors::classify;
use crate::admit::bell::Scope;
use crate::clock::{Nanos, nanos};
use crate::metrics::stats::Ledger;
use crate::reason::{AcceptError, DropReason, WouldDrop};
use crate::server::counts::Row;
use crate::server::poll::poller::Source;
use crate::server::queue::connection::Connection;
use crate::server::queue::owned::Owned;
use crate::server::shared::Shared;
use crate::transport::address::{ClientAddress, SourceAddress};
use crate::transport::socket::ClientSocket;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

/// Past this number of newcomers that were accepted in a row, the next may have waited in the kernel's backlog.
const CROWD: usize = 8;

/// Newcomers that the leader takes before it turns to those it has; the acceptor takes the rest.
const TAKEN_ON_THE_WAY: usize = 64;

/// Puts the listeners into the poller; an event follows for what waits there already.
pub(crate) fn register_listeners(shared: &Shared) -> io::Result<()> {
    for (number, listener) in shared.listeners.iter().enumerate() {
        if let Some(socket) = &*listener.socket() {
            shared.poller.add(socket.as_fd(), Source::Listener(number))?;
        }
    }
    Ok(())
}

/// Closes the socket of a listener, if it is open.
pub(crate) fn close_socket(shared: &Shared, number: usize) {
    if let Some(socket) = shared.listeners[number].socket().take() {
        // It may live on in another process, and then the kernel would go on telling of its newcomers.
        shared.poller.remove(&socket);
    }
}

/// The newcomers of a server, for the thread whose ledgers these are: the leader or the acceptor.
#[derive(Clone, Copy)]
pub(crate) struct Newcomers<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) row: Row<'a>,
}

impl Newcomers<'_> {
    /// Why no newcomer of a listener can be admitted now, if none can: the reason, and whether the limit is the listener's own.
    pub(crate) fn obstacle(&self, listener: usize) -> Option<(DropReason, Scope)> {
        let full = self.shared.admission.full(listener).map(|scope| (DropReason::MaxConnections, scope));
        full.or_else(|| Some((DropReason::QueueFull, self.shared.queue_full(listener)?)))
    }

    /// For the leader, when newcomers stand at a listener: takes those that can be admitted now, and calls the acceptor for
    /// the others. The caller sees to it that a worker knows.
    pub(crate) fn take(&self, listener: usize) {
        let shared = self.shared;
        if shared.holding[listener].load(SeqCst) {
            return;
        }
        let guard = shared.listeners[listener].socket();
        let Some(socket) = &*guard else { return };
        for nth in 0..TAKEN_ON_THE_WAY {
            if self.obstacle(listener).is_some() || shared.life.has_enough() || shared.life.is_draining() {
                break;
            }
            match socket.accept() {
                Ok((newcomer, peer)) => {
                    self.admit(listener, newcomer, peer, nth >= CROWD);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A client that gave up: no other accept will tell of it.
                Err(error) if classify(&error) == AcceptError::Aborted => {
                    shared.listeners[listener].accept_failed(AcceptError::Aborted);
                }
                // The acceptor meets it too, counts it, and knows what to do.
                Err(_) => break,
            }
        }
        shared.calls[listener].store(true, SeqCst);
        shared.bell.call();
    }

    /// Whether the acceptor was called to a listener since it last asked.
    pub(crate) fn take_call(&self, listener: usize) -> bool {
        let call = &self.shared.calls[listener];
        call.load(Relaxed) && call.swap(false, SeqCst)
    }

    /// Whether a newcomer is turned away for this reason; it is let in where the limit is in a dry run.
    pub(crate) fn refuses(&self, listener: usize, reason: DropReason) -> bool {
        let tried = self.shared.limits.current().server.dry_run;
        let ledger = self.row.of(listener);
        WouldDrop::of_newcomer(reason).is_none_or(|would| ledger.refuses(tried, would))
    }

    /// Gives a socket its place and puts it into the line, or refuses it; whether it was admitted. `crowd` says that others
    /// were accepted with it, so that it may have waited in the kernel's backlog.
    pub(crate) fn admit(
        &self,
        listener: usize,
        socket: ClientSocket,
        peer: ClientAddress,
        crowd: bool,
    ) -> bool {
        let (shared, ledger) = (self.shared, self.row.of(listener));
        if !shared.listeners[listener].takes(&peer) {
            return self.turn_away(listener, socket, ledger, DropReason::ProxyHeader);
        }
        let refuses = |reason| self.refuses(listener, reason);
        let permit = match shared.admission.admit(listener, peer.source(), Instant::now(), refuses) {
            Ok(permit) => permit,
            Err(reason) => {
                if matches!(reason, DropReason::PerSource | DropReason::Rate) {
                    self.note_refused(peer.source());
                }
                return self.turn_away(listener, socket, ledger, reason);
            }
        };
        // A permit is given back after its slot, so there is a slot for every permit.
        let Some(slot) = shared.table.take() else {
            return self.turn_away(listener, socket, ledger, DropReason::MaxConnections);
        };
        shared.late_closes.make_room(permit.open());
        let connection = Connection::new(socket, peer, permit);
        let now = shared.clock.now();
        let since = if crowd || shared.order.len() > 0 { arrived(&connection, now) } else { now };
        let heap = shared.sharing.heap(listener, peer.source());
        let owned = Owned::open(slot, (listener, heap), connection, ledger);
        shared.life.admitted();
        shared.queue_newcomer(owned, since);
        true
    }

    /// Names the source of a client that was refused for it.
    fn note_refused(&self, source: SourceAddress) {
        let sources = &self.shared.refusals.sources;
        match source {
            SourceAddress::Ip(address) => sources.refused(address, self.shared.sharing.prefix()),
            SourceAddress::User(uid) => sources.refused_user(uid),
        }
    }

    /// Refuses a newcomer whose source is known by its accept only, so that it could not be left to the kernel. Past the
    /// budget it is a reset without a word, which is as cheap as it can be. False: it was not admitted.
    fn turn_away(&self, listener: usize, socket: ClientSocket, ledger: &Ledger, reason: DropReason) -> bool {
        let words = if reason.has_words() && self.shared.may_refuse() {
            self.shared.words(listener)
        } else {
            Default::default()
        };
        self.shared.closer().refuse(socket, ledger, reason, &words);
        false
    }
}

/// When a newcomer's connection was established: it may have waited in the kernel for its accept. Asking costs a system
/// call.
fn arrived(connection: &Connection, now: Nanos) -> Nanos {
    let waited = crate::sys::since_handshake(connection.socket.as_fd()).map_or(0, nanos);
    now.saturating_sub(waited).max(1)
}
