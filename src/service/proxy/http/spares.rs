//! Spare connections: connections to backends that are open and serve no request at the moment.
//!
//! A backend never has more connections than places. For that, a request takes a spare connection before it opens a new
//! one, and puts its connection back before it gives back its place.

use crate::clock::Nanos;
use crate::service::Seat;
use crate::service::proxy::address::BackendAddress;
use crate::service::proxy::backends::BackendId;
use crate::service::proxy::socket::BackendSocket;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One connection to a backend, and where the poller reports its events.
#[derive(Debug)]
pub(super) struct SpareConnection {
    pub(super) socket: BackendSocket,
    /// The session that gets a turn when the connection has an event.
    pub(super) seat: Seat,
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
            self.list().push(Resting { backend, since: now, spare });
        }
    }

    /// Takes the spare connection to a backend that was used last. Connections that the backend has closed, or on which it
    /// has sent something unasked, are dropped on the way.
    pub(super) fn take(
        &self,
        backend: BackendId,
        address: &BackendAddress,
        now: Nanos,
    ) -> Option<SpareConnection> {
        loop {
            let found = {
                let mut list = self.list();
                let at = list.iter().rposition(|waiting| waiting.backend == backend)?;
                list.remove(at)
            };
            if now.saturating_sub(found.since) < self.idle() && found.spare.socket.serves(address) {
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
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;

    const SEAT: Seat = Seat { slot: 0, generation: 0 };

    fn id(index: u32) -> BackendId {
        BackendId::of(index)
    }

    fn address() -> BackendAddress {
        BackendAddress::Tcp(([127, 0, 0, 1], 1).into())
    }

    fn pair() -> (SpareConnection, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (SpareConnection { socket: BackendSocket::plain(near.into(), false), seat: SEAT }, far)
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
        assert!(spares.take(id(2), &address(), 2).is_none());
        let taken = spares.take(id(1), &address(), 2).unwrap();
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
        assert!(spares.take(id(1), &address(), 120).is_none());
        assert_eq!(spares.len(), 0);
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
