//! What the server keeps for one connection. An idle connection owns no thread and no buffer.

use crate::admit::Permit;
use crate::clock::Nanos;
use crate::reason::CloseReason;
use crate::service::{Kept, Session};
use crate::transport::address::ClientAddress;
use crate::transport::socket::ClientSocket;
use std::cell::Cell;

/// How far a connection's registration with the poller goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    No,
    Readable,
    Writable,
}

/// What an idle connection waits for; each has a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// For a request: `idle_timeout`.
    Request,
    /// For the first byte of a TLS client that was admitted then: `read_timeout`.
    Hello { since: Nanos },
    /// For the rest of a request that began then: `read_timeout`, in all.
    Rest { since: Nanos },
    /// For its client to take replies, which it last did then: `write_timeout`.
    Flush { since: Nanos },
    /// For anything, until then: the session keeps its own time.
    Call { at: Nanos },
}

/// A [`Waiting`] in one word: three bits say for what, the others since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedWaiting(u64);

impl PackedWaiting {
    const SINCE: u64 = u64::MAX >> 3;

    pub(crate) fn get(self) -> Waiting {
        // 73 years of nanoseconds fit.
        let since = self.0 & Self::SINCE;
        match self.0 >> 61 {
            0 => Waiting::Request,
            1 => Waiting::Rest { since },
            2 => Waiting::Flush { since },
            3 => Waiting::Hello { since },
            _ => Waiting::Call { at: since },
        }
    }
}

impl From<Waiting> for PackedWaiting {
    fn from(waiting: Waiting) -> Self {
        let (what, since) = match waiting {
            Waiting::Request => (0, 0),
            Waiting::Rest { since } => (1, since),
            Waiting::Flush { since } => (2, since),
            Waiting::Hello { since } => (3, since),
            Waiting::Call { at } => (4, at.min(Self::SINCE)),
        };
        Self(what << 61 | since & Self::SINCE)
    }
}

/// What is still read of a connection while the server ends: what its client had sent when the server came to it. It is
/// kept in one byte, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastInput(u8);

impl LastInput {
    const UNIT: usize = 32 * 1024;
    /// All has been read that will be.
    const NONE: u8 = 1;

    /// The server ends, and this number of the client's bytes is not read. A client that has filled the kernel's buffer most likely
    /// has more on the way: that is read too.
    pub(crate) fn of(unread: usize) -> Self {
        let unread = if unread >= Self::UNIT { unread.saturating_mul(4) } else { unread };
        Self(unread.div_ceil(Self::UNIT).min(usize::from(u8::MAX - Self::NONE)) as u8 + Self::NONE)
    }

    /// Whether it is known: its session has a turn, or has had one, since the server began to end.
    pub(crate) fn is_known(self) -> bool {
        self.0 >= Self::NONE
    }

    /// How many bytes may still be read, if that is known.
    pub(crate) fn bytes(self) -> Option<usize> {
        self.0.checked_sub(Self::NONE).map(|units| usize::from(units) * Self::UNIT)
    }

    /// A turn has read this.
    pub(crate) fn read(&mut self, bytes: u64) {
        if self.is_known() && bytes > 0 {
            let units = (bytes / Self::UNIT as u64).clamp(1, u64::from(u8::MAX)) as u8;
            self.0 = self.0.saturating_sub(units).max(Self::NONE);
        }
    }
}

/// In the order of use: with the slot's own words, what a turn touches when all goes well is one
/// cache line. With thousands of connections each line is a trip to the last cache or to memory.
#[repr(C)]
pub(crate) struct Connection {
    /// Made at the first turn.
    pub(crate) session: Option<Box<dyn Session>>,
    /// Replies the kernel did not take.
    pub(crate) kept: Kept,
    pub(crate) waiting: PackedWaiting,
    pub(crate) socket: ClientSocket,
    pub(crate) registered: Registered,
    /// What is still read of it while the server ends.
    pub(crate) in_drain: LastInput,
    /// Its deadline has passed; what had come by then has a turn before it is judged.
    pub(crate) overdue: bool,
    /// It has ended for this reason, and closes when its replies are flushed.
    pub(crate) ending: Option<CloseReason>,
    /// Of its client. Like the permit it is in a cell, where the compiler does not look for values that do not occur: it
    /// would let one of them say whether there is a connection, and each turn would read this second cache line for it.
    pub(crate) address: Cell<ClientAddress>,
    /// Its place among the admitted; given back when it is dropped, after the socket.
    pub(crate) _permit: Cell<Permit>,
}

impl Connection {
    /// A newcomer: it is not registered with the poller, and its session is made at its first turn.
    pub(crate) fn new(socket: ClientSocket, address: ClientAddress, permit: Permit) -> Self {
        Self {
            session: None,
            kept: Kept::default(),
            waiting: Waiting::Request.into(),
            socket,
            registered: Registered::No,
            in_drain: LastInput::default(),
            overdue: false,
            ending: None,
            address: Cell::new(address),
            _permit: Cell::new(permit),
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.registered != Registered::No
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address.get())
            .field("waiting", &self.waiting.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_still_be_read_goes_down_to_nothing_whatever_turns_read() {
        assert_eq!((LastInput::default().is_known(), LastInput::default().bytes()), (false, None));
        assert_eq!(LastInput::of(0).bytes(), Some(0));
        for unread in [1, 1_000, 32 * 1024, 100_000, 5 << 20, 1 << 30] {
            for turn in [1, 100, 40_000, 256 * 1024, u64::MAX] {
                let mut left = LastInput::of(unread);
                let first = left.bytes().unwrap();
                assert!(first >= unread.min(8_000_000), "{first} of {unread}");
                let mut turns = 0;
                while left.bytes().unwrap() > 0 {
                    left.read(turn);
                    turns += 1;
                }
                assert!(turns <= 254 && left.is_known());
            }
        }
    }

    #[test]
    fn what_may_still_be_read_is_kept_in_units_and_four_times_as_much_of_large_input() {
        let unit = LastInput::UNIT;
        let bytes = |unread| LastInput::of(unread).bytes().unwrap();
        assert_eq!([bytes(1), bytes(unit - 1)], [unit, unit], "rounded up");
        assert_eq!([bytes(unit), bytes(unit + 1)], [4 * unit, 5 * unit]);
        let mut left = LastInput::of(unit);
        left.read(2 * unit as u64);
        assert_eq!(left.bytes(), Some(2 * unit));
        left.read(1);
        assert_eq!(left.bytes(), Some(unit), "a turn that reads little counts as a unit");
        left.read(0);
        assert_eq!(left.bytes(), Some(unit));
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        for since in [1, 5_000_000_000, PackedWaiting::SINCE] {
            for waiting in [
                Waiting::Request,
                Waiting::Hello { since },
                Waiting::Rest { since },
                Waiting::Flush { since },
                Waiting::Call { at: since },
            ] {
                assert_eq!(PackedWaiting::from(waiting).get(), waiting);
            }
        }
    }

    #[test]
    fn a_newcomer_is_not_registered_and_waits_for_its_first_request() {
        let limits = crate::limits::Limits::default();
        let admission = crate::admit::Admission::new(&limits, std::slice::from_ref(&limits), |_, _| {});
        let address = std::net::Ipv4Addr::LOCALHOST;
        let permit = admission.admit(0, address, std::time::Instant::now(), |_| true).unwrap();
        let (socket, _client) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = ClientSocket::from(std::os::fd::OwnedFd::from(socket));
        let from = std::net::SocketAddr::from((address, 1));
        let mut connection = Connection::new(socket, from.into(), permit);
        assert_eq!((connection.is_registered(), connection.waiting.get()), (false, Waiting::Request));
        connection.registered = Registered::Readable;
        assert!(connection.is_registered());
    }
}
