//! A turn of a connection whose TLS handshake is not over. It is a turn like all others: it has waited in the queue, it
//! reads what is there, computes, and parks. So a client that is silent or slow in its handshake holds no worker, and no
//! more handshakes are computed at once than there are workers.

use super::parking::Next;
use super::station::Station;
use crate::reason::{CloseReason, HandshakeFailure};
use crate::server::listener::Listener;
use crate::server::queue::connection::{Connection, Waiting};
use crate::server::queue::owned::Owned;
use crate::service::{Seat, Shake, ShakeTurn, TlsSide};

/// Goes on with the handshake of a connection that has one to do; nothing when its service has its turn.
pub(crate) fn go_on(
    station: &mut Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
) -> Option<Next> {
    let shared = station.shared;
    let listener = &shared.listeners[owned.listener()];
    let tls = listener.tls.as_ref()?;
    if connection.tls.as_ref().is_some_and(|side| side.is_open()) {
        return None;
    }
    if connection.tls.is_some() || connection.has_input() {
        station.share_work(tls.cost.get());
    }
    let began = station.now;
    let seat = Seat { slot: owned.id.slot, generation: owned.id.generation.0 };
    let shake = {
        let Connection { socket, peer, kept, tls: side, .. } = &mut *connection;
        let (buffers, context) = (&mut station.tls_buffers, shared.context());
        let mut turn = ShakeTurn { socket, peer, kept, buffers, context, seat, now: began };
        TlsSide::shake(side, &tls.setup, &mut turn)
    };
    station.finish();
    let took = station.now.saturating_sub(began);
    if !matches!(shake, Shake::Silent | Shake::Left) {
        tls.cost.note(took);
        tls.counts.worked(took);
    }
    match shake {
        Shake::Silent => Some(Next::Park(match connection.waiting.get() {
            silent @ Waiting::Hello { .. } => silent,
            _ => Waiting::Hello { since: began },
        })),
        Shake::Waits => {
            // The expensive part is done: from here on it is not turned away for the want of a place in the queue.
            owned.slot.heard();
            Some(Next::Park(waits(connection, began)))
        }
        Shake::Done => {
            owned.slot.heard();
            open(station, listener, connection)
        }
        Shake::Left => Some(Next::End(CloseReason::Client)),
        Shake::Failed { failure, why } => {
            tls.counts.failed(failure);
            tracing::debug!(listener = %listener.url, peer = %connection.peer.address, reason = %failure, why, "a TLS handshake failed");
            Some(Next::End(match failure {
                HandshakeFailure::InputLimit => CloseReason::InputLimit,
                _ => CloseReason::Handshake,
            }))
        }
    }
}

/// What a handshake waits for that is not over.
fn waits(connection: &Connection, now: u64) -> Waiting {
    if !connection.kept.is_empty() {
        return Waiting::Flush { since: now };
    }
    Waiting::Rest { since: connection.tls.as_ref().map_or(now, |side| side.began()) }
}

/// The handshake is over: the service has the connection from here on. The meter goes on.
fn open(station: &mut Station<'_>, listener: &Listener, connection: &mut Connection) -> Option<Next> {
    let (Some(tls), Some(side)) = (&listener.tls, &connection.tls) else { return None };
    let facts = side.facts();
    tls.counts.opened(&facts, station.now.saturating_sub(side.began()));
    connection.peer.secured(facts);
    station.begin(listener.cost.get());
    let peer = &connection.peer;
    // Without a session the turn ends it, as a panic.
    connection.session = station.shared.counts.contain(|| listener.service.connect(peer));
    // Its first request has its time from now on.
    connection.waiting = Waiting::Request.into();
    None
}
