//! Waking a parked session from another thread, and what a session can ask of its server beside its stream.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Which connection is meant: its slot, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The server, as sessions and wakers see it.
pub(crate) trait Host: Send + Sync {
    /// Queues a turn for a connection; nothing if it is gone, or has one coming.
    fn wake(&self, seat: Seat);

    /// From now on events of this descriptor give the connection a turn as events of its own socket do. The
    /// registration ends when the descriptor is closed.
    fn watch(&self, seat: Seat, fd: BorrowedFd<'_>, watched: WatchFor) -> io::Result<()>;
}

/// Which events of a descriptor are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchFor {
    /// It has input. One follows at once for what is there already.
    Input,
    /// It has input or takes output. One follows at once, if it takes some already.
    Both,
    /// It was watched for input, and is for both from now on.
    OutputToo,
    /// It was watched for another session, and is for the input of this one from now on. One follows at once for what is
    /// there already.
    Moved,
}

/// What is known of a socket at the start of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketEvent {
    /// It has had no event since the last turn.
    Nothing,
    /// It has had one, and its other side has not ended.
    Ready,
    /// Its other side may have ended, or it is not known: everything is tried.
    Hangup,
}

/// Events since the last turn: of the client's socket, and of the one that its session watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketEvents {
    pub(crate) client: SocketEvent,
    pub(crate) other: SocketEvent,
}

impl SocketEvent {
    pub(crate) fn of(event: bool, hangup: bool) -> Self {
        match (event, hangup) {
            (false, _) => SocketEvent::Nothing,
            (true, false) => SocketEvent::Ready,
            (true, true) => SocketEvent::Hangup,
        }
    }
}

impl SocketEvents {
    /// Nothing is known: everything is tried.
    pub(crate) const UNKNOWN: Self = Self { client: SocketEvent::Hangup, other: SocketEvent::Hangup };
}

/// Wakes one session: gives it a turn though its client has said nothing. A clone wakes the same session; it may be used by
/// any thread, and outlive its connection and its server.
///
/// ```
/// use std::io;
/// use std::sync::Mutex;
/// use std::sync::Arc;
/// use tidegate::{Peer, Server, Service, Session, Stream, Turn, Waker};
///
/// /// Each client is told the news of its desk when there are some.
/// struct Desk(Arc<Mutex<Option<Waker>>>);
/// struct Reader(Arc<Mutex<Option<Waker>>>, bool);
///
/// impl Service for Desk {
///     fn connect(&self, _: &Peer) -> Box<dyn Session> { Box::new(Reader(self.0.clone(), false)) }
///     fn client_speaks_first(&self) -> bool { false }
/// }
///
/// impl Session for Reader {
///     fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
///         if std::mem::replace(&mut self.1, true) {
///             stream.send(b"news\n")?;
///             return Ok(Turn::Close);
///         }
///         *self.0.lock().unwrap() = Some(stream.waker());
///         Ok(Turn::Park)
///     }
/// }
///
/// let desk = Arc::new(Mutex::new(None));
/// let handle = Server::builder().listen("127.0.0.1:0", Desk(desk.clone()))?.bind()?.serve()?;
/// let client = std::net::TcpStream::connect(handle.addresses()[0])?;
/// // ... another thread, whenever it has something to say:
/// let waker = loop {
///     if let Some(waker) = desk.lock().unwrap().take() { break waker }
///     std::thread::yield_now();
/// };
/// waker.wake();
/// assert_eq!(io::read_to_string(client)?, "news\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Waker {
    host: Arc<dyn Host>,
    seat: Seat,
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Waker {
    pub(crate) fn new(host: Arc<dyn Host>, seat: Seat) -> Self {
        Self { host, seat }
    }

    /// Queues a turn of the session, one whatever the number of calls before it begins. A call during a turn leads to one
    /// more. Nothing happens if the connection has ended.
    pub fn wake(&self) {
        self.host.wake(self.seat);
    }
}

/// For tests of sessions without a server: nobody hears their wakers.
#[cfg(test)]
pub(crate) fn nobody() -> (Arc<dyn Host>, Seat) {
    struct Nobody;
    impl Host for Nobody {
        fn wake(&self, _: Seat) {}

        fn watch(&self, _: Seat, _: BorrowedFd<'_>, _: WatchFor) -> io::Result<()> {
            Ok(())
        }
    }
    (Arc::new(Nobody), Seat { slot: 0, generation: 0 })
}
