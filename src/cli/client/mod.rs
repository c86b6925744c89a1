//! `tidegate client`: one polite client. It sends a line, waits for the reply, thinks, and sends the
//! next; at the end it half-closes, prints what still comes, and says how long all of it took.

mod source;
mod wire;

use self::source::{DATAGRAM_MAX, Source};
use self::wire::{Wire, connect};
use super::{exit, fail, units};
use crate::url::{Scheme, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_units::unescape;

/// After the server has ended: how long the input may take to show that it has ended too.
const INPUT_GRACE: Duration = Duration::from_millis(100);

/// Options of `tidegate client`.
#[derive(Debug, clap::Args)]
pub(super) struct ClientArgs {
    /// Where to: tcp://host:port or udp://host:port
    url: String,
    /// Send the non-empty lines of this file [default: standard input]
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Send this one message, with \n, \r, \t, \0, \\ and \xHH (empty: only listen, on udp an empty datagram)
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// Wait so long between a reply and the next line
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration)]
    think: Duration,
    /// Give up when connecting, a reply, or the server's end takes longer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    timeout: Duration,
    /// Do not say the total time (on standard error)
    #[arg(short, long)]
    quiet: bool,
}

/// Why the conversation ended before its end.
enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// Something failed on the way.
    Failed(String),
    /// Who read our output has gone: nobody wants the rest.
    ReaderGone,
}

/// Runs it.
pub(super) fn run(args: ClientArgs) -> ExitCode {
    match converse(&args) {
        Ok(said) => {
            if !args.quiet {
                // Nobody can be told when stderr is closed.
                let _ = writeln!(io::stderr(), "{said}");
            }
            ExitCode::from(exit::OK)
        }
        Err(Failure::Usage(why)) => fail(exit::USAGE, why),
        Err(Failure::Failed(why)) => fail(exit::FAILED, why),
        Err(Failure::ReaderGone) => ExitCode::from(exit::OK),
    }
}

fn converse(args: &ClientArgs) -> Result<String, Failure> {
    let url: Url =
        args.url.parse().map_err(|error: crate::url::UrlError| Failure::Usage(error.to_string()))?;
    if url.scheme == Scheme::Http {
        let why = "the client speaks tcp:// and udp://; for http:// use curl".to_owned();
        return Err(Failure::Usage(why));
    }
    if url.port == 0 {
        return Err(Failure::Usage(format!("{url}: port 0 is not a port to connect to")));
    }
    if args.timeout.is_zero() {
        return Err(Failure::Usage("--timeout is 0: it must be more, like 5s".to_owned()));
    }
    let data = args.data.as_deref().map(unescape).transpose().map_err(Failure::Usage)?;
    if let Some(size) = data.as_ref().map(Vec::len).filter(|size| *size > DATAGRAM_MAX)
        && url.scheme == Scheme::Udp
    {
        let why = format!("--data has {size} bytes, and a datagram has at most {DATAGRAM_MAX}");
        return Err(Failure::Usage(why));
    }
    let source = Source::open(args, url.scheme)?;
    let began = Instant::now();
    let wire = connect(&url, args.timeout)?;
    let mut talk = Talk {
        url,
        wire,
        source,
        think: args.think,
        timeout: args.timeout,
        out: io::stdout(),
        buffer: vec![0; 64 * 1024],
        sent: 0,
        replies: 0,
        pending: Vec::new(),
        answered: false,
    };
    talk.run(data)?;
    let Talk { sent, replies, .. } = talk;
    let plural = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    Ok(format!(
        "{} sent, {}, {:.3} s in all",
        plural(sent, "message", "messages"),
        plural(replies, "reply", "replies"),
        began.elapsed().as_secs_f64()
    ))
}

/// The conversation.
struct Talk {
    url: Url,
    wire: Wire,
    source: Source,
    think: Duration,
    timeout: Duration,
    out: io::Stdout,
    buffer: Vec<u8>,
    sent: u64,
    replies: u64,
    /// What the kernel has not taken of the present message.
    pending: Vec<u8>,
    /// Something came since the present message was sent.
    answered: bool,
}

/// What the conversation waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// For the next line to be there and the time to send it to come.
    Line { not_before: Instant },
    /// For the reply to the message that was sent.
    Reply { until: Instant },
    /// For the server to end, after this side has.
    End { until: Instant },
}

/// What the server did.
#[derive(PartialEq, Eq)]
enum Heard {
    /// Nothing.
    Silence,
    /// It said something, but not a whole reply.
    Part,
    /// It said a reply: the end of a line, or a datagram.
    Reply,
    /// It ended the connection.
    End,
}

impl Talk {
    /// Says `data`, if it is given, or the lines of the source, and listens until the end.
    fn run(&mut self, data: Option<Vec<u8>>) -> Result<(), Failure> {
        let mut waits = match data {
            // Nothing to say to a server that speaks first; an empty datagram is a message.
            Some(data) if !data.is_empty() || !self.wire.is_tcp() => self.say(data)?,
            _ => Waits::Line { not_before: Instant::now() },
        };
        loop {
            let now = Instant::now();
            waits = match waits {
                Waits::Line { not_before } if now >= not_before || self.source.is_exhausted() => {
                    match self.source.take() {
                        Some(line) => self.say(line)?,
                        None if self.source.is_exhausted() => match self.finish()? {
                            Some(waits) => waits,
                            None => return Ok(()),
                        },
                        None => waits,
                    }
                }
                Waits::Reply { until } if now >= until => return Err(self.no_reply()),
                Waits::End { until } if now >= until => {
                    return Err(self.failed(format!(
                        "did not end the connection within {} after we had",
                        units::show_time(self.timeout)
                    )));
                }
                waits => waits,
            };
            let heard = self.wait(waits)?;
            waits = match (waits, heard) {
                (Waits::End { .. }, Heard::End) => return Ok(()),
                (_, Heard::End) => return self.ended_early(waits),
                (Waits::Reply { .. }, Heard::Reply) => {
                    self.replies += 1;
                    Waits::Line { not_before: Instant::now() + self.think }
                }
                // Each piece of a long rest gets its own time.
                (Waits::End { .. }, Heard::Part | Heard::Reply) => {
                    Waits::End { until: Instant::now() + self.timeout }
                }
                _ => waits,
            };
        }
    }

    fn say(&mut self, mut line: Vec<u8>) -> Result<Waits, Failure> {
        if self.wire.is_tcp() && line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        self.sent += 1;
        self.answered = false;
        self.pending = line;
        self.push()?;
        Ok(Waits::Reply { until: Instant::now() + self.timeout })
    }

    /// Gives the kernel what it takes of the present message.
    fn push(&mut self) -> Result<(), Failure> {
        loop {
            match self.wire.send(&self.pending) {
                Ok(n) if self.wire.is_tcp() => {
                    self.pending.drain(..n);
                }
                Ok(_) => self.pending.clear(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
            if self.pending.is_empty() {
                return Ok(());
            }
        }
    }

    /// Everything was sent and answered: say so. `None`: there is nothing to wait for.
    fn finish(&mut self) -> Result<Option<Waits>, Failure> {
        match &self.wire {
            Wire::Udp(_) => Ok(None),
            Wire::Tcp(socket) => match socket.shutdown(Shutdown::Write) {
                Ok(()) => Ok(Some(Waits::End { until: Instant::now() + self.timeout })),
                // The server has ended already; what it said last is still to be read.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    Ok(Some(Waits::End { until: Instant::now() + self.timeout }))
                }
                Err(error) => Err(self.broken(&error)),
            },
        }
    }

    /// Waits for the server, for the input where it is wanted, or for the time to pass.
    fn wait(&mut self, waits: Waits) -> Result<Heard, Failure> {
        let mut events = PollFlags::IN;
        if !self.pending.is_empty() {
            events |= PollFlags::OUT;
        }
        let reads_input = matches!(waits, Waits::Line { .. }) && self.source.wants_reading();
        let until = match waits {
            // A person may type as slowly as they like.
            Waits::Line { .. } if reads_input => None,
            Waits::Line { not_before } => Some(not_before),
            Waits::Reply { until } | Waits::End { until } => Some(until),
        };
        let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
        let (mut readable, mut writable, mut input_ready) = (false, false, false);
        {
            let mut fds = Vec::with_capacity(2);
            fds.push(PollFd::from_borrowed_fd(self.wire.as_fd(), events));
            if let (true, Some(input)) = (reads_input, &self.source.input) {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {
                    let got = fds[0].revents();
                    writable = got.contains(PollFlags::OUT);
                    readable = got.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
                    input_ready = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed(format!("cannot be waited for: {error}"))),
            }
        }
        if writable && !self.pending.is_empty() {
            self.push()?;
        }
        if input_ready {
            self.source.read()?;
        }
        if readable { self.listen() } else { Ok(Heard::Silence) }
    }

    /// Prints what the server says.
    fn listen(&mut self) -> Result<Heard, Failure> {
        let n = match self.wire.receive(&mut self.buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Silence),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Silence),
            Err(error) => return Err(self.broken(&error)),
        };
        if n == 0 && self.wire.is_tcp() {
            return Ok(Heard::End);
        }
        self.answered = true;
        let said = &self.buffer[..n];
        let whole = !self.wire.is_tcp() || said.contains(&b'\n');
        let mut written = self.out.write_all(said);
        if !self.wire.is_tcp() && said.last() != Some(&b'\n') {
            written = written.and_then(|()| self.out.write_all(b"\n"));
        }
        match written.and_then(|()| self.out.flush()) {
            Ok(()) if whole => Ok(Heard::Reply),
            Ok(()) => Ok(Heard::Part),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
            Err(error) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
        }
    }

    /// The server has ended the connection before this side did: fine if there was nothing left.
    fn ended_early(&mut self, waits: Waits) -> Result<(), Failure> {
        if let Waits::Reply { .. } = waits {
            if !self.answered {
                return Err(
                    self.failed(format!("closed the connection before it answered message {}", self.sent))
                );
            }
            // A reply without a newline that the end of the connection ends.
            self.replies += 1;
        }
        while self.source.wants_reading() {
            let Some(input) = &self.source.input else { break };
            let mut fds = [PollFd::new(input, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&timespec(INPUT_GRACE))), Ok(n) if n > 0) {
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
        let time = units::show_time(self.timeout);
        self.failed(match (self.pending.is_empty(), self.answered) {
            (false, _) => format!("did not take message {} within {time}", self.sent),
            (_, true) => format!("did not end its reply to message {} within {time}", self.sent),
            _ => format!("did not answer message {} within {time}", self.sent),
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

fn timespec(time: Duration) -> Timespec {
    // A little late is better than a little early, which would spin until the deadline.
    let time = time + Duration::from_micros(100);
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
