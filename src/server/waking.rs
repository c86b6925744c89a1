//! What sessions can ask of the server: to be woken later or from another thread, and to be told when another
//! descriptor is ready.

use super::poll::poller::Source;
use super::queue::state::{ConnectionId, Generation, Marks};
use super::shared::Shared;
use super::turn::harvest::ready;
use crate::service::{Host, Seat, WatchFor};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Weak;

/// Wakers may outlive their server.
pub(crate) struct Hub(pub(crate) Weak<Shared>);

fn id(seat: Seat) -> ConnectionId {
    ConnectionId { slot: seat.slot, generation: Generation(seat.generation) }
}

impl Host for Hub {
    fn wake(&self, seat: Seat) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut queued = false;
        shared.counts.foreign(|row| {
            queued = ready(&shared, id(seat), Marks::NONE, row, &mut || shared.clock.now());
        });
        if queued {
            shared.crew.work_queued();
        }
    }

    fn watch(&self, seat: Seat, fd: BorrowedFd<'_>, watched: WatchFor) -> io::Result<()> {
        let Some(shared) = self.0.upgrade() else {
            return Err(io::Error::other("the server has ended"));
        };
        let source = Source::Other(id(seat));
        match watched {
            WatchFor::Input => shared.poller.add(fd, source),
            WatchFor::Both => shared.poller.add_writable(fd, source, false),
            WatchFor::OutputToo => shared.poller.add_writable(fd, source, true),
            WatchFor::Moved => shared.poller.give_to(fd, source),
        }
    }
}
