//! The deadlines of slots.
//!
//! Nearly every wait ends long before its deadline, so setting and clearing a deadline is one write to memory. The heap
//! holds one instant for each slot. When that instant comes, the slot's deadline is looked at, and goes back into the
//! heap if it has moved on.

use super::clock::{NEVER, Nanos};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The kinds of timeout; a slot waits for at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wait {
    /// For a connection.
    Connect,
    /// For a reply.
    Reply,
    /// For the server's end of a half-closed connection.
    Close,
}

const KINDS: usize = 3;

#[derive(Clone, Copy)]
struct Deadline {
    /// [`NEVER`] while the slot does not wait.
    at: Nanos,
    /// When it is looked at: not after `at`. Other entries of the slot in the heap are void.
    look: Nanos,
    wait: Wait,
}

/// The timeouts of all slots of a thread.
pub(crate) struct Timeouts {
    after: [Nanos; KINDS],
    deadlines: Vec<Deadline>,
    looks: BinaryHeap<Reverse<(Nanos, u32)>>,
}

impl Timeouts {
    /// No timeouts yet, for `slots` slots; how long a wait of each kind may take.
    pub(crate) fn new(slots: usize, connect: Nanos, reply: Nanos, close: Nanos) -> Self {
        let idle = Deadline { at: NEVER, look: NEVER, wait: Wait::Connect };
        let looks = BinaryHeap::with_capacity(slots);
        Self { after: [connect, reply, close], deadlines: vec![idle; slots], looks }
    }

    /// Begins a wait of this kind now, in place of any other wait of the slot.
    pub(crate) fn set(&mut self, slot: usize, wait: Wait, now: Nanos) {
        let at = now.saturating_add(self.after[wait as usize]);
        let deadline = &mut self.deadlines[slot];
        deadline.at = at;
        deadline.wait = wait;
        if at < deadline.look {
            deadline.look = at;
            self.looks.push(Reverse((at, slot as u32)));
            self.sweep();
        }
    }

    /// Ends the slot's wait, if it has one.
    pub(crate) fn clear(&mut self, slot: usize) {
        self.deadlines[slot].at = NEVER;
    }

    /// Every wait may take this much longer.
    pub(crate) fn put_off(&mut self, by: Nanos) {
        // What is in the heap comes too early now, and goes back into it then.
        for deadline in &mut self.deadlines {
            deadline.at = deadline.at.saturating_add(by);
        }
    }

    /// When to look for waits that are over; no wait is over before.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.looks.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one slot whose wait is over: what it waited for, and since when the wait is over.
    pub(crate) fn expired(&mut self, now: Nanos) -> Option<(usize, Wait, Nanos)> {
        while let Some(&Reverse((look, slot))) = self.looks.peek() {
            if look > now {
                return None;
            }
            self.looks.pop();
            let deadline = &mut self.deadlines[slot as usize];
            if deadline.look != look {
                continue;
            }
            let over = deadline.at == look;
            if over {
                deadline.at = NEVER;
            }
            deadline.look = deadline.at;
            if deadline.look != NEVER {
                self.looks.push(Reverse((deadline.look, slot)));
            }
            if over {
                return Some((slot as usize, deadline.wait, look));
            }
        }
        None
    }

    /// Drops void entries before they pile up: where a short wait follows a long one again and again.
    fn sweep(&mut self) {
        if self.looks.len() > 2 * self.deadlines.len() + SPARE {
            let deadlines = &self.deadlines;
            self.looks.retain(|Reverse((look, slot))| deadlines[*slot as usize].look == *look);
        }
    }
}

/// Void entries that are no pile.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_expire_in_order_and_can_be_taken_back() {
        let mut timeouts = Timeouts::new(4, 10, 100, 1000);
        assert_eq!(timeouts.next(), None);
        timeouts.set(0, Wait::Reply, 0);
        timeouts.set(1, Wait::Reply, 1);
        timeouts.set(2, Wait::Reply, 2);
        timeouts.set(3, Wait::Connect, 5);
        assert_eq!(timeouts.next(), Some(15));
        timeouts.set(0, Wait::Reply, 3);
        timeouts.clear(2);
        timeouts.clear(2);
        assert_eq!(timeouts.expired(14), None);
        assert_eq!(timeouts.expired(15), Some((3, Wait::Connect, 15)));
        assert_eq!(timeouts.expired(100), None);
        assert_eq!(timeouts.expired(200), Some((1, Wait::Reply, 101)));
        assert_eq!(timeouts.expired(200), Some((0, Wait::Reply, 103)));
        assert_eq!(timeouts.expired(2000), None);
        timeouts.set(1, Wait::Close, 0);
        assert_eq!(timeouts.next(), Some(1000));
    }

    #[test]
    fn waits_that_are_put_off_end_later_and_others_do_not_begin() {
        let mut timeouts = Timeouts::new(3, 10, 100, 1000);
        timeouts.set(0, Wait::Connect, 0);
        timeouts.set(1, Wait::Reply, 0);
        timeouts.put_off(50);
        timeouts.set(2, Wait::Connect, 45);
        assert_eq!(timeouts.expired(54), None);
        assert_eq!(timeouts.expired(55), Some((2, Wait::Connect, 55)));
        assert_eq!(timeouts.expired(60), Some((0, Wait::Connect, 60)));
        assert_eq!(timeouts.expired(149), None);
        assert_eq!(timeouts.expired(1000), Some((1, Wait::Reply, 150)));
        assert_eq!((timeouts.expired(NEVER - 1), timeouts.next()), (None, None));
    }

    /// As a slow and certain way finds them: every wait that is not taken back expires at its deadline, once.
    #[test]
    fn no_wait_is_missed_and_entries_stay_few() {
        const SLOTS: usize = 5;
        let mut timeouts = Timeouts::new(SLOTS, 7, 50, 3);
        let mut waits: [Option<(Nanos, Wait)>; SLOTS] = [None; SLOTS];
        let mut random = super::super::random::Random::new(1, 2);
        let mut expired = 0;
        for now in 0..100_000 {
            let slot = (random.next() % SLOTS as u64) as usize;
            let (wait, after) =
                [(Wait::Connect, 7), (Wait::Reply, 50), (Wait::Close, 3)][(random.next() % 3) as usize];
            match random.next() % 4 {
                0 => {
                    timeouts.clear(slot);
                    waits[slot] = None;
                }
                1 | 2 => {
                    timeouts.set(slot, wait, now);
                    waits[slot] = Some((now + after, wait));
                }
                _ => {}
            }
            let first = waits.iter().flatten().map(|wait| wait.0).min();
            assert!(first.is_none_or(|first| timeouts.next().is_some_and(|look| look <= first)));
            while let Some((slot, wait, since)) = timeouts.expired(now) {
                assert_eq!(since, now);
                let (at, kind) = waits[slot].take().unwrap();
                assert!(at == now && kind == wait, "{slot}: {at} {kind:?} at {now}, {wait:?}");
                expired += 1;
            }
            assert!(waits.iter().flatten().all(|wait| wait.0 > now));
            assert!(timeouts.looks.len() <= 2 * SLOTS + SPARE);
        }
        assert!(expired > 1000, "{expired}");
    }
}
