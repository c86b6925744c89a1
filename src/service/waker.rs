//! Waking a parked session from another thread, and what else a session can ask of its server.

use super::event_route::EventRoute;
use super::seat::Seat;
use crate::reason::DropReason;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The server, as sessions and wakers see it.
pub(crate) trait Host: Send + Sync {
    /// Queues a turn for a connection. Does nothing if the connection has ended or has a turn coming.
    fn wake(&self, seat: Seat);

    /// The same from a session's turn that is about to end: the same worker may give the connection its turn at once.
    fn wake_next(&self, seat: Seat);

    /// Turns away a connection that is parked, which needs no turn for it. Wakes it where this cannot be.
    fn turn_away(&self, seat: Seat, reason: DropReason);

    /// From now on events of this descriptor give the connection a turn, as events of its own socket do. Closing the
    /// descriptor ends that.
    fn watch(&self, seat: Seat, fd: BorrowedFd<'_>, watched: WatchFor) -> io::Result<()>;

    /// The same for a descriptor that other sessions will use after this one. Its input is watched.
    fn route(&self, seat: Seat, fd: BorrowedFd<'_>, is_watched: bool) -> io::Result<EventRoute>;

    /// From now on a routed descriptor is watched for room for output, too.
    fn route_output(&self, fd: BorrowedFd<'_>, route: &EventRoute) -> io::Result<()>;
}

/// Which events of a descriptor are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchFor {
    /// Input. An event follows at once if there is input already.
    Input,
    /// Input, and room for output. An event follows at once if there is room already.
    Both,
    /// It was watched for input; from now on for both.
    OutputToo,
    /// It was watched for another session; from now on for the input of this one. An event follows at once if there
    /// is input already.
    Moved,
}

/// What is known of a socket at the start of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketEvent {
    /// No event since the last turn.
    Nothing,
    /// An event; its other side has not ended.
    Ready,
    /// Its other side may have ended, or nothing is known: the session tries everything.
    Hangup,
}

/// The events since the last turn: of the client's socket, and of the socket that the session watches.
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
    /// Nothing is known: the session tries everything.
    pub(crate) const UNKNOWN: Self = Self { client: SocketEvent::Hangup, other: SocketEvent::Hangup };
}

/// Wakes one session: gives it a turn although its client has sent nothing. A clone wakes the same session. A waker
/// may be used by any thread, and may outlive its connection and its server.
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

    /// Queues a turn of the session. Several calls before the turn begins make one turn; a call during a turn makes
    /// one more. Does nothing if the connection has ended.
    pub fn wake(&self) {
        self.host.wake(self.seat);
    }

    /// The same, from the turn of another session that is about to end: the same worker may go on with this one at once.
    pub(crate) fn wake_next(&self) {
        self.host.wake_next(self.seat);
    }

    /// Turns the client away. Its session is told of the end, and has a turn only where it cannot be ended here.
    pub(crate) fn turn_away(&self, reason: DropReason) {
        self.host.turn_away(self.seat, reason);
    }
}

/// For tests of sessions without a server: these wakers wake nothing.
#[cfg(test)]
pub(crate) fn nobody() -> (Arc<dyn Host>, Seat) {
    struct Nobody;
    impl Host for Nobody {
        fn wake(&self, _: Seat) {}

        fn wake_next(&self, _: Seat) {}

        fn turn_away(&self, _: Seat, _: DropReason) {}

        fn watch(&self, _: Seat, _: BorrowedFd<'_>, _: WatchFor) -> io::Result<()> {
            Ok(())
        }

        fn route(&self, seat: Seat, _: BorrowedFd<'_>, _: bool) -> io::Result<EventRoute> {
            Arc::new(super::EventRoutes::default()).open(seat).ok_or_else(|| io::Error::other("no room"))
        }

        fn route_output(&self, _: BorrowedFd<'_>, _: &EventRoute) -> io::Result<()> {
            Ok(())
        }
    }
    (Arc::new(Nobody), Seat { slot: 0, generation: 0 })
}
