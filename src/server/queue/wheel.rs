//! The timers of sessions that asked to be called later: a wheel of buckets, one for each millisecond.
//!
//! To set a timer, and to find one that is due, takes the same time however many there are. A timer that is further
//! away than one round of the wheel stays in its bucket, and the wheel passes it once a round. Each slot has at most
//! one timer, so the number of connections bounds the memory.

use super::state::{ConnectionId, Generation};
use crate::clock::Nanos;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The width of a bucket.
const TICK: Nanos = 1_000_000;
/// How many there are: a round is about four seconds.
const BUCKETS: usize = 4096;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Wheel {
    timers: Mutex<Timers>,
    /// No timer is due before this.
    earliest: AtomicU64,
}

#[derive(Debug)]
struct Timers {
    heads: Box<[u32]>,
    /// One for each slot that ever had one.
    nodes: Vec<TimerNode>,
    armed: usize,
    /// Buckets before this tick have been looked at.
    tick: u64,
}

#[derive(Clone, Copy, Debug)]
struct TimerNode {
    due: Nanos,
    generation: u32,
    bucket: u32,
    before: u32,
    after: u32,
}

const ABSENT: TimerNode = TimerNode { due: 0, generation: 0, bucket: NONE, before: NONE, after: NONE };

impl Wheel {
    /// The bytes of one slot's timer; the room for them grows by doubling.
    pub(crate) const BYTES: usize = 2 * size_of::<TimerNode>();

    pub(crate) fn new() -> Self {
        let timers = Timers { heads: Box::default(), nodes: Vec::new(), armed: 0, tick: 0 };
        Self { timers: Mutex::new(timers), earliest: AtomicU64::new(Nanos::MAX) }
    }

    /// Sets the timer of a connection, in place of one it has. True if it is due before all others: the thread that waits
    /// for them must look again.
    #[must_use]
    pub(crate) fn arm(&self, id: ConnectionId, due: Nanos) -> bool {
        let mut timers = self.timers();
        if timers.heads.is_empty() {
            timers.heads = vec![NONE; BUCKETS].into();
        }
        if timers.nodes.len() <= id.slot as usize {
            timers.nodes.resize(id.slot as usize + 1, ABSENT);
        }
        timers.unlink(id.slot);
        timers.link(id, due);
        let first = due < self.earliest.load(Relaxed);
        if first {
            self.earliest.store(due, SeqCst);
        }
        first
    }

    /// No timer is due before this; [`Nanos::MAX`] if there is none.
    pub(crate) fn earliest(&self) -> Nanos {
        self.earliest.load(SeqCst)
    }

    /// Calls `call` for each connection whose timer is due at `now`, without the lock, and forgets these timers.
    pub(crate) fn advance(&self, now: Nanos, mut call: impl FnMut(ConnectionId)) {
        if now < self.earliest() {
            return;
        }
        loop {
            let mut due = [ConnectionId { slot: 0, generation: Generation(0) }; 64];
            let mut found = 0;
            {
                let mut timers = self.timers();
                let done = timers.take_due(now, &mut due, &mut found);
                if done {
                    self.earliest.store(timers.next(now), SeqCst);
                }
            }
            due[..found].iter().for_each(|&id| call(id));
            if found < due.len() {
                return;
            }
        }
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timers {
    fn link(&mut self, id: ConnectionId, due: Nanos) {
        // One that is due in a bucket which was looked at already goes into the next that will be.
        let tick = (due / TICK).max(self.tick);
        let bucket = (tick % BUCKETS as u64) as usize;
        let after = std::mem::replace(&mut self.heads[bucket], id.slot);
        if after != NONE {
            self.nodes[after as usize].before = id.slot;
        }
        let (generation, bucket) = (id.generation.0, bucket as u32);
        self.nodes[id.slot as usize] = TimerNode { due, generation, bucket, before: NONE, after };
        self.armed += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let node = std::mem::replace(&mut self.nodes[slot as usize], ABSENT);
        if node.bucket == NONE {
            return;
        }
        self.armed -= 1;
        match node.before {
            NONE => self.heads[node.bucket as usize] = node.after,
            before => self.nodes[before as usize].after = node.after,
        }
        if node.after != NONE {
            self.nodes[node.after as usize].before = node.before;
        }
    }

    /// Takes timers that are due out, as many as there is room for; whether these were all.
    fn take_due(&mut self, now: Nanos, out: &mut [ConnectionId], found: &mut usize) -> bool {
        if self.heads.is_empty() {
            return true;
        }
        // A round at most: after that every bucket was looked at.
        let last = now / TICK;
        let first = self.tick.max(last.saturating_sub(BUCKETS as u64 - 1));
        for tick in first..=last {
            // The present tick's bucket is looked at again: it is not over.
            self.tick = tick;
            let mut at = self.heads[(tick % BUCKETS as u64) as usize];
            while at != NONE {
                let TimerNode { due, generation, after, .. } = self.nodes[at as usize];
                if due <= now {
                    if *found == out.len() {
                        return false;
                    }
                    out[*found] = ConnectionId { slot: at, generation: Generation(generation) };
                    *found += 1;
                    self.unlink(at);
                }
                at = after;
            }
        }
        *found < out.len()
    }

    /// A time before which none is due: the first timer of the next buckets, or a look at all of them in a round.
    fn next(&self, now: Nanos) -> Nanos {
        if self.armed == 0 {
            return Nanos::MAX;
        }
        for tick in self.tick..self.tick + BUCKETS as u64 {
            let mut at = self.heads[(tick % BUCKETS as u64) as usize];
            let mut first = Nanos::MAX;
            while at != NONE {
                let node = &self.nodes[at as usize];
                if node.due / TICK <= tick {
                    first = first.min(node.due);
                }
                at = node.after;
            }
            if first < Nanos::MAX {
                return first;
            }
        }
        now.saturating_add(BUCKETS as u64 * TICK / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MS: Nanos = 1_000_000;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: Generation(slot * 7) }
    }

    fn due(wheel: &Wheel, now: Nanos) -> Vec<u32> {
        let mut all = Vec::new();
        wheel.advance(now, |found| {
            assert_eq!(found.generation, Generation(found.slot * 7));
            all.push(found.slot);
        });
        all.sort_unstable();
        all
    }

    #[test]
    fn a_timer_is_due_once_and_not_before_its_time() {
        let wheel = Wheel::new();
        assert_eq!((wheel.earliest(), due(&wheel, 5 * MS)), (Nanos::MAX, vec![]));
        assert!(wheel.arm(id(3), 20 * MS));
        assert!(!wheel.arm(id(4), 30 * MS));
        assert!(wheel.arm(id(5), 20 * MS - 1));
        assert!(!wheel.arm(id(6), 20 * MS - 1), "the thread that waits looks then anyway");
        assert!(due(&wheel, 19 * MS).is_empty());
        assert_eq!(due(&wheel, 20 * MS - 1), [5, 6]);
        assert_eq!((wheel.earliest(), due(&wheel, 20 * MS)), (20 * MS, vec![3]));
        assert_eq!((wheel.earliest(), due(&wheel, 3_600_000 * MS)), (30 * MS, vec![4]));
        assert_eq!((wheel.earliest(), due(&wheel, 3_600_001 * MS)), (Nanos::MAX, vec![]));
    }

    #[test]
    fn in_the_first_tick_the_next_timer_is_known_too() {
        let wheel = Wheel::new();
        assert!(wheel.arm(id(1), 0) && !wheel.arm(id(2), 2 * TICK));
        assert_eq!((due(&wheel, TICK - 1), wheel.earliest()), (vec![1], 2 * TICK));
    }

    #[test]
    fn a_timer_that_is_set_again_replaces_itself() {
        let wheel = Wheel::new();
        assert!(wheel.arm(id(1), 50 * MS));
        assert!(wheel.arm(id(1), 10 * MS));
        assert_eq!((due(&wheel, 10 * MS), due(&wheel, 60 * MS)), (vec![1], vec![]));
    }

    #[test]
    fn a_timer_beyond_a_round_is_looked_for_again_in_half_a_round() {
        let (wheel, round) = (Wheel::new(), BUCKETS as u64 * TICK);
        assert!(wheel.arm(id(1), 10 * round) && wheel.arm(id(2), 2 * TICK));
        assert_eq!(due(&wheel, 3 * TICK), [2]);
        assert_eq!(wheel.earliest(), 3 * TICK + round / 2);
    }

    #[test]
    fn the_timers_take_no_more_than_is_said_of_them() {
        let wheel = Wheel::new();
        for slot in 0..1_000 {
            _ = wheel.arm(id(slot), MS);
            let bytes = wheel.timers().nodes.capacity() * size_of::<TimerNode>();
            // A list begins with four.
            assert!(bytes <= Wheel::BYTES * (slot as usize + 1).max(4), "{bytes} bytes for {}", slot + 1);
        }
    }

    #[test]
    fn more_than_are_taken_at_once_are_all_due() {
        let wheel = Wheel::new();
        for slot in 0..1_000 {
            _ = wheel.arm(id(slot), (5 + u64::from(slot % 3)) * MS);
        }
        assert_eq!(due(&wheel, 7 * MS).len(), 1_000);
    }

    proptest! {
        #[test]
        fn it_tells_the_same_as_a_sorted_list(
            steps in proptest::collection::vec((0u32..40, 0u64..20_000, 0u64..3_000), 1..200)
        ) {
            let (wheel, mut list, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            for (slot, after, pass) in steps {
                let at = now + after * MS / 3;
                _ = wheel.arm(id(slot), at);
                list.insert(slot, at);
                let first = list.values().min().copied().unwrap_or(Nanos::MAX);
                prop_assert!(wheel.earliest() <= first);
                now += pass * MS / 7;
                let expected: Vec<u32> = list.iter().filter(|&(_, &at)| at <= now).map(|(&slot, _)| slot).collect();
                list.retain(|_, at| *at > now);
                prop_assert_eq!(due(&wheel, now), expected);
            }
        }
    }
}
