//! Line services: a closure is called for each line. Between lines the connection is parked.

use super::held::Held;
use super::holdings::Deposit;
use super::{Fault, Output, Peer, Received, Service, Session, Stream, Turn};
use crate::reason::CloseReason;
use memchr::memchr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The reply to a line.
#[derive(Debug)]
pub struct LineReply<'r, 'a> {
    output: &'r mut Output<'a>,
    peer: &'r Peer,
    ending: bool,
    /// No line is answered in this turn, but told of the overload.
    overload: Option<&'r OverloadAnswer>,
}

/// What clients are told of the overload during a turn.
#[derive(Debug)]
struct OverloadAnswer {
    /// The busy reply, as a line.
    words: Vec<u8>,
    wait: Duration,
}

impl LineReply<'_, '_> {
    /// Sends bytes without waiting; see [`Output::send`].
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.output.send(data)
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.peer
    }

    /// Ends the connection after this reply.
    pub fn close(&mut self) {
        self.ending = true;
    }
}

impl io::Write for LineReply<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data).map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A service from a closure that answers one line at a time.
///
/// The closure gets the line without its end (`\n` or `\r\n`); see [`Lines::with_ends`]. A last line without an end
/// is answered too. A line longer than `max_line` ends the connection after the replies to the lines before it; that
/// is counted as `protocol`. If a line comes in parts and `input_total` leaves no room for them, the connection ends
/// and is counted as `input_limit`.
///
/// `name` is the `service` label of its metrics. [`lines_with`] has a state for each connection; [`Lines`] lists what
/// else a service can be told.
///
/// ```no_run
/// use tidegate::{Server, lines};
///
/// let count = lines("count", |line, reply| reply.send(format!("{}\n", line.len()).as_bytes()));
/// let server = Server::builder().listen("127.0.0.1:0", count)?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lines<F>(name: &str, answer: F) -> Lines<(), impl AnswerLine<()>>
where
    F: Fn(&[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    let stateless = move |(): &mut (), line: &[u8], reply: &mut LineReply<'_, '_>| answer(line, reply);
    lines_with(name, |_peer| (), stateless)
}

/// Like [`lines`], with a state for each connection. `open` makes the state at the connection's first turn, and the
/// closure gets it with each line. Between lines a connection owns its state, but no thread and no buffer.
///
/// ```no_run
/// use tidegate::{Server, lines_with};
///
/// let count = lines_with("count", |_peer| 0, |lines, _line, reply| {
///     *lines += 1;
///     reply.send(format!("{lines}\n").as_bytes())
/// });
/// let server = Server::builder().listen("127.0.0.1:0", count)?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lines_with<S, O, F>(name: &str, open: O, answer: F) -> Lines<S, F>
where
    S: Send + 'static,
    O: Fn(&Peer) -> S + Send + Sync + 'static,
    F: Fn(&mut S, &[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    let hooks = Hooks {
        open: Arc::new(open),
        answer: Arc::new(answer),
        with_ends: false,
        greet: None,
        close: None,
        overloaded: None,
    };
    Lines { name: name.to_owned(), hooks: Arc::new(hooks), verify: None, error: None, busy_reply: Vec::new() }
}

/// A closure that answers a line: `Fn(&mut S, &[u8], &mut LineReply) -> io::Result<()>`.
pub trait AnswerLine<S>:
    Fn(&mut S, &[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static
{
}

impl<S, F> AnswerLine<S> for F where
    F: Fn(&mut S, &[u8], &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static
{
}

type Open<S> = Arc<dyn Fn(&Peer) -> S + Send + Sync>;
type Greet<S> = Arc<dyn Fn(&mut S, &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync>;
type Overloaded<S> =
    Arc<dyn Fn(&mut S, &[u8], &mut LineReply<'_, '_>, Duration) -> io::Result<()> + Send + Sync>;
type Close<S> = Arc<dyn Fn(&mut S, CloseReason) + Send + Sync>;
type Verify = Box<dyn Fn(&Peer) -> bool + Send + Sync>;
type Error = Box<dyn Fn(&Peer, &io::Error) + Send + Sync>;

/// A line service, made by [`lines`] or [`lines_with`]. Its hooks run on a worker, as the answers do.
///
/// ```no_run
/// use tidegate::{Server, lines_with};
///
/// let guess = lines_with("guess", |peer| peer.address.socket_addr().map_or(0, |from| from.port() % 10), |secret, line, reply| {
///     if line == secret.to_string().as_bytes() {
///         reply.close();
///         return reply.send(b"yes\n");
///     }
///     reply.send(b"no\n")
/// })
/// .verify(|peer| peer.address.ip().is_none_or(|ip| ip.is_loopback()))
/// .on_open(|_secret, reply| reply.send(b"guess my digit\n"))
/// .on_close(|secret, reason| println!("it was {secret}; ended: {reason}"))
/// .on_error(|peer, error| eprintln!("{}: {error}", peer.address))
/// .busy_reply("too many players\n");
/// let server = Server::builder().listen("127.0.0.1:0", guess)?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lines<S, F> {
    name: String,
    hooks: Arc<Hooks<S, F>>,
    verify: Option<Verify>,
    error: Option<Error>,
    busy_reply: Vec<u8>,
}

/// What the sessions share.
struct Hooks<S, F> {
    open: Open<S>,
    answer: Arc<F>,
    with_ends: bool,
    greet: Option<Greet<S>>,
    close: Option<Close<S>>,
    overloaded: Option<Overloaded<S>>,
}

impl<S, F> Clone for Hooks<S, F> {
    fn clone(&self) -> Self {
        Self {
            open: self.open.clone(),
            answer: self.answer.clone(),
            with_ends: self.with_ends,
            greet: self.greet.clone(),
            close: self.close.clone(),
            overloaded: self.overloaded.clone(),
        }
    }
}

impl<S, F> Lines<S, F> {
    /// The closure gets each line with its end, as Python's `readline` returns it: `hello\r\n`, or `hello` for a last
    /// line without an end. Default: without.
    #[must_use]
    pub fn with_ends(mut self) -> Self {
        Arc::make_mut(&mut self.hooks).with_ends = true;
        self
    }

    /// Whether a client is served, asked before its first turn; see [`Service::verify`]. Default: every client is.
    #[must_use]
    pub fn verify(mut self, verify: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.verify = Some(Box::new(verify));
        self
    }

    /// Called at a connection's first turn, before any line, for example to send a greeting. Default: does nothing.
    #[must_use]
    pub fn on_open<G>(mut self, greet: G) -> Self
    where
        G: Fn(&mut S, &mut LineReply<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.hooks).greet = Some(Arc::new(greet));
        self
    }

    /// Called when a connection has ended, with its state and the reason; see [`Session::finish`]. Default: does
    /// nothing.
    #[must_use]
    pub fn on_close(mut self, close: impl Fn(&mut S, CloseReason) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.hooks).close = Some(Arc::new(close));
        self
    }

    /// Called when an answer was an error or a panic; see [`Service::turn_failed`]. Default: does nothing.
    #[must_use]
    pub fn on_error(mut self, error: impl Fn(&Peer, &io::Error) + Send + Sync + 'static) -> Self {
        self.error = Some(Box::new(error));
        self
    }

    /// Called instead of the answer for a line that has waited longer than `queue_timeout`. It is given the time that the
    /// server needs to work off what waits, in whole seconds from 1 to 120. The connection stays, unless the reply is told to
    /// [`close`](LineReply::close). Default: the busy reply is sent, as a line; without one the connection is reset.
    #[must_use]
    pub fn on_overload<O>(mut self, overloaded: O) -> Self
    where
        O: Fn(&mut S, &[u8], &mut LineReply<'_, '_>, Duration) -> io::Result<()> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.hooks).overloaded = Some(Arc::new(overloaded));
        self
    }

    /// The text that a refused client is sent, and the answer to a line that has waited too long. Default: none, and the
    /// client is reset.
    #[must_use]
    pub fn busy_reply(mut self, words: impl Into<Vec<u8>>) -> Self {
        self.busy_reply = words.into();
        self
    }
}

impl<S, F> std::fmt::Debug for Lines<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: Send + 'static, F: AnswerLine<S>> Service for Lines<S, F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, peer: &Peer) -> bool {
        self.verify.as_ref().is_none_or(|verify| verify(peer))
    }

    fn connect(&self, peer: &Peer) -> Box<dyn Session> {
        let hooks = self.hooks.clone();
        let state = (hooks.open)(peer);
        Box::new(LineSession { parked: None, behind: false, greeted: hooks.greet.is_none(), hooks, state })
    }

    fn busy_reply(&self) -> &[u8] {
        &self.busy_reply
    }

    fn answers_overload(&self, busy_reply: &[u8]) -> bool {
        self.hooks.overloaded.is_some() || !busy_reply.is_empty()
    }

    fn client_speaks_first(&self) -> bool {
        self.hooks.greet.is_none()
    }

    fn turn_failed(&self, peer: &Peer, error: &io::Error) {
        if let Some(told) = &self.error {
            told(peer, error);
        }
    }
}

struct LineSession<S, F> {
    /// What the client has sent and has no answer to yet; nothing between lines.
    parked: Option<Deposit>,
    /// The held input has whole lines in it: an earlier turn ended before they were answered.
    behind: bool,
    /// There is no greeting, or it was sent.
    greeted: bool,
    hooks: Arc<Hooks<S, F>>,
    state: S,
}

impl<S: Send, F: AnswerLine<S>> Session for LineSession<S, F> {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        self.turn_with(stream, None)
    }

    fn overloaded(&mut self, stream: &mut Stream<'_>, wait: Duration) -> io::Result<Turn> {
        let mut words = stream.busy_reply(wait).into_owned();
        if !words.is_empty() && !words.ends_with(b"\n") {
            words.push(b'\n');
        }
        self.turn_with(stream, Some(&OverloadAnswer { words, wait }))
    }

    fn finish(&mut self, reason: CloseReason) {
        if let Some(close) = &self.hooks.close {
            close(&mut self.state, reason);
        }
    }
}

impl<S, F: AnswerLine<S>> LineSession<S, F> {
    /// A turn, in which clients are told of the overload if there is one.
    fn turn_with(&mut self, stream: &mut Stream<'_>, overload: Option<&OverloadAnswer>) -> io::Result<Turn> {
        let mut held = self.parked.take().map(Held::resume).transpose()?;
        let turn = self.converse(stream, &mut held, overload)?;
        if turn != Turn::Close {
            self.parked = held.map(|held| held.park(stream.seat(), stream.context())).transpose()?;
        }
        Ok(turn)
    }

    fn converse(
        &mut self,
        stream: &mut Stream<'_>,
        held: &mut Option<Held>,
        overload: Option<&OverloadAnswer>,
    ) -> io::Result<Turn> {
        let peer = stream.peer().clone();
        let (input, output) = stream.split();
        let mut reply = LineReply { output, peer: &peer, ending: false, overload };
        if !self.greeted {
            self.greeted = true;
            self.greet(&mut reply)?;
        }
        if self.behind {
            self.catch_up(held, &mut reply)?;
        }
        loop {
            if reply.ending {
                return Ok(Turn::Close);
            }
            if self.behind {
                return Ok(Turn::Again);
            }
            match input.receive()? {
                Received::Data(data) => self.take(data, held, &mut reply)?,
                Received::Nothing if held.is_none() => return Ok(Turn::Park),
                Received::Nothing => return Ok(Turn::Partial),
                Received::End => {
                    if let Some(last) = held.take() {
                        self.answer(last.bytes(), &mut reply)?;
                    }
                    return Ok(Turn::Close);
                }
            }
        }
    }

    fn greet(&mut self, reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        match &self.hooks.greet {
            Some(greet) => greet(&mut self.state, reply),
            None => Ok(()),
        }
    }

    /// Answers lines that came in earlier turns.
    fn catch_up(&mut self, held: &mut Option<Held>, reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        let Some(mut lines) = held.take() else { return Ok(()) };
        let answered = self.answer_whole(lines.bytes(), reply)?;
        lines.answered(answered);
        if !self.behind && begun_too_long(lines.len(), reply) {
            return Err(Fault::LineTooLong.into());
        }
        *held = Some(lines).filter(|lines| !lines.is_empty());
        Ok(())
    }

    /// Answers the lines that are whole and keeps the rest.
    fn take(
        &mut self,
        mut data: &[u8],
        held: &mut Option<Held>,
        reply: &mut LineReply<'_, '_>,
    ) -> io::Result<()> {
        if let Some(mut line) = held.take() {
            let Some(end) = memchr(b'\n', data) else {
                *held = Some(line);
                return self.keep(data, held, reply);
            };
            let (rest_of_line, rest) = data.split_at(end + 1);
            if !rest.is_empty() {
                reply.output.begin_pace();
            }
            if begun_too_long(line.len() + end, reply) {
                return Err(Fault::LineTooLong.into());
            }
            let context = &reply.output.context;
            line.extend(rest_of_line, context.limits.max_line + 2, context)?;
            self.answer(line.bytes(), reply)?;
            data = rest;
            self.behind = !reply.ending && memchr(b'\n', data).is_some() && reply.output.is_turn_over();
        }
        if !self.behind && !reply.ending {
            data = &data[self.answer_whole(data, reply)?..];
        }
        if data.is_empty() || reply.ending { Ok(()) } else { self.keep(data, held, reply) }
    }

    /// Answers the whole lines at the beginning of `data` until the turn is over, and returns their bytes. If lines
    /// are left, the session is [`behind`](Self::behind).
    fn answer_whole(&mut self, data: &[u8], reply: &mut LineReply<'_, '_>) -> io::Result<usize> {
        self.behind = false;
        let mut rest = data;
        while let Some(end) = memchr(b'\n', rest) {
            if rest.len() < data.len() && reply.output.is_turn_over() {
                self.behind = true;
                break;
            }
            if end + 1 < rest.len() {
                // More lines may follow, so the time that this one takes counts.
                reply.output.begin_pace();
            }
            self.answer(&rest[..=end], reply)?;
            rest = &rest[end + 1..];
            if reply.ending {
                break;
            }
        }
        Ok(data.len() - rest.len())
    }

    /// Keeps what is not answered yet: the beginning of a line, or whole lines for another turn.
    fn keep(&self, data: &[u8], held: &mut Option<Held>, reply: &LineReply<'_, '_>) -> io::Result<()> {
        let begun = held.as_ref().map_or(0, Held::len);
        if !self.behind && begun_too_long(begun + data.len(), reply) {
            return Err(Fault::LineTooLong.into());
        }
        let context = &reply.output.context;
        let held = held.get_or_insert_with(|| Held::of(reply.peer, context));
        held.extend(data, context.limits.max_line + 2, context)
    }

    /// Answers one line, given with its end if it has one.
    fn answer(&mut self, whole: &[u8], reply: &mut LineReply<'_, '_>) -> io::Result<()> {
        let line = strip(whole);
        if line.len() > reply.output.context.limits.max_line {
            return Err(Fault::LineTooLong.into());
        }
        let line = if self.hooks.with_ends { whole } else { line };
        let Some(overload) = reply.overload else { return (self.hooks.answer)(&mut self.state, line, reply) };
        match &self.hooks.overloaded {
            Some(overloaded) => overloaded(&mut self.state, line, reply, overload.wait),
            None => reply.send(&overload.words),
        }
    }
}

/// Whether a line that is not complete is longer than allowed, after this number of bytes. A `\r` may belong to its
/// end, so it does not count yet.
fn begun_too_long(begun: usize, reply: &LineReply<'_, '_>) -> bool {
    begun > reply.output.context.limits.max_line + 1
}

/// A line without its end.
fn strip(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::service::{Buffers, Context, Holdings, Kept};
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    /// A session with its two ends of a connection, whose turns are given by hand.
    struct Room {
        limits: Limits,
        near: crate::transport::socket::ClientSocket,
        far: TcpStream,
        input_total: Arc<Holdings>,
        output_total: Arc<Holdings>,
        stopping: AtomicBool,
        buffers: Buffers,
        kept: Kept,
        peer: Peer,
        session: Box<dyn Session>,
    }

    impl Room {
        fn new(limits: Limits, service: &impl Service) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, address) = listener.accept().unwrap();
            let peer = Peer::new(address.into());
            Self {
                limits,
                near: std::os::fd::OwnedFd::from(near).into(),
                far,
                input_total: Arc::default(),
                output_total: Arc::default(),
                stopping: AtomicBool::new(false),
                buffers: Buffers::new(),
                kept: Kept::default(),
                peer,
                session: service.connect(&Peer::new(address.into())),
            }
        }

        fn say(&mut self, words: &[u8]) {
            self.far.write_all(words).unwrap();
        }

        fn turn(&mut self) -> io::Result<Turn> {
            let (host, seat) = crate::service::waker::nobody();
            let context = Context {
                limits: &self.limits,
                input_total: &self.input_total,
                output_total: &self.output_total,
                stopping: &self.stopping,
                draining: &self.stopping,
                host: &host,
                words: &crate::current::Current::new(crate::service::Words::default()),
                is_unix: false,
                web: None,
            };
            let address = self.peer.address.into();
            let peer = crate::service::TurnPeer::new(&address, None);
            let mut stream =
                Stream::new(&self.near, &peer, &mut self.buffers, &mut self.kept, &context, seat, false);
            let turn = self.session.turn(&mut stream);
            stream.finish().1.unwrap();
            turn
        }

        /// Everything that was said, after the session's end.
        fn heard(mut self) -> Vec<u8> {
            drop(self.session);
            assert_eq!(self.input_total.used(), 0, "nothing is held for a session that has ended");
            self.near.end_output().unwrap();
            let mut heard = Vec::new();
            self.far.read_to_end(&mut heard).unwrap();
            heard
        }
    }

    /// Answers in upper case, and takes long for a line that begins with `s`.
    fn upper() -> impl Service {
        lines("upper", |line, reply| {
            if line.first() == Some(&b's') {
                std::thread::sleep(Duration::from_millis(1));
            }
            reply.send(&line.to_ascii_uppercase())?;
            reply.send(b"\n")
        })
    }

    #[test]
    fn a_turn_ends_after_a_slow_line_and_the_others_have_theirs() {
        let mut room = Room::new(Limits::default(), &upper());
        room.say(b"slow\nslow\nslow\nslo");
        for held in [5 + 5 + 3, 5 + 3, 3] {
            let turn = room.turn().unwrap();
            assert!(room.input_total.used() >= held, "what is not answered is counted");
            assert_eq!(turn, if held == 3 { Turn::Partial } else { Turn::Again });
        }
        room.say(b"w\nslow\nd");
        assert_eq!(room.turn().unwrap(), Turn::Again);
        assert_eq!(room.turn().unwrap(), Turn::Partial);
        room.far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(room.turn().unwrap(), Turn::Close);
        assert_eq!(room.heard(), b"SLOW\nSLOW\nSLOW\nSLOW\nSLOW\nD\n");
    }

    #[test]
    fn a_server_that_is_stopping_waits_for_one_line() {
        let mut room = Room::new(Limits::default(), &upper());
        room.say(b"a\nb\nc\n");
        room.stopping.store(true, Relaxed);
        assert_eq!(room.turn().unwrap(), Turn::Again);
        assert_eq!(room.heard(), b"A\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// However the bytes come and wherever turns end, each line is answered once and in order.
        #[test]
        fn lines_are_answered_alike_however_they_come(
            lines in proptest::collection::vec("s?[a-z\r]{0,12}", 0..12),
            last in "[a-z]{0,5}",
            cuts in proptest::collection::vec(1..40usize, 1..30),
        ) {
            let limits = Limits { max_line: 16, ..Limits::default() };
            let mut room = Room::new(limits, &upper());
            let mut text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            text += &last;
            let mut expected = String::new();
            for line in lines.iter().chain((!last.is_empty()).then_some(&last)) {
                expected += &line.strip_suffix('\r').unwrap_or(line).to_ascii_uppercase();
                expected += "\n";
            }
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                room.say(piece);
                rest = after;
                while room.turn().unwrap() == Turn::Again {}
                if rest.is_empty() {
                    break;
                }
            }
            room.far.shutdown(Shutdown::Write).unwrap();
            while room.turn().unwrap() != Turn::Close {}
            prop_assert_eq!(String::from_utf8(room.heard()).unwrap(), expected);
        }
    }
}
