//! A turn of a client: it takes one step after the other, until it has to wait for somebody.

mod answering;
mod placing;
mod reading;

use super::outbound::OutboundFault;
use super::pending::Pending;
use super::shared::HttpGate;
use super::stage::{BegunRequest, RequestStage};
use super::words::{GateWords, SaidTo};
use crate::clock::Nanos;
use crate::service::proxy::gate::Settings;
use crate::service::proxy::session::GateSession;
use crate::service::proxy::socket::Store;
use crate::service::{Fault, Peer, SocketEvent, SocketTls, Stream, Turn};
use crate::transport::socket::ClientSocket;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The most steps of one turn. After them other connections have their turns.
const STEPS: usize = 32;

/// The longest time until the timer calls a session that has a request under way. The call stays set when the request is
/// done, and then causes one turn for nothing.
const CALL_MAX: Duration = Duration::from_secs(5);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What follows after a step: the end of the turn, or the next step.
enum Onward {
    Turn(Turn),
    GoOn,
}

/// The limits that matter in a turn.
#[derive(Clone, Copy)]
struct Bounds {
    read_timeout: Duration,
    write_timeout: Duration,
    turn_bytes: usize,
    output_total: usize,
}

/// A session during a turn.
pub(super) struct GateTurn<'t, 'a> {
    gate: &'t Arc<HttpGate>,
    settings: &'t Settings,
    pub(super) stream: &'t mut Stream<'a>,
    client: &'a ClientSocket,
    /// The client's TLS, if it speaks TLS.
    tls: Option<&'a dyn SocketTls>,
    bounds: Bounds,
    now: Nanos,
    pub(super) begun: Box<BegunRequest>,
    pub(super) unread: bool,
    pub(super) hung_up: bool,
    /// Whether the last read may have left input behind.
    filled: bool,
    /// Bytes to send to the client next; empty at the start of a turn.
    pub(super) scratch: Vec<u8>,
    pub(super) sent: u64,
    pub(super) ended: bool,
    pub(super) tunnel: Option<Box<GateSession>>,
}

impl<'t, 'a> GateTurn<'t, 'a> {
    pub(super) fn new(
        (gate, settings): (&'t Arc<HttpGate>, &'t Settings),
        stream: &'t mut Stream<'a>,
        begun: Box<BegunRequest>,
        (unread, hung_up): (bool, bool),
        scratch: Vec<u8>,
    ) -> Self {
        let limits = stream.limits();
        let bounds = Bounds {
            read_timeout: limits.read_timeout,
            write_timeout: limits.write_timeout,
            turn_bytes: limits.turn_bytes,
            output_total: limits.output_total,
        };
        let unread = unread || stream.events().client != SocketEvent::Nothing;
        let hung_up = hung_up || stream.has_hung_up();
        let (tls, (client, _)) = (stream.client_tls(), stream.raw());
        Self {
            gate,
            settings,
            client,
            tls,
            bounds,
            now: stream.began(gate.gate.clock),
            begun,
            unread,
            hung_up,
            filled: false,
            scratch,
            sent: 0,
            ended: false,
            tunnel: None,
            stream,
        }
    }

    pub(super) fn run(&mut self) -> io::Result<Turn> {
        self.sent += self.begun.out.flush(self.client, self.now)?;
        if let RequestStage::Answering(exchange) | RequestStage::Switching(exchange) = &mut self.begun.stage {
            exchange.wake(self.stream.events().other, self.now);
        }
        for _ in 0..STEPS {
            let stage = std::mem::replace(&mut self.begun.stage, RequestStage::Moving);
            let onward = match stage {
                RequestStage::Reading(intake) => self.read(intake)?,
                RequestStage::Ready(pending) => self.ask(pending)?,
                RequestStage::Waiting { ticket, pending } => self.wait(ticket, pending)?,
                RequestStage::Connecting { connecting, place, pending } => {
                    self.connect(connecting, place, pending)?
                }
                RequestStage::Answering(exchange) => self.answer(exchange)?,
                RequestStage::Switching(exchange) => self.switch(exchange)?,
                RequestStage::Ending => self.end()?,
                RequestStage::Moving => return Ok(Turn::Close),
            };
            if let Onward::Turn(turn) = onward {
                return Ok(turn);
            }
        }
        Ok(Turn::Again)
    }

    /// The client. Not every turn asks: its address is in memory that a turn needs for nothing else.
    fn peer(&self) -> &'a Peer {
        self.stream.lasting_peer()
    }

    /// The memory for what client and backend have not taken.
    fn store(&self) -> Store<'a> {
        (self.stream.output_pool(), self.bounds.output_total)
    }

    /// Parks the connection until an event, and at most until `until`.
    fn park(&mut self, until: Nanos) -> io::Result<Onward> {
        let mut until = until;
        if let Some(slow) = self.begun.out.deadline(self.bounds.write_timeout) {
            if self.now >= slow {
                return Err(Fault::WriteTimeout.into());
            }
            until = until.min(slow);
            self.stream.want_output();
        }
        self.stream.accept_earlier_call();
        let time = Duration::from_nanos(until.saturating_sub(self.now));
        Ok(Onward::Turn(Turn::ParkFor(time.min(CALL_MAX))))
    }

    /// Sends the client what is in `scratch`.
    fn deliver(&mut self) -> io::Result<()> {
        if self.scratch.is_empty() {
            return Ok(());
        }
        let words = std::mem::take(&mut self.scratch);
        let sent = self.send(&words);
        self.scratch = words;
        self.scratch.clear();
        sent
    }

    /// Sends bytes to the client, through TLS if it speaks TLS, and keeps what it does not take.
    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let pool = self.store();
        let (out, client, now, sent) = (&mut self.begun.out, self.client, self.now, &mut self.sent);
        let mut pass = |bytes: &[u8]| -> io::Result<()> {
            *sent += out.send(client, bytes, now, pool).map_err(|fault| match fault {
                OutboundFault::NoRoom => Fault::OutputLimit.into(),
                OutboundFault::Socket(error) => error,
            })?;
            Ok(())
        };
        match self.tls {
            Some(tls) => tls.seal(data, &mut pass),
            None => pass(data),
        }
    }

    /// Sends the records that the client's TLS has made by itself, as answers to the client. They must not overtake what
    /// is kept for it.
    pub(super) fn answer_tls(&mut self) -> io::Result<()> {
        if self.tls.is_some() && self.tunnel.is_none() { self.send(&[]) } else { Ok(()) }
    }

    /// Whether the client has left, so that its request need not be served. A client that has only closed its sending half
    /// looks the same, and counts as one that has left.
    fn has_left(&self) -> bool {
        self.hung_up && self.stream.has_left(true)
    }

    fn leave(&mut self) -> io::Result<Onward> {
        self.ended = true;
        Ok(Onward::Turn(Turn::Close))
    }

    /// Delivers the rest of the last answer, then closes.
    fn end(&mut self) -> io::Result<Onward> {
        if self.begun.out.is_empty() {
            return Ok(Onward::Turn(Turn::Close));
        }
        self.begun.stage = RequestStage::Ending;
        self.park(Nanos::MAX)
    }

    /// Counts an answer. For a complete one, `since` says when its request was ready, and the time it took is recorded.
    fn count(&self, status: u16, since: Option<Nanos>) {
        let Some(web) = self.stream.context().web else { return };
        web.ledger.answered(status);
        if let Some(since) = since {
            web.ledger.took(self.now.saturating_sub(since));
        }
    }

    /// Sends the gate's own answer to a request that no backend answers.
    fn give_up(&mut self, pending: &mut Pending, words: GateWords<'_>) -> io::Result<Onward> {
        let asked = pending.asked;
        let keep = asked.keep && pending.has_come() && !self.stream.is_draining();
        words.write(SaidTo { version: asked.version, head_only: asked.head_only, keep }, &mut self.scratch);
        // The time is not recorded: how quickly clients are refused says nothing about how quickly they are served.
        self.count(words.status, (words.status != 503).then_some(pending.since));
        pending.answered(words.status, if asked.head_only { 0 } else { words.text.len() as u64 + 1 });
        self.deliver()?;
        self.begun.stage = if keep { RequestStage::between() } else { RequestStage::Ending };
        Ok(Onward::GoOn)
    }
}
