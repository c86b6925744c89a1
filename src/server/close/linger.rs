//! Polite closes: the server sends FIN, and reads and discards what the client still sends until the client's own FIN.
//! If a socket is closed with unread input, the kernel sends a reset instead, which can destroy a reply on its way to
//! the client.

use crate::admit::places::{Places, TakenPlace};
use crate::clock::{Nanos, nanos};
use crate::limits::Limits;
use crate::transport::socket::{ClientSocket, Discarded, discard, has_said_all, reset_on_close};
use crossbeam_channel::{Receiver, Sender};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// How many may linger, and the way of a lingering socket to the timekeeper.
#[derive(Debug)]
pub(crate) struct Lingers {
    places: Arc<Places>,
    sender: Sender<Lingering>,
    bytes: AtomicUsize,
    timeout: AtomicU64,
}

/// A socket whose polite close is under way: it has a place among `lingering`, and a deadline.
#[derive(Debug)]
pub(crate) struct Lingering {
    pub(crate) socket: ClientSocket,
    /// Bytes that are still discarded.
    pub(crate) left: usize,
    pub(crate) deadline: Nanos,
    _place: TakenPlace,
}

impl Lingers {
    /// The budget, and where the timekeeper takes lingering sockets in.
    pub(crate) fn new(limits: &Limits) -> (Self, Receiver<Lingering>) {
        let (sender, receiver) = crossbeam_channel::bounded(limits.lingering.max(1));
        let places = Arc::new(Places::new(limits.lingering));
        let lingers = Self { places, sender, bytes: AtomicUsize::new(0), timeout: AtomicU64::new(0) };
        lingers.set_limits(limits);
        (lingers, receiver)
    }

    /// Changes what the closes from now on have: places, bytes and time.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.places.set_limit(limits.lingering);
        self.bytes.store(limits.linger_bytes, Relaxed);
        self.timeout.store(nanos(limits.linger_timeout), Relaxed);
    }

    /// How many linger.
    pub(crate) fn count(&self) -> usize {
        self.places.taken()
    }

    /// Sends FIN, and what comes after that is the timekeeper's; true when it must take the socket in. `unregister` is
    /// called before that, so that what is only discarded wakes nobody. Past the budget the close does not wait. Nor does it
    /// for a client whose bytes so far `is_all` knows to be all.
    pub(crate) fn linger(
        &self,
        socket: ClientSocket,
        now: Nanos,
        is_all: Option<fn(&[u8]) -> bool>,
        unregister: impl FnOnce(&ClientSocket),
    ) -> bool {
        let mut left = self.bytes.load(Relaxed);
        if is_all.is_some_and(|is_all| has_said_all(&socket, &mut left, is_all))
            || socket.end_output().is_err()
        {
            return false;
        }
        if discard(&socket, &mut left) != Discarded::Open {
            return false;
        }
        let Some(place) = self.places.take() else { return false };
        unregister(&socket);
        let deadline = now.saturating_add(self.timeout.load(Relaxed));
        self.sender.try_send(Lingering { socket, left, deadline, _place: place }).is_ok()
    }
}

impl Lingering {
    /// Past its deadline a lingering socket is reset, unless its client is still taking what it was sent: a reset would
    /// destroy that, so the rest is the kernel's to deliver.
    pub(crate) fn give_up(self) {
        if crate::sys::unacknowledged(self.socket.as_fd()) == 0 {
            reset_on_close(&self.socket);
        }
    }
}
