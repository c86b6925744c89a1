//! New deadlines for parked connections when a time limit changes. A worker gives each connection its deadline when it
//! parks it. An idle connection may not meet a worker again for hours, so the timekeeper computes its deadline anew.

use crate::clock::{Nanos, nanos};
use crate::limits::Limits;
use crate::server::counts::Row;
use crate::server::in_force::InForce;
use crate::server::queue::connection::Waiting;
use crate::server::queue::owned::Owned;
use crate::server::queue::state::ConnectionId;
use crate::server::queue::table::NEVER;
use crate::server::shared::Shared;
use crate::server::turn::parking::{deadline, park_or_requeue};
use std::sync::atomic::Ordering::Relaxed;

/// How far the clock of a worker that parks a connection may be behind the change of the limits that it has seen.
const BEHIND: Nanos = 1_000_000_000;

/// Parks each connection anew whose deadline would be another one under the limits that are in force now.
pub(crate) fn renew(shared: &Shared, before: &InForce, now_in_force: &InForce, row: Row<'_>, now: Nanos) {
    let times = |limits: &Limits| (limits.idle_timeout, limits.read_timeout, limits.write_timeout);
    let mut pairs = before.listeners.iter().zip(&now_in_force.listeners);
    if pairs.all(|(old, new)| times(old) == times(new)) {
        return;
    }
    for (number, slot) in shared.table.iter() {
        if slot.deadline.load(Relaxed) == NEVER {
            continue;
        }
        let Some(generation) = slot.state.generation() else { continue };
        let Some(owned) = Owned::claim(slot, ConnectionId { slot: number, generation }, row) else {
            continue;
        };
        let (old, new) = (&before.listeners[owned.listener()], &now_in_force.listeners[owned.listener()]);
        let waiting =
            owned.connection().as_ref().map_or(Waiting::Request, |connection| connection.waiting.get());
        let known = owned.slot.deadline.load(Relaxed);
        let at = match waiting {
            Waiting::Request => idle_deadline(known, (old, new), now_in_force.since, now),
            waiting => deadline(new, waiting, now),
        };
        park_or_requeue(shared, owned, at, now);
    }
    // Events that came while a connection was held for a moment have put it into the line.
    shared.crew.work_queued();
}

/// The deadline of a connection that is idle, whose known one was made by the old limits or, if it was parked since they
/// changed, by the new ones already. The limits in force changed at `since`.
fn idle_deadline(known: Nanos, (old, new): (&Limits, &Limits), since: Nanos, now: Nanos) -> Nanos {
    let (old, new) = (nanos(old.idle_timeout), nanos(new.idle_timeout));
    let parked_by_new = known.saturating_sub(new);
    if (since.saturating_sub(BEHIND)..=now).contains(&parked_by_new) {
        return known;
    }
    known.saturating_sub(old).saturating_add(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Nanos = 1_000_000_000;

    fn idle(seconds: u64) -> Limits {
        Limits::default().idle_timeout(Duration::from_secs(seconds))
    }

    #[test]
    fn an_idle_connection_has_the_new_time_from_when_it_was_parked() {
        let (hour, minute) = (idle(3_600), idle(60));
        let (since, now) = (10_000 * SECOND, 10_000 * SECOND + 5);
        for parked in [9_000, 9_990, 9_999].map(|at| at * SECOND) {
            let shorter = idle_deadline(parked + 3_600 * SECOND, (&hour, &minute), since, now);
            assert_eq!(shorter, parked + 60 * SECOND);
            let longer = idle_deadline(parked + 60 * SECOND, (&minute, &hour), since, now);
            assert_eq!(longer, parked + 3_600 * SECOND);
        }
    }

    #[test]
    fn a_connection_that_was_parked_by_the_new_time_keeps_its_deadline() {
        let (hour, minute) = (idle(3_600), idle(60));
        let (since, now) = (10_000 * SECOND, 10_000 * SECOND + 5);
        for parked in [since - SECOND / 2, since, now] {
            for (old, new, time) in [(&hour, &minute, 60), (&minute, &hour, 3_600)] {
                let known = parked + time * SECOND;
                assert_eq!(idle_deadline(known, (old, new), since, now), known);
            }
        }
    }
}
