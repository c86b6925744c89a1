//! The places of connections and of newcomers in the queue against the acceptor that waits for one: nobody sleeps while there
//! is a place, and there is never one more taken than there are. The places, the room and the bell are the server's; the
//! acceptor's steps are those of its `step`, `hold` and `run`.

use crate::admit::bell::{Awaited, Bell, Scope};
use crate::admit::open_places::OpenPlaces;
use crate::bed::Bed;
use crate::server::queue::room::NewcomerRoom;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// A server's door.
struct Door {
    places: OpenPlaces,
    queue: NewcomerRoom,
    bell: Arc<Bell>,
    /// The acceptor's poll.
    bed: Arc<Bed>,
    /// How many have a place, and the most that ever had one at once, as the models see it and not the server.
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Door {
    fn new(all: usize, own: &[usize], queue: usize) -> Arc<Self> {
        let bed = Arc::new(Bed::default());
        let wake = bed.clone();
        let bell = Arc::new(Bell::new(own.len(), move || wake.wake()));
        let ring = bell.clone();
        let places =
            OpenPlaces::new(all, own.iter().copied(), move |listener, _| ring.connection_ended(listener));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { places, queue: NewcomerRoom::new(queue), bell, bed, inside, most })
    }

    fn take(&self, listener: usize) -> bool {
        let taken = self.places.take(listener);
        if taken {
            let inside = self.inside.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(inside, SeqCst);
        }
        taken
    }

    fn leave(&self, listener: usize) {
        self.inside.fetch_sub(1, SeqCst);
        self.places.give_back(listener);
    }

    /// The acceptor's rounds, until it has admitted one at each of these listeners.
    fn accept(&self, listeners: &[usize]) {
        let mut left = listeners.to_vec();
        loop {
            self.bell.wait_for_nothing();
            left.retain(|&listener| !self.admits(listener));
            if left.is_empty() {
                return;
            }
            self.bed.sleep();
        }
    }

    /// Steps at a listener until one is admitted, or until newcomers are held back.
    fn admits(&self, listener: usize) -> bool {
        loop {
            if let Some(scope) = self.places.full(listener) {
                self.bell.wait_for(Awaited::ConnectionPlace, scope);
                if self.places.full(listener).is_some() {
                    return false;
                }
            } else if self.take(listener) {
                return true;
            }
        }
    }

    /// A worker has taken a newcomer out of the queue: the server's `ring_for_queue_places`.
    fn newcomer_left(&self) {
        self.queue.left();
        if self.bell.awaits(Awaited::QueuePlace, Scope::All) && self.queue.has_an_eighth_free() {
            self.bell.ring(Awaited::QueuePlace, Scope::All);
        }
    }

    /// The acceptor's rounds, until there is a place in the queue or a worker that is about to take it.
    fn queue_one(&self, free_workers: impl Fn() -> usize) {
        loop {
            self.bell.wait_for_nothing();
            let has_place = || self.queue.has_place(&free_workers);
            if !has_place() {
                self.bell.wait_for(Awaited::QueuePlace, Scope::All);
            }
            if has_place() {
                return self.queue.came();
            }
            self.bed.sleep();
        }
    }
}

/// Runs a thread of a model.
fn go(door: &Arc<Door>, run: impl FnOnce(&Door) + 'static) -> thread::JoinHandle<()> {
    let door = door.clone();
    thread::spawn(move || run(&door))
}

/// Every interleaving with at most this number of switches of threads that nothing forces.
fn with_switches(most: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(most);
    builder.check(model);
}

#[test]
fn the_acceptor_learns_of_the_place_that_a_connection_gives_back() {
    for (all, own) in [(1, 9), (9, 1), (1, 1)] {
        loom::model(move || {
            let door = Door::new(all, &[own], 0);
            assert!(door.take(0));
            let leaver = go(&door, |door| door.leave(0));
            door.accept(&[0]);
            leaver.join().unwrap();
            assert_eq!((door.places.taken(), door.places.taken_at(0), door.most.load(SeqCst)), (1, 1, 1));
        });
    }
}

#[test]
fn places_of_two_listeners_are_awaited_at_once() {
    with_switches(3, || {
        let door = Door::new(9, &[1, 1], 0);
        assert!(door.take(0) && door.take(1));
        let leavers = [go(&door, |door| door.leave(0)), go(&door, |door| door.leave(1))];
        door.accept(&[0, 1]);
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
        assert_eq!((door.places.taken(), door.most.load(SeqCst)), (2, 2));
    });
}

#[test]
fn a_place_that_was_taken_in_vain_is_rung_for() {
    // The leader takes one of all for a listener that has none left, and gives it back, while the acceptor finds all taken for
    // another listener.
    loom::model(|| {
        let door = Door::new(2, &[1, 9], 0);
        assert!(door.take(0));
        let leader = go(&door, |door| assert!(!door.take(0)));
        door.accept(&[1]);
        leader.join().unwrap();
        assert_eq!((door.places.taken(), door.most.load(SeqCst)), (2, 2));
    });
}

#[test]
fn no_place_is_taken_twice_by_leader_and_acceptor() {
    with_switches(3, || {
        let door = Door::new(1, &[1], 0);
        assert!(door.take(0));
        let leaver = go(&door, |door| door.leave(0));
        let leader = go(&door, |door| {
            if door.take(0) {
                door.leave(0);
            }
        });
        door.accept(&[0]);
        leaver.join().unwrap();
        leader.join().unwrap();
        assert_eq!((door.places.taken(), door.places.taken_at(0), door.most.load(SeqCst)), (1, 1, 1));
        door.leave(0);
        assert_eq!((door.places.taken(), door.places.full(0)), (0, None));
    });
}

#[test]
fn the_acceptor_learns_of_a_limit_that_is_raised() {
    loom::model(|| {
        let door = Door::new(1, &[9], 0);
        assert!(door.take(0));
        let order = go(&door, |door| {
            door.places.set_limits(2, [9].into_iter());
            door.bell.call();
        });
        door.accept(&[0]);
        order.join().unwrap();
        assert_eq!((door.places.taken(), door.most.load(SeqCst)), (2, 2));
    });
}

#[test]
fn a_limit_that_is_lowered_lets_nobody_in_beside_those_that_are_there() {
    loom::model(|| {
        let door = Door::new(2, &[9], 0);
        assert!(door.take(0));
        let order = go(&door, |door| {
            door.places.set_limits(1, [9].into_iter());
            door.bell.call();
        });
        let entered = door.take(0);
        order.join().unwrap();
        assert_eq!(door.places.taken(), 1 + usize::from(entered));
        assert!(!door.take(0), "both limits are full now");
        door.leave(0);
        assert_eq!(door.take(0), !entered, "one fewer than may be, or as many");
    });
}

#[test]
fn the_acceptor_learns_of_a_place_in_the_queue() {
    loom::model(|| {
        let door = Door::new(9, &[9], 1);
        door.queue.came();
        let worker = go(&door, Door::newcomer_left);
        door.queue_one(|| 0);
        worker.join().unwrap();
        assert_eq!(door.queue.waiting(), 1);
    });
}

#[test]
fn with_no_queue_the_acceptor_learns_of_a_worker_that_is_free() {
    loom::model(|| {
        let door = Door::new(9, &[9], 0);
        // A worker's own note of when its turn began.
        let busy_since = Arc::new(loom::sync::atomic::AtomicUsize::new(1));
        let note = busy_since.clone();
        let worker = go(&door, move |door| {
            note.store(0, Relaxed);
            door.bell.ring_for_all(Awaited::QueuePlace);
        });
        door.queue_one(|| usize::from(busy_since.load(Relaxed) == 0));
        worker.join().unwrap();
        assert_eq!(door.queue.waiting(), 1);
    });
}
