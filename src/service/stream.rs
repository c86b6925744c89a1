//! A connection as a service sees it during a turn: reads and writes that never wait.

use super::{Blocking, Host, Peer, SessionId, Waker, Words};
use crate::limits::Limits;
use rustix::net::{RecvFlags, SendFlags};
use std::cell::Cell;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pace::Pace;

/// Replies smaller than this are gathered and sent with one call.
const GATHER_BYTES: usize = 16 * 1024;

/// Replies that the kernel has not taken: nothing allocated while it takes all, and one word in
/// the connection, which is as small as can be.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<Box<Backlog>>);

/// Bytes to send, of which so many went already.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

impl Backlog {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Gives memory back when most of it has gone, so that what is counted is what is held.
    fn shrink(&mut self) {
        if self.sent > self.rest().len() {
            self.bytes.drain(..self.sent);
            self.bytes.shrink_to_fit();
            self.sent = 0;
        }
    }
}

impl Kept {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |backlog| backlog.rest().len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Takes bytes into account, within the limits.
    fn keep(&mut self, data: &[u8], limits: &Limits, total: &AtomicUsize) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.len() + data.len() > limits.output_per_connection {
            return Err(Fault::OutputLimit.into());
        }
        let before = total.fetch_add(data.len(), Ordering::Relaxed);
        if before + data.len() > limits.output_total {
            total.fetch_sub(data.len(), Ordering::Relaxed);
            return Err(Fault::OutputLimit.into());
        }
        let Backlog { bytes, sent } = &mut **self.0.get_or_insert_default();
        if *sent > 0 && bytes.len() + data.len() > bytes.capacity() {
            bytes.drain(..*sent);
            *sent = 0;
        }
        bytes.extend_from_slice(data);
        Ok(())
    }

    /// Sends what the kernel takes now; how much that was.
    pub(crate) fn flush(&mut self, socket: &TcpStream, total: &AtomicUsize) -> io::Result<usize> {
        let Some(backlog) = &mut self.0 else { return Ok(0) };
        let mut flushed = 0;
        while !backlog.rest().is_empty() {
            match send(socket, backlog.rest())? {
                0 => break,
                n => {
                    backlog.sent += n;
                    flushed += n;
                    total.fetch_sub(n, Ordering::Relaxed);
                }
            }
        }
        match backlog.rest().is_empty() {
            true => self.0 = None,
            false => backlog.shrink(),
        }
        Ok(flushed)
    }

    /// Gives up what was not sent.
    pub(crate) fn discard(&mut self, total: &AtomicUsize) {
        if self.0.is_some() {
            total.fetch_sub(self.len(), Ordering::Relaxed);
            self.0 = None;
        }
    }
}

/// Sends without waiting; 0 if the kernel takes nothing now.
fn send(socket: &TcpStream, data: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => return Ok(n),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Failures that end a connection for a reason of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The client does not read, and its replies outgrew `output_per_connection` or
    /// `output_total`.
    #[error("the client does not take its replies, and there are more than may be kept")]
    OutputLimit,
    /// There is no room for more of the line that the client has begun: `input_total` is in use.
    #[error("the half-read lines of all clients are more than may be kept")]
    InputLimit,
    /// The client did not send in time.
    #[error("the client did not send its request in time")]
    ReadTimeout,
    /// The client did not take its replies in time.
    #[error("the client did not take its replies in time")]
    WriteTimeout,
    /// The server is ending.
    #[error("the server is ending")]
    Shutdown,
    /// A line is longer than `max_line`.
    #[error("the client sent a line longer than allowed")]
    LineTooLong,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::InputLimit | Fault::OutputLimit => io::ErrorKind::OutOfMemory,
            Fault::ReadTimeout | Fault::WriteTimeout => io::ErrorKind::TimedOut,
            Fault::Shutdown => io::ErrorKind::ConnectionAborted,
            Fault::LineTooLong => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, fault)
    }
}

impl Fault {
    /// The fault inside an error, if it is one.
    pub fn of(error: &io::Error) -> Option<Fault> {
        error.get_ref()?.downcast_ref::<Fault>().copied()
    }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Some bytes; never empty.
    Data(&'a [u8]),
    /// Nothing now: end the turn with [`Turn::Park`](super::Turn::Park) or
    /// [`Turn::Partial`](super::Turn::Partial).
    Nothing,
    /// The client has said all it will say. It may still be listening.
    End,
}

/// A worker's buffers, lent to one turn after the other.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Made at the worker's first turn: most workers of a quiet server never have one.
    input: Vec<u8>,
    gather: Vec<u8>,
    /// The kernel does not take replies: nothing more is read, so that the client feels it.
    blocked: Cell<bool>,
    pace: Pace,
}

impl Buffers {
    /// Bytes of both buffers; touched only as far as data goes.
    pub(crate) const BYTES: usize = Self::INPUT_BYTES + GATHER_BYTES;
    const INPUT_BYTES: usize = 64 * 1024;

    pub(crate) fn new() -> Self {
        Self { input: Vec::new(), gather: Vec::new(), blocked: Cell::new(false), pace: Pace::new() }
    }
}

/// What a turn did with its stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turned {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// The last read emptied the kernel's buffer: an event will tell of more.
    pub(crate) drained: bool,
    /// The client has said all it will say.
    pub(crate) ended: bool,
    /// The session moves bytes itself: events are wanted when the client takes more, too.
    pub(crate) both_ways: bool,
}

/// A connection during a turn. Nothing here waits; see [`Stream::blocking`] for what does.
#[derive(Debug)]
pub struct Stream<'a> {
    input: Input<'a>,
    output: Output<'a>,
    peer: &'a Peer,
    session: SessionId,
    both_ways: bool,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(
        socket: &'a TcpStream,
        peer: &'a Peer,
        buffers: &'a mut Buffers,
        kept: &'a mut Kept,
        context: Context<'a>,
        session: SessionId,
        hangup: bool,
    ) -> Self {
        let Buffers { input, gather, blocked, pace } = buffers;
        let (blocked, pace) = (&*blocked, &*pace);
        if input.is_empty() {
            // Zeroed by the allocator, so that pages which no data reaches are never touched.
            *input = vec![0; Buffers::INPUT_BYTES];
            gather.reserve_exact(GATHER_BYTES);
        }
        gather.clear();
        blocked.set(!kept.is_empty());
        pace.reset();
        let budget = context.limits.turn_bytes;
        let input = Input {
            socket,
            buffer: input,
            blocked,
            pace,
            budget,
            hangup,
            drained: false,
            ended: false,
            received: 0,
        };
        let output = Output { socket, kept, gather, blocked, pace, context, sent: 0 };
        Self { input, output, peer, session, both_ways: false }
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        self.output.context.limits
    }

    /// Whether the server is ending: a session that keeps its connection between requests should not any more.
    pub fn is_draining(&self) -> bool {
        self.output.context.draining.load(Ordering::Relaxed)
    }

    /// What a client of this listener is told that cannot be served now, with the time to stay away.
    pub fn busy_reply(&self, wait: std::time::Duration) -> std::borrow::Cow<'a, [u8]> {
        self.output.context.words.say(wait)
    }

    /// Wakes this session from any thread: it gives it a turn though its client has said nothing.
    pub fn waker(&self) -> Waker {
        Waker::new(self.output.context.host.clone(), self.session)
    }

    /// The client's socket, for a session that moves bytes itself: it reads and writes until the kernel says that it would
    /// block, and tells [`moved`](Self::moved) what it did. From then on the session has a turn when the client can take
    /// more, too.
    #[allow(dead_code, reason = "the gate's sessions are the first that will use it")]
    pub(crate) fn socket(&mut self) -> &'a TcpStream {
        self.both_ways = true;
        self.input.socket
    }

    /// Bytes that the session has moved itself.
    #[allow(dead_code, reason = "the gate's sessions are the first that will use it")]
    pub(crate) fn moved(&mut self, received: u64, sent: u64) {
        self.input.received += received;
        self.input.drained = true;
        self.input.hangup = false;
        self.output.sent += sent;
    }

    /// From now on events of this descriptor give the session a turn, as those of the client's socket do, until it is
    /// closed.
    #[allow(dead_code, reason = "the gate's sessions are the first that will use it")]
    pub(crate) fn watch(&self, fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
        self.output.context.host.watch(self.session, fd)
    }

    /// Both halves, so that a reply can be written while its request is still borrowed.
    pub fn split(&mut self) -> (&mut Input<'a>, &mut Output<'a>) {
        (&mut self.input, &mut self.output)
    }

    /// Takes what the client has sent; see [`Input::receive`].
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        self.input.receive()
    }

    /// Sends, without waiting; see [`Output::send`].
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.output.send(data)
    }

    /// A view that waits, for code in plain blocking style; it holds the worker meanwhile. What it
    /// has read ahead and nobody took is lost with it: use it for a conversation that ends with
    /// [`Turn::Close`](super::Turn::Close).
    pub fn blocking(&mut self) -> Blocking<'_, 'a> {
        Blocking::new(self)
    }

    pub(crate) fn halves(&self) -> (&Input<'a>, &Output<'a>) {
        (&self.input, &self.output)
    }

    /// Ends the turn: sends what was gathered and says what happened.
    pub(crate) fn finish(mut self) -> (Turned, io::Result<()>) {
        let flushed = self.output.flush();
        let Input { received, drained, ended, hangup, .. } = self.input;
        // After a hangup the end is still to be read, and no further event will tell of it.
        let drained = drained && !hangup;
        let (sent, both_ways) = (self.output.sent, self.both_ways);
        (Turned { received, sent, drained, ended, both_ways }, flushed)
    }
}

/// What all turns share.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) input_total: &'a Arc<AtomicUsize>,
    pub(crate) output_total: &'a AtomicUsize,
    pub(crate) stopping: &'a std::sync::atomic::AtomicBool,
    pub(crate) draining: &'a std::sync::atomic::AtomicBool,
    pub(crate) host: &'a Arc<dyn Host>,
    pub(crate) words: &'a Words,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", self.limits).finish_non_exhaustive()
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Input<'a> {
    pub(super) socket: &'a TcpStream,
    buffer: &'a mut [u8],
    blocked: &'a Cell<bool>,
    pace: &'a Pace,
    budget: usize,
    hangup: bool,
    drained: bool,
    ended: bool,
    received: u64,
}

impl Input<'_> {
    /// Takes what the client has sent, as much as fits the worker's buffer (64 KiB), without
    /// waiting. When this turn has taken `turn_bytes`, or has lasted a millisecond, it says
    /// [`Received::Nothing`], so that other connections have their turns; the rest follows in this
    /// connection's next turn.
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        let room = self.buffer.len();
        match self.take(room)? {
            Some(0) => Ok(Received::End),
            Some(n) => Ok(Received::Data(&self.buffer[..n])),
            None => Ok(Received::Nothing),
        }
    }

    /// Reads into the buffer: `None` for nothing now, 0 for the end.
    fn take(&mut self, room: usize) -> io::Result<Option<usize>> {
        if self.ended {
            return Ok(Some(0));
        }
        // A short read empties the kernel's buffer, so a second read would find nothing; unless
        // the client has hung up, when it would find the end.
        if self.budget == 0 || self.blocked.get() || (self.drained && !self.hangup) {
            return Ok(None);
        }
        if self.received > 0 && self.pace.look() {
            return Ok(None);
        }
        let Some(n) = receive(self.socket, &mut self.buffer[..room])? else {
            self.drained = true;
            self.hangup = false;
            return Ok(None);
        };
        self.account(n, room);
        if !self.drained {
            // There may be more, so whether another read is in time will be asked.
            self.pace.begin();
        }
        Ok(Some(n))
    }

    pub(super) fn account(&mut self, n: usize, room: usize) {
        self.ended = n == 0;
        self.drained = n < room;
        self.budget = self.budget.saturating_sub(n);
        self.received += n as u64;
    }
}

/// Receives without waiting: `None` for nothing now, 0 for the end.
pub(super) fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((n, _)) => return Ok(Some(n)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Output<'a> {
    pub(super) socket: &'a TcpStream,
    pub(super) kept: &'a mut Kept,
    gather: &'a mut Vec<u8>,
    blocked: &'a Cell<bool>,
    pace: &'a Pace,
    pub(super) context: Context<'a>,
    pub(super) sent: u64,
}

impl Output<'_> {
    /// Sends bytes without waiting. What the kernel does not take is kept and sent when it does;
    /// until then nothing more is read from this client.
    ///
    /// Fails with [`Fault::OutputLimit`] when more would have to be kept than the limits allow,
    /// and with the socket's error when the connection is broken.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if self.gather.len() + data.len() <= GATHER_BYTES {
            self.gather.extend_from_slice(data);
            return Ok(());
        }
        self.flush()?;
        self.pass(data)
    }

    /// Whether a session that has more input in its hands than it has answered should leave the rest
    /// to another turn: this turn has lasted a millisecond, the client does not take its replies, or
    /// the server is ending. Then keep the rest in the session and return
    /// [`Turn::Again`](super::Turn::Again).
    ///
    /// Ask between two requests. The time counts from the first call of this, or from a read that
    /// filled the worker's buffer, whichever was first; while requests are answered in microseconds
    /// the clock is read for every eighth only.
    pub fn is_turn_over(&self) -> bool {
        self.blocked.get() || self.context.stopping.load(Ordering::Relaxed) || self.pace.is_over()
    }

    /// The time of this turn counts from here on, unless it does already.
    pub(super) fn begin_pace(&self) {
        self.pace.begin();
    }

    /// Sends what was gathered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.gather.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(self.gather);
        let passed = self.pass(&gathered);
        *self.gather = gathered;
        self.gather.clear();
        passed
    }

    /// Gives bytes to the kernel, and keeps what it does not take.
    fn pass(&mut self, mut data: &[u8]) -> io::Result<()> {
        while self.kept.is_empty() && !data.is_empty() {
            match send(self.socket, data)? {
                0 => break,
                n => {
                    self.sent += n as u64;
                    data = &data[n..];
                }
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        self.blocked.set(true);
        self.kept.keep(data, self.context.limits, self.context.output_total)
    }
}

impl io::Write for Output<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data).map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Output::flush(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// A client that resets while its replies are flushed must not leave them counted: the count is
    /// a limit for all clients.
    #[test]
    fn nothing_stays_counted_of_a_client_that_resets_in_the_middle() {
        let limits = Limits { output_per_connection: 8 << 20, ..Limits::default() };
        let total = AtomicUsize::new(0);
        let mut failed = 0;
        for _ in 0..50 {
            let (near, mut far) = pair();
            socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            let mut kept = Kept::default();
            kept.keep(&vec![1; 8 << 20], &limits, &total).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || far.read_exact(&mut [0; 1]).map(|()| drop(far)));
                while let Ok(flushed) = kept.flush(&near, &total) {
                    if flushed == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            failed += 1;
            kept.discard(&total);
            assert_eq!(total.load(Ordering::Relaxed), 0, "attempt {failed}");
        }
    }

    #[test]
    fn what_has_gone_is_not_held() {
        let limits = Limits { output_per_connection: 8 << 20, ..Limits::default() };
        let total = AtomicUsize::new(0);
        let (near, mut far) = pair();
        let mut kept = Kept::default();
        kept.keep(&vec![1; 8 << 20], &limits, &total).unwrap();
        let held = |kept: &Kept| kept.0.as_ref().map_or(0, |backlog| backlog.bytes.capacity());
        let mut buffer = vec![0; 1 << 20];
        while !kept.is_empty() {
            kept.flush(&near, &total).unwrap();
            assert_eq!(total.load(Ordering::Relaxed), kept.len());
            assert!(held(&kept) <= 2 * kept.len(), "{} bytes for {}", held(&kept), kept.len());
            let _ = far.read(&mut buffer).unwrap();
        }
        assert_eq!(held(&kept), 0);
    }
}
