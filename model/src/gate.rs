//! The places at the backends of a gate against clients that come, wait, leave and fail there: nobody sleeps while there is an
//! answer for it, no backend has more connections than it may, and each place is given back. The backends are the server's,
//! with their book; what is tried are the orders in which threads come to its lock, and the wakes, which are outside of it.

use crate::admit::turns::accounts::SourceId;
use crate::bed::Bed;
use crate::reason::BackendFailure;
use crate::service::proxy::address::BackendAddress;
use crate::service::proxy::backends::{
    Asking, BackendClock, BackendId, BackendLimits, Backends, Look, Place, PlaceAnswer, Refusal, WaitLimits,
    Wake,
};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// When all happens.
const NOW: u64 = 10_000_000_000;

const WAIT: WaitLimits =
    WaitLimits { most: 4, timeout: NOW, target: NOW, fresh: false, fair: false, drop_oldest: false };

/// What a client got.
#[derive(Debug)]
enum Served {
    Place(Place),
    Refused(Refusal),
}

/// A gate and what the models see of its backends: who is connected to each, and how many were at once.
struct GateModel {
    backends: std::sync::Arc<Backends>,
    connected: Vec<AtomicUsize>,
}

impl GateModel {
    /// As many backends, each for one connection.
    fn new(backends: u16) -> Arc<Self> {
        let limits =
            BackendLimits { connections: 1, total: None, checked: false, reserve: false, wait: WAIT };
        let time = BackendClock::Made(std::sync::Arc::new(AtomicU64::new(NOW)));
        let connected = (0..backends).map(|_| AtomicUsize::new(0)).collect();
        let made = Backends::new(limits, time, 7);
        made.set_addresses(&(0..backends).map(BackendAddress).collect::<Vec<_>>());
        Arc::new(Self { backends: made, connected })
    }

    /// A client that asks, and waits if it must.
    fn ask(&self, tried: &[BackendId]) -> Served {
        let parked = Arc::new(Bed::default());
        let waker = parked.clone();
        let wake = move || Wake::Test(Box::new(move || waker.wake()));
        let asking = Asking { source: SourceId(1), priority: false, since: NOW, now: NOW, tried, wait: WAIT };
        let mut ticket = match self.backends.take(&asking, wake) {
            PlaceAnswer::Place(place) => return self.connect(place),
            PlaceAnswer::Refused(refusal) => return Served::Refused(refusal),
            PlaceAnswer::Wait(ticket) => ticket,
        };
        loop {
            match ticket.look(NOW) {
                Look::Place(place) => return self.connect(place),
                Look::Refused(refusal) => return Served::Refused(refusal),
                // Nobody is late while the clock stands still: only a wake ends this.
                Look::Waiting { .. } => parked.sleep(),
            }
        }
    }

    fn connect(&self, place: Place) -> Served {
        let before = self.connected[usize::from(place.address().0)].fetch_add(1, SeqCst);
        assert_eq!(before, 0, "a backend has one connection more than it may");
        Served::Place(place)
    }

    fn leave(&self, place: Place) {
        self.connected[usize::from(place.address().0)].fetch_sub(1, SeqCst);
        drop(place);
    }

    /// The backend does not answer: it is set aside, and the place is given back.
    fn fail(&self, place: Place) -> BackendId {
        let backend = place.backend();
        place.failed(BackendFailure::Refused);
        self.leave(place);
        backend
    }

    fn is_all_given_back(&self) -> bool {
        let seen = self.backends.snapshot();
        seen.conserved() && seen.in_use == 0 && seen.waiting == 0 && seen.taken == seen.given_back
    }
}

/// Runs a client of a model.
fn client(gate: &Arc<GateModel>, run: impl FnOnce(&GateModel) + 'static) -> thread::JoinHandle<()> {
    let gate = gate.clone();
    thread::spawn(move || run(&gate))
}

/// Every interleaving with at most three switches of threads that nothing forces.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn clients_that_share_one_place_have_it_one_after_another() {
    check(|| {
        let gate = GateModel::new(1);
        let visit = |gate: &GateModel| match gate.ask(&[]) {
            Served::Place(place) => {
                place.reached(1);
                gate.leave(place);
            }
            Served::Refused(refusal) => panic!("{refusal:?}"),
        };
        let others = [client(&gate, visit), client(&gate, visit)];
        visit(&gate);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(gate.is_all_given_back());
        assert_eq!(gate.backends.snapshot().taken, 3);
    });
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_no_place_behind() {
    check(|| {
        let gate = GateModel::new(1);
        let Served::Place(held) = gate.ask(&[]) else { panic!("it is free") };
        // One leaves in the moment in which it may have got a place; the other must get it then.
        let leaver = client(&gate, |gate| {
            let asking =
                Asking { source: SourceId(1), priority: false, since: NOW, now: NOW, tried: &[], wait: WAIT };
            drop(gate.backends.take(&asking, || Wake::Test(Box::new(|| {}))));
        });
        let waits = client(&gate, |gate| match gate.ask(&[]) {
            Served::Place(place) => gate.leave(place),
            Served::Refused(refusal) => panic!("{refusal:?}"),
        });
        gate.leave(held);
        leaver.join().unwrap();
        waits.join().unwrap();
        assert!(gate.is_all_given_back());
    });
}

#[test]
fn who_waits_for_the_only_backend_is_told_when_it_is_set_aside() {
    check(|| {
        let gate = GateModel::new(1);
        let Served::Place(held) = gate.ask(&[]) else { panic!("it is free") };
        let waits = client(&gate, |gate| match gate.ask(&[]) {
            Served::Refused(refusal) => assert_eq!(refusal, Refusal::NoBackend),
            Served::Place(place) => panic!("{} was set aside", place.address()),
        });
        gate.fail(held);
        waits.join().unwrap();
        assert!(gate.is_all_given_back());
    });
}

#[test]
fn who_failed_at_one_backend_and_who_waits_share_the_other() {
    check(|| {
        let gate = GateModel::new(2);
        let (Served::Place(first), Served::Place(second)) = (gate.ask(&[]), gate.ask(&[])) else {
            panic!("both are free")
        };
        assert_ne!(first.backend(), second.backend());
        let failer = client(&gate, move |gate| {
            let tried = gate.fail(first);
            match gate.ask(&[tried]) {
                Served::Place(place) => gate.leave(place),
                Served::Refused(refusal) => panic!("the other is up: {refusal:?}"),
            }
        });
        let waits = client(&gate, |gate| match gate.ask(&[]) {
            Served::Place(place) => gate.leave(place),
            Served::Refused(refusal) => panic!("one is up: {refusal:?}"),
        });
        gate.leave(second);
        failer.join().unwrap();
        waits.join().unwrap();
        assert!(gate.is_all_given_back());
    });
}

#[test]
fn a_backend_that_is_taken_out_of_the_list_loses_no_client_and_no_place() {
    check(|| {
        let gate = GateModel::new(2);
        let (Served::Place(first), Served::Place(second)) = (gate.ask(&[]), gate.ask(&[])) else {
            panic!("both are free")
        };
        let (going, staying) = if first.address().0 == 0 { (first, second) } else { (second, first) };
        let order = client(&gate, |gate| gate.backends.set_addresses(&[BackendAddress(1)]));
        let waits = client(&gate, |gate| match gate.ask(&[]) {
            Served::Place(place) => gate.leave(place),
            Served::Refused(refusal) => panic!("one is up: {refusal:?}"),
        });
        gate.leave(going);
        gate.leave(staying);
        order.join().unwrap();
        waits.join().unwrap();
        assert!(gate.is_all_given_back());
    });
}
