//! One client of a gate for HTTP: a session of the server.

use super::exchange::{BackendHeard, BackendLine, Exchange};
use super::intake::{IntakeFault, IntakeSetting, IntakeStep, RequestIntake, UNKNOWN_VERSION};
use super::outbound::{Outbound, OutboundFault};
use super::pending::{Pending, UploadFault};
use super::shared::HttpGate;
use super::words::{GateWords, SaidTo};
use crate::clock::Nanos;
use crate::reason::{BackendFailure, CloseReason, RequestFailure};
use crate::service::held::Held;
use crate::service::http::wire::Refused;
use crate::service::proxy::backends::{Asking, Look, Place, PlaceAnswer, Refusal, Ticket};
use crate::service::proxy::connect::{Arrival, Connecting};
use crate::service::proxy::gate::wait_limits;
use crate::service::proxy::session::GateSession;
use crate::service::{Fault, Peer, Received, Session, SocketEvents, Stream, Turn, WatchFor};
use crate::transport::socket::{has_left, send};
use std::cell::Cell;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// What may wait for a client of one answer: when more has come, nothing more is read of the backend.
const ANSWER_KEPT: usize = 64 * 1024;

/// Steps of one turn; then other connections have theirs.
const STEPS: usize = 32;

/// A turn comes at least this often while a request is under way. The call for it outlives the request, and is a turn
/// for nothing then.
const CALL_MAX: Duration = Duration::from_secs(5);

/// What a thread keeps of its buffer from one turn to the next.
const SCRATCH_MAX: usize = 160 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The session of a client.
pub(in crate::service::proxy) struct HttpGateSession {
    gate: Arc<HttpGate>,
    /// Nothing while the connection is between two requests.
    begun: Option<Box<BegunRequest>>,
    /// What the connection has become after `101 Switching Protocols`.
    tunnel: Option<Box<GateSession>>,
    /// The kernel may have input of the client.
    unread: bool,
    /// The client has ended its half.
    hung_up: bool,
}

/// A request that has begun, or what is left of the one before.
struct BegunRequest {
    /// Input that no request has used.
    held: Option<Held>,
    stage: RequestStage,
    out: Outbound,
}

/// In each stage a socket is closed before its place is given back: fields are dropped in their order.
enum RequestStage {
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
    const fn between() -> Self {
        RequestStage::Reading(RequestIntake::new())
    }
}

/// What a step leads to: the end of the turn, or the next step.
enum Onward {
    Turn(Turn),
    GoOn,
}

/// What came of the client's body.
enum Fed {
    Some,
    /// There is nothing now, or enough for one turn.
    Enough,
    /// The request does not go on.
    Over(Onward),
}

impl HttpGateSession {
    pub(in crate::service::proxy) fn new(gate: Arc<HttpGate>) -> Self {
        Self { gate, begun: None, tunnel: None, unread: true, hung_up: false }
    }
}

impl Session for HttpGateSession {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        stream.must_be_plain()?;
        if let Some(tunnel) = &mut self.tunnel {
            return tunnel.turn(stream);
        }
        let begun = match self.begun.take() {
            Some(begun) => *begun,
            None => BegunRequest { held: None, stage: RequestStage::between(), out: Outbound::default() },
        };
        let mut talk = GateTurn::new(&self.gate, stream, begun, (self.unread, self.hung_up));
        let turn = talk.run();
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

/// The limits that matter in a turn.
#[derive(Clone, Copy)]
struct Bounds {
    read_timeout: Duration,
    write_timeout: Duration,
    turn_bytes: usize,
    output_total: usize,
}

/// A session during a turn.
struct GateTurn<'t, 'a> {
    gate: &'t Arc<HttpGate>,
    stream: &'t mut Stream<'a>,
    client: &'a TcpStream,
    peer: Peer,
    bounds: Bounds,
    now: Nanos,
    begun: BegunRequest,
    unread: bool,
    hung_up: bool,
    /// The last read filled the worker's buffer, of this size.
    filled: bool,
    full: usize,
    /// What the client is to get next.
    scratch: Vec<u8>,
    sent: u64,
    ended: bool,
    tunnel: Option<Box<GateSession>>,
}

impl<'t, 'a> GateTurn<'t, 'a> {
    fn new(
        gate: &'t Arc<HttpGate>,
        stream: &'t mut Stream<'a>,
        begun: BegunRequest,
        (unread, hung_up): (bool, bool),
    ) -> Self {
        let limits = stream.limits();
        let bounds = Bounds {
            read_timeout: limits.read_timeout,
            write_timeout: limits.write_timeout,
            turn_bytes: limits.turn_bytes,
            output_total: limits.output_total,
        };
        let unread = unread || stream.events().client != crate::service::SocketEvent::Nothing;
        let (peer, hung_up) = (stream.peer().clone(), hung_up || stream.has_hung_up());
        let (client, buffer) = stream.raw();
        let full = buffer.len();
        let mut scratch = SCRATCH.take();
        scratch.clear();
        Self {
            gate,
            client,
            peer,
            bounds,
            now: gate.gate.clock.now(),
            begun,
            unread,
            hung_up,
            filled: false,
            full,
            scratch,
            sent: 0,
            ended: false,
            tunnel: None,
            stream,
        }
    }

    fn run(&mut self) -> io::Result<Turn> {
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

    /// Lets go of the connection until something happens, and until then at the latest.
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

    /// Gives the client what was written for it.
    fn deliver(&mut self) -> io::Result<()> {
        if self.scratch.is_empty() {
            return Ok(());
        }
        let pool = (self.stream.output_pool(), self.bounds.output_total);
        let sent = self.begun.out.send(self.client, &self.scratch, self.now, pool);
        self.scratch.clear();
        self.sent += sent.map_err(|fault| match fault {
            OutboundFault::NoRoom => Fault::OutputLimit.into(),
            OutboundFault::Socket(error) => error,
        })?;
        Ok(())
    }

    /// Whether the client has left: nobody is to wait for it. A client that has closed its half and waits for an answer
    /// cannot be told from one that has left.
    fn has_left(&self) -> bool {
        self.hung_up && has_left(self.client, true)
    }

    fn leave(&mut self) -> io::Result<Onward> {
        self.ended = true;
        Ok(Onward::Turn(Turn::Close))
    }

    /// The last answer is on its way.
    fn end(&mut self) -> io::Result<Onward> {
        if self.begun.out.is_empty() {
            return Ok(Onward::Turn(Turn::Close));
        }
        self.begun.stage = RequestStage::Ending;
        self.park(Nanos::MAX)
    }

    /// Reads until a request is ready.
    fn read(&mut self, intake: RequestIntake) -> io::Result<Onward> {
        self.begun.stage = RequestStage::Reading(intake);
        if !self.begun.out.is_empty() {
            // The answer before is not taken yet.
            return if self.has_left() { self.leave() } else { self.park(Nanos::MAX) };
        }
        if self.begun.held.is_some() {
            let context = *self.stream.context();
            let taken = take_input(&mut self.begun, self.gate, context, (&self.peer, self.client), &[]);
            if let Some(onward) = self.taken(taken)? {
                return Ok(onward);
            }
        }
        while self.unread || self.hung_up {
            let (input, output) = self.stream.split();
            let context = output.context;
            let taken = match input.receive()? {
                Received::Data(data) => {
                    self.filled = data.len() == self.full;
                    self.unread = self.filled;
                    take_input(&mut self.begun, self.gate, context, (&self.peer, self.client), data)
                }
                // It may have read enough for one turn.
                Received::Nothing if self.filled => return Ok(Onward::Turn(Turn::Again)),
                Received::Nothing => {
                    self.unread = false;
                    break;
                }
                // A request that is not whole will never be.
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

    /// What follows from input; nothing if more is to be read.
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
                let _ = self.last_words(503, "the server has no room for this request now", None)?;
                Err(Fault::InputLimit.into())
            }
        }
    }

    /// A request cannot be read: nothing behind it can be understood.
    fn refuse(&mut self, refused: Refused, pending: Option<&mut Pending>) -> io::Result<Onward> {
        let onward = self.last_words(refused.status(), &refused.to_string(), pending)?;
        match refused.status() {
            // It was understood, and is more than is allowed.
            413 | 417 => Ok(onward),
            _ if self.begun.out.is_empty() => Err(refused.into()),
            _ => Ok(onward),
        }
    }

    /// Answers a request that was not read to its end, and ends the connection.
    fn last_words(&mut self, status: u16, text: &str, pending: Option<&mut Pending>) -> io::Result<Onward> {
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

    /// Counts an answer, and the time that it took where it is whole.
    fn count(&self, status: u16, since: Option<Nanos>) {
        let Some(web) = self.stream.context().web else { return };
        web.ledger.answered(status);
        if let Some(since) = since {
            web.ledger.took(self.now.saturating_sub(since));
        }
    }

    /// Logs the answer to a request that could not be read.
    fn log_unread(&self, status: u16, body: u64) {
        let web = self.stream.context().web;
        let entry = web.and_then(|web| web.entry(self.peer.address, web.began(), None));
        if let Some(mut entry) = entry {
            (entry.status, entry.sent) = (status, body);
        }
    }

    /// Answers a request that no backend answers.
    fn give_up(&mut self, pending: &mut Pending, words: GateWords<'_>) -> io::Result<Onward> {
        let asked = pending.asked;
        let keep = asked.keep && pending.has_come() && !self.stream.is_draining();
        words.write(SaidTo { version: asked.version, head_only: asked.head_only, keep }, &mut self.scratch);
        // How quickly clients are turned away says nothing of how quickly they are answered.
        self.count(words.status, (words.status != 503).then_some(pending.since));
        pending.answered(words.status, if asked.head_only { 0 } else { words.text.len() as u64 + 1 });
        self.deliver()?;
        self.begun.stage = if keep { RequestStage::between() } else { RequestStage::Ending };
        Ok(Onward::GoOn)
    }

    /// Asks for a place.
    fn ask(&mut self, mut pending: Box<Pending>) -> io::Result<Onward> {
        let stream = &*self.stream;
        let asking = Asking {
            source: pending.source,
            since: self.now,
            tried: &pending.tried,
            wait: wait_limits(stream.limits()),
        };
        match self.gate.gate.backends.take(&asking, || Box::new(stream.waker())) {
            PlaceAnswer::Place(place) => self.set_out(place, pending, false),
            PlaceAnswer::Wait(ticket) => self.wait(ticket, pending),
            PlaceAnswer::Refused(refusal) => self.turn_away(&mut pending, refusal),
        }
    }

    /// Looks whether there is a place now.
    fn wait(&mut self, mut ticket: Ticket, mut pending: Box<Pending>) -> io::Result<Onward> {
        if self.has_left() {
            return self.leave();
        }
        match ticket.look() {
            Look::Waiting { until } => {
                self.begun.stage = RequestStage::Waiting { ticket, pending };
                self.park(until)
            }
            Look::Place(place) => self.set_out(place, pending, false),
            Look::Refused(refusal) => self.turn_away(&mut pending, refusal),
        }
    }

    fn turn_away(&mut self, pending: &mut Pending, refusal: Refusal) -> io::Result<Onward> {
        let seconds = self.gate.retry_after();
        let busy = |text| GateWords { status: 503, text, retry_after: Some(seconds) };
        match refusal {
            Refusal::ClientGone => self.leave(),
            Refusal::QueueFull => self.give_up(pending, busy("too many requests wait for the backend")),
            Refusal::QueueTimeout => {
                self.give_up(pending, busy("the request waited too long for the backend"))
            }
            Refusal::NoBackend => {
                let text = "no backend can be reached";
                self.give_up(pending, GateWords { status: 502, text, retry_after: None })
            }
        }
    }

    /// Sets out for a backend: on a connection that is there, unless a `new` one is wanted.
    fn set_out(&mut self, place: Place, mut pending: Box<Pending>, new: bool) -> io::Result<Onward> {
        let backends = &self.gate.gate.backends;
        if !new && let Some(spare) = self.gate.spares.take(place.backend(), self.now) {
            if spare.seat != self.stream.seat() {
                self.stream.watch(spare.socket.as_fd(), WatchFor::Moved)?;
            }
            place.reused(false);
            return self.begin(Exchange::new(spare.socket, place, pending, BackendLine::Reused, self.now));
        }
        if pending.deadline == 0 {
            pending.deadline = self.gate.gate.connect_deadline(self.now);
        }
        // While another backend could be tried, this one has half of the time that is left.
        let left = pending.deadline.saturating_sub(self.now);
        let others = backends.has_other(&pending.tried, place.backend());
        let until = if others { self.now + left / 2 } else { pending.deadline };
        match Connecting::start(place.address(), self.now, until) {
            Ok((connecting, Arrival::Wait { until })) => {
                if let Some(socket) = connecting.socket() {
                    self.stream.watch(socket, WatchFor::Both)?;
                }
                self.begun.stage = RequestStage::Connecting { connecting, place, pending };
                self.park(until)
            }
            Ok((_, made)) => self.arrive(made, place, pending),
            Err(failure) => self.fail(place, pending, failure),
        }
    }

    /// Looks how the connection to the backend goes.
    fn connect(
        &mut self,
        mut connecting: Connecting,
        place: Place,
        pending: Box<Pending>,
    ) -> io::Result<Onward> {
        if self.has_left() {
            drop(connecting);
            return self.leave();
        }
        match connecting.poll(self.now) {
            Ok(Arrival::Wait { until }) => {
                self.begun.stage = RequestStage::Connecting { connecting, place, pending };
                self.park(until)
            }
            Ok(made) => self.arrive(made, place, pending),
            Err(failure) => {
                drop(connecting);
                self.fail(place, pending, failure)
            }
        }
    }

    /// A backend could not be reached: another is tried while there is time.
    fn fail(
        &mut self,
        place: Place,
        mut pending: Box<Pending>,
        failure: BackendFailure,
    ) -> io::Result<Onward> {
        place.failed(failure);
        pending.tried.push(place.backend());
        drop(place);
        if failure == BackendFailure::Local || self.now >= pending.deadline {
            let timeout = failure == BackendFailure::Timeout;
            let text =
                if timeout { "the backend was not reached in time" } else { "no backend can be reached" };
            let status = if timeout { 504 } else { 502 };
            return self.give_up(&mut pending, GateWords { status, text, retry_after: None });
        }
        self.begun.stage = RequestStage::Ready(pending);
        Ok(Onward::GoOn)
    }

    /// The backend is connected.
    fn arrive(&mut self, arrival: Arrival, place: Place, pending: Box<Pending>) -> io::Result<Onward> {
        let Arrival::Made { socket, took, told } = arrival else { return Ok(Onward::Turn(Turn::Close)) };
        place.reached(took);
        if let Some(version) = self.gate.gate.settings.send_header {
            let mut header = Vec::with_capacity(64);
            match self.client.local_addr() {
                Ok(local) => version.write(self.peer.address, local, &mut header),
                Err(_) => version.write_unknown(&mut header),
            }
            // A new socket has room for it.
            if !send(&socket, &header).is_ok_and(|sent| sent == header.len()) {
                drop(socket);
                return self.fail(place, pending, BackendFailure::Reset);
            }
        }
        if !told {
            self.stream.watch(socket.as_fd(), WatchFor::Input)?;
        }
        let line = BackendLine::Made { watched_both: told };
        self.begin(Exchange::new(socket, place, pending, line, self.now))
    }

    fn begin(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        if std::mem::take(&mut exchange.pending.expects_continue) {
            self.scratch.extend_from_slice(CONTINUE);
            self.deliver()?;
        }
        self.answer(Box::new(exchange))
    }

    /// Sends what there is of the request, and passes on what there is of its answer.
    fn answer(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        if self.has_left() {
            return self.leave();
        }
        exchange.push(self.now);
        let mut enough = false;
        while !enough && exchange.wants_upload() && self.unread {
            match self.feed(&mut exchange)? {
                Fed::Some => {}
                Fed::Enough => enough = true,
                Fed::Over(onward) => return Ok(onward),
            }
        }
        let pool = (self.stream.output_pool(), self.bounds.output_total);
        let mut passed = 0;
        while self.begun.out.len() < ANSWER_KEPT {
            let mut asked = exchange.pending.asked;
            asked.keep &= exchange.pending.has_come() && !self.stream.is_draining();
            let (_, buffer) = self.stream.raw();
            let heard = exchange.hear(buffer, asked, pool, &mut self.scratch, self.now);
            if let BackendHeard::Switched { read, after } = heard {
                self.scratch.extend_from_slice(&buffer[read - after..read]);
            }
            passed += self.scratch.len();
            exchange.place.passed(0, self.scratch.len() as u64);
            if matches!(heard, BackendHeard::Done) {
                return self.finish(*exchange);
            }
            self.deliver()?;
            match heard {
                BackendHeard::Nothing => break,
                BackendHeard::Some if passed >= self.bounds.turn_bytes => {
                    self.begun.stage = RequestStage::Answering(exchange);
                    return Ok(Onward::Turn(Turn::Again));
                }
                BackendHeard::Some | BackendHeard::Done => {}
                BackendHeard::Switched { .. } => return self.switch(exchange),
                BackendHeard::Lost => return self.lose(*exchange),
                BackendHeard::Fault(fault) => {
                    return self.spoil(&mut exchange, RequestFailure::Unreadable, 502, &fault.to_string());
                }
            }
        }
        self.await_answer(exchange)
    }

    /// Waits for the backend, or for the client that is slower.
    fn await_answer(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        let mut until = Nanos::MAX;
        if exchange.wants_upload() {
            until = exchange.upload.deadline(self.bounds.read_timeout);
            if self.now >= until {
                return self.upload_timeout(&mut exchange);
            }
            exchange.pause();
        } else {
            exchange.restart_upload(self.now);
            if self.begun.out.len() >= ANSWER_KEPT {
                exchange.pause();
            } else {
                until = exchange.deadline(self.gate.config.backend_timeout);
                if self.now >= until {
                    let text = "the backend did not answer in time";
                    return self.spoil(&mut exchange, RequestFailure::Timeout, 504, text);
                }
            }
        }
        self.watch_output(&mut exchange)?;
        let more = exchange.wants_upload() && self.filled && self.unread;
        self.begun.stage = RequestStage::Answering(exchange);
        if more { Ok(Onward::Turn(Turn::Again)) } else { self.park(until) }
    }

    /// Has an event tell when the backend takes more, if it does not take all now.
    fn watch_output(&mut self, exchange: &mut Exchange) -> io::Result<()> {
        if !exchange.pending.is_taken() && !exchange.deaf && !exchange.watched_both {
            self.stream.watch(exchange.socket.as_fd(), WatchFor::OutputToo)?;
            exchange.watched_both = true;
        }
        Ok(())
    }

    /// The client does not go on with its body.
    fn upload_timeout(&mut self, exchange: &mut Exchange) -> io::Result<Onward> {
        if exchange.answer.has_begun() {
            return Err(Fault::ReadTimeout.into());
        }
        let _ = self.last_words(
            408,
            "the body of the request did not come in time",
            Some(&mut exchange.pending),
        )?;
        Err(Fault::ReadTimeout.into())
    }

    /// Takes a piece of the body from the client.
    fn feed(&mut self, exchange: &mut Exchange) -> io::Result<Fed> {
        let (input, output) = self.stream.split();
        let context = output.context;
        let data = match input.receive()? {
            Received::Data(data) => data,
            Received::Nothing => {
                // After a read that filled the buffer it has only read enough for one turn.
                self.unread = self.filled;
                return Ok(Fed::Enough);
            }
            Received::End => return self.leave().map(Fed::Over),
        };
        self.filled = data.len() == self.full;
        self.unread = self.filled;
        exchange.upload.moved(data.len(), self.now);
        match exchange.pending.feed(data, &context) {
            Ok(used) if used < data.len() => {
                let mut held = Held::of(&self.peer, &context);
                held.extend(&data[used..], data.len(), &context)?;
                self.begun.held = Some(held);
            }
            Ok(_) => {}
            Err(UploadFault::NoRoom) => return Err(Fault::InputLimit.into()),
            Err(UploadFault::Refused(refused)) if exchange.answer.has_begun() => return Err(refused.into()),
            Err(UploadFault::Refused(refused)) => {
                return self.refuse(refused, Some(&mut exchange.pending)).map(Fed::Over);
            }
        }
        exchange.push(self.now);
        Ok(Fed::Some)
    }

    /// The answer is whole. Its place is free before the client sees that.
    fn finish(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        let keep = exchange.answer.keeps_client() && exchange.pending.has_come();
        exchange.place.answered(exchange.answer.status());
        self.count(exchange.answer.status(), Some(exchange.pending.since));
        exchange.pending.answered(exchange.answer.status(), exchange.answer.body());
        self.gate.held_for(exchange.age(self.now));
        let (spare, place, _) = exchange.part(self.stream.seat());
        // A new connection is made only where there is none to spare.
        if let Some(spare) = spare {
            self.gate.spares.put(place.backend(), spare, self.now);
        }
        drop(place);
        self.deliver()?;
        self.begun.stage = if keep { RequestStage::between() } else { RequestStage::Ending };
        Ok(Onward::GoOn)
    }

    /// The backend's connection ended before the answer did.
    fn lose(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        if exchange.can_be_repeated() {
            let Exchange { socket, place, mut pending, .. } = exchange;
            drop(socket);
            pending.rewind();
            pending.repeated = true;
            place.reused(true);
            return self.set_out(place, pending, true);
        }
        let failure = if exchange.answer.has_begun() { RequestFailure::Cut } else { RequestFailure::Closed };
        self.spoil(&mut exchange, failure, 502, "the backend closed the connection and had not answered")
    }

    /// The backend does not answer as it should: the client is told, or its answer is cut.
    fn spoil(
        &mut self,
        exchange: &mut Exchange,
        failure: RequestFailure,
        status: u16,
        text: &str,
    ) -> io::Result<Onward> {
        exchange.place.spoiled(failure);
        tracing::debug!(backend = %exchange.place.address(), reason = %failure, text, "a request is not answered");
        if exchange.answer.has_begun() {
            self.count(exchange.answer.status(), None);
            exchange.pending.answered(exchange.answer.status(), exchange.answer.body());
            // A reset tells the client that its answer is not whole.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.scratch.clear();
        self.give_up(&mut exchange.pending, GateWords { status, text, retry_after: None })
    }

    /// The connection goes on as a pair, once what was said before is on its way.
    fn switch(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        if let Some(held) = self.begun.held.take() {
            let context = *self.stream.context();
            exchange.pending.follow(held.bytes(), &context)?;
        }
        exchange.push(self.now);
        if exchange.deaf {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if exchange.pending.is_taken() && self.begun.out.is_empty() {
            exchange.place.answered(exchange.answer.status());
            self.count(exchange.answer.status(), Some(exchange.pending.since));
            exchange.pending.answered(exchange.answer.status(), 0);
            let Exchange { socket, place, watched_both, .. } = *exchange;
            let gate = self.gate.gate.clone();
            let tunnel = GateSession::adopted(gate, place, socket, watched_both, self.now);
            self.stream.tell(SocketEvents::UNKNOWN);
            return self.tunnel.insert(Box::new(tunnel)).turn(self.stream).map(Onward::Turn);
        }
        let until = exchange.deadline(self.gate.config.backend_timeout);
        if self.now >= until {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.watch_output(&mut exchange)?;
        self.begun.stage = RequestStage::Switching(exchange);
        self.park(until)
    }
}

/// Has the intake of a request take input, and holds what it leaves.
fn take_input(
    begun: &mut BegunRequest,
    gate: &HttpGate,
    context: crate::service::Context<'_>,
    (peer, client): (&Peer, &TcpStream),
    data: &[u8],
) -> Result<IntakeStep, IntakeFault> {
    let RequestStage::Reading(intake) = &mut begun.stage else { return Ok(IntakeStep::More) };
    let setting = IntakeSetting { config: &gate.config, context, peer, client };
    let Some(mut held) = begun.held.take() else {
        let (used, step) = intake.take(data, setting)?;
        if used < data.len() {
            let mut held = Held::of(peer, &context);
            held.extend(&data[used..], context.limits.max_head, &context)?;
            begun.held = Some(held);
        }
        return Ok(step);
    };
    held.extend(data, context.limits.max_head, &context)?;
    let (used, step) = intake.take(held.bytes(), setting)?;
    held.answered(used);
    if !held.is_empty() {
        begun.held = Some(held);
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_between_two_requests_is_small() {
        assert!(size_of::<HttpGateSession>() <= 40, "{} bytes", size_of::<HttpGateSession>());
    }
}
