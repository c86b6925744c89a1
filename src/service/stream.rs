//! A connection during a turn, as a service sees it: reads and writes that never wait.

use super::pace::Pace;
use super::secured::{Decrypted, SecuredTurn, SocketTls};
use super::turn_peer::TurnPeer;
use super::{
    EventRoute, Holdings, Host, Kept, Peer, Pool, Seat, SocketEvents, Waker, WatchFor, WebTurn, Words,
};
use crate::clock::Nanos;
use crate::current::Current;
use crate::limits::Limits;
use crate::reason::TurnOutcome;
use crate::sys::{Clock, Mapping};
use crate::transport::socket::{
    ClientSocket, has_input, has_left, has_left_tls, receive, receive_unix, send, send_both,
};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Replies smaller than this are collected and sent with one call.
const GATHER_BYTES: usize = 16 * 1024;

/// The result of a read. No other case will be added, so a `match` needs no wildcard.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Bytes, at least one.
    Data(&'a [u8]),
    /// Nothing now. End the turn with [`Turn::Park`](super::Turn::Park) or [`Turn::Partial`](super::Turn::Partial).
    Nothing,
    /// The client has closed its half of the connection and sends nothing more. It may still read.
    End,
}

/// A worker's buffers, lent to one turn after the other.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Allocated at the worker's first turn. Most workers of a quiet server never have one.
    input: ReadRoom,
    gather: Vec<u8>,
    /// The kernel takes no more replies. Nothing more is read then, so the client's sends stop too.
    blocked: Cell<bool>,
    pace: Pace,
}

impl Buffers {
    /// The bytes of both buffers. Only what data reaches is touched.
    pub(crate) const BYTES: usize = Self::INPUT_BYTES + GATHER_BYTES;
    const INPUT_BYTES: usize = 64 * 1024;

    pub(crate) fn new() -> Self {
        Self {
            input: ReadRoom::Little(Vec::new()),
            gather: Vec::new(),
            blocked: Cell::new(false),
            pace: Pace::new(),
        }
    }
}

/// The memory that a worker reads into. A worker's first turn may come when the system has no memory left, and an
/// allocation that fails would end the process.
#[derive(Debug)]
enum ReadRoom {
    /// Pages that no data reaches are never touched.
    Pages(Mapping),
    /// Used until the system gives pages: small, but enough to go on.
    Little(Vec<u8>),
}

impl ReadRoom {
    const LITTLE_BYTES: usize = 4 * 1024;

    fn grow(&mut self) {
        match (Mapping::new(Buffers::INPUT_BYTES), &mut *self) {
            (Some(pages), _) => *self = ReadRoom::Pages(pages),
            (None, ReadRoom::Little(bytes)) => bytes.resize(Self::LITTLE_BYTES, 0),
            (None, ReadRoom::Pages(_)) => {}
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            ReadRoom::Pages(pages) => pages,
            ReadRoom::Little(bytes) => bytes,
        }
    }
}

/// What a turn did with its stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turned {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// The last read emptied the kernel's buffer; an event will announce more.
    pub(crate) drained: bool,
    /// The client has closed its half.
    pub(crate) ended: bool,
    /// The session moves bytes itself, so it also wants a turn when the client can take more.
    pub(crate) both_ways: bool,
    /// A turn that the session asked for earlier may come instead of the one it asks for now.
    pub(crate) earlier_call: bool,
    /// The session waits for its call, and not for its client.
    pub(crate) unwatched: bool,
}

impl Turned {
    /// How a turn that returned is counted. A turn that found nothing does not measure what a request costs.
    pub(crate) fn outcome(&self) -> TurnOutcome {
        match (self.received + self.sent, self.ended) {
            (0, true) => TurnOutcome::End,
            (0, false) => TurnOutcome::Empty,
            _ => TurnOutcome::Ok,
        }
    }
}

/// A connection during a turn. None of its methods waits; [`Stream::blocking`] gives a view whose methods do.
#[derive(Debug)]
pub struct Stream<'a> {
    input: Input<'a>,
    output: Output<'a>,
    peer: &'a TurnPeer<'a>,
    seat: Seat,
    both_ways: bool,
    earlier_call: bool,
    unwatched: bool,
    events: SocketEvents,
    waited: Nanos,
    /// When the turn began, by the server's clock.
    began: Option<(Clock, Nanos)>,
}

impl<'a> Stream<'a> {
    /// It is made for each turn and has some hundred bytes: inlined, it is written where it stays.
    #[inline]
    pub(crate) fn new(
        socket: &'a ClientSocket,
        peer: &'a TurnPeer<'a>,
        buffers: &'a mut Buffers,
        kept: &'a mut Kept,
        context: &'a Context<'a>,
        seat: Seat,
        hangup: bool,
    ) -> Self {
        let Buffers { input, gather, blocked, pace } = buffers;
        let (blocked, pace) = (&*blocked, &*pace);
        if !matches!(input, ReadRoom::Pages(_)) {
            input.grow();
            // If there is no memory for it, replies are sent one by one.
            let _ = gather.try_reserve_exact(GATHER_BYTES);
        }
        gather.clear();
        blocked.set(!kept.is_empty());
        pace.reset();
        let budget = context.limits.turn_bytes;
        let input = Input {
            socket,
            tls: None,
            buffer: input.bytes(),
            blocked,
            pace,
            budget,
            hangup,
            is_unix: context.is_unix,
            drained: false,
            ended: false,
            received: 0,
        };
        let output = Output { socket, tls: None, kept, peer, gather, blocked, pace, context, sent: 0 };
        Self {
            input,
            output,
            peer,
            seat,
            both_ways: false,
            earlier_call: false,
            unwatched: false,
            events: SocketEvents::UNKNOWN,
            waited: 0,
            began: None,
        }
    }

    /// From now on input and output go through TLS.
    pub(crate) fn secure(&mut self, tls: Option<&'a RefCell<SecuredTurn<'a>>>) {
        (self.input.tls, self.output.tls) = (tls, tls);
    }

    /// The TLS of the connection, for a session that moves bytes itself. Whatever such a session sends must go through it.
    pub(crate) fn client_tls(&self) -> Option<&'a dyn SocketTls> {
        self.input.tls.map(|tls| -> &'a dyn SocketTls { tls })
    }

    /// Whether the client has sent something that the session has not read.
    pub(crate) fn has_unread(&self) -> bool {
        self.holds_input() || has_input(self.input.socket)
    }

    /// Whether the client is gone: its connection has failed, or it has ended without a word where it should have
    /// spoken first.
    pub(crate) fn has_left(&self, client_speaks_first: bool) -> bool {
        match self.input.tls {
            None => has_left(self.input.socket, client_speaks_first),
            Some(_) => !self.holds_input() && has_left_tls(self.input.socket, client_speaks_first),
        }
    }

    /// Whether TLS holds bytes of the client that the session has not read.
    fn holds_input(&self) -> bool {
        self.input.tls.is_some_and(|tls| tls.borrow().holds_input())
    }

    /// Whether the last read has taken all that the client had sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.input.drained
    }

    /// Whether the client came over a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        self.input.is_unix
    }

    /// Whether the connection speaks TLS, so that the session cannot move bytes itself.
    pub(crate) fn is_secured(&self) -> bool {
        self.input.tls.is_some()
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.peer.get()
    }

    /// The client, also while the halves are borrowed.
    pub(super) fn lasting_peer(&self) -> &'a Peer {
        self.peer.get()
    }

    pub(super) fn context(&self) -> &'a Context<'a> {
        self.output.context
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        self.output.context.limits
    }

    /// Whether the server is ending. If it is, a session should end its connection between two requests.
    pub fn is_draining(&self) -> bool {
        self.output.context.draining.load(Ordering::Relaxed)
    }

    /// Which connection this is; a [`Waker`] is made from it.
    pub(super) fn seat(&self) -> Seat {
        self.seat
    }

    /// The words for a client of this listener that cannot be served now, with the time after which it may come
    /// again.
    pub fn busy_reply(&self, wait: std::time::Duration) -> std::borrow::Cow<'a, [u8]> {
        self.output.context.words.get().say(wait).into_owned().into()
    }

    /// A waker that gives this session a turn from any thread, although its client has sent nothing.
    pub fn waker(&self) -> Waker {
        Waker::new(self.output.context.host.clone(), self.seat)
    }

    /// Sets which events the sockets of the connection have had since the last turn.
    pub(crate) fn tell(&mut self, events: SocketEvents) {
        self.events = events;
    }

    /// Sets how long the client has waited for this turn. For a newcomer that includes its wait in the kernel's
    /// backlog.
    pub(crate) fn has_waited(&mut self, time: Nanos) {
        self.waited = time;
    }

    /// How long the client has waited for this turn.
    pub(crate) fn waited(&self) -> Nanos {
        self.waited
    }

    /// Sets when the turn began.
    pub(crate) fn has_begun(&mut self, clock: Clock, time: Nanos) {
        self.began = Some((clock, time));
    }

    /// When the turn began, by this clock. The worker has read its own, and nothing is read again: turns are short.
    pub(crate) fn began(&self, clock: Clock) -> Nanos {
        self.began.map_or_else(|| clock.now(), |(other, time)| clock.when(other, time))
    }

    /// This turn reads at most this many bytes.
    pub(crate) fn read_at_most(&mut self, bytes: usize) {
        self.input.budget = self.input.budget.min(bytes);
    }

    /// Which events the sockets of the connection have had since the last turn.
    pub(crate) fn events(&self) -> SocketEvents {
        self.events
    }

    /// Whether the client has closed its half or its connection has failed, as far as events have told.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.input.hangup
    }

    /// The client's socket and the worker's buffer, for a session that moves bytes itself. The session reads until
    /// the kernel has no more, and reports to [`moved`](Self::moved).
    pub(crate) fn raw(&mut self) -> (&'a ClientSocket, &mut [u8]) {
        (self.input.socket, self.input.buffer)
    }

    /// The pool of memory for replies that clients have not read, of all connections.
    pub(crate) fn output_pool(&self) -> &'a Arc<Pool> {
        self.output.context.output_total.pool()
    }

    /// The session has moved these bytes itself. With `ended` the client has closed its half.
    pub(crate) fn moved(&mut self, received: u64, sent: u64, ended: bool) {
        self.input.received += received;
        self.input.drained = true;
        self.input.ended |= ended;
        self.output.sent += sent;
    }

    /// A turn that this session asked for earlier may come instead of the one it asks for now, if it is sooner. The
    /// session then checks its own clock and asks again. This saves setting a timer in each turn.
    pub(crate) fn accept_earlier_call(&mut self) {
        self.earlier_call = true;
    }

    /// The session will be called soon and needs to hear nothing of its client until then. A client that is not watched yet stays so,
    /// which saves a system call and a turn for what it sends.
    pub(crate) fn leave_unwatched(&mut self) {
        self.unwatched = true;
    }

    /// From now on the session also has a turn when the client can take more.
    pub(crate) fn want_output(&mut self) {
        self.both_ways = true;
    }

    /// From now on events of this descriptor give the session a turn, as events of the client's socket do, until the
    /// descriptor is closed.
    pub(crate) fn watch(&self, fd: std::os::fd::BorrowedFd<'_>, watched: WatchFor) -> io::Result<()> {
        self.output.context.host.watch(self.seat, fd, watched)
    }

    /// The same for a descriptor that other sessions will use after this one: its events take the way that the route says.
    /// Its input is watched. An event follows at once if there is input already. `is_watched` says that the descriptor was
    /// watched for one session before.
    pub(crate) fn route(&self, fd: std::os::fd::BorrowedFd<'_>, is_watched: bool) -> io::Result<EventRoute> {
        self.output.context.host.route(self.seat, fd, is_watched)
    }

    /// From now on a routed descriptor is watched for room for output, too.
    pub(crate) fn route_output(&self, fd: std::os::fd::BorrowedFd<'_>, route: &EventRoute) -> io::Result<()> {
        self.output.context.host.route_output(fd, route)
    }

    /// Both halves, so that a reply can be written while its request is still borrowed.
    pub fn split(&mut self) -> (&mut Input<'a>, &mut Output<'a>) {
        (&mut self.input, &mut self.output)
    }

    /// Reads what the client has sent; see [`Input::receive`].
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        self.input.receive()
    }

    /// Sends without waiting; see [`Output::send`].
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.output.send(data)
    }

    pub(crate) fn halves(&self) -> (&Input<'a>, &Output<'a>) {
        (&self.input, &self.output)
    }

    /// Ends the turn: sends what was collected, and returns what the turn did.
    pub(crate) fn finish(&mut self) -> (Turned, io::Result<()>) {
        let flushed = self.output.flush();
        let Input { received, drained, ended, hangup, .. } = self.input;
        // After a hang-up the end is still to be read, and no further event announces it.
        let drained = drained && !hangup;
        let Self { both_ways, earlier_call, unwatched, .. } = *self;
        let sent = self.output.sent;
        (Turned { received, sent, drained, ended, both_ways, earlier_call, unwatched }, flushed)
    }
}

/// What all turns share.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) input_total: &'a Arc<Holdings>,
    pub(crate) output_total: &'a Arc<Holdings>,
    pub(crate) stopping: &'a std::sync::atomic::AtomicBool,
    pub(crate) draining: &'a std::sync::atomic::AtomicBool,
    pub(crate) host: &'a Arc<dyn Host>,
    pub(crate) words: &'a Current<Words>,
    /// The clients of the listener come over a Unix socket.
    pub(crate) is_unix: bool,
    /// Where turns that speak HTTP are counted.
    pub(crate) web: Option<&'a WebTurn<'a>>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", self.limits).finish_non_exhaustive()
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Input<'a> {
    pub(super) socket: &'a ClientSocket,
    tls: Option<&'a RefCell<SecuredTurn<'a>>>,
    buffer: &'a mut [u8],
    blocked: &'a Cell<bool>,
    pace: &'a Pace,
    budget: usize,
    hangup: bool,
    /// The client came over a Unix socket.
    is_unix: bool,
    drained: bool,
    ended: bool,
    received: u64,
}

impl Input<'_> {
    /// Reads what the client has sent, as much as fits into the worker's buffer (64 KiB), without waiting. After
    /// `turn_bytes`, or a millisecond, it returns [`Received::Nothing`], so that other connections have their turns.
    /// The rest follows in this connection's next turn.
    pub fn receive(&mut self) -> io::Result<Received<'_>> {
        let room = self.buffer.len();
        match self.take(room)? {
            Some(0) => Ok(Received::End),
            Some(n) => Ok(Received::Data(&self.buffer[..n])),
            None => Ok(Received::Nothing),
        }
    }

    /// The same for a session that changes the bytes where they are. `None` means nothing now, no bytes mean the end.
    pub(super) fn receive_mut(&mut self) -> io::Result<Option<&mut [u8]>> {
        let room = self.buffer.len();
        let taken = self.take(room)?;
        Ok(taken.map(|n| &mut self.buffer[..n]))
    }

    /// Reads into the buffer. `None` means nothing now, 0 means the end.
    fn take(&mut self, room: usize) -> io::Result<Option<usize>> {
        if self.ended {
            return Ok(Some(0));
        }
        // A short read has emptied the kernel's buffer, so a second read would find nothing; unless the client has
        // hung up, when it would find the end.
        if self.budget == 0 || self.blocked.get() || (self.drained && !self.hangup) {
            return Ok(None);
        }
        if self.received > 0 && self.pace.look() {
            return Ok(None);
        }
        let Some(n) = self.take_now(room)? else { return Ok(None) };
        if !self.drained {
            // There may be more, so the time before another read counts.
            self.pace.begin();
        }
        Ok(Some(n))
    }

    /// The same, regardless of what the turn has read before.
    fn take_now(&mut self, room: usize) -> io::Result<Option<usize>> {
        if let Some(tls) = self.tls {
            return self.take_secured(tls);
        }
        let buffer = &mut self.buffer[..room];
        let (taken, cut) = match self.is_unix {
            false => (receive(self.socket, buffer)?, false),
            true => receive_unix(self.socket, buffer)?.map_or((None, false), |(n, cut)| (Some(n), cut)),
        };
        let Some(n) = taken else {
            self.drained = true;
            self.hangup = false;
            return Ok(None);
        };
        self.account(n, room);
        self.drained &= !cut;
        Ok(Some(n))
    }

    fn take_secured(&mut self, tls: &RefCell<SecuredTurn<'_>>) -> io::Result<Option<usize>> {
        match tls.borrow_mut().take(self.socket, self.buffer, &mut self.hangup) {
            Ok(Decrypted::Bytes { bytes, drained }) => {
                self.account(bytes, usize::MAX);
                self.drained = drained;
                Ok(Some(bytes))
            }
            Ok(Decrypted::Nothing) => {
                self.drained = true;
                Ok(None)
            }
            Ok(Decrypted::End) => {
                self.account(0, usize::MAX);
                Ok(Some(0))
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// For a session that waits for its client: input that came through TLS, regardless of what the turn has read
    /// before. `None` if the connection speaks no TLS.
    pub(super) fn after_wait(&mut self) -> Option<io::Result<Option<&[u8]>>> {
        let tls = self.tls?;
        tls.borrow_mut().waited();
        let taken = self.take_secured(tls);
        Some(taken.map(|bytes| bytes.map(|n| &self.buffer[..n])))
    }

    pub(super) fn account(&mut self, n: usize, room: usize) {
        self.ended = n == 0;
        self.drained = n < room;
        self.budget = self.budget.saturating_sub(n);
        self.received += n as u64;
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Output<'a> {
    pub(super) socket: &'a ClientSocket,
    tls: Option<&'a RefCell<SecuredTurn<'a>>>,
    pub(super) kept: &'a mut Kept,
    peer: &'a TurnPeer<'a>,
    gather: &'a mut Vec<u8>,
    blocked: &'a Cell<bool>,
    pace: &'a Pace,
    pub(super) context: &'a Context<'a>,
    pub(super) sent: u64,
}

impl Output<'_> {
    /// Sends bytes without waiting. What the kernel does not take is kept, and is sent when the kernel takes it.
    /// Until then nothing more is read from this client.
    ///
    /// Fails with [`Fault::OutputLimit`](super::Fault::OutputLimit) if more would have to be kept than the limits
    /// allow, and with the socket's error if the connection is broken.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if self.gather.len() + data.len() <= GATHER_BYTES.min(self.gather.capacity()) {
            self.gather.extend_from_slice(data);
            return Ok(());
        }
        let gathered = std::mem::take(self.gather);
        let passed = match self.tls {
            Some(tls) => tls.borrow_mut().seal_both(&gathered, data, |records| self.give(records)),
            None => self.give_both(&gathered, data),
        };
        *self.gather = gathered;
        self.gather.clear();
        passed
    }

    /// Lets `write` append bytes to what is collected, `most` of them at most, which are sent as [`send`](Self::send) sends
    /// them: what has many small parts costs one look for room.
    pub(super) fn compose(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        if self.gather.len() + most <= GATHER_BYTES.min(self.gather.capacity()) {
            write(self.gather);
            return Ok(());
        }
        let mut piece = Vec::with_capacity(most);
        write(&mut piece);
        self.send(&piece)
    }

    /// Whether a session that still has unanswered input should leave it to another turn. That is so when this turn
    /// has lasted a millisecond, when the client does not read its replies, or when the server is ending. Then keep
    /// the rest in the session and return [`Turn::Again`](super::Turn::Again).
    ///
    /// Ask between two requests. The time runs from the first call of this method, or from a read that filled the
    /// worker's buffer, whichever was first. While requests take microseconds, the clock is read only for every
    /// eighth.
    pub fn is_turn_over(&self) -> bool {
        self.blocked.get() || self.context.stopping.load(Ordering::Relaxed) || self.pace.is_over()
    }

    /// Starts the time of this turn, unless it runs already.
    pub(super) fn begin_pace(&self) {
        self.pace.begin();
    }

    /// Sends what was collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.gather.is_empty() && self.tls.is_none() {
            return Ok(());
        }
        let gathered = std::mem::take(self.gather);
        let passed = self.pass(&gathered);
        *self.gather = gathered;
        self.gather.clear();
        passed
    }

    /// Sends bytes, through TLS if the connection has it.
    fn pass(&mut self, data: &[u8]) -> io::Result<()> {
        match self.tls {
            Some(tls) => tls.borrow_mut().seal(data, |records| self.give(records)),
            None => self.give(data),
        }
    }

    /// Gives what was collected and what goes behind it to the kernel, with one call where it takes both.
    fn give_both(&mut self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        if self.kept.is_empty() && !first.is_empty() {
            let n = send_both(self.socket, first, second)?;
            self.sent += n as u64;
            let of_first = n.min(first.len());
            (first, second) = (&first[of_first..], &second[n - of_first..]);
        }
        self.give(first)?;
        self.give(second)
    }

    /// The largest piece that is certain to be kept if the kernel takes none of it.
    pub(super) fn piece_max(&self) -> usize {
        let most = self.context.limits.output_per_connection;
        // TLS adds some bytes to each piece.
        if self.tls.is_some() { (most - most.min(64)).max(1) } else { most }
    }

    /// Gives bytes to the kernel, and keeps what the kernel does not take.
    fn give(&mut self, mut data: &[u8]) -> io::Result<()> {
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
        let &Context { limits, output_total, host, .. } = self.context;
        self.kept.keep(data, self.peer.get(), limits, output_total, &**host)
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
