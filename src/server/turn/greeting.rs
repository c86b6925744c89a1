//! Reading the PROXY header with which a balancer begins a connection, to give the address of its client.

use super::opening::open;
use super::parking::Next;
use super::station::Station;
use crate::reason::DropReason;
use crate::server::queue::connection::{Connection, Waiting};
use crate::server::queue::owned::Owned;
use crate::transport::listen::canonical;
use crate::transport::proxy_header::{Origin, TakeError, take};

/// Takes the header of a connection that has none yet, and opens its session; what follows if it gets no turn now. Until the
/// header is whole the connection waits as one with half a request does: it has `read_timeout` from its first turn on.
pub(super) fn hear(
    station: &mut Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
) -> Option<Next> {
    let shared = station.shared;
    let listener = &shared.listeners[owned.listener()];
    if connection.session.is_some() || !listener.expects_header() || begins_tls(station, owned, connection) {
        return None;
    }
    let next = match take(&connection.socket) {
        Ok(Some(origin)) => {
            if let Origin::Client { source, .. } = origin {
                connection.address.set(canonical(source).into());
                let heap = shared.sharing.heap(owned.listener(), source.ip());
                owned.slot.set_origin(owned.listener(), heap);
            }
            connection.waiting = match &listener.tls {
                Some(_) => Waiting::Hello { since: station.now },
                None => Waiting::Request,
            }
            .into();
            Next::Shed(open(station, owned, connection, false)?)
        }
        Ok(None) => {
            // As half a request, it is no turn of its source's round.
            shared.order.found_nothing(owned.id.slot);
            Next::Park(match connection.waiting.get() {
                Waiting::Rest { since } => Waiting::Rest { since },
                _ => Waiting::Rest { since: station.now },
            })
        }
        Err(TakeError::Header(error)) => {
            tracing::debug!(listener = %listener.url, peer = %connection.address.get(), %error, "no PROXY header");
            Next::Shed(DropReason::ProxyHeader)
        }
        // A balancer that looks whether the port is open says no word.
        Err(TakeError::Socket(_)) => Next::Shed(DropReason::ClientGone),
    };
    station.finish();
    Some(next)
}

/// Whether the header was taken and the TLS handshake comes next or has begun: there is no session until it is over.
fn begins_tls(station: &Station<'_>, owned: &Owned<'_>, connection: &Connection) -> bool {
    station.shared.listeners[owned.listener()].tls.is_some()
        && (matches!(connection.waiting.get(), Waiting::Hello { .. })
            || station.shared.table.side(owned.id.slot).is_some_and(|side| side.is_some()))
}
