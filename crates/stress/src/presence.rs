//! Whether a load thread keeps up with its sockets: up to which instant it has read what came, and when it was away.
//!
//! A thread that is stopped, or has no processor, reads late what came in time. So a wait is over only when everything
//! that had come at its deadline was read, and the time in which the thread was away is given back to every wait.

use super::clock::Nanos;
use std::collections::VecDeque;

/// A thread that could not look at its sockets for longer than this was away.
const AWAY: Nanos = 100_000_000;
/// The most absences that are remembered. A request sees as many only if its patience is longer than all of them together.
const ABSENCES: usize = 64;

/// How far a load thread has read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    /// Everything that had come by then was read.
    seen: Nanos,
    /// The first of the looks that have yet to find everything, and how many sockets they found.
    since: Nanos,
    found: usize,
    /// When the thread was last back after it was away.
    back: Nanos,
    /// From when to when the thread was away, the oldest first.
    absences: VecDeque<(Nanos, Nanos)>,
}

impl Presence {
    /// A look at the sockets that began at an instant found some of them ready, at most `room` at once, and what they had
    /// was read. `sockets`: how many there are. The kernel lists each once, in the order in which they became ready.
    pub(crate) fn looked(&mut self, at: Nanos, found: usize, room: usize, sockets: usize) {
        if self.found == 0 {
            self.since = at;
        }
        self.found += found;
        if found < room {
            self.seen = at;
            self.found = 0;
        } else if self.found >= sockets {
            self.seen = self.since;
            self.found = 0;
        }
    }

    /// The thread did not look between these instants; for how long it was away.
    pub(crate) fn absent(&mut self, from: Nanos, to: Nanos) -> Option<Nanos> {
        let away = to.saturating_sub(from);
        if away <= AWAY {
            return None;
        }
        self.back = to;
        if self.absences.len() == ABSENCES {
            self.absences.pop_front();
        }
        self.absences.push_back((from, to));
        Some(away)
    }

    /// For how long the thread was away since an instant.
    pub(crate) fn away_since(&self, instant: Nanos) -> Nanos {
        let after = self.absences.iter().rev().take_while(|(_, to)| *to > instant);
        after.map(|(from, to)| to - instant.max(*from)).sum()
    }

    /// Everything that had come by this instant was read.
    pub(crate) fn seen(&self) -> Nanos {
        self.seen
    }

    /// Whether what came while the thread was away was read.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.seen >= self.back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_finds_fewer_than_it_could_has_seen_all() {
        let mut presence = Presence::default();
        presence.looked(10, 3, 4, 100);
        assert_eq!(presence.seen(), 10);
        presence.looked(20, 4, 4, 100);
        assert_eq!(presence.seen(), 10, "there may be more");
        presence.looked(30, 0, 4, 100);
        assert_eq!(presence.seen(), 30);
    }

    #[test]
    fn sockets_that_are_always_ready_do_not_keep_waits_from_ending() {
        let mut presence = Presence::default();
        for at in 1..=24 {
            presence.looked(at, 4, 4, 10);
        }
        // Each socket was found once in three looks.
        assert_eq!(presence.seen(), 22);
    }

    #[test]
    fn a_thread_that_was_away_has_caught_up_when_it_has_seen_what_came_meanwhile() {
        let mut presence = Presence::default();
        assert!(presence.has_caught_up());
        assert_eq!(presence.absent(1000, 1000 + AWAY), None, "as long as a busy thread may take");
        assert_eq!(presence.absent(2000, 1000), None);
        let back = 2000 + 2 * AWAY;
        assert_eq!(presence.absent(2000, back), Some(2 * AWAY));
        assert!(!presence.has_caught_up());
        presence.looked(back, 4, 4, 8);
        presence.looked(back + 1, 3, 4, 8);
        assert!(presence.has_caught_up());
    }

    #[test]
    fn the_time_away_is_known_from_any_instant_on_and_the_memory_for_it_is_bounded() {
        let mut presence = Presence::default();
        assert_eq!(presence.away_since(0), 0);
        presence.absent(AWAY, 3 * AWAY);
        presence.absent(5 * AWAY, 5 * AWAY + 10);
        presence.absent(6 * AWAY, 8 * AWAY);
        for (instant, away) in [(0, 4), (2, 3), (3, 2), (5, 2), (7, 1), (8, 0), (9, 0)] {
            assert_eq!(presence.away_since(instant * AWAY), away * AWAY, "{instant}");
        }
        for n in 10..10 + 2 * ABSENCES as Nanos {
            presence.absent(2 * n * AWAY, 2 * n * AWAY + AWAY + 1);
        }
        assert_eq!(presence.away_since(0), ABSENCES as Nanos * (AWAY + 1));
    }
}
