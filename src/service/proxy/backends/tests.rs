//! The backends with a made clock and made luck: a day in a moment.

use super::*;
use crate::admit::turns::accounts::SourceId;
use crate::reason::BackendFailure::{Local, Refused, Timeout};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

const LIMITS: BackendLimits = BackendLimits {
    connections: 2,
    total: None,
    checked: false,
    reserve: false,
    wait: WaitLimits {
        most: 4,
        timeout: 5 * S,
        target: 20 * MS,
        fresh: true,
        fair: true,
        drop_oldest: false,
    },
};

fn address(number: u16) -> BackendAddress {
    BackendAddress::Tcp(([127, 0, 0, 1], 1000 + number).into())
}

/// Backends and their clock.
struct World {
    wait: std::cell::Cell<WaitLimits>,
    backends: Arc<Backends>,
    now: Arc<AtomicU64>,
    woken: Arc<AtomicUsize>,
}

impl World {
    fn of(limits: BackendLimits, backends: u16) -> Self {
        let now = Arc::new(AtomicU64::new(1_000 * S));
        let world = Self {
            wait: limits.wait.into(),
            backends: Backends::new(limits, BackendClock::Made(now.clone()), 7),
            now,
            woken: Arc::default(),
        };
        world.backends.set_addresses(&(0..backends).map(address).collect::<Vec<_>>());
        world
    }

    fn now(&self) -> Nanos {
        self.now.load(Ordering::Relaxed)
    }

    fn pass(&self, time: Nanos) {
        self.now.fetch_add(time, Ordering::Relaxed);
    }

    fn ask(&self, source: u128, tried: &[BackendId]) -> PlaceAnswer {
        self.ask_as(false, source, tried)
    }

    fn ask_as(&self, priority: bool, source: u128, tried: &[BackendId]) -> PlaceAnswer {
        let since = self.now();
        let now = self.now();
        let asking = Asking { source: SourceId(source), priority, since, now, tried, wait: self.wait.get() };
        let woken = self.woken.clone();
        let wake = move || {
            woken.fetch_add(1, Ordering::Relaxed);
        };
        self.backends.take(&asking, || Wake::Test(Box::new(wake)))
    }

    fn priority_place(&self) -> Place {
        match self.ask_as(true, 1, &[]) {
            PlaceAnswer::Place(place) => place,
            other => panic!("no place: {other:?}"),
        }
    }

    fn priority_ticket(&self) -> Ticket {
        match self.ask_as(true, 1, &[]) {
            PlaceAnswer::Wait(ticket) => ticket,
            other => panic!("no ticket: {other:?}"),
        }
    }

    fn set_limits(&self, limits: BackendLimits) {
        self.wait.set(limits.wait);
        self.backends.set_limits(limits);
    }

    fn place(&self) -> Place {
        match self.ask(1, &[]) {
            PlaceAnswer::Place(place) => place,
            other => panic!("no place: {other:?}"),
        }
    }

    fn ticket(&self, source: u128) -> Ticket {
        match self.ask(source, &[]) {
            PlaceAnswer::Wait(ticket) => ticket,
            other => panic!("no ticket: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&self, source: u128, why: Refusal) {
        let answer = self.ask(source, &[]);
        assert!(matches!(&answer, PlaceAnswer::Refused(refusal) if *refusal == why), "{answer:?}");
    }

    fn snapshot(&self) -> BackendsSnapshot {
        let snapshot = self.backends.snapshot();
        assert!(snapshot.conserved(), "{snapshot:?}");
        snapshot
    }

    fn woken(&self) -> usize {
        self.woken.swap(0, Ordering::Relaxed)
    }
}

fn granted(ticket: &mut Ticket) -> Option<Place> {
    match ticket.look_now() {
        Look::Place(place) => Some(place),
        Look::Waiting { .. } => None,
        Look::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[track_caller]
fn refusal(ticket: &mut Ticket) -> Refusal {
    match ticket.look_now() {
        Look::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn port(place: &Place) -> u16 {
    match place.address() {
        BackendAddress::Tcp(address) => address.port() - 1000,
        BackendAddress::Unix(_) | BackendAddress::Tls(_) => unreachable!(),
    }
}

#[test]
fn the_backend_with_the_smallest_share_is_next_and_ties_take_turns() {
    let world = World::of(BackendLimits { connections: 3, ..LIMITS }, 3);
    let mut all: VecDeque<_> = (0..7).map(|_| world.place()).collect();
    assert_eq!(all.iter().map(port).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    drop(all.remove(1));
    assert_eq!(port(&world.place()), 1, "it has the fewest");
    all.clear();
    assert_eq!((0..4).map(|_| port(&world.place())).collect::<Vec<_>>(), [2, 0, 1, 2], "one at a time");
    let snapshot = world.snapshot();
    assert_eq!((snapshot.taken, snapshot.given_back, snapshot.in_use), (12, 12, 0));
}

#[test]
fn no_backend_has_more_than_its_limit_nor_all_together_more_than_theirs() {
    let world = World::of(BackendLimits { total: Some(3), ..LIMITS }, 2);
    let places: Vec<_> = (0..3).map(|_| world.place()).collect();
    let mut ticket = world.ticket(1);
    assert!(granted(&mut ticket).is_none());
    assert_eq!((world.snapshot().limit, world.snapshot().in_use), (3, 3));
    drop(places);
    assert_eq!(world.woken(), 1);
    assert!(granted(&mut ticket).is_some());
}

#[test]
fn a_place_that_is_given_back_belongs_to_the_one_that_waits() {
    let world = World::of(LIMITS, 1);
    let (one, _two) = (world.place(), world.place());
    let mut waits = world.ticket(1);
    drop(one);
    // Before it has looked, nobody gets in between.
    let mut later = world.ticket(2);
    assert_eq!(world.snapshot().in_use, 2);
    let place = granted(&mut waits).unwrap();
    assert!(granted(&mut later).is_none());
    drop(waits);
    assert_eq!(world.snapshot().in_use, 2, "a ticket that has said its last word owns nothing");
    drop(place);
    assert!(granted(&mut later).is_some());
}

#[test]
fn one_that_leaves_with_a_place_it_never_used_gives_it_to_the_next() {
    let world = World::of(LIMITS, 1);
    let places = (world.place(), world.place());
    let (first, mut second) = (world.ticket(1), world.ticket(2));
    drop(places.0);
    assert_eq!(world.woken(), 1);
    drop(first);
    assert_eq!(world.woken(), 1, "the next one is told");
    assert!(granted(&mut second).is_some());
}

#[test]
fn in_calm_the_one_that_has_waited_longest_is_first_and_who_left_is_skipped() {
    let world = World::of(LIMITS, 1);
    let mut places = vec![world.place(), world.place()];
    let mut all: Vec<_> = (0..4)
        .map(|source| {
            world.pass(MS);
            Some(world.ticket(source))
        })
        .collect();
    all[1] = None;
    for expected in [0, 2, 3] {
        drop(places.remove(0));
        let ticket = all[expected].as_mut().unwrap();
        places.push(granted(ticket).expect("it is its turn"));
    }
    let snapshot = world.snapshot();
    assert_eq!((snapshot.client_gone, snapshot.waiting, snapshot.wait.count()), (1, 0, 2 + 3));
    assert_eq!(snapshot.oldest, None);
}

#[test]
fn a_list_that_stands_serves_the_freshest_first_and_its_sources_in_turn() {
    let world = World::of(BackendLimits { wait: WaitLimits { most: 20, ..LIMITS.wait }, ..LIMITS }, 1);
    let mut places = vec![world.place(), world.place()];
    let mut noisy: Vec<_> = (0..8).map(|_| world.ticket(1)).collect();
    world.pass(200 * MS);
    noisy.extend((0..2).map(|_| world.ticket(1)));
    let mut polite = world.ticket(2);
    let mut served = Vec::new();
    for _ in 0..3 {
        drop(places.remove(0));
        for (number, ticket) in noisy.iter_mut().enumerate() {
            if let Look::Place(place) = ticket.look_now() {
                places.push(place);
                served.push(number);
            }
        }
        if let Look::Place(place) = polite.look_now() {
            places.push(place);
            served.push(100);
        }
    }
    assert!(served.contains(&100) && served.contains(&9), "{served:?}");
    assert!(!served.contains(&0), "{served:?}");
    assert!(world.snapshot().stood_for.is_some());
    // When the last client has left, a reading is enough to end that.
    drop((noisy, polite, places));
    world.pass(10 * S);
    assert_eq!(world.snapshot().stood_for, None);
}

/// What clients hear that ask again as soon as they were served, or a moment after they were refused: how long each that was
/// served waited, sorted, and how many were refused. A request takes its backend 16 ms; four are served at once.
fn closed_loop(clients: usize, most: usize) -> (Vec<Nanos>, usize) {
    let world =
        World::of(BackendLimits { connections: 4, wait: WaitLimits { most, ..LIMITS.wait }, ..LIMITS }, 1);
    let (mut waits, mut refused) = (Vec::new(), 0);
    let mut idle: VecDeque<_> = (0..clients).map(|_| world.now()).collect();
    let mut waiting: Vec<(Nanos, Ticket)> = Vec::new();
    let mut places: VecDeque<(Nanos, Place)> = VecDeque::new();
    let end = world.now() + 20 * S;
    while world.now() < end {
        while places.front().is_some_and(|(until, _)| *until <= world.now()) {
            places.pop_front();
            idle.push_back(world.now());
        }
        while idle.front().is_some_and(|from| *from <= world.now()) {
            idle.pop_front();
            match world.ask(1, &[]) {
                PlaceAnswer::Place(place) => places.push_back((world.now() + 16 * MS, place)),
                PlaceAnswer::Wait(ticket) => waiting.push((world.now(), ticket)),
                PlaceAnswer::Refused(_) => (refused, _) = (refused + 1, idle.push_back(world.now() + 5 * MS)),
            }
        }
        for (since, mut ticket) in std::mem::take(&mut waiting) {
            match ticket.look(world.now()) {
                Look::Place(place) => {
                    places.push_back((world.now() + 16 * MS, place));
                    waits.push(world.now() - since);
                }
                Look::Refused(_) => (refused, _) = (refused + 1, idle.push_back(world.now() + 5 * MS)),
                Look::Waiting { .. } => waiting.push((since, ticket)),
            }
        }
        world.pass(MS);
    }
    waits.sort_unstable();
    (waits, refused)
}

#[test]
fn clients_that_ask_again_at_once_and_all_fit_wait_for_a_round_each() {
    let (waits, refused) = closed_loop(64, 128);
    assert_eq!(refused, 0);
    // 60 wait for four places: 15 turns of 16 ms.
    let at = |percent: usize| waits[waits.len() * percent / 100] / MS;
    assert!((230..=250).contains(&at(50)), "{} ms", at(50));
    assert!(at(99) <= 300, "{} ms", at(99));
    assert!(waits[waits.len() - 1] <= S, "nobody is forgotten while the pace is learned");
}

#[test]
fn clients_of_whom_some_are_refused_are_served_the_freshest_first() {
    let (waits, refused) = closed_loop(64, 32);
    assert!(refused > waits.len(), "{refused}, {} served", waits.len());
    // In the order of arrival it would be eight turns of 16 ms.
    let median = waits[waits.len() / 2] / MS;
    assert!(median <= 48, "{median} ms");
}

/// As `--queue-order fifo` and `--fair off` want it.
#[test]
fn by_choice_a_list_that_stands_serves_in_order_and_without_regard_to_sources() {
    for (fair, expected) in [(true, [0, 100]), (false, [0, 1])] {
        let wait = WaitLimits { most: 20, fresh: false, fair, ..LIMITS.wait };
        let world = World::of(BackendLimits { wait, ..LIMITS }, 1);
        let mut places = vec![world.place(), world.place()];
        let mut all: Vec<_> = (0..8).map(|number| (number, world.ticket(1))).collect();
        world.pass(200 * MS);
        all.push((100, world.ticket(2)));
        let mut served = Vec::new();
        for _ in 0..2 {
            drop(places.remove(0));
            for (number, ticket) in &mut all {
                if let Look::Place(place) = ticket.look_now() {
                    places.push(place);
                    served.push(*number);
                }
            }
        }
        served.sort_unstable();
        assert_eq!(served, expected, "fair: {fair}");
    }
}

#[test]
fn when_all_places_to_wait_are_taken_a_newcomer_is_refused_in_calm_and_the_oldest_when_it_stands() {
    let world = World::of(LIMITS, 1);
    let _places = (world.place(), world.place());
    let mut waiting: Vec<_> = (0..4).map(|source| world.ticket(source)).collect();
    world.refused(9, Refusal::QueueFull);
    world.pass(200 * MS);
    let mut fresh = world.ticket(9);
    assert_eq!(world.woken(), 1, "the oldest is told at once");
    assert_eq!(refusal(&mut waiting[0]), Refusal::QueueFull);
    assert!(matches!(fresh.look_now(), Look::Waiting { .. }));
    waiting[0] = fresh;
    for source in 10..100 {
        // All of them are told, and none is forgotten.
        let mut old = std::mem::replace(&mut waiting[(source as usize - 9) % 4], world.ticket(source));
        assert_eq!(refusal(&mut old), Refusal::QueueFull, "{source}");
    }
    assert_eq!(world.snapshot().waiting, 4);
    assert_eq!(world.snapshot().queue_full, 92);
    assert_eq!(world.snapshot().oldest, Some(Duration::ZERO), "it stands, though nobody waits for long");
}

#[test]
fn by_choice_the_oldest_is_refused_in_calm_too() {
    let wait = WaitLimits { drop_oldest: true, fresh: false, ..LIMITS.wait };
    let world = World::of(BackendLimits { wait, ..LIMITS }, 1);
    let _places = (world.place(), world.place());
    let mut waiting: Vec<_> = (0..5).map(|source| world.ticket(source)).collect();
    assert_eq!(refusal(&mut waiting[0]), Refusal::QueueFull);
    let none = BackendLimits { wait: WaitLimits { most: 0, ..wait }, ..LIMITS };
    let world = World::of(none, 1);
    let _places = (world.place(), world.place());
    world.refused(1, Refusal::QueueFull);
}

#[test]
fn a_priority_request_is_served_before_all_who_wait_however_long() {
    let world = World::of(LIMITS, 1);
    let mut places = vec![world.place(), world.place()];
    let mut others: Vec<_> = (0..4).map(|source| world.ticket(source)).collect();
    world.pass(S);
    let mut priority = world.priority_ticket();
    assert_eq!((world.snapshot().waiting, world.snapshot().oldest), (5, Some(Duration::from_secs(1))));
    places.pop();
    assert_eq!(world.woken(), 1);
    let place = granted(&mut priority).expect("it is first");
    assert_eq!(world.snapshot().wait.count(), 3);
    drop(place);
    // It has given its place back: the others have their turns.
    let served: Vec<_> = others.iter_mut().filter_map(granted).collect();
    assert_eq!(served.len(), 1);
}

#[test]
fn one_place_of_several_is_kept_for_a_priority_request_and_one_alone_is_not() {
    let reserve = BackendLimits { reserve: true, ..LIMITS };
    for (limits, backends, usual) in [
        (reserve, 1, 1),
        (BackendLimits { connections: 3, ..reserve }, 2, 5),
        (BackendLimits { total: Some(3), ..reserve }, 2, 2),
        (BackendLimits { connections: 1, ..reserve }, 1, 1),
    ] {
        let world = World::of(limits, backends);
        let mut places: Vec<_> = (0..usual).map(|_| world.place()).collect();
        let mut waits = world.ticket(1);
        if world.snapshot().limit == 1 {
            let mut priority = world.priority_ticket();
            places.clear();
            assert!(granted(&mut priority).is_some());
            assert!(granted(&mut waits).is_some());
            continue;
        }
        let first = world.priority_place();
        let mut second = world.priority_ticket();
        assert_eq!(world.snapshot().in_use, world.snapshot().limit, "never more than the limit");
        drop(first);
        let second = granted(&mut second).expect("the place that is kept is for the next of them");
        assert!(granted(&mut waits).is_none());
        drop(second);
        assert!(granted(&mut waits).is_none(), "it is kept for the next one");
        places.pop();
        assert!(granted(&mut waits).is_some());
    }
}

#[test]
fn a_flood_of_priority_requests_is_bounded_and_starves_nobody() {
    let world = World::of(LIMITS, 1);
    let mut places = VecDeque::from([world.place(), world.place()]);
    let mut others: Vec<_> = (0..4).map(|source| world.ticket(source)).collect();
    let mut flood: Vec<_> = (0..16).map(|_| world.priority_ticket()).collect();
    for _ in 0..10 {
        let answer = world.ask_as(true, 1, &[]);
        assert!(matches!(answer, PlaceAnswer::Refused(Refusal::QueueFull)), "{answer:?}");
    }
    for _ in 0..8 {
        places.pop_front();
        for tickets in [&mut others, &mut flood] {
            let served = tickets
                .iter_mut()
                .map(granted)
                .position(|place| place.map(|one| places.push_back(one)).is_some());
            drop(served.map(|at| tickets.remove(at)));
        }
    }
    assert_eq!((others.len(), flood.len()), (0, 12), "they take turns");
    world.pass(6 * S);
    for ticket in &mut flood {
        assert_eq!(refusal(ticket), Refusal::QueueTimeout);
    }
    drop((places, others, flood));
    assert_eq!((world.snapshot().in_use, world.snapshot().waiting), (0, 0));
}

#[test]
fn one_that_waited_too_long_is_told_and_gets_no_place() {
    let world = World::of(LIMITS, 1);
    let places = (world.place(), world.place());
    let mut ticket = world.ticket(1);
    let Look::Waiting { until } = ticket.look_now() else { panic!() };
    world.pass(5 * S);
    assert!(matches!(ticket.look_now(), Look::Waiting { .. }), "exactly the timeout is not longer than it");
    world.pass(until - world.now());
    assert_eq!(refusal(&mut ticket), Refusal::QueueTimeout, "at the time it was told to look");
    let mut other = world.ticket(1);
    world.pass(6 * S);
    drop(places);
    assert_eq!(refusal(&mut other), Refusal::QueueTimeout, "a place comes too late");
    assert_eq!((world.snapshot().in_use, world.snapshot().queue_timeout), (0, 2));
}

#[test]
fn one_that_hung_up_after_a_while_is_served_when_nobody_else_waits() {
    let world = World::of(LIMITS, 1);
    let mut places = vec![world.place(), world.place()];
    let mut gone = world.ticket(1);
    world.pass(150 * MS);
    let mut here = world.ticket(1);
    gone.hung_up();
    places.pop();
    places.push(granted(&mut here).unwrap());
    assert!(granted(&mut gone).is_none());
    places.pop();
    assert!(granted(&mut gone).is_some(), "it may have closed its half only");
}

#[test]
fn a_backend_that_fails_is_set_aside_and_another_is_tried() {
    let world = World::of(LIMITS, 2);
    let place = world.place();
    place.failed(Refused);
    let tried = [place.backend()];
    drop(place);
    let PlaceAnswer::Place(second) = world.ask(1, &tried) else { panic!() };
    assert_eq!(port(&second), 1);
    second.reached(MS);
    let third = world.place();
    assert_eq!(port(&third), 1, "the first is aside");
    let mut waits = world.ticket(1);
    world.pass(1300 * MS);
    let trial = granted(&mut waits).expect("its pause is over, so one tries it");
    assert_eq!(port(&trial), 0);
    let mut another = world.ticket(1);
    assert!(granted(&mut another).is_none(), "one at a time");
    trial.reached(MS);
    assert!(granted(&mut another).is_some(), "it is back");
    let snapshot = world.snapshot();
    assert_eq!(snapshot.backends[0].failures[Refused as usize], 1);
    assert_eq!(snapshot.backends[0].aside_for, None);
    assert_eq!((snapshot.backends[0].connected, snapshot.backends[1].connected), (1, 1));
    assert_eq!((snapshot.backends[0].connect.count(), &*snapshot.backends[1].address), (1, "127.0.0.1:1001"));
}

#[test]
fn when_all_are_down_clients_are_refused_at_once_and_one_a_second_tries() {
    let world = World::of(LIMITS, 2);
    let places = [world.place(), world.place(), world.place(), world.place()];
    let mut waits = world.ticket(1);
    for place in &places {
        place.failed(Timeout);
    }
    assert_eq!(refusal(&mut waits), Refusal::NoBackend);
    drop(places);
    world.refused(1, Refusal::NoBackend);
    assert!(!world.snapshot().is_any_up());
    assert_eq!(world.snapshot().no_backend, 2);
    for _ in 0..10 {
        world.pass(1250 * MS);
        let trials = [world.place(), world.place()];
        world.refused(1, Refusal::NoBackend);
        trials.iter().for_each(|trial| trial.failed(Refused));
    }
    world.pass(1250 * MS);
    world.place().reached(MS);
    assert!(world.snapshot().is_any_up());
}

#[test]
fn a_busy_backend_that_drops_one_connection_is_not_set_aside() {
    let world = World::of(LIMITS, 1);
    let slow = world.place();
    world.pass(S);
    let quick = world.place();
    quick.reached(MS);
    drop(quick);
    world.pass(S);
    slow.failed(Timeout);
    assert!(world.snapshot().is_any_up(), "another connection was made meanwhile");
    world.place().failed(Local);
    assert!(world.snapshot().is_any_up(), "what this machine lacks says nothing of a backend");
    assert_eq!(world.snapshot().backends[0].failures.iter().sum::<u64>(), 2);
}

#[test]
fn checks_hold_places_and_take_the_trials_from_clients() {
    let world = World::of(BackendLimits { checked: true, ..LIMITS }, 2);
    let first = world.backends.take_for_check(2 * S).unwrap();
    let second = world.backends.take_for_check(2 * S).unwrap();
    assert_eq!((port(&first), port(&second), world.snapshot().in_use), (0, 1, 2));
    assert!(world.backends.take_for_check(2 * S).is_none(), "each was checked just now");
    first.failed(Refused);
    second.reached(MS);
    drop((first, second));
    world.pass(1300 * MS);
    let clients = [world.place(), world.place()];
    assert!(clients.iter().all(|place| port(place) == 1), "clients do not try it");
    let check = world.backends.take_for_check(2 * S).unwrap();
    assert_eq!(port(&check), 0, "it is due before its time");
    check.reached(MS);
    drop(check);
    assert_eq!(port(&world.place()), 0);
    world.pass(3 * S);
    let check = world.backends.take_for_check(2 * S).unwrap();
    assert_eq!(port(&check), 0);
    assert!(world.backends.take_for_check(2 * S).is_none(), "the other one's places are all in use");
}

#[test]
fn backends_come_and_go_and_connections_to_those_that_are_gone_go_on() {
    let world = World::of(LIMITS, 2);
    let (a, b) = (world.place(), world.place());
    world.backends.set_addresses(&[address(1), address(2)]);
    assert_eq!(port(&world.place()), 2);
    let snapshot = world.snapshot();
    assert_eq!((snapshot.backends.len(), snapshot.in_use, snapshot.limit), (3, 2, 4));
    assert!(snapshot.backends[0].leaving);
    // Back again while it was leaving: the same one.
    world.backends.set_addresses(&[address(0), address(1)]);
    assert_eq!(world.snapshot().backends.iter().filter(|one| one.in_use == 1).count(), 2);
    world.backends.set_addresses(&[address(3)]);
    drop((a, b));
    assert_eq!(world.snapshot().backends.len(), 1, "with their last connection they are gone");
    let mut waits = {
        let _full = (world.place(), world.place());
        let waits = world.ticket(1);
        world.backends.set_addresses(&[]);
        waits
    };
    assert_eq!(refusal(&mut waits), Refusal::NoBackend);
    world.refused(1, Refusal::NoBackend);
}

#[test]
fn limits_change_while_places_are_in_use() {
    let world = World::of(LIMITS, 1);
    let mut places = vec![world.place(), world.place()];
    let mut waiting: Vec<_> = (0..4).map(|source| world.ticket(source)).collect();
    world.set_limits(BackendLimits { connections: 4, ..LIMITS });
    assert_eq!(world.woken(), 2, "two more places");
    places.extend(waiting.iter_mut().filter_map(granted));
    world.set_limits(BackendLimits { connections: 1, ..LIMITS });
    assert_eq!(world.snapshot().in_use, 4);
    for left in (1..4).rev() {
        places.pop();
        assert_eq!(world.snapshot().in_use, left);
    }
    assert_eq!(world.snapshot().waiting, 2, "the limit of one holds by now");
    let wait = WaitLimits { most: 40, ..LIMITS.wait };
    world.set_limits(BackendLimits { connections: 1, wait, ..LIMITS });
    let more: Vec<_> = (0..38).map(|source| world.ticket(source)).collect();
    world.refused(1, Refusal::QueueFull);
    let wait = WaitLimits { most: 1, ..LIMITS.wait };
    world.set_limits(BackendLimits { connections: 100, wait, ..LIMITS });
    assert_eq!(world.snapshot().in_use, 41, "all who waited have a place");
    drop((places, waiting, more));
    assert_eq!(world.snapshot().in_use, 0);
}

#[test]
fn bytes_are_counted_for_the_backend_they_went_to() {
    let world = World::of(LIMITS, 2);
    let (a, b) = (world.place(), world.place());
    a.passed(10, 20);
    b.passed(1, 2);
    a.passed(5, 5);
    let all = world.snapshot().backends;
    assert_eq!((all[0].to_backend, all[0].to_client, all[1].to_backend, all[1].to_client), (15, 25, 1, 2));
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Ask(u128),
    AskFirst,
    Drop(prop::sample::Index),
    Leave(prop::sample::Index),
    Look(prop::sample::Index),
    Fail(prop::sample::Index),
    Reach(prop::sample::Index),
    HangUp(prop::sample::Index),
    Addresses(u16),
    Limits(usize, usize, bool),
    Pass(Nanos),
}

fn deed() -> impl Strategy<Value = Deed> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        8 => (0..4_u128).prop_map(Deed::Ask),
        3 => Just(Deed::AskFirst),
        4 => index().prop_map(Deed::Drop),
        1 => index().prop_map(Deed::Leave),
        6 => index().prop_map(Deed::Look),
        1 => index().prop_map(Deed::Fail),
        2 => index().prop_map(Deed::Reach),
        1 => index().prop_map(Deed::HangUp),
        1 => (1..8_u16).prop_map(Deed::Addresses),
        1 => (1..4_usize, 0..6_usize, any::<bool>())
            .prop_map(|(connections, most, reserve)| Deed::Limits(connections, most, reserve)),
        3 => (0..500 * MS).prop_map(Deed::Pass),
    ]
}

fn keep(answer: PlaceAnswer, places: &mut Vec<Place>, tickets: &mut Vec<Ticket>) {
    match answer {
        PlaceAnswer::Place(place) => places.push(place),
        PlaceAnswer::Wait(ticket) => tickets.push(ticket),
        PlaceAnswer::Refused(_) => {}
    }
}

fn do_deed(world: &World, places: &mut Vec<Place>, tickets: &mut Vec<Ticket>, deed: Deed) {
    let pick = |index: prop::sample::Index, len: usize| (len > 0).then(|| index.index(len));
    match deed {
        Deed::Ask(source) => keep(world.ask(source, &[]), places, tickets),
        Deed::AskFirst => keep(world.ask_as(true, 9, &[]), places, tickets),
        Deed::Drop(index) => drop(pick(index, places.len()).map(|at| places.swap_remove(at))),
        Deed::Leave(index) => drop(pick(index, tickets.len()).map(|at| tickets.swap_remove(at))),
        Deed::Look(index) => {
            let Some(at) = pick(index, tickets.len()) else { return };
            match tickets[at].look_now() {
                Look::Waiting { until } => assert!(until > world.now()),
                Look::Place(place) => {
                    places.push(place);
                    drop(tickets.swap_remove(at));
                }
                Look::Refused(_) => drop(tickets.swap_remove(at)),
            }
        }
        Deed::Fail(index) => {
            if let Some(at) = pick(index, places.len()) {
                places.swap_remove(at).failed(Refused);
            }
        }
        Deed::Reach(index) => drop(pick(index, places.len()).map(|at| places[at].reached(MS))),
        Deed::HangUp(index) => drop(pick(index, tickets.len()).map(|at| tickets[at].hung_up())),
        Deed::Addresses(mask) => {
            let all = (0..3).filter(|bit| mask & 1 << bit != 0).map(address);
            world.backends.set_addresses(&all.collect::<Vec<_>>());
        }
        Deed::Limits(connections, most, reserve) => {
            let wait = WaitLimits { most, ..LIMITS.wait };
            world.set_limits(BackendLimits { connections, wait, reserve, ..LIMITS });
        }
        Deed::Pass(time) => world.pass(time),
    }
}

proptest! {
    /// Whatever happens in whatever order: every place is in use or given back, none is over a limit that was not
    /// made smaller, and nobody waits while there is a place, but for the one that may be kept for priority requests.
    #[test]
    fn places_are_conserved(deeds in prop::collection::vec(deed(), 0..150)) {
        let world = World::of(LIMITS, 2);
        let (mut places, mut tickets) = (Vec::new(), Vec::new());
        let (mut most, mut kept) = (LIMITS.connections, 0);
        for deed in deeds {
            if let Deed::Limits(connections, _, reserve) = deed {
                most = most.max(connections);
                kept = u64::from(reserve);
            }
            do_deed(&world, &mut places, &mut tickets, deed);
            let seen = world.snapshot();
            prop_assert!(seen.in_use >= places.len() as u64);
            prop_assert!(seen.in_use <= (places.len() + tickets.len()) as u64);
            for backend in &seen.backends {
                prop_assert!(backend.in_use <= most as u64, "{backend:?}");
            }
            let up = seen.backends.iter().filter(|one| !one.leaving && one.aside_for.is_none());
            let idle: u64 = up.map(|one| one.limit.saturating_sub(one.in_use)).sum();
            prop_assert!(idle <= kept || seen.waiting == 0, "{idle} places are free, and {} wait", seen.waiting);
        }
        drop((places, tickets));
        let seen = world.snapshot();
        prop_assert_eq!((seen.in_use, seen.waiting), (0, 0));
    }
}

/// Many threads at once, each taking, waiting, failing and leaving.
#[test]
fn threads_do_not_lose_or_double_a_place() {
    let limits = BackendLimits { connections: 3, wait: WaitLimits { most: 64, ..LIMITS.wait }, ..LIMITS };
    let backends = Backends::new(limits, BackendClock::Real(Clock::start()), 3);
    backends.set_addresses(&[address(0), address(1)]);
    let held = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let work = |place: Place, round: u64| {
        let at = &held[usize::from(port(&place))];
        assert!(at.fetch_add(1, Ordering::SeqCst) < 3, "more than the limit");
        if round.is_multiple_of(5) {
            std::thread::yield_now();
        }
        if round % 50 == 7 {
            place.failed(Local)
        } else {
            place.reached(1)
        }
        at.fetch_sub(1, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        for thread in 0..12_u64 {
            let (backends, work) = (&backends, &work);
            scope.spawn(move || {
                for round in 0..2_000_u64 {
                    let asking = Asking {
                        source: SourceId(thread.into()),
                        priority: thread == 0,
                        since: backends.time.now(),
                        now: backends.time.now(),
                        tried: &[],
                        wait: limits.wait,
                    };
                    let thread = std::thread::current();
                    match backends.take(&asking, || Wake::Test(Box::new(move || thread.unpark()))) {
                        PlaceAnswer::Place(place) => work(place, round),
                        PlaceAnswer::Refused(refusal) => panic!("{refusal:?}"),
                        PlaceAnswer::Wait(_) if round % 11 == 3 => {}
                        PlaceAnswer::Wait(mut ticket) => loop {
                            match ticket.look_now() {
                                Look::Place(place) => break work(place, round),
                                Look::Refused(refusal) => panic!("{refusal:?}"),
                                // The wake is what ends this, or the test hangs.
                                Look::Waiting { .. } => std::thread::park(),
                            }
                        },
                    }
                }
            });
        }
    });
    let seen = backends.snapshot();
    assert!(seen.conserved() && seen.in_use == 0 && seen.waiting == 0, "{seen:?}");
}
