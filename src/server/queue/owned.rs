//! A connection and the right to touch it, which one thread has at a time.

use super::connection::Connection;
use super::line::{Claim, Entry, Job, Line};
use super::state::{ConnectionId, Marks, Parked};
use super::table::{NEVER, Slot, Table};
use crate::clock::Nanos;
use crate::metrics::stats::{CountedAs, Ledger};
use crate::server::counts::Row;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

/// The ownership of a connection, with what its endings need: its slot, its life, the ledger of the owning thread, and
/// where it is counted. It ends by being parked, requeued, or closed (see [`Closer`](crate::server::close::Closer));
/// one that is forgotten would leave its connection without an owner for ever.
#[must_use = "a connection must be parked, requeued or closed"]
#[derive(Debug)]
pub(crate) struct Owned<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) slot: &'a Slot,
    pub(crate) ledger: &'a Ledger,
    /// Where it is counted as being.
    pub(crate) place: CountedAs,
}

impl<'a> Owned<'a> {
    /// The connection of an entry that was taken from the line, and what its sockets told; `None` when the entry
    /// outlived its connection.
    pub(crate) fn take(
        table: &'a Table,
        id: ConnectionId,
        claim: Claim,
        row: Row<'a>,
    ) -> Option<(Self, Marks)> {
        let slot = table.get(id.slot)?;
        let marks = slot.state.take(id.generation)?;
        slot.deadline.store(NEVER, Relaxed);
        Some((Self { id, slot, ledger: row.of(slot.listener()), place: claim.place() }, marks))
    }

    /// An idle connection, to end it or to give it a turn that no event asked for.
    pub(crate) fn claim(slot: &'a Slot, id: ConnectionId, row: Row<'a>) -> Option<Self> {
        let claimed = slot.state.claim(id.generation);
        claimed.then(|| Self { id, slot, ledger: row.of(slot.listener()), place: CountedAs::Idle })
    }

    /// A new connection in a slot that nobody uses; it is counted as admitted.
    pub(crate) fn open(
        (number, slot): (u32, &'a Slot),
        (listener, heap): (usize, u64),
        connection: Connection,
        ledger: &'a Ledger,
    ) -> Self {
        let generation = slot.state.open();
        slot.set_origin(listener, heap);
        *slot.connection() = Some(connection);
        ledger.admitted();
        Self { id: ConnectionId { slot: number, generation }, slot, ledger, place: CountedAs::New }
    }

    /// The number of its listener.
    pub(crate) fn listener(&self) -> usize {
        self.slot.listener()
    }

    /// What is kept of it.
    pub(crate) fn connection(&self) -> MutexGuard<'a, Option<Connection>> {
        self.slot.connection()
    }

    /// Its turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.move_to(CountedAs::Active);
    }

    /// Lets go of it until its client does something or `deadline` passes. If something has happened meanwhile it is
    /// handed back, with more to do.
    pub(crate) fn park(mut self, deadline: Nanos) -> Result<(), Self> {
        self.slot.deadline.store(deadline, Relaxed);
        self.move_to(CountedAs::Idle);
        match self.slot.state.park() {
            Parked::Idle => Ok(()),
            Parked::Again => {
                self.slot.deadline.store(NEVER, Relaxed);
                Err(self)
            }
        }
    }

    /// Puts it into the line for another turn, in which it waits since then. Its deadline was cleared by the caller.
    pub(crate) fn requeue(self, line: &Line, claim: Claim, since: Nanos) {
        let job = Job::Turn(self.id, claim);
        self.requeue_for(line, claim.place(), Entry { since, job });
    }

    /// Puts it into the line so that a worker tells its client of the overload.
    pub(crate) fn requeue_overloaded(self, line: &Line, now: Nanos) {
        let job = Job::Overloaded(self.id);
        self.requeue_for(line, CountedAs::Queued, Entry { since: now, job });
    }

    fn requeue_for(mut self, line: &Line, place: CountedAs, entry: Entry) {
        self.move_to(place);
        self.slot.state.requeue();
        line.push(entry);
    }

    fn move_to(&mut self, place: CountedAs) {
        if self.place != place {
            self.ledger.moved(self.place, place);
            self.place = place;
        }
    }
}
