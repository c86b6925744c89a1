//! The client of a request.

use crate::service::{Peer, Seat};

/// The client that sent a request, and its connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Caller<'c> {
    pub(in crate::service) peer: &'c Peer,
    pub(in crate::service) seat: Seat,
}
