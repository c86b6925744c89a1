//! The first turn of a new connection: the worker decides whether it is still served, and opens its session.

use super::station::Station;
use crate::clock::{Nanos, nanos};
use crate::limits::Limits;
use crate::metrics::stats::Ledger;
use crate::reason::{DropReason, WouldDrop};
use crate::server::queue::connection::Connection;
use crate::server::queue::owned::Owned;
use crate::service::Peer;
use crate::transport::socket::has_left;

/// A newcomer that waited longer is looked at before its turn: it may have left. (A younger one is hardly gone, and the
/// look is a system call.)
pub(crate) const LOOK_AFTER: Nanos = 5_000_000;

/// Why a newcomer gets no turn, if it gets none. One that does has its session from here on.
pub(crate) fn unwelcome(
    station: &Station<'_>,
    owned: &Owned<'_>,
    waited: Nanos,
    hangup: bool,
) -> Option<DropReason> {
    let shared = station.shared;
    shared.ring_for_queue_places(owned.listener());
    if shared.life.is_stopping() {
        // The turn that held this worker has been cut, and so is what waited behind it.
        return Some(DropReason::Draining);
    }
    if is_too_late(&station.limits.listeners[owned.listener()], owned.ledger, waited) {
        return Some(DropReason::QueueTimeout);
    }
    if shared.listeners[owned.listener()].expects_header() {
        // Its session is opened once its client is known.
        return None;
    }
    let mut guard = owned.connection();
    open(station, owned, guard.as_mut()?, waited > LOOK_AFTER || hangup)
}

/// Whether what has waited for this time is given up; in a dry run of `queue_timeout` it has its turn.
pub(super) fn is_too_late(limits: &Limits, ledger: &Ledger, waited: Nanos) -> bool {
    waited > nanos(limits.queue_timeout) && ledger.refuses(limits.dry_run, WouldDrop::QueueTimeout)
}

/// Opens the session; why not, if the client has left or the service does not want it.
pub(super) fn open(
    station: &Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
    look: bool,
) -> Option<DropReason> {
    let listener = &station.shared.listeners[owned.listener()];
    let service = &listener.service;
    let opened = station.shared.counts.contain(|| {
        if look && has_left(&connection.socket, listener.tls.is_some() || service.client_speaks_first()) {
            return Err(DropReason::ClientGone);
        }
        let peer = &Peer::new(connection.address.get());
        if !service.verify(peer) {
            return Err(DropReason::Denied);
        }
        // With TLS the session is opened when the handshake is over.
        Ok(listener.tls.is_none().then(|| service.connect(peer)))
    });
    match opened {
        Some(Ok(session)) => connection.session = session,
        Some(Err(reason)) => return Some(reason),
        // Without a session the turn ends it, as a panic.
        None => {}
    }
    None
}
