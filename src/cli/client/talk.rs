//! The conversation with the server: a message, its reply, the next message, and so on to the end of the connection.

use super::failure::Failure;
use super::output::Printer;
use super::source::Messages;
use super::wire::{Wire, wait};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::time::{Duration, Instant};
use tidegate_units::show_time;
use tidegate_units::url::Url;

/// After the server has ended: how long the input may take to show that it has ended too.
const INPUT_GRACE: Duration = Duration::from_millis(100);

/// What ends a reply that comes over a stream. A datagram is a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyEnd {
    /// A newline.
    Newline,
    /// Nothing more has come for this time.
    Quiet(Duration),
}

/// The conversation.
pub(super) struct Talk {
    url: Url,
    wire: Wire,
    source: Messages,
    pub(super) output: Printer,
    /// Between a reply and the next message.
    pub(super) think: Duration,
    /// For a reply, and for the end.
    pub(super) timeout: Duration,
    /// Whether a message is a line of its own.
    pub(super) adds_newline: bool,
    pub(super) reply_end: ReplyEnd,
    buffer: Vec<u8>,
    sent: u64,
    replies: u64,
    /// The present message, kept until it is answered.
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

/// What the server did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing.
    Silence,
    /// It said something, but not a whole reply.
    Part,
    /// It said a whole reply.
    Reply,
    /// It ended the connection.
    End,
}

impl Talk {
    pub(super) fn new(url: Url, wire: Wire, source: Messages, output: Printer) -> Self {
        Self {
            url,
            wire,
            source,
            output,
            think: Duration::ZERO,
            timeout: Duration::ZERO,
            adds_newline: false,
            reply_end: ReplyEnd::Newline,
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
            Some(data) if !data.is_empty() || !self.wire.is_stream() => self.say(data)?,
            _ => Waits::Message { not_before: Instant::now() },
        };
        loop {
            waits = match self.on_time(waits)? {
                Some(waits) => waits,
                None => return Ok(()),
            };
            let heard = self.wait(waits)?;
            waits = match (waits, heard) {
                (Waits::End { .. }, Heard::End) => return Ok(()),
                (_, Heard::End) => return self.ended_early(waits),
                (Waits::Reply { .. }, Heard::Reply) => self.replied(),
                (Waits::Reply { until, .. }, Heard::Part) => {
                    let quiet_at = match self.reply_end {
                        ReplyEnd::Quiet(time) => Some(Instant::now() + time),
                        ReplyEnd::Newline => None,
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
                    Some(line) => self.say(line)?,
                    None if self.source.is_exhausted() => return self.finish(),
                    None => waits,
                }
            }
            Waits::Reply { quiet_at: Some(at), .. } if now >= at => self.replied(),
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

    fn say(&mut self, mut message: Vec<u8>) -> Result<Waits, Failure> {
        if self.adds_newline {
            message.push(b'\n');
        }
        self.sent += 1;
        self.answered = false;
        self.asked = Instant::now();
        self.message = message;
        self.taken = 0;
        self.push()?;
        Ok(Waits::Reply { until: self.asked + self.timeout, quiet_at: None })
    }

    fn replied(&mut self) -> Waits {
        self.replies += 1;
        Waits::Message { not_before: Instant::now() + self.think }
    }

    /// Whether the time to think, counted from the message, has passed.
    fn has_thought(&self, now: Instant) -> bool {
        !self.think.is_zero() && now >= self.asked + self.think
    }

    fn is_pushed(&self) -> bool {
        self.taken == self.message.len()
    }

    /// Gives the kernel what it takes of the present message.
    fn push(&mut self) -> Result<(), Failure> {
        loop {
            match self.wire.send(&self.message[self.taken..]) {
                Ok(n) => self.taken += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if self.goes_on_to_the_next(&error) => continue,
                Err(error) => return Err(self.broken(&error)),
            }
            if self.is_pushed() {
                return Ok(());
            }
        }
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
        if !self.wire.is_stream() {
            return Ok(None);
        }
        match self.wire.end() {
            // When the server has ended already, what it said last is still to be read.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(self.broken(&error)),
            _ => Ok(Some(Waits::End { until: Instant::now() + self.timeout })),
        }
    }

    /// Waits for the server, for the input where it is wanted, or for the time to pass.
    fn wait(&mut self, waits: Waits) -> Result<Heard, Failure> {
        let mut events = PollFlags::IN;
        if !self.is_pushed() {
            events |= PollFlags::OUT;
        }
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
            fds.push(PollFd::from_borrowed_fd(self.wire.as_fd(), events));
            if let (true, Some(input)) = (reads_input, &self.source.input) {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
            wait(&mut fds, time)
        };
        let ready = ready.map_err(|error| self.failed(format!("cannot be waited for: {error}")))?;
        if ready[0].contains(PollFlags::OUT) && !self.is_pushed() {
            self.push()?;
        }
        if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            self.source.read()?;
        }
        match ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            true => self.listen(),
            false => Ok(Heard::Silence),
        }
    }

    /// Prints what the server says.
    fn listen(&mut self) -> Result<Heard, Failure> {
        let n = match self.wire.receive(&mut self.buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Silence),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Silence),
            Err(error) if self.goes_on_to_the_next(&error) => {
                self.push()?;
                return Ok(Heard::Silence);
            }
            Err(error) => return Err(self.broken(&error)),
        };
        let is_stream = self.wire.is_stream();
        if n == 0 && is_stream {
            return Ok(Heard::End);
        }
        self.answered = true;
        self.heard = true;
        let said = &self.buffer[..n];
        let whole = !is_stream || (self.reply_end == ReplyEnd::Newline && said.contains(&b'\n'));
        self.output.print(said)?;
        if !is_stream {
            self.output.end_line()?;
        }
        Ok(if whole { Heard::Reply } else { Heard::Part })
    }

    /// The server has ended the connection before this side did: fine if there was nothing left.
    fn ended_early(&mut self, waits: Waits) -> Result<(), Failure> {
        if let Waits::Reply { .. } = waits {
            if !self.answered {
                return Err(
                    self.failed(format!("closed the connection before it answered message {}", self.sent))
                );
            }
            // A reply that the end of the connection ends.
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
        if self.source.take().is_some() { Err(self.input_left()) } else { Ok(()) }
    }

    fn input_left(&self) -> Failure {
        let after = match self.sent {
            0 => String::new(),
            sent => format!(" after message {sent},"),
        };
        self.failed(format!(
            "closed the connection{after} before the input ended (a server that speaks first: --data \"\")"
        ))
    }

    fn no_reply(&self) -> Failure {
        let (n, time) = (self.sent, show_time(self.timeout));
        let hint = match self.reply_end {
            ReplyEnd::Newline => " (a server whose replies have no newline: --no-newline)",
            ReplyEnd::Quiet(_) => "",
        };
        let no_line = self.wire.is_stream() && !self.message.ends_with(b"\n");
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
            io::ErrorKind::ConnectionRefused => "refused the datagram: nothing listens there".to_owned(),
            _ => format!("could not be reached: {error}"),
        })
    }

    /// A failure whose subject is the server.
    fn failed(&self, what: String) -> Failure {
        Failure::Failed(format!("{}: the server {what}", self.url))
    }
}
