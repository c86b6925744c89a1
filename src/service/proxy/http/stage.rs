//! The stages that a request of one client goes through.

use super::exchange::Exchange;
use super::intake::RequestIntake;
use super::outbound::Outbound;
use super::pending::Pending;
use crate::service::held::Held;
use crate::service::proxy::backends::{Place, Ticket};
use crate::service::proxy::connect::Connecting;
use crate::service::{Context, Seat};
use std::io;

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
        connecting: Box<Connecting>,
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

/// A request that waits for a place, and has no more bytes than this, is not put into the table of input: few such requests
/// wait, and the table's lock would cost more than they hold.
const SMALL: usize = 4096;

impl BegunRequest {
    /// Whether there can be input to set aside or to take back. In most turns there is none: the request is with its backend,
    /// or none has begun.
    fn has_inputs(&self) -> bool {
        let of_stage = match &self.stage {
            RequestStage::Reading(intake) => intake.has_inputs(),
            RequestStage::Ready(_) | RequestStage::Waiting { .. } => true,
            _ => false,
        };
        of_stage || self.held.is_some()
    }

    /// What is held of the client's input while the client or a place is waited for.
    fn inputs(&mut self) -> impl Iterator<Item = &mut Held> {
        let of_stage = match &mut self.stage {
            RequestStage::Reading(intake) => intake.inputs(),
            RequestStage::Ready(pending) | RequestStage::Waiting { pending, .. } => {
                [Some(pending.input()), None]
            }
            _ => [None, None],
        };
        self.held.iter_mut().chain(of_stage.into_iter().flatten())
    }

    /// Puts the input where it can be given up for another source, until [`take_back`](Self::take_back) in the next turn.
    pub(super) fn set_aside(&mut self, seat: Seat, context: &Context<'_>) -> io::Result<()> {
        if !self.has_inputs() {
            return Ok(());
        }
        let waits = matches!(self.stage, RequestStage::Ready(_) | RequestStage::Waiting { .. });
        let mut inputs = self.inputs().filter(|held| !waits || held.len() > SMALL);
        inputs.try_for_each(|held| held.set_aside(seat, context))
    }

    /// Takes the input back; an error if a part of it was given up.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if !self.has_inputs() {
            return Ok(());
        }
        self.inputs().try_for_each(Held::take_back)
    }
}

impl RequestStage {
    pub(super) const fn between() -> Self {
        RequestStage::Reading(RequestIntake::new())
    }
}
