//! The reading stage of a turn: reads a request until it is complete or refused.

use super::{CONTINUE, GateTurn, Onward};
use crate::clock::Nanos;
use crate::service::held::Held;
use crate::service::http::wire::Refused;
use crate::service::proxy::http::intake::{
    IntakeFault, IntakeSetting, IntakeStep, RequestIntake, UNKNOWN_VERSION,
};
use crate::service::proxy::http::pending::Pending;
use crate::service::proxy::http::settings::HttpGateConfig;
use crate::service::proxy::http::stage::{BegunRequest, RequestStage};
use crate::service::proxy::http::words::{GateWords, SaidTo};
use crate::service::{Context, Fault, Peer, Received, Turn};
use crate::transport::socket::ClientSocket;
use std::io;

/// What a client is told whose request cannot be kept until it is whole or has a place.
const NO_ROOM: &str = "the server has no room for this request now";

impl GateTurn<'_, '_> {
    /// Reads from the client until a request is ready.
    pub(super) fn read(&mut self, intake: RequestIntake) -> io::Result<Onward> {
        self.begun.stage = RequestStage::Reading(intake);
        if !self.begun.out.is_empty() {
            // The client has not taken all of the last answer yet.
            return if self.has_left() { self.leave() } else { self.park(Nanos::MAX) };
        }
        if self.begun.held.is_some() {
            let context = self.stream.context();
            let from = (self.peer(), self.client);
            let taken = take_input(&mut self.begun, &self.settings.http, context, from, &[]);
            if let Some(onward) = self.taken(taken)? {
                return Ok(onward);
            }
        }
        while self.unread || self.hung_up {
            let from = (self.peer(), self.client);
            let (input, output) = self.stream.split();
            let context = output.context;
            let taken = match input.receive()? {
                Received::Data(data) => {
                    let taken = take_input(&mut self.begun, &self.settings.http, context, from, data);
                    self.filled = !self.stream.is_drained();
                    self.unread = self.filled;
                    taken
                }
                // The stream has read enough for this turn.
                Received::Nothing if self.filled => return Ok(Onward::Turn(Turn::Again)),
                Received::Nothing => {
                    self.unread = false;
                    break;
                }
                // The client has closed, so an incomplete request stays incomplete.
                Received::End => return self.leave(),
            };
            if let Some(onward) = self.taken(taken)? {
                return Ok(onward);
            }
        }
        let fresh = self.begun.held.is_none()
            && matches!(&self.begun.stage, RequestStage::Reading(intake) if intake.is_fresh());
        Ok(Onward::Turn(if fresh { Turn::Park } else { Turn::Partial }))
    }

    /// Acts on the outcome of some input; `None` if more must be read.
    fn taken(&mut self, taken: Result<IntakeStep, IntakeFault>) -> io::Result<Option<Onward>> {
        match taken {
            Ok(IntakeStep::More) => Ok(None),
            Ok(IntakeStep::Continue) => {
                self.scratch.extend_from_slice(CONTINUE);
                self.deliver().map(|()| None)
            }
            Ok(IntakeStep::Ready(mut pending)) => {
                pending.since = self.now;
                self.begun.stage = RequestStage::Ready(pending);
                Ok(Some(Onward::GoOn))
            }
            Err(IntakeFault::Refused(refused)) => self.refuse(refused, None).map(Some),
            Err(IntakeFault::Connect) => self.last_words(501, "this server makes no tunnels", None).map(Some),
            Err(IntakeFault::NoRoom) => {
                let _ = self.last_words(503, NO_ROOM, None)?;
                Err(Fault::InputLimit.into())
            }
        }
    }

    /// A part of the request was given up for another source, so the client is told to come again.
    pub(in crate::service::proxy::http) fn interrupted(&mut self) -> io::Result<Turn> {
        let mut pending = match std::mem::replace(&mut self.begun.stage, RequestStage::Moving) {
            RequestStage::Ready(pending) | RequestStage::Waiting { pending, .. } => Some(pending),
            _ => None,
        };
        let _ = self.last_words(503, NO_ROOM, pending.as_deref_mut())?;
        Err(Fault::InputLimit.into())
    }

    /// Answers a request that cannot be read, and ends the connection: where the next request would begin is not known.
    pub(super) fn refuse(&mut self, refused: Refused, pending: Option<&mut Pending>) -> io::Result<Onward> {
        let onward = self.last_words(refused.status(), &refused.to_string(), pending)?;
        match refused.status() {
            // The request was understood, but is larger than allowed.
            413 | 417 => Ok(onward),
            _ if self.begun.out.is_empty() => Err(refused.into()),
            _ => Ok(onward),
        }
    }

    /// Answers a request that was not read to its end, then ends the connection.
    pub(super) fn last_words(
        &mut self,
        status: u16,
        text: &str,
        pending: Option<&mut Pending>,
    ) -> io::Result<Onward> {
        let retry_after = (status == 503).then_some(1);
        let to = SaidTo { version: UNKNOWN_VERSION, head_only: false, keep: false };
        GateWords { status, text, retry_after }.write(to, &mut self.scratch);
        self.count(status, None);
        match pending {
            Some(pending) => pending.answered(status, text.len() as u64 + 1),
            None => self.log_unread(status, text.len() as u64 + 1),
        }
        self.deliver()?;
        self.begun.stage = RequestStage::Ending;
        Ok(Onward::GoOn)
    }

    /// Logs the answer to a request that could not be read.
    fn log_unread(&self, status: u16, body: u64) {
        let web = self.stream.context().web;
        let entry = web.and_then(|web| web.entry(self.peer().address, web.began(), None));
        if let Some(mut entry) = entry {
            (entry.status, entry.sent) = (status, body);
        }
    }
}

/// Hands input to the request's intake, and keeps the bytes that it does not use.
fn take_input(
    begun: &mut BegunRequest,
    config: &HttpGateConfig,
    context: &Context<'_>,
    (peer, client): (&Peer, &ClientSocket),
    data: &[u8],
) -> Result<IntakeStep, IntakeFault> {
    let RequestStage::Reading(intake) = &mut begun.stage else { return Ok(IntakeStep::More) };
    let setting = IntakeSetting { config, context, peer, client };
    let Some(mut held) = begun.held.take() else {
        let (used, step) = intake.take(data, setting)?;
        if used < data.len() {
            let mut held = Held::of_told(peer, context);
            held.extend(&data[used..], context.limits.max_head, context)?;
            begun.held = Some(held);
        }
        return Ok(step);
    };
    held.extend(data, context.limits.max_head, context)?;
    let (used, step) = intake.take(held.bytes(), setting)?;
    held.answered(used);
    if !held.is_empty() {
        begun.held = Some(held);
    }
    Ok(step)
}
