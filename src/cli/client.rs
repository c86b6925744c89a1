//! `tidegate client`: one polite client. It sends a line, waits for the reply, thinks, and sends the
//! next; at the end it half-closes, prints what still comes, and says how long all of it took.

use super::args::unescape;
use super::{exit, fail, units};
use crate::url::{Scheme, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A longer line is not read into memory.
const LINE_MAX: usize = 1024 * 1024;

/// The most bytes that one datagram holds (IPv4: 65,535 less 28 of headers).
const DATAGRAM_MAX: usize = 65_507;

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
    /// Send this one message; \n and \t are understood (empty: only listen, on udp an empty datagram)
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
        plural(sent, "line", "lines"),
        plural(replies, "reply", "replies"),
        began.elapsed().as_secs_f64()
    ))
}

/// What there is to send.
struct Source {
    input: Option<File>,
    name: String,
    /// Read and not sent yet; at most a line and a read's worth.
    buffer: Vec<u8>,
    line_max: usize,
}

impl Source {
    fn open(args: &ClientArgs, scheme: Scheme) -> Result<Self, Failure> {
        let line_max = if scheme == Scheme::Udp { DATAGRAM_MAX } else { LINE_MAX };
        let mut source = Self { input: None, name: String::new(), buffer: Vec::new(), line_max };
        if args.data.is_some() {
            return Ok(source);
        }
        source.name = match &args.file {
            Some(path) => path.display().to_string(),
            None => "standard input".to_owned(),
        };
        let opened = match &args.file {
            Some(path) => File::open(path),
            None => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        };
        source.input = Some(opened.map_err(|error| source.failed(&error))?);
        Ok(source)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::Failed(format!("cannot read {}: {error}", self.name))
    }

    /// The next non-empty line that has been read whole, without its end.
    fn take(&mut self) -> Option<Vec<u8>> {
        while !self.buffer.is_empty() {
            let end = self.buffer.iter().position(|&byte| byte == b'\n');
            if end.is_none() && self.input.is_some() {
                return None;
            }
            let mut line: Vec<u8> = self.buffer.drain(..end.map_or(self.buffer.len(), |at| at + 1)).collect();
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    /// Whether a read could bring the next line.
    fn wants_reading(&self) -> bool {
        self.input.is_some() && !self.buffer.contains(&b'\n')
    }

    fn is_exhausted(&self) -> bool {
        self.input.is_none() && self.buffer.is_empty()
    }

    /// Reads once; waits if there is nothing yet.
    fn read(&mut self) -> Result<(), Failure> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let mut piece = [0; 16 * 1024];
        match input.read(&mut piece) {
            Ok(0) => self.input = None,
            Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(self.failed(&error)),
        }
        let unfinished = self.buffer.iter().rev().take_while(|&&byte| byte != b'\n').count();
        if unfinished > self.line_max {
            let why = format!("{}: a line is longer than {} bytes", self.name, self.line_max);
            return Err(Failure::Failed(why));
        }
        Ok(())
    }
}

/// The socket, connected and non-blocking.
enum Wire {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Tcp(socket) => socket.as_fd(),
            Wire::Udp(socket) => socket.as_fd(),
        }
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => (&*socket).write(data),
            Wire::Udp(socket) => socket.send(data),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => (&*socket).read(buffer),
            Wire::Udp(socket) => socket.recv(buffer),
        }
    }

    fn is_tcp(&self) -> bool {
        matches!(self, Wire::Tcp(_))
    }
}

fn connect(url: &Url, timeout: Duration) -> Result<Wire, Failure> {
    let deadline = Instant::now() + timeout;
    let failed = |why: String| Failure::Failed(format!("cannot connect to {url}: {why}"));
    let addresses = resolve(url, timeout)?;
    let mut last = None;
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match connect_one(url.scheme, address, left) {
            Ok(wire) => return Ok(wire),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(match last {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there".to_owned()
        }
        Some(error) if error.kind() != io::ErrorKind::TimedOut => error.to_string(),
        _ => format!("no answer within {}", units::show_duration(timeout)),
    }))
}

fn connect_one(scheme: Scheme, address: SocketAddr, timeout: Duration) -> io::Result<Wire> {
    if scheme == Scheme::Udp {
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        return Ok(Wire::Udp(socket));
    }
    let socket = TcpStream::connect_timeout(&address, timeout)?;
    // Each line is sent with one call, so there is nothing to gather.
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(Wire::Tcp(socket))
}

/// Resolves in a thread of its own, since the system's resolver has no deadline that we can set.
fn resolve(url: &Url, timeout: Duration) -> Result<Vec<SocketAddr>, Failure> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let asked = url.clone();
    std::thread::Builder::new()
        .name("tidegate-resolve".to_owned())
        .spawn(move || {
            // Nobody waits any more after the deadline.
            let _ = sender.send(asked.resolve());
        })
        .map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    match receiver.recv_timeout(timeout) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Failure::Failed(error.to_string())),
        Err(_) => {
            let time = units::show_duration(timeout);
            Err(Failure::Failed(format!("cannot resolve {}: no answer within {time}", url.host)))
        }
    }
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
    /// What the kernel has not taken of the present line.
    pending: Vec<u8>,
    /// Something came since the present line was sent.
    answered: bool,
}

/// What the conversation waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// For the next line to be there and the time to send it to come.
    Line { not_before: Instant },
    /// For the reply to the line that was sent.
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
                        units::show_duration(self.timeout)
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

    /// Gives the kernel what it takes of the present line.
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
                    self.failed(format!("closed the connection before it answered line {}", self.sent))
                );
            }
            // A reply without a newline that the end of the connection ends.
            self.replies += 1;
        }
        while self.source.wants_reading() {
            let Some(input) = &self.source.input else { break };
            let mut fds = [PollFd::new(input, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&timespec(INPUT_GRACE))), Ok(n) if n > 0) {
                return Err(self.failed("closed the connection".to_owned()));
            }
            self.source.read()?;
            if self.source.take().is_some() {
                return Err(self.lines_left());
            }
        }
        if self.source.take().is_some() { Err(self.lines_left()) } else { Ok(()) }
    }

    fn lines_left(&self) -> Failure {
        self.failed(format!("closed the connection after line {}, and there were more to send", self.sent))
    }

    fn no_reply(&self) -> Failure {
        let time = units::show_duration(self.timeout);
        self.failed(match (self.pending.is_empty(), self.answered) {
            (false, _) => format!("did not take line {} within {time}", self.sent),
            (_, true) => format!("did not end its reply to line {} within {time}", self.sent),
            _ => format!("did not answer line {} within {time}", self.sent),
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
