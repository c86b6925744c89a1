//! One WebSocket: a session that took over from HTTP.
//!
//! Between messages it keeps only this struct: no buffer, no thread. It keeps its own deadlines: the next ping, the
//! service's timer, a message that comes in pieces, and a close that is not answered.

use super::frame::{FramePiece, FrameReader, Opcode, unmask};
use super::pusher::Mail;
use super::socket::{Closed, Event, SocketState, WebSocket};
use super::violation::{Violation, close_payload};
use crate::metrics::web::SocketEnd;
use crate::reason::CloseReason;
use crate::service::held::Held;
use crate::service::http::{Caller, Upgraded};
use crate::service::{Fault, Input, Output, Turn};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a person writes.
pub(super) type OnEvent = dyn Fn(Event<'_>, &mut WebSocket<'_, '_>) -> io::Result<()> + Send + Sync;

/// Frames are collected into calls of this size. A longer frame must find room first.
const GATHER: usize = 16 << 10;

pub(super) struct WebSocketSession {
    on: Arc<OnEvent>,
    state: SocketState,
    /// Input that was begun and not finished; nothing between messages.
    begun: Option<Box<BegunMessage>>,
    /// When the next ping is due.
    ping_at: Instant,
    /// A ping was sent, and nothing has come since.
    pinged: bool,
    closed: Option<(Option<u16>, String)>,
    /// No message is heard in this turn: the time after which the client may come again.
    overloaded: Option<Duration>,
}

struct BegunMessage {
    reader: FrameReader,
    /// The message so far.
    message: Option<Held>,
    /// Frames that another turn will read.
    rest: Option<Held>,
    /// When it began; not known before the end of that turn.
    since: Option<Instant>,
}

impl BegunMessage {
    fn held(&mut self) -> impl Iterator<Item = &mut Held> {
        self.message.iter_mut().chain(&mut self.rest)
    }
}

/// What the input came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFlow {
    /// More must come.
    More,
    /// The turn is over, and there is more in hand.
    Over,
    /// The connection ends.
    Close,
}

impl WebSocketSession {
    pub(super) fn new(on: Arc<OnEvent>, state: SocketState, now: Instant) -> Self {
        let ping_at = now + state.config.ping_every;
        Self { on, state, begun: None, ping_at, pinged: false, closed: None, overloaded: None }
    }

    /// Nothing more is pushed to it.
    pub(super) fn shut(&self) {
        if let Some(outbox) = &self.state.outbox {
            outbox.shut();
        }
    }

    fn emit(&mut self, event: Event<'_>, output: &mut Output<'_>, caller: Caller<'_>) -> io::Result<()> {
        let mut socket =
            WebSocket { output: Some(output), caller: Some(caller), state: &mut self.state, opening: None };
        (self.on)(event, &mut socket)
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8], output: &mut Output<'_>) -> io::Result<()> {
        WebSocket { output: Some(output), caller: None, state: &mut self.state, opening: None }
            .send_frame(opcode, payload)
    }

    fn close(&mut self, code: u16, reason: &str, output: &mut Output<'_>) -> io::Result<()> {
        WebSocket { output: Some(output), caller: None, state: &mut self.state, opening: None }
            .close(code, reason)
    }

    /// Tells the client what it has done wrong, and ends the connection for that.
    fn fail(&mut self, violation: Violation, output: &mut Output<'_>) -> io::Error {
        match self.close(violation.close_code(), &violation.to_string(), output) {
            Err(error) if self.state.closing.is_none() => error,
            _ => violation.into(),
        }
    }

    /// There is no room for more input of clients: tells this client to come again later.
    fn no_room(&mut self, error: io::Error, output: &mut Output<'_>) -> io::Error {
        match self.close(1013, "the server has no room for this message now", output) {
            Err(broken) if self.state.closing.is_none() => broken,
            _ => error,
        }
    }

    /// Sends what was pushed, while the client takes it.
    fn deliver(&mut self, output: &mut Output<'_>) -> io::Result<ReadFlow> {
        let Some(outbox) = self.state.outbox.clone() else { return Ok(ReadFlow::More) };
        while self.state.closing.is_none() {
            output.flush()?;
            for _ in 0..64 {
                if !output.kept.is_empty() {
                    return Ok(ReadFlow::Over);
                }
                match outbox.take() {
                    Mail::Frame(frame) => {
                        output.send(&frame)?;
                        if let Some(web) = output.context.web {
                            web.ledger.message_sent();
                        }
                        if frame.len() > GATHER {
                            break;
                        }
                    }
                    Mail::Close(code) => self.close(code, "", output)?,
                    Mail::Nothing => return Ok(ReadFlow::More),
                }
            }
            if output.is_turn_over() {
                return Ok(ReadFlow::Over);
            }
        }
        Ok(ReadFlow::More)
    }

    /// What is due by now.
    fn keep_time(
        &mut self,
        now: Instant,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<ReadFlow> {
        let patience = output.context.limits.read_timeout;
        let since = self.begun.as_ref().filter(|begun| begun.rest.is_none()).and_then(|begun| begun.since);
        if since.is_some_and(|since| now >= since + patience) {
            return Err(Fault::ReadTimeout.into());
        }
        if self.state.closing.is_some() {
            return Ok(ReadFlow::More);
        }
        if self.state.timer.is_some_and(|timer| now >= timer) {
            self.state.timer = None;
            self.emit(Event::Timer, output, caller)?;
        }
        if now >= self.ping_at && self.state.closing.is_none() {
            if self.pinged {
                return Err(Fault::ReadTimeout.into());
            }
            self.pinged = true;
            self.ping_at = now + self.state.config.ping_every;
            self.send_frame(Opcode::Ping, b"", output)?;
        }
        Ok(ReadFlow::More)
    }

    /// Whether the time for the answer to a close is over: as long as for any polite close, whatever the client sends
    /// meanwhile, since it must not hold up a drain.
    fn is_given_up(&self, now: Instant, output: &Output<'_>) -> bool {
        let patience = output.context.limits.linger_timeout;
        self.state.closing.is_some_and(|closing| now >= closing + patience)
    }

    /// How long nothing is due.
    fn next(&self, output: &Output<'_>) -> Turn {
        let patience = output.context.limits.read_timeout;
        let mut due = self.ping_at;
        if let Some(timer) = self.state.timer {
            due = due.min(timer);
        }
        if let Some(since) = self.begun.as_ref().and_then(|begun| begun.since) {
            due = due.min(since + patience);
        }
        if let Some(closing) = self.state.closing {
            due = closing + output.context.limits.linger_timeout;
        }
        Turn::ParkFor(due.saturating_duration_since(Instant::now()))
    }

    fn begin(&self, output: &Output<'_>) -> BegunMessage {
        let max_message = self.state.config.max_message;
        // A message can never be longer than `input_total`, so a longer one is refused at its beginning.
        let max_message = max_message.min(output.context.limits.input_total) as u64;
        BegunMessage { reader: FrameReader::of_client(max_message), message: None, rest: None, since: None }
    }

    /// Takes input, and keeps what is left of it.
    fn take(&mut self, data: &mut [u8], output: &mut Output<'_>, caller: Caller<'_>) -> io::Result<ReadFlow> {
        let mut begun = match self.begun.take() {
            Some(begun) => *begun,
            None => self.begin(output),
        };
        let (rest, read) = match begun.rest.take() {
            Some(mut rest) => {
                // The time that the input waited for this turn does not count against the client.
                begun.since = None;
                let extended = rest.extend(data, usize::MAX, output.context);
                extended.map_err(|error| self.no_room(error, output))?;
                let (used, read) = self.read(&mut begun, rest.bytes_mut(), output, caller)?;
                rest.answered(used);
                (Some(rest), read)
            }
            None => {
                let (used, read) = self.read(&mut begun, data, output, caller)?;
                let mut rest = None;
                if read != ReadFlow::Close {
                    self.keep(&mut rest, &data[used..], usize::MAX, output, caller)?;
                }
                (rest, read)
            }
        };
        begun.rest = rest.filter(|rest| !rest.is_empty());
        if !begun.reader.is_between() || begun.rest.is_some() {
            begun.since.get_or_insert_with(Instant::now);
            self.begun = Some(Box::new(begun));
        }
        Ok(read)
    }

    /// Reads frames as far as the input goes, and says how many bytes were used.
    fn read(
        &mut self,
        begun: &mut BegunMessage,
        data: &mut [u8],
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<(usize, ReadFlow)> {
        let most = self.state.config.max_message;
        let mut used = 0;
        // Where the last payload is: it stays there while its message may end in this input.
        let mut last: Option<Range<usize>> = None;
        let read = loop {
            let (n, piece) =
                begun.reader.next(&data[used..]).map_err(|violation| self.fail(violation, output))?;
            used += n;
            match piece {
                FramePiece::More => break ReadFlow::More,
                FramePiece::Payload(bytes, key) => {
                    let place = used - bytes.len()..used;
                    unmask(&mut data[place.clone()], key);
                    let before = last.replace(place).unwrap_or_default();
                    let most = begun.reader.message_max(most);
                    self.keep(&mut begun.message, &data[before], most, output, caller)?;
                    continue;
                }
                FramePiece::Message(opcode) => {
                    let payload = &data[last.take().unwrap_or_default()];
                    if begun.message.is_none() {
                        self.message(opcode, payload, output, caller)?;
                    } else {
                        self.keep(&mut begun.message, payload, most, output, caller)?;
                        let message = begun.message.take();
                        self.message(opcode, message.as_ref().map_or(&[], Held::bytes), output, caller)?;
                    }
                }
                FramePiece::Control(opcode) => {
                    if self.control(opcode, begun.reader.control(), output)? == ReadFlow::Close {
                        return Ok((used, ReadFlow::Close));
                    }
                }
            }
            if begun.reader.is_between() {
                begun.since = None;
            }
            if used < data.len() && output.is_turn_over() {
                break ReadFlow::Over;
            }
        };
        // No more room than its message will need, so that it can be used again for the next.
        let most = begun.reader.message_max(most);
        self.keep(&mut begun.message, &data[last.unwrap_or_default()], most, output, caller)?;
        Ok((used, read))
    }

    /// Keeps bytes until another turn.
    fn keep(
        &mut self,
        kept: &mut Option<Held>,
        bytes: &[u8],
        most: usize,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let held = kept.get_or_insert_with(|| Held::of_told(caller.peer, output.context));
        let extended = held.extend(bytes, most, output.context);
        extended.map_err(|error| self.no_room(error, output))
    }

    fn message(
        &mut self,
        opcode: Opcode,
        bytes: &[u8],
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<()> {
        if let Some(web) = output.context.web {
            web.ledger.message_received();
        }
        if self.state.closing.is_some() {
            // What a client sends after it was told that the socket is closed is ignored.
            return Ok(());
        }
        if let Some(wait) = self.overloaded {
            // A message that gets no answer would be a silence that the client cannot tell from another.
            let reason = format!("the server is overloaded: come again in {} s", wait.as_secs());
            return self.close(1013, &reason, output);
        }
        if opcode == Opcode::Binary {
            return self.emit(Event::Binary(bytes), output, caller);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => self.emit(Event::Text(text), output, caller),
            Err(_) => Err(self.fail(Violation::Utf8, output)),
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], output: &mut Output<'_>) -> io::Result<ReadFlow> {
        match opcode {
            Opcode::Close => {
                let (code, reason) =
                    close_payload(payload).map_err(|violation| self.fail(violation, output))?;
                self.closed = Some((code, reason.to_owned()));
                if self.state.closing.is_none() {
                    // The answer has the same code.
                    self.send_frame(Opcode::Close, payload.get(..2).unwrap_or_default(), output)?;
                }
                Ok(ReadFlow::Close)
            }
            Opcode::Ping if self.state.closing.is_none() => {
                self.send_frame(Opcode::Pong, payload, output).map(|()| ReadFlow::More)
            }
            _ => Ok(ReadFlow::More),
        }
    }
}

impl WebSocketSession {
    /// How the socket ended: the side that closed it first has given the reason.
    fn end(&self) -> SocketEnd {
        match (self.state.close_code, &self.closed) {
            (Some(code), _) => SocketEnd::Code(Some(code)),
            (None, Some((code, _))) => SocketEnd::Code(*code),
            (None, None) => SocketEnd::Lost,
        }
    }

    fn converse(
        &mut self,
        first: &mut [u8],
        input: &mut Input<'_>,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<Turn> {
        let now = Instant::now();
        let mut read = match first.is_empty() && self.begun.as_ref().is_none_or(|begun| begun.rest.is_none())
        {
            true => ReadFlow::More,
            false => self.take(first, output, caller)?,
        };
        while read == ReadFlow::More {
            read = match input.receive_mut()? {
                Some([]) => ReadFlow::Close,
                Some(data) => {
                    self.pinged = false;
                    self.ping_at = now + self.state.config.ping_every;
                    self.take(data, output, caller)?
                }
                None => break,
            };
        }
        if self.is_given_up(now, output) {
            read = ReadFlow::Close;
        }
        if read == ReadFlow::More {
            read = self.deliver(output)?;
        }
        if read == ReadFlow::More {
            read = self.keep_time(now, output, caller)?;
        }
        if output.context.draining.load(Ordering::Relaxed)
            && self.state.closing.is_none()
            && read != ReadFlow::Close
        {
            self.close(1001, "the server is ending", output)?;
        }
        Ok(match read {
            ReadFlow::Close => Turn::Close,
            ReadFlow::Over => Turn::Again,
            ReadFlow::More => self.next(output),
        })
    }
}

impl Upgraded for WebSocketSession {
    fn turn(
        &mut self,
        first: &mut [u8],
        input: &mut Input<'_>,
        output: &mut Output<'_>,
        caller: Caller<'_>,
    ) -> io::Result<Turn> {
        let mut held = self.begun.iter_mut().flat_map(|begun| begun.held());
        if let Err(error) = held.try_for_each(Held::take_back) {
            drop(held);
            self.begun = None;
            return Err(self.no_room(error, output));
        }
        drop(held);
        let turn = self.converse(first, input, output, caller)?;
        if turn == Turn::Close {
            return Ok(turn);
        }
        let mut held = self.begun.iter_mut().flat_map(|begun| begun.held());
        let aside = held.try_for_each(|held| held.set_aside(caller.seat, output.context));
        drop(held);
        match aside {
            Ok(()) => Ok(turn),
            Err(error) => Err(self.no_room(error, output)),
        }
    }

    fn overloaded(&mut self, wait: Option<Duration>) {
        self.overloaded = wait;
    }

    fn finish(&mut self, why: CloseReason) {
        self.shut();
        if let Some(counts) = &self.state.counts {
            counts.closed(self.end());
        }
        let (code, reason) = self.closed.take().unwrap_or_default();
        let closed = Closed { code, reason, why };
        let mut socket = WebSocket { output: None, caller: None, state: &mut self.state, opening: None };
        // Nobody is left to be told of an error.
        let _ = (self.on)(Event::Close(&closed), &mut socket);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pusher::Outbox;
    use super::*;
    use crate::service::pool::Pool;
    use crate::service::{Peer, SESSION_BYTES, Service, websocket};

    /// What the pools count comes on top: the message so far, input that waits, replies and pushed messages.
    #[test]
    fn what_is_counted_for_a_connection_is_enough_for_a_socket_whose_message_has_begun() {
        let peer = Peer::new(std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into());
        let conversation = size_of_val(&*websocket(|_, _| Ok(())).connect(&peer));
        let outbox = size_of::<Outbox>() + 2 * size_of::<usize>();
        let blocks = [conversation, size_of::<WebSocketSession>(), size_of::<BegunMessage>(), outbox];
        let taken: usize = blocks.map(Pool::block_cost).iter().sum();
        assert!(taken <= SESSION_BYTES, "{taken} bytes: {blocks:?}");
    }
}
