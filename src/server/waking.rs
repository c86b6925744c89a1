//! What sessions can ask of the server: to be woken later or from another thread, and to be told when another
//! descriptor is ready.

use super::close::shedding;
use super::poll::poller::Source;
use super::queue::owned::Owned;
use super::queue::state::Marks;
use super::shared::Shared;
use super::turn::following;
use super::turn::harvest::{connection_of, queued, ready};
use crate::reason::DropReason;
use crate::service::{EventRoute, Host, Seat, WatchFor};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Weak;

/// Wakers may outlive their server.
pub(crate) struct Hub(pub(crate) Weak<Shared>);

fn ended() -> io::Error {
    io::Error::other("the server has ended")
}

impl Host for Hub {
    fn wake(&self, seat: Seat) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut queued = false;
        shared.counts.foreign(|row| {
            queued = ready(&shared, connection_of(seat), Marks::NONE, row, &mut || shared.clock.now());
        });
        if queued {
            shared.crew.work_queued();
        }
    }

    fn wake_next(&self, seat: Seat) {
        let Some(shared) = self.0.upgrade() else { return };
        // While the queue stands, its order says whose turn it is.
        let worker = if shared.order.len() == 0 { following::worker(&shared) } else { None };
        let Some(worker) = worker else { return self.wake(seat) };
        // The worker says since when it waits.
        let row = shared.counts.worker_row(worker);
        if let Some(entry) = queued(&shared, connection_of(seat), Marks::NONE, row, || 0) {
            following::put(entry);
        }
    }

    fn turn_away(&self, seat: Seat, reason: DropReason) {
        let Some(shared) = self.0.upgrade() else { return };
        let id = connection_of(seat);
        // To tell a session of its end is a worker's work.
        let claimed = following::me(&shared).and_then(|worker| {
            Owned::claim(shared.table.get(id.slot)?, id, shared.counts.worker_row(worker))
        });
        match claimed {
            Some(mut owned) => {
                owned.begin_turn();
                shedding::turn_away(&shared, owned, reason);
            }
            None => self.wake_next(seat),
        }
    }

    fn watch(&self, seat: Seat, fd: BorrowedFd<'_>, watched: WatchFor) -> io::Result<()> {
        let shared = self.0.upgrade().ok_or_else(ended)?;
        let source = Source::Other(connection_of(seat));
        match watched {
            WatchFor::Input => shared.poller.add(fd, source),
            WatchFor::Both => shared.poller.add_writable(fd, source, false),
            WatchFor::OutputToo => shared.poller.add_writable(fd, source, true),
            WatchFor::Moved => shared.poller.give_to(fd, source),
        }
    }

    fn route(&self, seat: Seat, fd: BorrowedFd<'_>, is_watched: bool) -> io::Result<EventRoute> {
        let shared = self.0.upgrade().ok_or_else(ended)?;
        let route = shared
            .poller
            .routes()
            .open(seat)
            .ok_or_else(|| io::Error::other("too many connections to backends"))?;
        let source = Source::Routed(route.id());
        match is_watched {
            true => shared.poller.give_to(fd, source)?,
            false => shared.poller.add(fd, source)?,
        }
        Ok(route)
    }

    fn route_output(&self, fd: BorrowedFd<'_>, route: &EventRoute) -> io::Result<()> {
        let shared = self.0.upgrade().ok_or_else(ended)?;
        shared.poller.add_writable(fd, Source::Routed(route.id()), true)
    }
}
