//! The session of one client of a gate for HTTP.

use super::outbound::Outbound;
use super::shared::HttpGate;
use super::stage::{BegunRequest, RequestStage};
use super::turn::GateTurn;
use crate::current::CurrentView;
use crate::limits::Limits;
use crate::reason::CloseReason;
use crate::service::proxy::gate::Settings;
use crate::service::proxy::session::GateSession;
use crate::service::{Holdings, Session, Stream, Turn};
use std::cell::Cell;
use std::io;
use std::sync::Arc;

/// The size of a thread's scratch buffer. What one read from a backend adds to it always fits: the rest of a head, a whole
/// read, and the framing that the gate writes.
const SCRATCH_BYTES: usize = 160 * 1024;

/// The bytes that a gate for HTTP takes for each connection, beside those that every service takes: the stages of a request,
/// and the places of what it holds of the request in the table of input.
pub(crate) const CONNECTION_BYTES: usize = 384 + 2 * Holdings::CONNECTION_BYTES;

/// The bytes that a gate for HTTP takes for each worker, beside those that every service takes: the scratch buffer, and a
/// request's head that is written anew.
pub(crate) fn worker_bytes(limits: &Limits) -> usize {
    SCRATCH_BYTES + 2 * limits.max_head
}

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
        // Its box is used from turn to turn: what is in it is large.
        let mut begun = self.begun.take().unwrap_or_else(|| {
            Box::new(BegunRequest { held: None, stage: RequestStage::between(), out: Outbound::default() })
        });
        let is_whole = begun.take_back().is_ok();
        let mut scratch = SCRATCH.take();
        scratch.clear();
        if scratch.capacity() == 0 {
            // At once as large as it can become: only what is written to it is touched. Without memory it grows as needed.
            let _ = scratch.try_reserve_exact(SCRATCH_BYTES);
        }
        let gate = (&self.gate, &*self.settings);
        let mut talk = GateTurn::new(gate, stream, begun, (self.unread, self.hung_up), scratch);
        let turn = if is_whole { talk.run() } else { talk.interrupted() };
        let turn = turn.and_then(|turn| talk.answer_tls().map(|()| turn));
        let GateTurn { stream, mut begun, unread, hung_up, sent, ended, tunnel, scratch, .. } = talk;
        if scratch.capacity() <= SCRATCH_BYTES {
            SCRATCH.set(scratch);
        }
        stream.moved(0, sent, ended);
        let turn = match turn {
            Ok(Turn::Close) | Err(_) => turn,
            Ok(turn) => begun.set_aside(stream.seat(), stream.context()).map(|()| turn),
        };
        (self.unread, self.hung_up, self.tunnel) = (unread, hung_up, tunnel);
        match &*begun {
            BegunRequest { held: None, stage: RequestStage::Reading(intake), out }
                if intake.is_fresh() && out.is_empty() => {}
            _ if self.tunnel.is_some() || turn.is_err() => {}
            _ => self.begun = Some(begun),
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

    /// What the allocator makes of a block of this size.
    fn block(bytes: usize) -> usize {
        (bytes + size_of::<usize>()).next_multiple_of(16).max(32)
    }

    #[test]
    fn what_is_counted_for_a_connection_is_enough_for_a_request_under_way_and_for_a_pair() {
        use super::super::{exchange::Exchange, outbound::Untaken, pending::Pending};
        use crate::service::pool::Buffer;
        use crate::service::{CONNECTION_BYTES as EVERY, SESSION_BYTES};
        let tried = block(4 * size_of::<crate::service::proxy::backends::BackendId>());
        let begun = block(size_of::<HttpGateSession>()) + block(size_of::<BegunRequest>());
        let request = begun
            + block(size_of::<Exchange>())
            + block(size_of::<Pending>())
            + tried
            + block(size_of::<Untaken>())
            + block(size_of::<Buffer>());
        let counted = SESSION_BYTES + CONNECTION_BYTES - 2 * Holdings::CONNECTION_BYTES;
        assert!(request <= counted, "{request} bytes for a request");
        let pair = GateSession::pair_bytes().map(block).iter().sum::<usize>() + tried;
        assert!(pair <= SESSION_BYTES, "{pair} bytes for a pair");
        let websocket = pair + block(size_of::<HttpGateSession>());
        assert!(websocket <= counted && SESSION_BYTES < EVERY, "{websocket} bytes for a WebSocket");
    }
}
