//! The harvest: the leader reads events from the epoll. It keeps the first turn for itself, and puts the other connections
//! that have work into the queue.

use crate::admit::turns::accounts::Class;
use crate::clock::Nanos;
use crate::metrics::stats::CountedAs;
use crate::server::accept::newcomers::Newcomers;
use crate::server::close::shedding::{Shedding, shed};
use crate::server::counts::Row;
use crate::server::poll::ThreadLead;
use crate::server::poll::poller::PollEvent;
use crate::server::pulse::Vital;
use crate::server::queue::line::{Claim, Entry, Job};
use crate::server::queue::state::{ConnectionId, Generation, Marks, Ready};
use crate::server::queue::table::NEVER;
use crate::server::shared::Shared;
use crate::service::Seat;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a poll of the leader has brought.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    pub(crate) events: usize,
    /// When the first of them was found; 0 if nobody had to know.
    pub(crate) at: Nanos,
    /// The turn that the leader takes itself. It would take it from the line at once, so it does not put it there.
    pub(crate) first: Option<Entry>,
}

/// Polls as the leader for at most `timeout`, and puts what is ready into the line. A worker that `takes` the first turn is
/// given it: it has just found the line empty.
#[inline]
pub(crate) fn harvest(
    shared: &Shared,
    lead: &ThreadLead<'_>,
    timeout: Duration,
    row: Row<'_>,
    takes: bool,
) -> Harvest {
    shared.pulse.beat(Vital::Leader);
    let mut found = Harvest::default();
    let Harvest { at, first, .. } = &mut found;
    // Read once for a batch, and only when there is something.
    let mut clock = || {
        if *at == 0 {
            *at = shared.clock.now();
        }
        *at
    };
    let events = shared.poller.poll(lead, timeout, |event| {
        let (id, marks) = match event {
            PollEvent::Connection { id, marks } => (id, marks),
            PollEvent::Routed { id, hung_up } => match shared.poller.routes().event(id, hung_up) {
                // Whether the other side has hung up, the session learns from the route: the session may have another
                // descriptor later.
                Some(seat) => (connection_of(seat), Marks::of_other(false)),
                None => return,
            },
            PollEvent::Newcomers(listener) => return Newcomers { shared, row }.take(listener),
            PollEvent::Datagrams(number) => {
                if let Some(socket) = shared.datagrams.sockets.get(number) {
                    socket.schedule(&shared.line, number, clock());
                }
                return;
            }
        };
        match queued(shared, id, marks, row, &mut clock) {
            Some(entry) if takes && first.is_none() => *first = Some(entry),
            Some(entry) => shared.line.push(entry),
            None => {}
        }
    });
    found.events = events;
    found
}

/// The connection of a session.
pub(crate) fn connection_of(seat: Seat) -> ConnectionId {
    ConnectionId { slot: seat.slot, generation: Generation(seat.generation) }
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
    let entry = queued(shared, id, marks, row, clock);
    entry.map(|entry| shared.line.push(entry)).is_some()
}

/// The same, but the caller puts the entry into the line, if there is one: the connection is queued.
#[must_use = "a connection that is queued must be in the line, or have its turn"]
#[inline]
pub(crate) fn queued(
    shared: &Shared,
    id: ConnectionId,
    marks: Marks,
    row: Row<'_>,
    mut clock: impl FnMut() -> u64,
) -> Option<Entry> {
    let slot = shared.table.get(id.slot)?;
    if slot.state.ready(id.generation, marks) == Ready::Enqueue {
        slot.deadline.store(NEVER, Relaxed);
        row.of(slot.listener()).moved(CountedAs::Idle, CountedAs::Queued);
        return Some(Entry { since: clock(), job: Job::Turn(id, Claim::Turn) });
    }
    if marks.hangup() && shared.order.len() > 0 {
        // It may be on the shelf, and its client may have given up waiting.
        let (class, now) = (Class::Established, clock());
        let (slot, generation) = (id.slot, id.generation.0);
        let given_up = match marks.failed() {
            true => shared.order.gone(class, slot, generation, now),
            false => shared.order.hung_up(class, slot, generation, now),
        };
        if let Some(entry) = given_up {
            shed(shared, row, &entry, Shedding::Gone, now);
        }
    }
    None
}
