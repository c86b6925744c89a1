//! A turn of a connection whose TLS handshake is not complete. Like any other turn it has waited in the queue, reads
//! what has arrived, computes, and parks. So a client that is silent or slow in its handshake holds no worker, and
//! there are never more handshakes being computed than there are workers.

use super::parking::Next;
use super::station::Station;
use crate::admit::sharing::Sharing;
use crate::clock::Nanos;
use crate::reason::{CloseReason, HandshakeFailure};
use crate::server::listener::Listener;
use crate::server::queue::connection::{Connection, Waiting};
use crate::server::queue::owned::Owned;
use crate::server::shared::Shared;
use crate::service::{Peer, Seat, Shake, ShakeTurn, TlsSide};

/// Goes on with the handshake of a connection that has one to do; nothing when its service has its turn.
pub(crate) fn go_on(
    station: &mut Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
) -> Option<Next> {
    let shared = station.shared;
    let listener = &shared.listeners[owned.listener()];
    let tls = listener.tls.as_ref()?;
    let mut guard = shared.table.side(owned.id.slot)?;
    if guard.as_ref().is_some_and(|side| side.is_open()) {
        return None;
    }
    station.share_work(tls.cost.get());
    let began = station.now;
    let seat = Seat { slot: owned.id.slot, generation: owned.id.generation.0 };
    let peer = Peer::new(connection.address.get());
    let shake = {
        let Connection { socket, kept, .. } = &mut *connection;
        let limits = &station.limits.listeners[owned.listener()];
        let (buffers, context) = (&mut station.tls_buffers, shared.context(listener, limits));
        let mut turn = ShakeTurn { socket, peer: &peer, kept, buffers, context, seat, now: began };
        TlsSide::shake(&mut guard, &tls.setup, &mut turn)
    };
    station.finish();
    let took = station.now.saturating_sub(began);
    if !matches!(shake, Shake::Silent | Shake::Left) {
        tls.cost.note(took);
        // Its source pays for it, where sources have turns by what they cost.
        shared.order.note_cost(|| Sharing::source(owned.slot.heap()), took);
        tls.counts.worked(took);
    }
    if matches!(shake, Shake::Silent | Shake::Waits) {
        // It has asked for nothing yet.
        shared.order.found_nothing(owned.id.slot);
    }
    match shake {
        Shake::Silent => Some(Next::Park(match connection.waiting.get() {
            silent @ Waiting::Hello { .. } => silent,
            _ => Waiting::Hello { since: began },
        })),
        Shake::Waits => Some(Next::Park(waits(connection, guard.as_deref(), began))),
        Shake::Done => open(station, listener, connection, guard.as_deref()?),
        Shake::Left => Some(Next::End(CloseReason::Client)),
        Shake::Failed { failure, why } => {
            tls.counts.failed(failure);
            tracing::debug!(listener = %listener.url, peer = %peer.address, reason = %failure, why, "a TLS handshake failed");
            Some(Next::End(match failure {
                HandshakeFailure::InputLimit => CloseReason::InputLimit,
                _ => CloseReason::Handshake,
            }))
        }
    }
}

/// Whether a connection that is ended for its deadline has not got through its handshake; it is counted then.
pub(crate) fn ends_late(shared: &Shared, owned: &Owned<'_>) -> bool {
    let Some(tls) = &shared.listeners[owned.listener()].tls else { return false };
    let late = owned.connection().as_ref().is_some_and(|connection| {
        let side = shared.table.side(owned.id.slot);
        let shaking = side.is_some_and(|side| side.as_ref().is_some_and(|side| !side.is_open()));
        shaking || matches!(connection.waiting.get(), Waiting::Hello { .. })
    });
    if late {
        tls.counts.failed(HandshakeFailure::Timeout);
    }
    late
}

/// What a handshake waits for that is not over.
fn waits(connection: &Connection, side: Option<&TlsSide>, now: Nanos) -> Waiting {
    if !connection.kept.is_empty() {
        return Waiting::Flush { since: now };
    }
    Waiting::Rest { since: side.map_or(now, TlsSide::began) }
}

/// The handshake is over: the service has the connection from here on. The meter goes on.
fn open(
    station: &mut Station<'_>,
    listener: &Listener,
    connection: &mut Connection,
    side: &TlsSide,
) -> Option<Next> {
    let peer = Peer::known(connection.address.get(), side.facts());
    if let (Some(tls), Some(facts)) = (&listener.tls, peer.tls()) {
        let took = station.now.saturating_sub(side.began());
        tls.counts.opened(facts.version.as_str(), facts.resumed, took);
    }
    station.begin_turn(&listener.cost);
    // Without a session the turn ends it, as a panic.
    connection.session = station.shared.counts.contain(|| listener.service.connect(&peer));
    // Its first request has its time from now on.
    connection.waiting = Waiting::Request.into();
    None
}
