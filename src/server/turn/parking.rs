//! Parking: what happens to a connection between two turns.

use super::station::Station;
use crate::clock::{Nanos, nanos};
use crate::limits::Limits;
use crate::metrics::stats::CountedAs;
use crate::reason::{CloseReason, DropReason};
use crate::server::poll::poller::{Poller, Source};
use crate::server::queue::connection::{Connection, LastInput, Registered, Waiting};
use crate::server::queue::line::Claim;
use crate::server::queue::owned::Owned;
use crate::server::queue::state::ConnectionId;
use crate::server::queue::table::NEVER;
use crate::server::shared::Shared;
use crate::service::{Peer, Seat, Turned};
use crate::transport::socket::unread;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

/// What becomes of the connection after its turn.
pub(crate) enum Next {
    Park(Waiting),
    /// It has more to do, behind the others with it.
    Again,
    End(CloseReason),
    /// It is turned away, as it could have been before its first turn.
    Shed(DropReason),
    /// The time for turns is over.
    Cut,
}

/// Sees to it that events of the connection will come; while the server drains, it may have to end instead. For nearly
/// all there is nothing to do: that is seen without a call.
#[inline]
pub(crate) fn prepare(
    station: &Station<'_>,
    from: (ConnectionId, usize),
    connection: &mut Connection,
    waiting: Waiting,
    turned: &Turned,
) -> Next {
    connection.waiting = waiting.into();
    let writable = turned.both_ways || matches!(waiting, Waiting::Flush { .. });
    let registered = match connection.registered {
        Registered::No => turned.unwatched && matches!(waiting, Waiting::Call { .. }),
        Registered::Readable => !writable,
        Registered::Writable => true,
    };
    if registered && connection.kept.is_empty() && !station.shared.ends(from.1) {
        return Next::Park(waiting);
    }
    prepare_with_care(station, from, connection, waiting, writable, turned)
}

#[inline(never)]
fn prepare_with_care(
    station: &Station<'_>,
    (id, listener): (ConnectionId, usize),
    connection: &mut Connection,
    waiting: Waiting,
    writable: bool,
    turned: &Turned,
) -> Next {
    let shared = station.shared;
    if !connection.kept.is_empty() && park_kept(station, id, connection).is_err() {
        return Next::End(CloseReason::OutputLimit);
    }
    if register(&shared.poller, connection, id, writable).is_err() {
        // The kernel's memory or `fs.epoll.max_user_watches`: this connection cannot be parked.
        return Next::End(CloseReason::Error);
    }
    if !shared.ends(listener) {
        return Next::Park(waiting);
    }
    prepare_in_drain(station, id, connection, waiting, turned)
}

/// Puts the replies that the kernel did not take where they can be given up for others.
fn park_kept(station: &Station<'_>, id: ConnectionId, connection: &mut Connection) -> io::Result<()> {
    let seat = Seat { slot: id.slot, generation: id.generation.0 };
    let (peer, total) = (Peer::new(connection.address.get()), &station.shared.output_total);
    connection.kept.park(seat, &peer, &station.limits.server, total)
}

/// While the server drains: what becomes of a connection that would be parked.
fn prepare_in_drain(
    station: &Station<'_>,
    id: ConnectionId,
    connection: &mut Connection,
    waiting: Waiting,
    turned: &Turned,
) -> Next {
    let shared = station.shared;
    if shared.life.is_stopping() {
        return Next::Cut;
    }
    let began_before = !connection.in_drain.is_known();
    if began_before {
        connection.in_drain = LastInput::of(unread(&connection.socket));
    }
    let all_was_read = connection.in_drain.bytes() == Some(0);
    // Between two requests it ends, unless the next one had come when the server began to end. A client that goes on
    // sending is answered what it had sent by then.
    match waiting {
        Waiting::Request | Waiting::Hello { .. }
            if !all_was_read && shared.table.has_input(id.slot, connection) =>
        {
            Next::Again
        }
        Waiting::Request | Waiting::Hello { .. } => Next::End(CloseReason::Shutdown),
        Waiting::Rest { .. } if all_was_read && turned.sent > 0 => Next::End(CloseReason::Shutdown),
        // A session that keeps its own time learns of the drain by a turn, and this one may have begun before the drain.
        Waiting::Call { .. } if began_before => {
            // Its call is not in the wheel: the next turn must not take it for one that will come.
            connection.waiting = Waiting::Request.into();
            Next::Again
        }
        _ => Next::Park(waiting),
    }
}

/// Registers a connection as far as it must be.
fn register(
    poller: &Poller,
    connection: &mut Connection,
    id: ConnectionId,
    writable: bool,
) -> io::Result<()> {
    let (fd, source) = (connection.socket.as_fd(), Source::Connection(id));
    match (connection.registered, writable) {
        (Registered::No, false) => {
            poller.add(fd, source)?;
            connection.registered = Registered::Readable;
        }
        (Registered::No | Registered::Readable, true) => {
            poller.add_writable(fd, source, connection.registered == Registered::Readable)?;
            connection.registered = Registered::Writable;
        }
        _ => {}
    }
    Ok(())
}

/// When the timekeeper must end a connection that is parked at `now`.
pub(crate) fn deadline(limits: &Limits, waiting: Waiting, now: Nanos) -> Nanos {
    match waiting {
        Waiting::Request => now.saturating_add(nanos(limits.idle_timeout)),
        Waiting::Hello { since } | Waiting::Rest { since } => {
            since.saturating_add(nanos(limits.read_timeout))
        }
        Waiting::Flush { since } => since.saturating_add(nanos(limits.write_timeout)),
        Waiting::Call { .. } => NEVER,
    }
}

/// Why a connection ends whose time for what it waits for is over.
pub(crate) fn late(waiting: Waiting) -> CloseReason {
    match waiting {
        Waiting::Hello { .. } => CloseReason::Handshake,
        Waiting::Rest { .. } => CloseReason::ReadTimeout,
        Waiting::Flush { .. } => CloseReason::WriteTimeout,
        Waiting::Request | Waiting::Call { .. } => CloseReason::IdleTimeout,
    }
}

/// Parks a connection until its client does something or `deadline` passes. If something has happened meanwhile, it is
/// put into the line instead; true then.
pub(crate) fn park_or_requeue(shared: &Shared, owned: Owned<'_>, deadline: Nanos, now: Nanos) -> bool {
    match owned.park(deadline) {
        Ok(()) => false,
        Err(owned) => {
            owned.requeue(&shared.line, Claim::Turn, now);
            true
        }
    }
}

/// Puts a connection with more to do behind the others with something to do.
pub(crate) fn requeue(shared: &Shared, owned: Owned<'_>, now: Nanos) {
    debug_assert!(owned.place != CountedAs::Queued, "it is in the line already");
    owned.slot.deadline.store(NEVER, Relaxed);
    owned.requeue(&shared.line, Claim::Turn, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_wait_has_a_deadline_of_its_own() {
        let limits = Limits::default()
            .idle_timeout(Duration::from_nanos(100))
            .read_timeout(Duration::from_nanos(10))
            .write_timeout(Duration::from_nanos(20));
        assert_eq!(deadline(&limits, Waiting::Request, 1_000), 1_100);
        assert_eq!(deadline(&limits, Waiting::Rest { since: 500 }, 1_000), 510);
        assert_eq!(deadline(&limits, Waiting::Flush { since: 600 }, 1_000), 620);
        assert_eq!(deadline(&limits, Waiting::Call { at: 1_500 }, 1_000), NEVER, "the wheel has it");
        let limits = limits.idle_timeout(Duration::MAX);
        assert_eq!(deadline(&limits, Waiting::Request, 1_000), u64::MAX);
    }
}
