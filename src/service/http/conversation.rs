//! One connection that speaks HTTP: a session of the server.
//!
//! ```text
//!            +---------------------------- the answer is whole -----------------------------+
//!            v                                                                              |
//!          Head -- whole head --> service -- body still comes --> Body -- whole --> service-+
//!            |                       |                                                |     |
//!            |                       +------------- a body is pulled ------> Pull <---+     |
//!            |                                                                |             |
//!            +-- cannot be read: 4xx, close                                   +-- all taken-+
//! ```
//!
//! Between requests nothing of it is kept but the session itself.

use super::access_entry::AccessEntry;
use super::caller::Caller;
use super::exchanges::{Arrived, Exchanges, Head, Setting};
use super::pull::{Pulled, Pulling};
use super::response::{Answer, Noted, Outgoing, Response};
use super::status::StatusError;
use super::upgrade::Upgraded;
use super::wire::{
    BodyLength, BodyReader, Piece, Refused, RequestHead, Scanner, Slots, Version, decode_path,
};
use super::{Config, Request};
use crate::clock::Nanos;
use crate::reason::CloseReason;
use crate::service::held::Held;
use crate::service::{Context, Fault, Input, Output, Received, Seat, Session, Stream, Turn, WebTurn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The session of a connection.
pub(super) struct Conversation<H: Exchanges> {
    exchanges: Arc<H>,
    /// The limits that the service has of its own.
    config: Option<Config>,
    /// Nothing while the connection is between two requests.
    begun: Option<Box<Begun<H::Exchange>>>,
    /// What has taken over the connection.
    upgraded: Option<Box<dyn Upgraded>>,
}

/// A request that has begun, or input that is not answered yet.
struct Begun<E> {
    /// Input that no stage has used.
    held: Option<Held>,
    stage: HttpStage<E>,
    /// When the request began whose head is expected; unknown if another was answered in the same turn.
    since: Option<Nanos>,
}

impl<E> Begun<E> {
    /// Puts what is held where it can be taken away for other sources, until the next turn.
    fn set_aside<H>(&mut self, exchanges: &H, seat: Seat, context: &Context<'_>) -> io::Result<()>
    where
        H: Exchanges<Exchange = E>,
    {
        if let Some(held) = &mut self.held {
            held.set_aside(seat, context)?;
        }
        match &mut self.stage {
            HttpStage::Body { exchange, .. } => exchanges.set_aside(exchange, seat, context),
            _ => Ok(()),
        }
    }

    /// Takes it back; an error if it was taken away.
    fn take_back<H: Exchanges<Exchange = E>>(&mut self, exchanges: &H) -> io::Result<()> {
        if let Some(held) = &mut self.held {
            held.take_back()?;
        }
        match &mut self.stage {
            HttpStage::Body { exchange, .. } => exchanges.take_back(exchange),
            _ => Ok(()),
        }
    }
}

enum HttpStage<E> {
    /// A head is expected or comes.
    Head(Scanner),
    /// A body comes.
    Body { exchange: E, reader: BodyReader, outgoing: Outgoing },
    /// An answer goes, and is pulled.
    Pull { pulled: Pulled, keep: bool, began: Nanos },
    /// Another protocol takes over.
    Upgraded(Box<dyn Upgraded>),
    /// All is said.
    Closed,
}

impl<E> HttpStage<E> {
    const fn between() -> Self {
        HttpStage::Head(Scanner::requests())
    }
}

/// What input came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputFlow {
    /// More input is needed.
    More,
    /// There is more to do, in another turn.
    Over,
    /// There will be more to do after this time, or when somebody wakes the session.
    Waits(Duration),
    /// Another protocol takes over.
    Upgrade,
    /// The connection ends.
    Close,
}

impl<H: Exchanges> Conversation<H> {
    pub(super) fn new(exchanges: Arc<H>, config: Option<Config>) -> Self {
        Self { exchanges, config, begun: None, upgraded: None }
    }
}

impl<H: Exchanges> Conversation<H> {
    /// A turn. With `overloaded`, the requests that wait are refused, and their clients told to come again after this time.
    fn converse(&mut self, stream: &mut Stream<'_>, overloaded: Option<Duration>) -> io::Result<Turn> {
        let (peer, seat, waited) = (stream.lasting_peer(), stream.seat(), stream.waited());
        let caller = Caller { peer, seat };
        if let Some(upgraded) = &mut self.upgraded {
            upgraded.overloaded(overloaded);
            stream.accept_earlier_call();
            let (input, output) = stream.split();
            return upgraded.turn(&mut [], input, output, caller);
        }
        let (input, output) = stream.split();
        // What an earlier turn left stays in its box. The rest is large, so it is used where it is, and not moved.
        let (mut left, mut fresh) = (self.begun.take(), None);
        let begun = match &mut left {
            Some(left) => &mut **left,
            None => fresh.insert(Begun { held: None, stage: HttpStage::between(), since: None }),
        };
        if let Some(web) = output.context.web {
            // Since its client has something to say, the wait for a worker included.
            begun.since.get_or_insert(web.began().saturating_sub(waited));
        }
        let exchanges = &*self.exchanges;
        let config = &self.config.unwrap_or_else(|| Config::of(output.context.limits));
        let mut talk = HttpTurn { exchanges, config, caller, output, begun, upgraded: None, overloaded };
        let turn = talk.run(input);
        let HttpTurn { begun, upgraded, output, .. } = talk;
        self.upgraded = upgraded;
        let turn = turn?;
        if turn == Turn::Close {
            return Ok(turn);
        }
        begun.set_aside(exchanges, seat, output.context)?;
        match (&begun.stage, &begun.held) {
            (HttpStage::Head(scanner), None) if scanner.is_fresh() => {}
            _ => self.begun = left.or_else(|| fresh.map(Box::new)),
        }
        Ok(turn)
    }
}

impl<H: Exchanges> Session for Conversation<H> {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        self.converse(stream, None)
    }

    fn overloaded(&mut self, stream: &mut Stream<'_>, wait: Duration) -> io::Result<Turn> {
        self.converse(stream, Some(wait))
    }

    fn finish(&mut self, reason: CloseReason) {
        if let Some(upgraded) = &mut self.upgraded {
            upgraded.finish(reason);
        }
    }
}

/// A conversation during a turn.
struct HttpTurn<'t, 'a, H: Exchanges> {
    exchanges: &'t H,
    config: &'t Config,
    caller: Caller<'t>,
    output: &'t mut Output<'a>,
    begun: &'t mut Begun<H::Exchange>,
    upgraded: Option<Box<dyn Upgraded>>,
    /// No request is served in this turn: the time after which clients are told to come again.
    overloaded: Option<Duration>,
}

impl<H: Exchanges> HttpTurn<'_, '_, H> {
    fn run(&mut self, input: &mut Input<'_>) -> io::Result<Turn> {
        if self.begun.take_back(self.exchanges).is_err() {
            return Err(self.interrupted());
        }
        let mut flow = self.resume()?;
        loop {
            match flow {
                InputFlow::Close => return Ok(Turn::Close),
                InputFlow::Upgrade => return self.upgrade(input),
                InputFlow::Over => return Ok(Turn::Again),
                InputFlow::Waits(time) => return Ok(Turn::ParkFor(time)),
                InputFlow::More => {}
            }
            flow = match input.receive()? {
                Received::Data(data) => self.take(data)?,
                Received::Nothing => return Ok(self.waiting()),
                // A request that is not whole will never be: nobody waits for its answer.
                Received::End => return Ok(Turn::Close),
            };
        }
    }

    /// Gives the connection to the protocol that takes over, with what the client has sent for it.
    fn upgrade(&mut self, input: &mut Input<'_>) -> io::Result<Turn> {
        let stage = std::mem::replace(&mut self.begun.stage, HttpStage::between());
        let HttpStage::Upgraded(upgraded) = stage else { return Ok(Turn::Close) };
        let mut held = self.begun.held.take();
        let first = held.as_mut().map_or(&mut [][..], Held::bytes_mut);
        // First, so that it learns of the connection's end if its turn fails.
        self.upgraded.insert(upgraded).turn(first, input, self.output, self.caller)
    }

    /// What the connection waits for when no more has come.
    fn waiting(&self) -> Turn {
        match &self.begun.stage {
            HttpStage::Head(scanner) if self.begun.held.is_none() && scanner.is_fresh() => Turn::Park,
            _ => Turn::Partial,
        }
    }

    /// Goes on with what an earlier turn left.
    fn resume(&mut self) -> io::Result<InputFlow> {
        match (&self.begun.held, &self.begun.stage) {
            (None, HttpStage::Head(_) | HttpStage::Body { .. }) => Ok(InputFlow::More),
            _ => self.take(&[]),
        }
    }

    /// Uses input, and holds what is left of it.
    fn take(&mut self, data: &[u8]) -> io::Result<InputFlow> {
        let Some(mut held) = self.begun.held.take() else {
            let (used, flow) = self.advance(data)?;
            return self.hold(None, &data[used..]).map(|()| flow);
        };
        if self.extend(&mut held, data).is_err() {
            return Err(self.interrupted());
        }
        let (used, flow) = self.advance(held.bytes())?;
        held.answered(used);
        self.hold(Some(held), &[]).map(|()| flow)
    }

    fn hold(&mut self, held: Option<Held>, data: &[u8]) -> io::Result<()> {
        if matches!(self.begun.stage, HttpStage::Closed) {
            // Nobody will read what stands behind the last request.
            return Ok(());
        }
        let mut held = match held {
            Some(held) => held,
            None if data.is_empty() => return Ok(()),
            None => Held::of_told(self.caller.peer, self.output.context),
        };
        if self.extend(&mut held, data).is_err() {
            return Err(self.interrupted());
        }
        if !held.is_empty() {
            self.begun.held = Some(held);
        }
        Ok(())
    }

    fn extend(&self, held: &mut Held, data: &[u8]) -> io::Result<()> {
        held.extend(data, self.config.max_head, self.output.context)
    }

    /// Advances through the stages as far as the input goes, and says how many bytes were used.
    fn advance(&mut self, data: &[u8]) -> io::Result<(usize, InputFlow)> {
        let mut used = 0;
        loop {
            // The usual stage is small, and the others are not: only they are moved.
            if let HttpStage::Head(scanner) = &mut self.begun.stage {
                if used == data.len() {
                    return Ok((used, InputFlow::More));
                }
                let scanner = std::mem::replace(scanner, Scanner::requests());
                match self.head(scanner, &data[used..])? {
                    Some(n) => used += n,
                    None => return Ok((used, InputFlow::More)),
                }
                if self.is_over(used, data) {
                    return Ok((used, InputFlow::Over));
                }
                continue;
            }
            let stage = std::mem::replace(&mut self.begun.stage, HttpStage::Closed);
            match stage {
                HttpStage::Closed | HttpStage::Head(_) => return Ok((used, InputFlow::Close)),
                HttpStage::Upgraded(_) => {
                    self.begun.stage = stage;
                    return Ok((used, InputFlow::Upgrade));
                }
                HttpStage::Body { exchange, reader, outgoing } => {
                    let (n, whole) = self.body(exchange, reader, outgoing, &data[used..])?;
                    used += n;
                    if !whole {
                        return Ok((used, InputFlow::More));
                    }
                }
                HttpStage::Pull { mut pulled, keep, began } => match pulled.pump(self.output)? {
                    Pulling::Done => {
                        self.answered(began);
                        self.begun.stage = if keep { HttpStage::between() } else { HttpStage::Closed }
                    }
                    Pulling::Rest => {
                        self.begun.stage = HttpStage::Pull { pulled, keep, began };
                        return Ok((used, InputFlow::Over));
                    }
                    // It would hold up the end of the server; the client sees that the answer is not whole.
                    Pulling::Waits(_) if self.is_draining() => {}
                    Pulling::Waits(time) => {
                        self.begun.stage = HttpStage::Pull { pulled, keep, began };
                        return Ok((used, InputFlow::Waits(time)));
                    }
                },
            }
            if self.is_over(used, data) {
                return Ok((used, InputFlow::Over));
            }
        }
    }

    /// Whether the requests that are left are for another turn.
    fn is_over(&self, used: usize, data: &[u8]) -> bool {
        used < data.len() && self.is_between() && self.output.is_turn_over()
    }

    /// While the server drains, every answer is the last one of its connection.
    fn is_draining(&self) -> bool {
        self.output.context.draining.load(Ordering::Relaxed)
    }

    fn is_between(&self) -> bool {
        matches!(self.begun.stage, HttpStage::Head(_))
    }

    /// Reads a head, and has its request answered if its body is there: how many bytes that were; nothing if the
    /// head is not whole.
    fn head(&mut self, mut scanner: Scanner, data: &[u8]) -> io::Result<Option<usize>> {
        let range = match scanner.find(data, self.config.max_head) {
            Ok(Some(range)) => range,
            Ok(None) => {
                self.begun.stage = HttpStage::Head(scanner);
                return Ok(None);
            }
            Err(refused) => {
                let noted = self.begins();
                return self.refuse(refused, noted).map(|()| Some(0));
            }
        };
        let mut noted = self.begins();
        let (bytes, rest) = (&data[range.clone()], &data[range.end..]);
        let mut slots = Slots::new();
        let parsed = RequestHead::parse(bytes, &mut slots, self.config.max_headers)
            .and_then(|head| decode_path(head.target.path()).map(|path| (head, path)));
        match parsed {
            Err(refused) => self.refuse(refused, noted).map(|()| Some(0)),
            Ok((head, _)) if head.method == "CONNECT" => {
                noted.entry = self.entry(noted.began, Some(&head));
                self.answer_and_close(501, "this server is not a proxy", noted).map(|()| Some(range.end))
            }
            Ok((head, path)) => {
                noted.entry = self.entry(noted.began, Some(&head));
                // A body in chunks is whole when its last one was read, which the reader does.
                let length = match head.body {
                    BodyLength::Bytes(length) => usize::try_from(length).unwrap_or(usize::MAX),
                    BodyLength::Chunked | BodyLength::UntilClose => usize::MAX,
                };
                if head.body != BodyLength::Chunked && length > self.config.max_body {
                    return self.refuse(Refused::BodyTooLong, noted).map(|()| Some(0));
                }
                let whole = length <= rest.len();
                let body = if whole { &rest[..length] } else { &[] };
                let request = Request { head, path, body, peer: self.caller.peer };
                let used = range.end;
                self.begin(&Arrived { request, bytes, whole }, rest, noted).map(|body| Some(used + body))
            }
        }
    }

    /// Gives a request to the service; says how many bytes of its body were used.
    fn begin(&mut self, arrived: &Arrived<'_>, rest: &[u8], noted: Noted) -> io::Result<usize> {
        let Arrived { request, whole, .. } = arrived;
        let head = &request.head;
        let keep = head.keep_alive && !self.is_draining();
        // An answer without the rest of the body leaves it unread, so it is the last one.
        let mut outgoing = Outgoing::new(head.version, head.method == "HEAD", keep && *whole, noted);
        if let Some(web) = self.output.context.web {
            web.ledger.request_body(request.body.len());
        }
        if let Some(wait) = self.overloaded {
            return self.say_overloaded(wait, outgoing).map(|()| request.body.len());
        }
        let context = self.output.context;
        let response = Response::new(self.output, &mut outgoing, self.caller);
        match self.exchanges.begin(arrived, context, response) {
            Ok(Head::Answered(answer)) => self.settle(Ok(answer), outgoing).map(|()| request.body.len()),
            Err(error) => self.settle(Err(error), outgoing).map(|()| request.body.len()),
            Ok(Head::Wanted(exchange)) => {
                outgoing.keep = keep;
                if head.expects_continue && rest.is_empty() && !whole {
                    self.output.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let reader = head.body.reader(self.config.body_limits());
                self.begun.stage = HttpStage::Body { exchange, reader, outgoing };
                Ok(0)
            }
        }
    }

    /// Gives the pieces of a body to the service, and has it answer when that was all: how many bytes were used,
    /// and whether it was all.
    fn body(
        &mut self,
        mut exchange: H::Exchange,
        mut reader: BodyReader,
        mut outgoing: Outgoing,
        data: &[u8],
    ) -> io::Result<(usize, bool)> {
        let mut used = 0;
        loop {
            let (n, piece) = match reader.next(&data[used..]) {
                Ok(next) => next,
                Err(refused) => return self.refuse(refused, outgoing.noted).map(|()| (used, true)),
            };
            used += n;
            let setting =
                Setting { context: self.output.context, config: self.config, peer: self.caller.peer };
            let failed = match piece {
                Piece::Data(data) => {
                    if let Some(web) = self.output.context.web {
                        web.ledger.request_body(data.len());
                    }
                    self.exchanges.piece(&mut exchange, data, setting).err()
                }
                Piece::More => {
                    self.begun.stage = HttpStage::Body { exchange, reader, outgoing };
                    return Ok((used, false));
                }
                Piece::End => {
                    outgoing.keep &= !self.is_draining();
                    if let Some(wait) = self.overloaded {
                        return self.say_overloaded(wait, outgoing).map(|()| (used, true));
                    }
                    let response = Response::new(self.output, &mut outgoing, self.caller);
                    let result = self.exchanges.end(exchange, setting, response);
                    return self.settle(result, outgoing).map(|()| (used, true));
                }
            };
            if let Some(error) = failed {
                outgoing.keep = false;
                return self.settle(Err(error), outgoing).map(|()| (used, true));
            }
        }
    }

    /// Answers for a server that has more to do than it can. The connection stays, if the request was read whole.
    fn say_overloaded(&mut self, wait: Duration, mut outgoing: Outgoing) -> io::Result<()> {
        let seconds = wait.as_secs().to_string();
        let response = Response::new(self.output, &mut outgoing, self.caller);
        let response = response.status(503).header("Retry-After", &seconds);
        let answer = response.text(&format!("the server is overloaded: come again in {seconds} s\n"));
        self.settle(answer, outgoing)
    }

    /// What follows from what the service made of a request.
    fn settle(&mut self, result: io::Result<Answer>, mut outgoing: Outgoing) -> io::Result<()> {
        match result {
            Ok(_) if outgoing.started => {}
            Ok(_) => self.fail(&mut outgoing, &io::Error::other("this request was not answered"))?,
            // It is too late for another answer. A protocol that took over learns of the connection's end.
            Err(error) if outgoing.started => {
                self.count(&outgoing);
                self.upgraded = outgoing.upgraded.take();
                return Err(error);
            }
            Err(error) if Fault::of(&error) == Some(Fault::InputLimit) => {
                return Err(self.no_room(outgoing.noted));
            }
            Err(error) => self.fail(&mut outgoing, &error)?,
        }
        self.count(&outgoing);
        // How quickly requests are refused says nothing of how quickly they are answered.
        if outgoing.pulled.is_none() && self.overloaded.is_none() {
            self.answered(outgoing.noted.began);
        }
        self.begun.stage = match (outgoing.upgraded.take(), outgoing.pulled.take()) {
            (Some(upgraded), _) => HttpStage::Upgraded(upgraded),
            (None, Some(mut pulled)) => {
                let Noted { began, entry } = outgoing.noted;
                pulled.entry = entry;
                HttpStage::Pull { pulled, keep: outgoing.keep, began }
            }
            // A request that came whole leaves the stage as it was.
            (None, None) if outgoing.keep && self.is_between() => return Ok(()),
            (None, None) if outgoing.keep => HttpStage::between(),
            (None, None) => HttpStage::Closed,
        };
        Ok(())
    }

    /// Answers for a service that failed.
    fn fail(&mut self, outgoing: &mut Outgoing, error: &io::Error) -> io::Result<()> {
        let known = error.get_ref().and_then(|error| error.downcast_ref::<StatusError>());
        let status = known.unwrap_or(&StatusError(500));
        if known.is_none() {
            tracing::debug!(peer = %self.caller.peer.address, %error, "a request failed");
        }
        let text = format!("{status}\n");
        let response = Response::new(self.output, outgoing, self.caller);
        response.status(status.0).text(&text).map(drop)
    }

    /// Answers a message that is not taken, after which nothing of the connection can be understood.
    fn refuse(&mut self, refused: Refused, noted: Noted) -> io::Result<()> {
        self.answer_and_close(refused.status(), &refused.to_string(), noted)?;
        match refused.status() {
            // It was understood, and is more than is allowed.
            413 | 417 => Ok(()),
            _ => Err(refused.into()),
        }
    }

    fn answer_and_close(&mut self, status: u16, why: &str, noted: Noted) -> io::Result<()> {
        let mut outgoing = self.last_answer(noted);
        Response::new(self.output, &mut outgoing, self.caller)
            .status(status)
            .text(&format!("{why}\n"))
            .map(drop)?;
        self.count(&outgoing);
        self.answered(outgoing.noted.began);
        self.begun.stage = HttpStage::Closed;
        Ok(())
    }

    /// There is no room for more input of clients: says so, and the connection ends for that reason.
    fn no_room(&mut self, noted: Noted) -> io::Error {
        let mut outgoing = self.last_answer(noted);
        let response =
            Response::new(self.output, &mut outgoing, self.caller).status(503).header("Retry-After", "1");
        let said = response.text("the server has no room for this request now\n");
        self.count(&outgoing);
        match said {
            Ok(_) => Fault::InputLimit.into(),
            Err(error) => error,
        }
    }

    /// The same between two steps: whoever is in the middle of an answer is told no more.
    fn interrupted(&mut self) -> io::Error {
        let noted = match std::mem::replace(&mut self.begun.stage, HttpStage::Closed) {
            HttpStage::Pull { .. } | HttpStage::Closed => return Fault::InputLimit.into(),
            HttpStage::Body { outgoing, .. } => outgoing.noted,
            HttpStage::Upgraded(upgraded) => {
                // It learns of the connection's end.
                self.upgraded = Some(upgraded);
                return Fault::InputLimit.into();
            }
            HttpStage::Head(_) => self.begins(),
        };
        self.no_room(noted)
    }

    /// The answer to what cannot be read, or will not be: the last of its connection.
    fn last_answer(&self, mut noted: Noted) -> Outgoing {
        if noted.entry.is_none() {
            noted.entry = self.entry(noted.began, None);
        }
        Outgoing::new(Version::Http11, false, false, noted)
    }

    /// A request begins here: since when.
    fn begins(&mut self) -> Noted {
        let web = self.output.context.web;
        let began = self.begun.since.take().or_else(|| web.map(WebTurn::another)).unwrap_or_default();
        Noted { began, entry: None }
    }

    /// What is noted of a request for the access log, if there is one.
    fn entry(&self, began: Nanos, head: Option<&RequestHead<'_>>) -> Option<Box<AccessEntry>> {
        self.output.context.web?.entry(self.caller.peer.address, began, head)
    }

    /// An answer was begun, which a client may see the end of or not.
    fn count(&self, outgoing: &Outgoing) {
        if let Some(web) = self.output.context.web {
            web.ledger.answered(outgoing.status);
        }
    }

    /// An answer is whole.
    fn answered(&self, began: Nanos) {
        if let Some(web) = self.output.context.web {
            web.answered(began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchanges::Collecting;
    use super::super::{Answer, Response};
    use super::*;
    use crate::service::SESSION_BYTES;
    use crate::service::pool::Pool;

    fn blocks<H: Exchanges>(_: &Conversation<H>) -> [usize; 2] {
        [size_of::<Conversation<H>>(), size_of::<Begun<H::Exchange>>()]
    }

    /// What the pools count comes on top: the head, the body so far, input that waits, replies that wait.
    #[test]
    fn what_is_counted_for_a_connection_is_enough_for_a_request_that_has_begun() {
        let answer =
            |_: &Request<'_>, response: Response<'_, '_>| -> io::Result<Answer> { response.text("x") };
        let blocks = blocks(&Conversation::new(Arc::new(Collecting(answer)), None));
        let taken: usize = blocks.map(Pool::block_cost).iter().sum();
        assert!(taken <= SESSION_BYTES, "{taken} bytes: {blocks:?}");
    }
}
