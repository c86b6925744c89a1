//! The session of one client of a gate for HTTP.

use super::outbound::Outbound;
use super::shared::HttpGate;
use super::stage::{BegunRequest, RequestStage};
use super::turn::GateTurn;
use crate::current::CurrentView;
use crate::reason::CloseReason;
use crate::service::proxy::gate::Settings;
use crate::service::proxy::session::GateSession;
use crate::service::{Session, Stream, Turn};
use std::cell::Cell;
use std::io;
use std::sync::Arc;

/// A thread keeps its scratch buffer from turn to turn, unless it has grown larger than this.
const SCRATCH_MAX: usize = 160 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The session of a client.
pub(in crate::service::proxy) struct HttpGateSession {
    gate: Arc<HttpGate>,
    settings: CurrentView<Settings>,
    /// `None` while the connection is between two requests, so that an idle connection is small.
    begun: Option<Box<BegunRequest>>,
    /// Relays bytes after `101 Switching Protocols`.
    tunnel: Option<Box<GateSession>>,
    /// Whether the kernel may have bytes from the client.
    unread: bool,
    /// Whether the client has closed its sending half.
    hung_up: bool,
}

impl HttpGateSession {
    pub(in crate::service::proxy) fn new(gate: Arc<HttpGate>) -> Self {
        let settings = gate.gate.settings.view();
        Self { gate, settings, begun: None, tunnel: None, unread: true, hung_up: false }
    }
}

impl Session for HttpGateSession {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        if let Some(tunnel) = &mut self.tunnel {
            return tunnel.turn(stream);
        }
        self.settings.look(&self.gate.gate.settings);
        let begun = match self.begun.take() {
            Some(begun) => *begun,
            None => BegunRequest { held: None, stage: RequestStage::between(), out: Outbound::default() },
        };
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let mut talk =
            GateTurn::new((&self.gate, &self.settings), stream, begun, (self.unread, self.hung_up), scratch);
        let turn = talk.run().and_then(|turn| talk.answer_tls().map(|()| turn));
        let GateTurn { stream, begun, unread, hung_up, sent, ended, tunnel, scratch, .. } = talk;
        if scratch.capacity() <= SCRATCH_MAX {
            SCRATCH.set(scratch);
        }
        stream.moved(0, sent, ended);
        (self.unread, self.hung_up, self.tunnel) = (unread, hung_up, tunnel);
        match &begun {
            BegunRequest { held: None, stage: RequestStage::Reading(intake), out }
                if intake.is_fresh() && out.is_empty() => {}
            _ if self.tunnel.is_some() || turn.is_err() => {}
            _ => self.begun = Some(Box::new(begun)),
        }
        turn
    }

    fn finish(&mut self, reason: CloseReason) {
        self.begun = None;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.finish(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_between_two_requests_is_small() {
        assert!(size_of::<HttpGateSession>() <= 40, "{} bytes", size_of::<HttpGateSession>());
    }
}
