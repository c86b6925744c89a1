//! A request of one client, and how far it has come.

use super::exchange::Exchange;
use super::intake::RequestIntake;
use super::outbound::Outbound;
use super::pending::Pending;
use crate::service::held::Held;
use crate::service::proxy::backends::{Place, Ticket};
use crate::service::proxy::connect::Connecting;

/// A request that has begun, or what is left of the one before.
pub(super) struct BegunRequest {
    /// Input that no request has used.
    pub(super) held: Option<Held>,
    pub(super) stage: RequestStage,
    pub(super) out: Outbound,
}

/// In each stage a socket is closed before its place is given back: fields are dropped in their order.
pub(super) enum RequestStage {
    Reading(RequestIntake),
    /// It is to ask for a place.
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
    /// The answer was 101, and what was said before the pair begins is on its way.
    Switching(Box<Exchange>),
    /// The last answer is on its way.
    Ending,
    /// A step has taken the stage out, and puts the next one in.
    Moving,
}

impl RequestStage {
    pub(super) const fn between() -> Self {
        RequestStage::Reading(RequestIntake::new())
    }
}
