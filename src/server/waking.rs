//! The server as its sessions see it: what wakes them, and what is watched for them.

use super::poll::poller::Source;
use super::queue::state::{ConnectionId, Generation};
use super::shared::Shared;
use super::turn::harvest::ready;
use crate::service::{Host, SessionId};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Weak;

/// Wakers may outlive their server.
pub(crate) struct Hub(pub(crate) Weak<Shared>);

fn id(session: SessionId) -> ConnectionId {
    ConnectionId { slot: session.slot, generation: Generation(session.generation) }
}

impl Host for Hub {
    fn wake(&self, session: SessionId) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut queued = false;
        shared.counts.foreign(|row| {
            queued = ready(&shared, id(session), false, row, &mut || shared.clock.now());
        });
        if queued {
            shared.crew.work_queued();
        }
    }

    fn watch(&self, session: SessionId, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Some(shared) = self.0.upgrade() else {
            return Err(io::Error::other("the server has ended"));
        };
        shared.poller.add_writable(fd, Source::Connection(id(session)), false)
    }
}
