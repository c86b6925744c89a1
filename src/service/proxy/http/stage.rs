//! The stages that a request of one client goes through.

use super::exchange::Exchange;
use super::intake::RequestIntake;
use super::outbound::Outbound;
use super::pending::Pending;
use crate::service::held::Held;
use crate::service::proxy::backends::{Place, Ticket};
use crate::service::proxy::connect::Connecting;

/// A request that has begun; or one whose answer the client has not taken in full.
pub(super) struct BegunRequest {
    /// Bytes from the client that no request has used yet.
    pub(super) held: Option<Held>,
    pub(super) stage: RequestStage,
    pub(super) out: Outbound,
}

/// How far a request has come. Fields are dropped in their order, so in each stage a socket is closed before its place is
/// given back.
pub(super) enum RequestStage {
    Reading(RequestIntake),
    /// It has been read and must ask for a place.
    Ready(Box<Pending>),
    Waiting {
        ticket: Ticket,
        pending: Box<Pending>,
    },
    Connecting {
        connecting: Connecting,
        place: Place,
        pending: Box<Pending>,
    },
    Answering(Box<Exchange>),
    /// The answer is 101. Bytes from before it must be delivered before the two sockets become a pair.
    Switching(Box<Exchange>),
    /// The last answer on this connection is being delivered.
    Ending,
    /// A placeholder while a step holds the stage. The step puts the next stage in.
    Moving,
}

impl RequestStage {
    pub(super) const fn between() -> Self {
        RequestStage::Reading(RequestIntake::new())
    }
}
