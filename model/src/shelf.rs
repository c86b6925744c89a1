//! The shelf against everything that takes an entry off it: a worker, the expiry, a hang-up, a close and a drain; and a
//! worker that is about to sleep while another moves entries from the channel to the shelf. The state word, the order of turns,
//! the shelf behind its lock and the crew are the server's. The channel is a copy: a queue behind a lock.

use crate::Beds;
use crate::admit::turns::accounts::{Class, SourceId};
use crate::admit::turns::shelf::ShelfLimits;
use crate::server::poll::crew::Crew;
use crate::server::queue::order::{About, Arrivals, Offer, Order};
use crate::server::queue::state::{Generation, Marks, Ready, State};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::collections::VecDeque;

const MS: u64 = 1_000_000;

/// When all happens; what came at the beginning has waited long enough to prove that the queue stands.
const NOW: u64 = 10_000 * MS;

/// Two connections that wait.
const SLOTS: usize = 2;

/// A slot and the generation of its connection.
type Entry = (u32, u32);

/// Connections that are queued, and what became of each.
struct Waiting {
    states: [State; SLOTS],
    channel: Mutex<VecDeque<Entry>>,
    order: Order<Entry>,
    served: [AtomicUsize; SLOTS],
    ended: [AtomicUsize; SLOTS],
}

impl Arrivals<Entry> for Waiting {
    fn pop(&self) -> Option<Entry> {
        self.channel.lock().unwrap().pop_front()
    }

    fn since(_: &Entry) -> u64 {
        1
    }

    fn about(&self, &(slot, generation): &Entry) -> Option<About> {
        let source = SourceId(u128::from(slot));
        Some(About { slot, generation, since: 1, class: Class::Established, source, hung_up: false })
    }
}

impl Waiting {
    fn new(doubtful_max: usize) -> Arc<Self> {
        let limits =
            ShelfLimits { connections: SLOTS, datagrams: 0, doubtful_max, fresh: true, knows_refused: false };
        let waiting = Self {
            states: std::array::from_fn(|_| State::new()),
            channel: Mutex::new(VecDeque::new()),
            order: Order::new(limits, 20 * MS),
            served: std::array::from_fn(|_| AtomicUsize::new(0)),
            ended: std::array::from_fn(|_| AtomicUsize::new(0)),
        };
        for slot in 0..SLOTS {
            let generation = waiting.states[slot].open();
            waiting.states[slot].requeue();
            waiting.channel.lock().unwrap().push_back((slot as u32, generation.0));
        }
        Arc::new(waiting)
    }

    /// A worker's turn, or that it ends a connection whose client has probably left; whether there was one.
    fn work(&self) -> bool {
        match self.order.take(NOW, self) {
            Some(Offer::Turn(entry)) => self.own(entry, &self.served),
            Some(Offer::GiveUp(entry)) => self.own(entry, &self.ended),
            None => return false,
        }
        true
    }

    fn has_work(&self) -> bool {
        self.order.len() > 0 || !self.channel.lock().unwrap().is_empty()
    }

    /// The timekeeper: gives up what has waited too long.
    fn expire(&self) {
        let late = self.order.expire_late(NOW, MS, |_, _| true);
        late.into_iter().for_each(|entry| self.end(Some(entry)));
    }

    /// Ends a connection that was taken off the shelf.
    fn end(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.own(entry, &self.ended);
        }
    }

    /// The thread that got an entry owns its connection.
    fn own(&self, (slot, generation): Entry, counts: &[AtomicUsize; SLOTS]) {
        let state = &self.states[slot as usize];
        assert!(state.take(Generation(generation)).is_some(), "an entry that was handed out is queued");
        counts[slot as usize].fetch_add(1, Ordering::SeqCst);
        state.release();
    }

    /// Serves what is left, and counts that everyone was served or ended, and once.
    fn check(&self) {
        while self.has_work() {
            self.work();
        }
        for slot in 0..SLOTS {
            let count = |counts: &[AtomicUsize; SLOTS]| counts[slot].load(Ordering::SeqCst);
            assert_eq!(count(&self.served) + count(&self.ended), 1, "slot {slot} is lost, or had twice");
            assert!(!self.states[slot].is_queued());
        }
    }
}

/// A worker beside one other thread.
fn beside_a_worker(doubtful_max: usize, other: fn(&Waiting)) {
    loom::model(move || {
        let waiting = Waiting::new(doubtful_max);
        let (worker, beside) = (waiting.clone(), waiting.clone());
        let worker = thread::spawn(move || _ = worker.work());
        let beside = thread::spawn(move || other(&beside));
        worker.join().unwrap();
        beside.join().unwrap();
        waiting.check();
    });
}

#[test]
fn what_expires_is_not_served() {
    beside_a_worker(2, |waiting| {
        for _ in 0..SLOTS {
            waiting.expire();
        }
    });
}

#[test]
fn two_workers_serve_each_once() {
    beside_a_worker(2, |waiting| _ = waiting.work());
}

#[test]
fn a_client_that_hangs_up_is_served_or_ended_once() {
    // There is no room for the doubtful, so the one that hangs up is given up at once if it is on the shelf.
    beside_a_worker(0, |waiting| {
        // The leader: the state word first, then the shelf.
        assert_eq!(waiting.states[0].ready(Generation(0), Marks::of_client(true)), Ready::Known);
        waiting.end(waiting.order.hung_up(Class::Established, 0, 0, NOW));
    });
}

#[test]
fn a_client_that_hangs_up_and_is_kept_is_served_once() {
    beside_a_worker(1, |waiting| {
        waiting.end(waiting.order.hung_up(Class::Established, 0, 0, NOW));
        waiting.end(waiting.order.hung_up(Class::Established, 1, 0, NOW));
    });
}

#[test]
fn a_close_and_an_expiry_of_the_same_entry_end_it_once() {
    beside_a_worker(2, |waiting| {
        waiting.end(waiting.order.gone(Class::Established, 0, 0, NOW));
        waiting.expire();
    });
}

#[test]
fn what_is_drained_is_not_served() {
    beside_a_worker(2, |waiting| {
        while waiting.order.len() > 0 {
            let Some(entry) = waiting.order.drain_one() else { break };
            waiting.end(Some(entry));
        }
    });
}

#[test]
fn another_life_of_a_slot_is_not_ended_for_an_old_hang_up() {
    loom::model(|| {
        let waiting = Waiting::new(0);
        let (worker, leader) = (waiting.clone(), waiting.clone());
        let worker = thread::spawn(move || {
            // A turn ends one connection, and another is queued in its slot.
            let Some(Offer::Turn((slot, generation))) = worker.order.take(NOW, &*worker) else { return };
            worker.own((slot, generation), &worker.served);
            let generation = worker.states[slot as usize].open();
            worker.states[slot as usize].requeue();
            worker.channel.lock().unwrap().push_back((slot, generation.0));
            worker.served[slot as usize].fetch_sub(1, Ordering::SeqCst);
            worker.work();
        });
        let leader = thread::spawn(move || {
            for slot in 0..SLOTS as u32 {
                let given_up = leader.order.hung_up(Class::Established, slot, 0, NOW);
                assert!(given_up.is_none_or(|(_, generation)| generation == 0), "it is of another life");
                leader.end(given_up);
            }
        });
        worker.join().unwrap();
        leader.join().unwrap();
        waiting.check();
    });
}

#[test]
fn a_worker_does_not_sleep_while_another_moves_an_entry_that_is_for_it() {
    let mut model = loom::model::Builder::new();
    // Without a bound it takes minutes.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (waiting, crew) = (Waiting::new(2), Arc::new(Crew::new(3, Beds::new(3))));
        // Worker 2 leads, so that others sleep.
        let lead = crew.lead();
        assert!(lead.is_some());
        let workers = [0, 1].map(|me| {
            let (waiting, crew) = (waiting.clone(), crew.clone());
            thread::spawn(move || {
                // Each has one turn and is in it for ever, so nobody wakes the other: it must see the second entry in the channel, on the
                // shelf, or on its way.
                while !waiting.work() {
                    crew.sleep(me, || waiting.has_work());
                }
            })
        });
        // Where one sleeps, this is a deadlock.
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((waiting.has_work(), crew.awake()), (false, 3));
        waiting.check();
    });
}
