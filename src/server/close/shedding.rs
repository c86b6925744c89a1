//! Shedding: what happens to a request that waits in the queue and gets no turn.

use crate::clock::Nanos;
use crate::reason::{CloseReason, DatagramDrop, DropReason, TurnShed};
use crate::server::close::last_words::LastWords;
use crate::server::counts::Row;
use crate::server::queue::line::{Claim, Entry, Job};
use crate::server::queue::order::Offer;
use crate::server::queue::owned::Owned;
use crate::server::shared::Shared;

/// Why an entry is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shedding {
    /// Its client has left, or most probably has.
    Gone,
    /// It waited longer than `queue_timeout`.
    TooLong,
    /// A newcomer makes room for a younger one.
    Displaced,
}

/// Ends an entry that was taken out of the line or off the shelf, without a turn. Any thread may: no service's code is
/// called here. `row` is the ledgers of the calling thread.
pub(crate) fn shed(shared: &Shared, row: Row<'_>, entry: &Entry, why: Shedding, now: Nanos) {
    match entry.job {
        Job::Turn(id, claim) => {
            if claim == Claim::Newcomer {
                shared.newcomer_left(id);
            }
            let Some((owned, _)) = Owned::take(&shared.table, id, claim, row) else { return };
            match claim {
                Claim::Newcomer => shed_newcomer(shared, owned, why),
                Claim::Turn => shed_established(shared, owned, why, now),
            }
        }
        Job::Datagram(slot) => {
            let reason =
                if why == Shedding::Displaced { DatagramDrop::QueueFull } else { DatagramDrop::QueueTimeout };
            shared.intake().drop_waiting(slot, row, reason);
        }
        Job::Overloaded(_) | Job::Receive(_) | Job::Tick | Job::Farewell => {
            debug_assert!(false, "only what waits for a turn is shed");
        }
    }
}

/// Moves what has come through the line to the shelf, `first` before it, and sheds what there is no room for. `row` is the
/// ledgers of the calling thread.
pub(crate) fn shelve(shared: &Shared, row: Row<'_>, first: Option<Entry>, now: Nanos) {
    shared.order.shelve(now, shared, first, |offer| match offer {
        // At the end: where there are many of them, others come to the front.
        Offer::Turn(entry) => shared.line.push(entry),
        Offer::GiveUp(entry) => shed(shared, row, &entry, Shedding::Gone, now),
    });
    shared.crew.work_queued();
}

fn shed_newcomer(shared: &Shared, owned: Owned<'_>, why: Shedding) {
    let reason = match why {
        Shedding::Gone => DropReason::ClientGone,
        Shedding::TooLong => DropReason::QueueTimeout,
        Shedding::Displaced => DropReason::QueueFull,
    };
    turn_away(shared, owned, reason);
}

/// Turns a newcomer away, with words where there are any for this reason.
pub(crate) fn turn_away(shared: &Shared, owned: Owned<'_>, reason: DropReason) {
    let words = shared.words_for(&owned);
    let words = if reason.has_words() { words } else { LastWords::default() };
    shared.closer().shed(owned, reason, &words);
}

/// A connection whose protocol has words for an overload is told by a worker, and may stay; others end.
fn shed_established(shared: &Shared, owned: Owned<'_>, why: Shedding, now: Nanos) {
    if why == Shedding::Gone {
        owned.ledger.turn_shed(TurnShed::ClientGone);
        return match shared.is_pressed() {
            true => shared.closer().close_late(owned),
            false => shared.closer().close(owned, CloseReason::Client),
        };
    }
    owned.ledger.turn_shed(TurnShed::QueueTimeout);
    let listener = &shared.listeners[owned.listener()];
    if listener.answers_overload() {
        owned.requeue_overloaded(&shared.line, now);
        shared.crew.work_queued();
    } else {
        let words = shared.words_for(&owned);
        shared.closer().close_with(owned, CloseReason::Overload, &words);
    }
}
