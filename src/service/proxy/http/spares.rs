//! Spare connections: connections to backends that are open and serve no request at the moment.
//!
//! A backend never has more connections than places. For that, a request takes a spare connection before it opens a new
//! one, and puts its connection back before it gives back its place.

use crate::clock::Nanos;
use crate::service::proxy::address::BackendAddress;
use crate::service::proxy::backends::BackendId;
use crate::service::proxy::socket::BackendSocket;
use crate::service::{EventRoute, RouteNews, Seat};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A connection that has rested for longer is looked at before it is used. A backend that closes a quiet connection, or says
/// something on it, does so after a second or more.
const LOOK_AFTER: Nanos = 1_000_000;

/// One connection to a backend, and where the poller reports its events.
#[derive(Debug)]
pub(super) struct SpareConnection {
    pub(super) socket: BackendSocket,
    /// The way of its events; `None` if they go to the session that has opened it.
    pub(super) route: Option<EventRoute>,
    /// Whether the poller watches the connection for room to write as well as for input.
    pub(super) watched_both: bool,
    /// Whether its last answer has said itself where it ends.
    pub(super) framed: bool,
}

/// A request that wants to use a connection again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reuser<'a> {
    pub(super) backend: BackendId,
    pub(super) address: &'a BackendAddress,
    /// The session that is told of events from now on.
    pub(super) seat: Seat,
    /// Whether the request can be sent once more if the backend has closed the connection.
    pub(super) can_be_risked: bool,
    pub(super) now: Nanos,
}

impl SpareConnection {
    /// Whether a request can be sent on it. If not, the backend has closed it, or has sent something unasked.
    ///
    /// The poller has noted both, unless they came a moment ago. To look is a system call, so it is left out where it would
    /// hardly find anything and where nothing is lost if it would have.
    fn is_fit(&self, reuser: &Reuser<'_>, rested: Nanos) -> bool {
        if !self.socket.fits(reuser.address) {
            return false;
        }
        let looks = match self.route.as_ref().map(|route| route.take(reuser.seat)) {
            Some(RouteNews::HungUp) => return false,
            Some(RouteNews::Nothing) => !(reuser.can_be_risked && self.framed && rested < LOOK_AFTER),
            Some(RouteNews::Some) | None => true,
        };
        !(looks && self.socket.has_news())
    }
}

#[derive(Debug)]
struct Resting {
    backend: BackendId,
    since: Nanos,
    spare: SpareConnection,
}

#[derive(Debug)]
pub(super) struct Spares {
    list: Mutex<Vec<Resting>>,
    /// How long a connection may stay unused.
    idle: AtomicU64,
}

impl Spares {
    /// What one spare connection takes of the list, which doubles when it grows.
    pub(super) const CONNECTION_BYTES: usize = 2 * size_of::<Resting>();

    pub(super) fn new(idle: Nanos) -> Self {
        Self { list: Mutex::default(), idle: AtomicU64::new(idle) }
    }

    /// Changes how long a connection may stay unused.
    pub(super) fn set_idle(&self, idle: Nanos) {
        self.idle.store(idle, Relaxed);
    }

    fn idle(&self) -> Nanos {
        self.idle.load(Relaxed)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection whose last answer is complete. The caller must still hold its place.
    pub(super) fn put(&self, backend: BackendId, spare: SpareConnection, now: Nanos) {
        if self.idle() > 0 {
            if let Some(route) = &spare.route {
                route.rest();
            }
            self.list().push(Resting { backend, since: now, spare });
        }
    }

    /// Takes the spare connection to a backend that was used last. Connections that the backend has closed, or on which it
    /// has sent something unasked, are dropped on the way.
    pub(super) fn take(&self, reuser: &Reuser<'_>) -> Option<SpareConnection> {
        loop {
            let found = {
                let mut list = self.list();
                let at = list.iter().rposition(|waiting| waiting.backend == reuser.backend)?;
                list.remove(at)
            };
            let rested = reuser.now.saturating_sub(found.since);
            if rested < self.idle() && found.spare.is_fit(reuser, rested) {
                return Some(found.spare);
            }
        }
    }

    /// Closes one spare connection, to make room for the connection of a check.
    pub(super) fn close_one(&self, backend: BackendId) {
        let closed = {
            let mut list = self.list();
            list.iter().position(|waiting| waiting.backend == backend).map(|at| list.remove(at))
        };
        drop(closed);
    }

    /// Closes connections that were unused for too long.
    pub(super) fn expire(&self, now: Nanos) {
        let mut old = Vec::new();
        {
            let mut list = self.list();
            // The list is in the order in which connections came, so the oldest are first.
            let fresh = list.iter().position(|waiting| now.saturating_sub(waiting.since) < self.idle());
            let count = fresh.unwrap_or(list.len());
            old.extend(list.drain(..count));
        }
        drop(old);
    }

    /// Closes the spare connections to all but these backends.
    pub(super) fn keep(&self, backends: &[BackendId]) {
        let gone: Vec<Resting> = {
            let mut list = self.list();
            list.extract_if(.., |waiting| !backends.contains(&waiting.backend)).collect()
        };
        drop(gone);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::EventRoutes;
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    const SEAT: Seat = Seat { slot: 0, generation: 0 };
    const ADDRESS: BackendAddress = BackendAddress::Tcp(std::net::SocketAddr::V4(
        std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
    ));

    fn id(index: u32) -> BackendId {
        BackendId::of(index)
    }

    /// What a request wants that must not be lost.
    fn wanted(index: u32, now: Nanos) -> Reuser<'static> {
        Reuser { backend: id(index), address: &ADDRESS, seat: SEAT, can_be_risked: false, now }
    }

    /// The same of one that can be sent again.
    fn risked(index: u32, now: Nanos) -> Reuser<'static> {
        Reuser { can_be_risked: true, ..wanted(index, now) }
    }

    fn pair() -> (SpareConnection, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let socket = BackendSocket::plain(near.into(), false);
        (SpareConnection { socket, route: None, watched_both: false, framed: true }, far)
    }

    fn routed(routes: &Arc<EventRoutes>) -> (SpareConnection, UnixStream) {
        let (spare, far) = pair();
        (SpareConnection { route: routes.open(SEAT), ..spare }, far)
    }

    #[test]
    fn the_one_that_was_used_last_comes_first_and_each_for_its_own_backend() {
        let spares = Spares::new(100);
        let (first, mut ends) = pair();
        ends.write_all(b"").unwrap();
        let (second, _end) = pair();
        let number = second.socket.as_fd().as_raw_fd();
        spares.put(id(1), first, 0);
        spares.put(id(1), second, 1);
        assert!(spares.take(&wanted(2, 2)).is_none());
        let taken = spares.take(&wanted(1, 2)).unwrap();
        assert_eq!(taken.socket.as_fd().as_raw_fd(), number);
        assert_eq!(spares.len(), 1);
    }

    #[test]
    fn one_that_has_ended_has_spoken_or_is_old_is_not_used() {
        let spares = Spares::new(100);
        let (ended, end) = pair();
        drop(end);
        let (spoken, mut speaker) = pair();
        speaker.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        let (old, _end) = pair();
        spares.put(id(1), old, 0);
        spares.put(id(1), ended, 50);
        spares.put(id(1), spoken, 50);
        assert!(spares.take(&risked(1, 120)).is_none());
        assert_eq!(spares.len(), 0);
    }

    #[test]
    fn a_request_that_must_not_be_lost_looks_and_another_trusts_the_poller_for_a_moment() {
        let (routes, spares) = (Arc::new(EventRoutes::default()), Spares::new(Nanos::MAX));
        let take = |spare: SpareConnection, reuser: &Reuser<'_>| {
            spares.put(id(1), spare, 0);
            spares.take(reuser).is_some()
        };
        let ended = || {
            let (spare, end) = routed(&routes);
            drop(end);
            spare
        };
        assert!(!take(ended(), &wanted(1, 1)));
        assert!(take(ended(), &risked(1, LOOK_AFTER - 1)), "the poller has said nothing");
        assert!(!take(ended(), &risked(1, LOOK_AFTER)));
        let unframed = SpareConnection { framed: false, ..ended() };
        assert!(!take(unframed, &risked(1, 1)), "a body may follow that is none");
        let (fine, _far) = routed(&routes);
        assert!(take(fine, &wanted(1, Nanos::MAX - 1)));
    }

    #[test]
    fn what_the_poller_has_noted_while_it_rested_is_heeded() {
        let (routes, spares) = (Arc::new(EventRoutes::default()), Spares::new(Nanos::MAX));
        let told = |hung_up: bool, says: &[u8]| {
            let (spare, mut far) = routed(&routes);
            let name = spare.route.as_ref().unwrap().id();
            far.write_all(says).unwrap();
            spares.put(id(1), spare, 0);
            assert_eq!(routes.event(name, hung_up), None, "nobody is told");
            let taken = spares.take(&risked(1, 1)).is_some();
            (taken, far).0
        };
        assert!(!told(true, b""), "it was closed");
        assert!(!told(false, b"HTTP/1.1 408 Too Late\r\n"), "it has spoken");
        assert!(told(false, b""), "what the event told of was read before");
    }

    #[test]
    fn old_ones_are_closed_and_none_is_kept_where_none_is_wanted() {
        let spares = Spares::new(100);
        let (old, mut far) = pair();
        let (fresh, _end) = pair();
        spares.put(id(1), old, 0);
        spares.put(id(1), fresh, 50);
        spares.expire(100);
        assert_eq!(spares.len(), 1);
        assert_eq!(std::io::Read::read(&mut far, &mut [0; 1]).unwrap(), 0, "it was closed");
        spares.close_one(id(1));
        assert_eq!(spares.len(), 0);
        let none = Spares::new(0);
        none.put(id(1), pair().0, 0);
        assert_eq!(none.len(), 0);
    }
}
