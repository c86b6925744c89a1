//! Model checks of the state machines that tidegate's threads share: the very files of the server,
//! with loom's atomics under them, so that every interleaving is tried.
//!
//! Run with `cargo test -p tidegate-model --release`.

#![cfg(test)]
// The server uses more of these files than the models do.
#![allow(dead_code)]

mod server;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use server::poll::awake::Awake;
use server::poll::leadership::Leadership;
use server::queue::state::{self, Parked, Ready, State};

/// A connection with its kernel's side: bytes that have come, and bytes that were read.
struct World {
    state: State,
    arrived: AtomicUsize,
    read: AtomicUsize,
    queue: Mutex<usize>,
    owners: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let world = Self {
            state: State::new(),
            arrived: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            queue: Mutex::new(0),
            owners: AtomicUsize::new(0),
        };
        world.state.open();
        world.state.requeue();
        *world.queue.lock().unwrap() = 1;
        world
    }

    fn push(&self) {
        let mut queue = self.queue.lock().unwrap();
        *queue += 1;
        assert_eq!(*queue, 1, "a connection is in the queue at most once");
    }

    fn pop(&self) -> bool {
        std::mem::take(&mut *self.queue.lock().unwrap()) == 1
    }

    /// The kernel has data, and an edge tells the poller's leader.
    fn arrive(&self, hangup: bool) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        if self.state.ready(state::Generation(0), hangup) == Ready::Enqueue {
            self.push();
        }
    }

    /// A worker's turn: read all there is, then park, or go round again.
    fn turn(&self) {
        if !self.pop() || self.state.take(state::Generation(0)).is_none() {
            return;
        }
        loop {
            assert_eq!(self.owners.fetch_add(1, Ordering::SeqCst), 0, "one owner at a time");
            self.read.store(self.arrived.load(Ordering::SeqCst), Ordering::SeqCst);
            self.owners.fetch_sub(1, Ordering::SeqCst);
            match self.state.park() {
                Parked::Idle => return,
                Parked::Again => {
                    self.state.requeue();
                    self.push();
                    if !self.pop() || self.state.take(state::Generation(0)).is_none() {
                        return;
                    }
                }
            }
        }
    }
}

#[test]
fn no_edge_is_lost_between_reading_and_parking() {
    loom::model(|| {
        let world = Arc::new(World::new());
        let (worker, kernel) = (world.clone(), world.clone());
        let worker = thread::spawn(move || worker.turn());
        let kernel = thread::spawn(move || {
            kernel.arrive(false);
            kernel.arrive(true);
        });
        worker.join().unwrap();
        kernel.join().unwrap();
        // Whatever is unread has an entry in the queue: one more turn reads it.
        if world.read.load(Ordering::SeqCst) < 2 {
            assert_eq!(*world.queue.lock().unwrap(), 1, "unread input, and nobody will look");
            world.turn();
        }
        assert_eq!(world.read.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn an_expiring_connection_is_ended_by_one_thread_or_served() {
    loom::model(|| {
        let world = Arc::new(World::new());
        world.turn();
        let (parker, leader) = (world.clone(), world.clone());
        let parker = thread::spawn(move || {
            let claimed = parker.state.claim(state::Generation(0));
            if claimed {
                assert_eq!(parker.owners.fetch_add(1, Ordering::SeqCst), 0);
                parker.state.release();
                parker.owners.fetch_sub(1, Ordering::SeqCst);
            }
            claimed
        });
        let leader = thread::spawn(move || {
            leader.arrive(false);
            leader.turn();
        });
        let ended = parker.join().unwrap();
        leader.join().unwrap();
        assert!(ended || world.read.load(Ordering::SeqCst) == 1, "neither ended nor served");
        assert!(!world.state.claim(state::Generation(0)) || !ended, "a stale name claims nothing");
    });
}

/// Workers, the one poller and the queue: who makes work finds somebody to do it.
struct Hall {
    leadership: Leadership,
    awake: Awake,
    queue: AtomicUsize,
    asleep: Mutex<usize>,
    woken: AtomicUsize,
}

impl Hall {
    fn new(awake: usize) -> Self {
        Self {
            leadership: Leadership::new(),
            awake: Awake::new(awake),
            queue: AtomicUsize::new(0),
            asleep: Mutex::new(0),
            woken: AtomicUsize::new(0),
        }
    }

    fn publish(&self) {
        self.queue.fetch_add(1, Ordering::SeqCst);
        if self.awake.count_after_publishing() == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.leadership.unblock() {
            self.awake.rise();
            self.woken.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let mut asleep = self.asleep.lock().unwrap();
        if *asleep > 0 {
            *asleep -= 1;
            drop(asleep);
            self.awake.rise();
            self.woken.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A worker that found nothing: true if it rests now and only a wake can bring it back.
    fn rest(&self) -> bool {
        if self.leadership.take() {
            self.leadership.block();
            self.awake.rest();
            if self.queue.load(Ordering::SeqCst) == 0 {
                return true;
            }
            if self.leadership.unblock() {
                self.awake.rise();
            }
            self.leadership.release();
            return false;
        }
        *self.asleep.lock().unwrap() += 1;
        self.awake.rest();
        if self.queue.load(Ordering::SeqCst) == 0 && self.leadership.is_led_after_publishing() {
            return true;
        }
        let mut asleep = self.asleep.lock().unwrap();
        if *asleep > 0 {
            *asleep -= 1;
            drop(asleep);
            self.awake.rise();
        }
        false
    }
}

#[test]
fn work_finds_a_worker_that_is_going_to_rest() {
    loom::model(|| {
        let hall = Arc::new(Hall::new(1));
        let (worker, acceptor) = (hall.clone(), hall.clone());
        let worker = thread::spawn(move || worker.rest());
        let acceptor = thread::spawn(move || acceptor.publish());
        let rests = worker.join().unwrap();
        acceptor.join().unwrap();
        let woken = hall.woken.load(Ordering::SeqCst);
        assert!(!rests || woken == 1, "work is queued, the worker rests, and nobody wakes it");
        assert_eq!(hall.awake.count_after_publishing(), 1, "the count of the wakeful is right");
    });
}

#[test]
fn a_passing_leader_leaves_somebody_to_poll() {
    loom::model(|| {
        let hall = Arc::new(Hall::new(1));
        let (worker, parker) = (hall.clone(), hall.clone());
        let worker = thread::spawn(move || worker.rest());
        let parker = thread::spawn(move || {
            if parker.leadership.take() {
                parker.leadership.release();
            }
            if parker.awake.count_after_publishing() == 0 {
                parker.wake();
            }
        });
        let rests = worker.join().unwrap();
        parker.join().unwrap();
        let led = hall.leadership.is_led_after_publishing();
        let woken = hall.woken.load(Ordering::SeqCst);
        assert!(!rests || led || woken == 1, "the worker sleeps as a follower of nobody");
    });
}

#[test]
fn a_claim_that_is_put_back_loses_no_edge() {
    // The parker claims a connection, finds that its deadline has moved, and puts it back, while an
    // event arrives for it.
    loom::model(|| {
        let world = Arc::new(World::new());
        world.turn();
        let (parker, leader) = (world.clone(), world.clone());
        let parker = thread::spawn(move || {
            if parker.state.claim(state::Generation(0)) {
                assert_eq!(parker.owners.fetch_add(1, Ordering::SeqCst), 0, "one owner at a time");
                parker.owners.fetch_sub(1, Ordering::SeqCst);
                if parker.state.park() == Parked::Again {
                    parker.state.requeue();
                    parker.push();
                }
            }
        });
        let leader = thread::spawn(move || {
            leader.arrive(false);
            leader.turn();
        });
        parker.join().unwrap();
        leader.join().unwrap();
        world.turn();
        assert_eq!(world.read.load(Ordering::SeqCst), 1, "it was put back, and nobody will look");
        assert_eq!(*world.queue.lock().unwrap(), 0);
    });
}

#[test]
fn an_event_of_an_earlier_life_does_nothing_to_the_next() {
    loom::model(|| {
        let world = Arc::new(World::new());
        world.turn();
        let (parker, leader) = (world.clone(), world.clone());
        // The connection ends and its slot is given to another, which is queued as a newcomer.
        let parker = thread::spawn(move || {
            if parker.state.claim(state::Generation(0)) {
                parker.state.release();
                assert_eq!(parker.state.open(), state::Generation(1));
                parker.state.requeue();
                return true;
            }
            false
        });
        let leader = thread::spawn(move || leader.state.ready(state::Generation(0), true));
        let reborn = parker.join().unwrap();
        let said = leader.join().unwrap();
        if reborn {
            assert_eq!(said, Ready::Known, "an old event queued the new connection once more");
            assert_eq!(world.state.take(state::Generation(0)), None, "an old entry takes it");
            assert_eq!(world.state.take(state::Generation(1)), Some(false), "an old hangup is its own");
        } else {
            assert_eq!(said, Ready::Enqueue);
        }
    });
}

#[test]
fn work_wakes_one_of_two_that_are_going_to_rest() {
    let mut model = loom::model::Builder::new();
    // Without a bound three threads take minutes.
    model.preemption_bound = Some(2);
    model.check(|| {
        let hall = Arc::new(Hall::new(2));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let worker = hall.clone();
                thread::spawn(move || worker.rest())
            })
            .collect();
        hall.publish();
        let resting = workers.into_iter().map(|worker| worker.join().unwrap());
        let resting = resting.filter(|&rests| rests).count();
        let woken = hall.woken.load(Ordering::SeqCst);
        let awake = hall.awake.count_after_publishing();
        assert!(resting < 2 || woken == 1, "work is queued, both rest, and nobody wakes one");
        assert!(woken <= 1, "one entry wakes one worker");
        // Who was woken may have been about to get up by itself.
        assert!((2 - resting..=2 - resting + woken).contains(&awake), "{awake} awake, {resting} rest");
        assert!(awake >= 1, "work is queued and nobody is awake");
    });
}
