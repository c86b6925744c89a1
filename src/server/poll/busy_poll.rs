//! Decides whether a worker without work spins for a moment before it sleeps in the poll.
//!
//! To sleep and be woken costs the server several microseconds of processor time, and delays the client by tens of
//! microseconds, more in a virtual machine. If the next event comes sooner than that, spinning is cheaper than
//! sleeping. If it comes later, spinning wastes processor time. So each worker remembers how long its recent waits
//! were, and spins only while that pays.

use crate::clock::{Nanos, nanos};
use std::time::Duration;

/// Between two polls of a spinning worker lies about a microsecond. If it is this long, another thread has had the
/// processor: there is other work, and the spinning worker is in its way.
const PREEMPTED: Nanos = 20_000;

/// What is known of the worth of spinning: how many recent waits were short, of this number.
const FULL: u32 = 1 << 12;
/// Spinning pays where this part of waits or more is short.
const ENOUGH: u32 = FULL / 4 * 3;

#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// For how long at most; 0 is never.
    limit: Nanos,
    worth: u32,
}

impl BusyPoll {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit: nanos(limit), worth: 0 }
    }

    /// Changes how long to spin at most.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = nanos(limit);
    }

    /// Whether to spin now.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.limit > 0 && self.worth >= ENOUGH
    }

    /// It paid: there was work.
    pub(crate) fn paid(&mut self) {
        self.worth += (FULL - self.worth) / 8;
    }

    /// Whether to end spinning, which began then and last polled at `last`, and to sleep.
    pub(crate) fn is_over(&mut self, began: Nanos, last: Nanos, now: Nanos) -> bool {
        let over = now - began > self.limit || now - last > PREEMPTED;
        if over {
            self.worth -= self.worth / 8;
        }
        over
    }

    /// The worker slept, and an event woke it after `time` in all. That includes what waking costs, so it is a hint, of less
    /// weight than what spinning shows.
    pub(crate) fn slept(&mut self, time: Nanos) {
        if time <= 2 * self.limit {
            self.worth += (FULL - self.worth) / 64;
        } else {
            self.worth -= self.worth / 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Nanos = 50_000;

    fn poll() -> BusyPoll {
        BusyPoll::new(Duration::from_nanos(LIMIT))
    }

    #[test]
    fn quick_clients_turn_it_on_and_slow_ones_off() {
        let mut poll = poll();
        let turns = (0..1_000).take_while(|_| {
            poll.slept(LIMIT);
            !poll.is_worth_it()
        });
        assert!((50..200).contains(&turns.count()));
        (0..100).for_each(|_| poll.paid());
        assert!(poll.is_worth_it());
        poll.slept(10 * LIMIT);
        poll.slept(10 * LIMIT);
        poll.slept(10 * LIMIT);
        assert!(!poll.is_worth_it());
    }

    #[test]
    fn what_spinning_shows_outweighs_what_sleeping_hints() {
        let mut poll = poll();
        let (mut looked, mut slept) = (0, 0);
        for _ in 0..10_000 {
            if poll.is_worth_it() {
                looked += 1;
                assert!(poll.is_over(0, LIMIT, LIMIT + 1));
            } else {
                slept += 1;
                poll.slept(2 * LIMIT);
            }
        }
        assert!(looked * 15 < slept, "spun {looked} times in vain, slept {slept} times");
    }

    #[test]
    fn the_worth_moves_by_its_shares() {
        let mut poll = poll();
        poll.paid();
        assert_eq!(poll.worth, FULL / 8);
        poll.paid();
        assert_eq!(poll.worth, FULL / 8 + (FULL - FULL / 8) / 8);
        let before = poll.worth;
        poll.slept(2 * LIMIT);
        assert_eq!(poll.worth, before + (FULL - before) / 64, "short enough to have been worth it");
        let before = poll.worth;
        poll.slept(2 * LIMIT + 1);
        assert_eq!(poll.worth, before - before / 8);
    }

    #[test]
    fn it_ends_at_its_limit_and_when_others_want_the_processor() {
        let mut poll = poll();
        assert!(!poll.is_over(0, LIMIT - 1_000, LIMIT));
        let began = 1_000_000_000;
        assert!(!poll.is_over(began, began + LIMIT - 1_000, began + LIMIT));
        assert!(!poll.is_over(began, began, began + PREEMPTED));
        assert!(poll.is_over(0, LIMIT, LIMIT + 1));
        assert!(poll.is_over(0, 1_000, 1_000 + PREEMPTED + 1));
    }

    #[test]
    fn a_limit_of_nothing_is_never() {
        let mut poll = BusyPoll::new(Duration::ZERO);
        (0..1_000).for_each(|_| poll.slept(0));
        assert!(!poll.is_worth_it());
    }
}
