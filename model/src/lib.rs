//! Model checks of the state machines that tidegate's threads share: the very files of the server,
//! with loom's atomics under them, so that every interleaving is tried.
//!
//! Run with `cargo test -p tidegate-model --release`.

#![cfg(test)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the server uses more of these files than the models do, and some are part of its library"
)]

mod admit;
mod bed;
#[path = "../../src/clock.rs"]
mod clock;
mod gate;
mod metrics;
mod permits;
#[path = "../../src/reason.rs"]
mod reason;
mod server;
mod service;
mod shelf;
mod sys;

use bed::Bed;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use server::poll::crew::{Crew, Rouse};
use server::poll::efforts::{Effort, Efforts};
use server::queue::state::{self, Marks, Parked, Ready, State};

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
        if self.state.ready(state::Generation(0), Marks::of_client(hangup)) == Ready::Enqueue {
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
        let (keeper, leader) = (world.clone(), world.clone());
        let keeper = thread::spawn(move || {
            let claimed = keeper.state.claim(state::Generation(0));
            if claimed {
                assert_eq!(keeper.owners.fetch_add(1, Ordering::SeqCst), 0);
                keeper.state.release();
                keeper.owners.fetch_sub(1, Ordering::SeqCst);
            }
            claimed
        });
        let leader = thread::spawn(move || {
            leader.arrive(false);
            leader.turn();
        });
        let ended = keeper.join().unwrap();
        leader.join().unwrap();
        assert!(ended || world.read.load(Ordering::SeqCst) == 1, "neither ended nor served");
        assert!(!world.state.claim(state::Generation(0)) || !ended, "a stale name claims nothing");
    });
}

/// How the threads of a model sleep: in loom's own waits, so that a sleeper nobody wakes is a deadlock that it reports.
struct Beds {
    /// The leader's poll: how often it was told to return.
    poll: Mutex<usize>,
    returned: Condvar,
    /// For each worker, whether it was told to wake; as `unpark`, that holds for the next nap too.
    told: Vec<Bed>,
    workers_told: AtomicUsize,
    leader_told: AtomicUsize,
    keeper_told: AtomicUsize,
}

impl Beds {
    fn new(workers: usize) -> Self {
        Self {
            poll: Mutex::new(0),
            returned: Condvar::new(),
            told: (0..workers).map(|_| Bed::default()).collect(),
            workers_told: AtomicUsize::new(0),
            leader_told: AtomicUsize::new(0),
            keeper_told: AtomicUsize::new(0),
        }
    }

    /// The leader sleeps in the poll.
    fn poll(&self) {
        let mut told = self.poll.lock().unwrap();
        while *told == 0 {
            told = self.returned.wait(told).unwrap();
        }
        *told -= 1;
    }
}

impl Rouse for Beds {
    fn leader(&self) {
        self.leader_told.fetch_add(1, Ordering::SeqCst);
        *self.poll.lock().unwrap() += 1;
        self.returned.notify_one();
    }

    fn worker(&self, worker: usize) {
        self.workers_told.fetch_add(1, Ordering::SeqCst);
        self.told[worker].wake();
    }

    fn keeper(&self) {
        self.keeper_told.fetch_add(1, Ordering::SeqCst);
    }

    fn nap(&self, me: usize) {
        self.told[me].sleep();
    }
}

/// The real crew, and a line of which only the length counts.
struct Hall {
    crew: Crew<Beds>,
    line: AtomicUsize,
    done: AtomicUsize,
}

impl Hall {
    fn new(workers: usize) -> Arc<Self> {
        let crew = Crew::new(workers, Beds::new(workers));
        Arc::new(Self { crew, line: AtomicUsize::new(0), done: AtomicUsize::new(0) })
    }

    fn publish(&self) {
        self.line.fetch_add(1, Ordering::SeqCst);
        self.crew.work_queued();
    }

    fn has_work(&self) -> bool {
        self.line.load(Ordering::SeqCst) > 0
    }

    /// Takes an entry, if there is one.
    fn take(&self) -> bool {
        let taken = self.line.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        self.done.fetch_add(usize::from(taken), Ordering::SeqCst);
        taken
    }

    /// A worker's round, as in the server, until it has taken an entry or `enough` says that it may go.
    fn work(&self, me: usize, enough: impl Fn() -> bool) {
        while !self.take() && !enough() {
            match self.crew.lead() {
                Some(lead) => lead.rest(|| self.has_work() || enough(), || self.crew.rouse().poll()),
                None => self.crew.sleep(me, || self.has_work() || enough()),
            }
        }
    }
}

impl Hall {
    /// A worker's rounds while the limit of workers changes, until one entry has been taken by anybody.
    fn work_within(&self, me: usize, limit: &AtomicUsize) {
        let over = || self.done.load(Ordering::SeqCst) == 1;
        while !over() {
            if me >= limit.load(Ordering::SeqCst) {
                let wanted = || me < limit.load(Ordering::SeqCst) || over();
                self.crew.stay_out(me, wanted, || self.has_work());
            } else if !self.take() {
                match self.crew.lead() {
                    Some(lead) => lead.rest(|| self.has_work() || over(), || self.crew.rouse().poll()),
                    None => self.crew.sleep(me, || self.has_work() || over()),
                }
            }
        }
        // The one that has done the work lets the others go.
        self.crew.wake_all();
    }
}

impl Hall {
    /// A worker's rounds until nothing is left in the line, on one processor: after a turn that took this `effort` it stands back
    /// if enough others are at it, unless it is missed.
    fn work_or_stand_back(&self, me: usize, efforts: &Efforts, effort: Effort) {
        let all = || self.done.load(Ordering::SeqCst) == 3;
        while self.take() {
            efforts.begin(effort);
            if effort == Effort::MayWait && self.crew.sleeping() > 0 {
                // Others take what else there is.
                self.crew.wake_sleeper();
            }
            let surplus = efforts.end(effort, || self.crew.awake());
            if surplus && self.has_work() {
                self.crew.stand_back(me, || efforts.has_room(self.crew.awake(), 0) || all());
            }
        }
        if all() {
            // The one that has done the last lets the others go.
            self.crew.wake_all();
        }
    }
}

/// Two workers with these turns, on one processor, and three entries in the line.
fn two_work_on_one_processor(efforts_of_turns: [Effort; 2]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let (hall, efforts) = (Hall::new(2), Arc::new(Efforts::new(1)));
        hall.line.store(3, Ordering::SeqCst);
        let other = {
            let (hall, efforts) = (hall.clone(), efforts.clone());
            thread::spawn(move || hall.work_or_stand_back(1, &efforts, efforts_of_turns[1]))
        };
        hall.work_or_stand_back(0, &efforts, efforts_of_turns[0]);
        other.join().unwrap();
        assert_eq!((hall.done.load(Ordering::SeqCst), hall.crew.awake()), (3, 2));
    });
}

#[test]
fn of_two_workers_that_stand_back_at_once_one_goes_on() {
    two_work_on_one_processor([Effort::Cheap, Effort::Cheap]);
}

#[test]
fn a_worker_that_stands_back_is_woken_when_the_other_may_wait() {
    two_work_on_one_processor([Effort::Cheap, Effort::MayWait]);
}

#[test]
fn work_finds_a_worker_that_is_going_to_rest() {
    loom::model(|| {
        let hall = Hall::new(1);
        let worker = hall.clone();
        let worker = thread::spawn(move || worker.work(0, || false));
        hall.publish();
        worker.join().unwrap();
        assert_eq!(hall.done.load(Ordering::SeqCst), 1);
        assert_eq!(hall.crew.awake(), 1, "the count of the wakeful is right");
        assert!(hall.crew.rouse().leader_told.load(Ordering::SeqCst) <= 1, "one entry wakes one worker");
    });
}

#[test]
fn a_passing_leader_leaves_somebody_to_poll() {
    // The timekeeper leads for a moment, while a worker is going to rest: either the worker leads afterwards, or it
    // is woken.
    loom::model(|| {
        let hall = Hall::new(1);
        let worker = hall.clone();
        let worker = thread::spawn(move || worker.work(0, || false));
        drop(hall.crew.lead());
        if !hall.crew.is_led_after_publishing() {
            hall.crew.work_queued();
        }
        // An event comes, of which only somebody who polls learns.
        hall.line.fetch_add(1, Ordering::SeqCst);
        hall.crew.rouse().leader();
        worker.join().unwrap();
        assert_eq!(hall.crew.awake(), 1);
    });
}

#[test]
fn work_wakes_one_of_two_that_are_going_to_rest() {
    let mut model = loom::model::Builder::new();
    // Without a bound three threads take minutes.
    model.preemption_bound = Some(2);
    model.check(|| {
        let hall = Hall::new(2);
        let workers: Vec<_> = (0..2)
            .map(|me| {
                let hall = hall.clone();
                thread::spawn(move || {
                    let enough = || hall.done.load(Ordering::SeqCst) == 1;
                    hall.work(me, enough);
                    // The one that has done the work lets the other go.
                    hall.crew.wake_all();
                })
            })
            .collect();
        hall.publish();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((hall.done.load(Ordering::SeqCst), hall.crew.awake()), (1, 2));
    });
}

#[test]
fn work_that_a_worker_leaves_behind_finds_another() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (hall, limit) = (Hall::new(2), Arc::new(AtomicUsize::new(2)));
        let workers: Vec<_> = (0..2)
            .map(|me| {
                let (hall, limit) = (hall.clone(), limit.clone());
                thread::spawn(move || hall.work_within(me, &limit))
            })
            .collect();
        limit.store(1, Ordering::SeqCst);
        hall.crew.wake_all();
        hall.publish();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!((hall.done.load(Ordering::SeqCst), hall.crew.awake()), (1, 2));
    });
}

#[test]
fn a_worker_that_stays_out_is_called_back() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        // Worker 0 is in a turn that does not end.
        let (hall, limit) = (Hall::new(2), Arc::new(AtomicUsize::new(1)));
        let worker = {
            let (hall, limit) = (hall.clone(), limit.clone());
            thread::spawn(move || hall.work_within(1, &limit))
        };
        hall.line.fetch_add(1, Ordering::SeqCst);
        limit.store(2, Ordering::SeqCst);
        hall.crew.wake_all();
        worker.join().unwrap();
        assert_eq!((hall.done.load(Ordering::SeqCst), hall.crew.awake()), (1, 2));
    });
}

#[test]
fn a_timekeeper_that_is_going_to_sleep_long_learns_of_the_first_turn() {
    loom::model(|| {
        let hall = Hall::new(1);
        let keeper = hall.clone();
        let keeper = thread::spawn(move || keeper.crew.keeper_rests(|| false));
        hall.crew.stir();
        let rests = keeper.join().unwrap();
        let told = hall.crew.rouse().keeper_told.load(Ordering::SeqCst);
        assert!(!rests || told == 1, "a turn has begun, and the timekeeper sleeps long");
    });
}

#[test]
fn a_claim_that_is_put_back_loses_no_edge() {
    // The timekeeper claims a connection, finds that its deadline has moved, and puts it back, while an
    // event arrives for it.
    loom::model(|| {
        let world = Arc::new(World::new());
        world.turn();
        let (keeper, leader) = (world.clone(), world.clone());
        let keeper = thread::spawn(move || {
            if keeper.state.claim(state::Generation(0)) {
                assert_eq!(keeper.owners.fetch_add(1, Ordering::SeqCst), 0, "one owner at a time");
                keeper.owners.fetch_sub(1, Ordering::SeqCst);
                if keeper.state.park() == Parked::Again {
                    keeper.state.requeue();
                    keeper.push();
                }
            }
        });
        let leader = thread::spawn(move || {
            leader.arrive(false);
            leader.turn();
        });
        keeper.join().unwrap();
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
        let (keeper, leader) = (world.clone(), world.clone());
        // The connection ends and its slot is given to another, which is queued as a newcomer.
        let keeper = thread::spawn(move || {
            if keeper.state.claim(state::Generation(0)) {
                keeper.state.release();
                assert_eq!(keeper.state.open(), state::Generation(1));
                keeper.state.requeue();
                return true;
            }
            false
        });
        let leader = thread::spawn(move || leader.state.ready(state::Generation(0), Marks::of_client(true)));
        let reborn = keeper.join().unwrap();
        let said = leader.join().unwrap();
        if reborn {
            assert_eq!(said, Ready::Known, "an old event queued the new connection once more");
            assert_eq!(world.state.take(state::Generation(0)), None, "an old entry takes it");
            assert_eq!(world.state.take(state::Generation(1)), Some(Marks::NONE), "an old hangup is its own");
        } else {
            assert_eq!(said, Ready::Enqueue);
        }
    });
}
