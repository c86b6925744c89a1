//! The harvest: the leader reads events from the epoll and puts the connections that have work into the queue.

use crate::admit::turns::accounts::Class;
use crate::metrics::stats::Place;
use crate::server::accept::newcomers::Newcomers;
use crate::server::close::shedding::{Shedding, shed};
use crate::server::counts::Row;
use crate::server::poll::ThreadLead;
use crate::server::poll::poller::Event;
use crate::server::pulse::Vital;
use crate::server::queue::line::{Claim, Entry, Job};
use crate::server::queue::state::{ConnectionId, Marks, Ready};
use crate::server::queue::table::NEVER;
use crate::server::shared::Shared;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Polls as the leader for at most `timeout`, puts what is ready into the line, and says how many events there were.
pub(crate) fn harvest(shared: &Shared, lead: &ThreadLead<'_>, timeout: Duration, row: Row<'_>) -> usize {
    shared.pulse.beat(Vital::Leader);
    // Read once for a batch, and only when there is something.
    let mut now = 0;
    let mut clock = || {
        if now == 0 {
            now = shared.clock.now();
        }
        now
    };
    shared.poller.poll(lead, timeout, |event| match event {
        Event::Connection { id, marks } => {
            ready(shared, id, marks, row, &mut clock);
        }
        Event::Newcomers(listener) => Newcomers { shared, row }.take(listener),
        Event::Datagrams(number) => {
            if let Some(socket) = shared.datagrams.sockets.get(number) {
                socket.schedule(&shared.line, number, clock());
            }
        }
    })
}

/// Something happened to a connection: puts it into the line, unless it is there or has a worker; whether it did. `row` is
/// the ledgers of the calling thread.
pub(crate) fn ready(
    shared: &Shared,
    id: ConnectionId,
    marks: Marks,
    row: Row<'_>,
    clock: &mut dyn FnMut() -> u64,
) -> bool {
    let Some(slot) = shared.table.get(id.slot) else { return false };
    let enqueue = slot.state.ready(id.generation, marks) == Ready::Enqueue;
    if enqueue {
        slot.deadline.store(NEVER, Relaxed);
        row.of(slot.listener()).moved(Place::Idle, Place::Queued);
        shared.line.push(Entry { since: clock(), job: Job::Turn(id, Claim::Turn) });
    } else if marks.hangup() && shared.order.len() > 0 {
        // It may be on the shelf, and its client may have given up waiting.
        let (class, now) = (Class::Established, clock());
        if let Some(entry) = shared.order.hung_up(class, id.slot, id.generation.0, now) {
            shed(shared, row, &entry, Shedding::Gone, now);
        }
    }
    enqueue
}
