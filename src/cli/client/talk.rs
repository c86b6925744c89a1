//! The conversation with the server: a message, its reply, the next message, and so on to the end of the connection.

use super::failure::Failure;
use super::output::Printer;
use super::socket::wait;
use super::source::Messages;
use super::speech::{Heard, ReplyEnd, Speech};
use super::wire::{Dialer, Wire};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::time::{Duration, Instant};
use tidegate_units::show_time;
use tidegate_units::url::Url;

/// After the server has ended: how long the input may take to show that it has ended too.
const INPUT_GRACE: Duration = Duration::from_millis(100);

/// The conversation.
pub(super) struct Talk {
    url: Url,
    dialer: Dialer,
    wire: Wire,
    speech: Speech,
    source: Messages,
    pub(super) output: Printer,
    /// Between a reply and the next message.
    pub(super) think: Duration,
    /// For a reply, and for the end.
    pub(super) timeout: Duration,
    buffer: Vec<u8>,
    sent: u64,
    replies: u64,
    /// The bytes of the present message, kept until it is answered.
    message: Vec<u8>,
    /// How many bytes of it the kernel has taken.
    taken: usize,
    /// When the present message was sent.
    asked: Instant,
    /// Something came since the present message was sent.
    answered: bool,
    /// Something ever came.
    heard: bool,
}

/// What the conversation waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// For the next message to be there and the time to send it to come.
    Message { not_before: Instant },
    /// For the reply to the message that was sent; where quiet ends it and it has begun, when it is complete.
    Reply { until: Instant, quiet_at: Option<Instant> },
    /// For the server to end, after this side has.
    End { until: Instant },
}

impl Talk {
    pub(super) fn new(url: Url, dialer: Dialer, wire: Wire, speech: Speech, source: Messages) -> Self {
        Self {
            url,
            dialer,
            wire,
            speech,
            source,
            output: Printer::new(),
            think: Duration::ZERO,
            timeout: Duration::ZERO,
            buffer: vec![0; 64 * 1024],
            sent: 0,
            replies: 0,
            message: Vec::new(),
            taken: 0,
            asked: Instant::now(),
            answered: false,
            heard: false,
        }
    }

    /// How many messages were sent, and how many replies came.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.sent, self.replies)
    }

    /// Says `data`, if it is given, or the lines of the source, and listens until the end.
    pub(super) fn run(&mut self, data: Option<Vec<u8>>) -> Result<(), Failure> {
        let mut waits = match data {
            // Nothing to say to a server that speaks first; an empty datagram is a message.
            Some(data) if !data.is_empty() || matches!(self.speech, Speech::Datagrams) => {
                self.say(Some(data))?
            }
            _ => Waits::Message { not_before: Instant::now() },
        };
        loop {
            waits = match self.on_time(waits)? {
                Some(waits) => waits,
                None => return Ok(()),
            };
            let heard = self.wait(waits)?;
            waits = match (waits, heard) {
                (Waits::End { .. }, Heard::End) => return self.ended(),
                (Waits::Message { .. }, Heard::End) if self.speech.is_http() => waits,
                (_, Heard::End) => return self.ended_early(waits),
                (Waits::Reply { .. }, Heard::Reply) => self.replied()?,
                (Waits::Reply { until, .. }, Heard::Part) => {
                    let quiet_at = match self.speech {
                        Speech::Bytes { reply_end: ReplyEnd::Quiet(time), .. } => Some(Instant::now() + time),
                        _ => None,
                    };
                    Waits::Reply { until, quiet_at }
                }
                _ => waits,
            };
        }
    }

    /// Does what the time has come for. `None`: all is said and done.
    fn on_time(&mut self, waits: Waits) -> Result<Option<Waits>, Failure> {
        let now = Instant::now();
        Ok(Some(match waits {
            Waits::Message { not_before } if now >= not_before || self.source.is_exhausted() => {
                match self.source.take() {
                    Some(line) => self.say(Some(line))?,
                    // Nothing to say: over HTTP that is a request without a body.
                    None if self.source.is_exhausted() && self.sent == 0 && self.speech.is_http() => {
                        self.say(None)?
                    }
                    None if self.source.is_exhausted() => return self.finish(),
                    None => waits,
                }
            }
            Waits::Reply { quiet_at: Some(at), .. } if now >= at => self.replied()?,
            Waits::Reply { quiet_at: Some(_), .. } if self.has_thought(now) => {
                // The server has not fallen silent, but the time to think is over.
                self.replies += 1;
                Waits::Message { not_before: now }
            }
            Waits::Reply { until, .. } if now >= until => return Err(self.no_reply()),
            Waits::End { until } if now >= until => {
                let time = show_time(self.timeout);
                return Err(self.failed(format!("did not end the connection within {time} after we had")));
            }
            waits => waits,
        }))
    }

    fn say(&mut self, message: Option<Vec<u8>>) -> Result<Waits, Failure> {
        if let Speech::Http(http) = &mut self.speech {
            if http.spent {
                http.spent = false;
                self.wire = self.dialer.dial()?;
            }
            // A reply among others is a line, or some lines; one alone is what it is.
            self.output.end_line()?;
        }
        self.sent += 1;
        self.answered = false;
        self.asked = Instant::now();
        self.message = self.speech.code(message);
        self.taken = 0;
        self.push()?;
        Ok(Waits::Reply { until: self.asked + self.timeout, quiet_at: None })
    }

    /// Says what is no message: that it is heard, or that this is the end.
    fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_pushed() {
            self.message.clear();
            self.taken = 0;
        }
        self.message.extend_from_slice(bytes);
        self.push()
    }

    fn replied(&mut self) -> Result<Waits, Failure> {
        self.replies += 1;
        let is_pushed = self.is_pushed();
        if let Speech::Http(http) = &mut self.speech {
            // A server that answers before it has the whole request reads the rest of it as another.
            http.spent |= !is_pushed;
            self.taken = self.message.len();
            if let Some(wrong) = http.wrong.take() {
                return Err(self.failed(format!("answered message {} {wrong}", self.sent)));
            }
        }
        Ok(Waits::Message { not_before: Instant::now() + self.think })
    }

    /// Whether the time to think, counted from the message, has passed.
    fn has_thought(&self, now: Instant) -> bool {
        !self.think.is_zero() && now >= self.asked + self.think
    }

    fn is_pushed(&self) -> bool {
        self.taken == self.message.len() && (!self.wire.has_output() || self.is_spent())
    }

    /// Whether no further request can be made on the connection.
    fn is_spent(&self) -> bool {
        matches!(&self.speech, Speech::Http(http) if http.spent)
    }

    /// Gives the kernel what it takes of the present message.
    fn push(&mut self) -> Result<(), Failure> {
        loop {
            match self.wire.send(&self.message[self.taken..]) {
                Ok(n) => self.taken += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if self.goes_on_to_the_next(&error) => continue,
                Err(error) => return self.unsent(&error),
            }
            if self.taken == self.message.len() {
                return Ok(());
            }
        }
    }

    /// The message cannot be sent. Over HTTP, the server may have answered before it had all of it: what it says counts.
    fn unsent(&mut self, error: &io::Error) -> Result<(), Failure> {
        let Speech::Http(http) = &mut self.speech else { return Err(self.broken(error)) };
        http.spent = true;
        self.taken = self.message.len();
        Ok(())
    }

    /// If nothing listens for datagrams at this address and the host has another, sends the message there.
    fn goes_on_to_the_next(&mut self, error: &io::Error) -> bool {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let next = refused && !self.heard && self.wire.try_next();
        if next {
            self.taken = 0;
        }
        next
    }

    /// Everything was sent and answered: say so. `None`: there is nothing to wait for.
    fn finish(&mut self) -> Result<Option<Waits>, Failure> {
        match &mut self.speech {
            Speech::Datagrams => return Ok(None),
            Speech::Http(_) => {
                if self.sent > 1 {
                    self.output.end_line()?;
                }
                // The server may have ended the connection already.
                let _ = self.wire.end();
                return Ok(None);
            }
            Speech::Socket(socket) => {
                let close = socket.close();
                self.add(&close)?;
            }
            Speech::Bytes { .. } => match self.wire.end() {
                // When the server has ended already, what it said last is still to be read.
                Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(self.broken(&error)),
                _ => {}
            },
        }
        Ok(Some(Waits::End { until: Instant::now() + self.timeout }))
    }

    /// Waits for the server, for the input where it is wanted, or for the time to pass.
    fn wait(&mut self, waits: Waits) -> Result<Heard, Failure> {
        // Between two requests, a connection that serves no further one has nothing to say.
        let is_alone = matches!(waits, Waits::Message { .. }) && self.is_spent();
        match &self.speech {
            Speech::Socket(socket) if socket.closed.is_some() => return Ok(Heard::End),
            _ if !is_alone && self.wire.has_input() => return self.listen(waits),
            _ => {}
        }
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, !self.is_pushed());
        let reads_input = matches!(waits, Waits::Message { .. }) && self.source.wants_reading();
        let until = match waits {
            // A person may type as slowly as they like.
            Waits::Message { .. } if reads_input => None,
            Waits::Message { not_before } => Some(not_before),
            Waits::Reply { until, quiet_at } => Some(quiet_at.map_or(until, |at| at.min(until))),
            Waits::End { until } => Some(until),
        };
        let time = until.map(|until| until.saturating_duration_since(Instant::now()));
        let ready = {
            let mut fds = Vec::with_capacity(2);
            if !is_alone {
                fds.push(PollFd::from_borrowed_fd(self.wire.as_fd(), events));
            }
            if let (true, Some(input)) = (reads_input, &self.source.input) {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
            wait(&mut fds, time)
        };
        let mut ready =
            ready.map_err(|error| self.failed(format!("cannot be waited for: {error}")))?.into_iter();
        let server = if is_alone { PollFlags::empty() } else { ready.next().unwrap_or(PollFlags::empty()) };
        if server.contains(PollFlags::OUT) && !self.is_pushed() {
            self.push()?;
        }
        if ready.next().is_some_and(|flags| !flags.is_empty()) {
            self.source.read()?;
        }
        match server.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            true => self.listen(waits),
            false => Ok(Heard::Silence),
        }
    }

    /// Prints what the server says.
    fn listen(&mut self, waits: Waits) -> Result<Heard, Failure> {
        let awaits_reply = matches!(waits, Waits::Reply { .. });
        let n = match self.wire.receive(&mut self.buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Silence),
            Err(error) if self.goes_on_to_the_next(&error) => {
                self.push()?;
                return Ok(Heard::Silence);
            }
            // Between two requests it does not matter how a connection ends.
            Err(_) if !awaits_reply && self.speech.is_http() => 0,
            Err(error) => return Err(self.broken(&error)),
        };
        if n == 0 && !matches!(self.speech, Speech::Datagrams) {
            return Ok(self.end_of_connection(awaits_reply));
        }
        if let (Speech::Http(http), false) = (&mut self.speech, awaits_reply) {
            // Nothing was asked: whatever it says, it is out of step.
            http.spent = true;
            return Ok(Heard::Silence);
        }
        self.answered = true;
        self.heard = true;
        let (heard, answer) = self.speech.hear(&self.buffer[..n], &mut self.output)?;
        if matches!(&self.speech, Speech::Socket(socket) if socket.is_broken) {
            return Err(self.failed("broke the protocol of WebSockets".to_owned()));
        }
        if !answer.is_empty() {
            self.add(&answer)?;
        }
        Ok(heard)
    }

    fn end_of_connection(&mut self, awaits_reply: bool) -> Heard {
        let Speech::Http(http) = &mut self.speech else { return Heard::End };
        http.spent = true;
        if awaits_reply && http.end() { Heard::Reply } else { Heard::End }
    }

    /// The server has ended the connection after this side did, or with nothing left to say.
    fn ended(&mut self) -> Result<(), Failure> {
        match self.why_closed() {
            Some(why) => Err(self.failed(format!("closed the WebSocket ({why})"))),
            None => Ok(()),
        }
    }

    /// Why the server closed, where that was not the usual end of a WebSocket.
    fn why_closed(&self) -> Option<String> {
        match &self.speech {
            Speech::Socket(socket) => socket.reason(),
            _ => None,
        }
    }

    /// The server has ended the connection before this side did: fine if there was nothing left.
    fn ended_early(&mut self, waits: Waits) -> Result<(), Failure> {
        if let Waits::Reply { .. } = waits {
            // A reply of bytes can be ended by the end of the connection.
            let is_whole = self.answered && matches!(self.speech, Speech::Bytes { .. });
            if !is_whole {
                let (n, why) =
                    (self.sent, self.why_closed().map_or(String::new(), |why| format!(" ({why})")));
                return Err(self.failed(match self.answered && self.speech.is_http() {
                    true => format!("closed the connection within its reply to message {n}"),
                    false => format!("closed the connection before it answered message {n}{why}"),
                }));
            }
            self.replies += 1;
        }
        while self.source.wants_reading() {
            let Some(input) = &self.source.input else { break };
            let ready = wait(&mut [PollFd::new(input, PollFlags::IN)], Some(INPUT_GRACE));
            if !ready.is_ok_and(|flags| !flags[0].is_empty()) {
                return Err(self.input_left());
            }
            self.source.read()?;
            if self.source.take().is_some() {
                return Err(self.input_left());
            }
        }
        if self.source.take().is_some() { Err(self.input_left()) } else { self.ended() }
    }

    fn input_left(&self) -> Failure {
        let after = match self.sent {
            0 => String::new(),
            sent => format!(" after message {sent},"),
        };
        let why = self.why_closed().unwrap_or_else(|| "a server that speaks first: --data \"\"".to_owned());
        self.failed(format!("closed the connection{after} before the input ended ({why})"))
    }

    fn no_reply(&self) -> Failure {
        let (n, time) = (self.sent, show_time(self.timeout));
        let hint = match self.speech {
            Speech::Bytes { reply_end: ReplyEnd::Newline, .. } => {
                " (a server whose replies have no newline: --no-newline)"
            }
            _ => "",
        };
        let no_line = matches!(self.speech, Speech::Bytes { .. }) && !self.message.ends_with(b"\n");
        self.failed(match (self.is_pushed(), self.answered) {
            (false, _) => format!("did not take message {n} within {time}"),
            (_, true) => format!("did not end its reply to message {n} within {time}{hint}"),
            _ if no_line => {
                format!("did not answer message {n} within {time} (it was sent without a newline at its end)")
            }
            _ => format!("did not answer message {n} within {time}"),
        })
    }

    fn broken(&self, error: &io::Error) -> Failure {
        self.failed(match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "reset the connection: it refused it (a full tidegate does so), or it failed".to_owned()
            }
            io::ErrorKind::UnexpectedEof => {
                "ended the connection without saying so in TLS (close_notify): what it said last may be missing".to_owned()
            }
            io::ErrorKind::InvalidData => format!("broke TLS: {error}"),
            io::ErrorKind::ConnectionRefused => "refused the datagram: nothing listens there".to_owned(),
            _ => format!("could not be reached: {error}"),
        })
    }

    /// A failure whose subject is the server.
    fn failed(&self, what: String) -> Failure {
        Failure::Failed(format!("{}: the server {what}", self.url))
    }
}
