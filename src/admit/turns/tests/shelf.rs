//! The shelf: its order, and that nothing is lost.

use crate::admit::turns::accounts::{Accounts, Class, SourceId};
use crate::admit::turns::shelf::*;
use crate::clock::Nanos;
use proptest::prelude::*;
use std::collections::HashMap;

const MS: Nanos = 1_000_000;
const TIMEOUT: Nanos = 5_000 * MS;
const LIMITS: ShelfLimits =
    ShelfLimits { connections: 1000, datagrams: 50, doubtful_max: 2, fresh: true, knows_refused: false };

type Plain = Shelf<()>;

fn entry(slot: u32, class: Class, source: u128, since: Nanos) -> Shelved<()> {
    Shelved { slot, generation: 0, since, class, source: SourceId(source), entry: () }
}

/// A shelf with these entries, put there in this order, a millisecond apart: slot, class and source.
fn shelf(limits: ShelfLimits, entries: &[(u32, Class, u128)]) -> Plain {
    let mut shelf = Shelf::new(limits);
    for (at, &(slot, class, source)) in entries.iter().enumerate() {
        let now = at as Nanos * MS;
        assert_eq!(shelf.put(entry(slot, class, source, now), false, now), None);
    }
    shelf
}

fn served(shelf: &mut Plain, most: usize) -> Vec<u32> {
    std::iter::from_fn(|| shelf.next(0)).take(most).map(|shelved| shelved.slot).collect()
}

use Class::{Datagram, Established, Newcomer};

#[test]
fn a_shelf_takes_what_is_said_of_it() {
    for (connections, datagrams) in [(10_000, 0), (10_000, 5_000), (0, 20_000)] {
        let limits = ShelfLimits { connections, datagrams, ..LIMITS };
        let (said, taken) = (Shelf::<u64>::bytes(&limits), Shelf::<u64>::new(limits).taken());
        // The heads of lists are on top, and the table of chains is reckoned with as if it were the largest.
        assert!(taken <= said + 4_096, "{taken} bytes, {said} were said");
        assert!(said <= taken + 8 * (connections + datagrams) * 9 / 8, "{said} were said, {taken} bytes");
    }
}

#[test]
fn the_freshest_of_a_source_is_first() {
    for class in Class::ALL {
        let mut shelf = shelf(LIMITS, &[(1, class, 7), (2, class, 7), (3, class, 7)]);
        assert_eq!(served(&mut shelf, 9), [3, 2, 1], "{class:?}");
    }
}

#[test]
fn the_freshest_of_many_sources_is_first() {
    for class in Class::ALL {
        let mut shelf = shelf(LIMITS, &[(1, class, 1), (2, class, 2), (3, class, 3)]);
        assert_eq!(served(&mut shelf, 9), [3, 2, 1], "{class:?}");
    }
}

#[test]
fn in_order_the_first_that_came_is_first() {
    let limits = ShelfLimits { fresh: false, ..LIMITS };
    let mut one = shelf(limits, &[(1, Newcomer, 7), (2, Newcomer, 7), (3, Newcomer, 7)]);
    assert_eq!(served(&mut one, 9), [1, 2, 3]);
    let mut many = shelf(limits, &[(1, Established, 1), (2, Established, 2), (3, Established, 3)]);
    assert_eq!(served(&mut many, 9), [1, 2, 3]);
}

#[test]
fn newcomers_established_and_datagrams_take_turns() {
    let mut shelf = Shelf::new(LIMITS);
    for slot in 0..10 {
        assert_eq!(shelf.put(entry(slot, Datagram, 7, 0), false, 0), None);
        assert_eq!(shelf.put(entry(100 + slot, Established, 7, 0), false, 0), None);
        assert_eq!(shelf.put(entry(200 + slot, Newcomer, 7, 0), false, 0), None);
    }
    let classes: Vec<_> = std::iter::from_fn(|| shelf.next(0)).map(|shelved| shelved.class).collect();
    assert_eq!(classes.len(), 30);
    for three in classes.chunks(3) {
        assert!(Class::ALL.iter().all(|class| three.contains(class)), "{three:?}");
    }
}

#[test]
fn newcomers_that_come_as_quickly_as_they_are_served_leave_half_to_the_established() {
    let mut shelf = shelf(LIMITS, &[(900, Established, 1), (901, Established, 2)]);
    let (mut established, mut turns) = (0, 0);
    for slot in 0..100 {
        // Each newcomer has a source of its own, and is fresher than all that waits.
        assert_eq!(shelf.put(entry(slot, Newcomer, 1000 + u128::from(slot), 0), false, 0), None);
        let next = shelf.next(0).unwrap();
        turns += 1;
        if next.class == Established {
            established += 1;
            assert_eq!(shelf.put(next, false, 0), None, "it asks again at once");
        }
    }
    // Its source is charged, so it waits for its round like others do.
    assert!(established >= 5, "{established} of {turns}");
}

#[test]
fn a_client_that_asks_again_at_once_waits_until_the_others_had_a_turn() {
    let all: Vec<_> = (0..20).map(|slot| (slot, Established, 7)).collect();
    let mut shelf = shelf(LIMITS, &all);
    for round in 0..5 {
        let mut turns = [0; 20];
        for _ in 0..20 {
            let next = shelf.next(0).unwrap();
            turns[next.slot as usize] += 1;
            assert_eq!(shelf.put(next, false, 0), None);
        }
        assert_eq!(turns, [1; 20], "round {round}");
    }
}

#[test]
fn a_source_that_asks_again_at_once_waits_until_the_others_had_a_turn() {
    let all: Vec<_> = (0..20).map(|slot| (slot, Established, u128::from(slot))).collect();
    let mut shelf = shelf(LIMITS, &all);
    let mut turns = [0; 20];
    for _ in 0..200 {
        let next = shelf.next(0).unwrap();
        turns[next.slot as usize] += 1;
        assert_eq!(shelf.put(next, false, 0), None);
        assert!(turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 2, "{turns:?}");
    }
}

#[test]
fn another_life_of_a_slot_owes_nothing_for_the_last() {
    let mut shelf = shelf(LIMITS, &[(1, Established, 7), (2, Established, 7)]);
    let mut again = shelf.next(0).unwrap();
    assert_eq!(again.slot, 2);
    again.generation += 1;
    assert_eq!(shelf.put(again, false, 0), None);
    assert_eq!(served(&mut shelf, 9), [2, 1], "it is due, and the freshest");
}

#[test]
fn a_source_with_a_heap_does_not_keep_another_waiting() {
    let mut shelf = Shelf::new(LIMITS);
    for slot in 0..500 {
        assert_eq!(shelf.put(entry(slot, Established, 1, 0), false, 0), None);
    }
    for polite in 0..50 {
        for slot in 0..9 {
            // The noisy source goes on meanwhile, and is always the freshest.
            assert_eq!(shelf.put(entry(500 + polite * 9 + slot, Established, 1, 0), false, 0), None);
        }
        assert_eq!(shelf.put(entry(990, Established, u128::from(100 + polite), 0), false, 0), None);
        let served = served(&mut shelf, 2);
        assert!(served.contains(&990), "{served:?}");
    }
}

#[test]
fn a_source_whose_turns_are_expensive_has_fewer_of_them() {
    let costs = [10 * MS, MS, MS];
    let mut shelf = Shelf::new(LIMITS);
    for slot in 0..90 {
        assert_eq!(shelf.put(entry(slot, Established, u128::from(slot % 3), 0), false, 0), None);
    }
    let mut used = [0; 3];
    for _ in 0..3000 {
        let next = shelf.next(0).unwrap();
        let source = next.source.0 as usize;
        used[source] += costs[source];
        shelf.note_cost(next.source, costs[source]);
        assert_eq!(shelf.put(next, false, 0), None);
    }
    let (most, least) = (used.iter().max().unwrap(), used.iter().min().unwrap());
    assert!(*most * 10 <= *least * 11, "each has about a third of the time: {used:?}");
}

#[test]
fn a_turn_that_did_not_take_place_is_not_charged() {
    let entries = [(1, Newcomer, 2), (2, Newcomer, 1), (3, Newcomer, 1), (4, Newcomer, 1)];
    assert_eq!(served(&mut shelf(LIMITS, &entries), 9), [4, 1, 3, 2]);
    let mut shelf = shelf(LIMITS, &entries);
    for slot in [4, 3] {
        let gone = shelf.next(0).unwrap();
        assert_eq!(gone.slot, slot, "the source is due again");
        shelf.refund(gone.source);
    }
    assert_eq!(served(&mut shelf, 9), [2, 1]);
}

#[test]
fn the_oldest_expires_first_and_once_and_not_before_its_time() {
    let mut shelf =
        shelf(LIMITS, &[(1, Newcomer, 1), (2, Established, 2), (3, Datagram, 3), (4, Newcomer, 1)]);
    assert_eq!(shelf.oldest(), Some(0));
    assert_eq!(shelf.expire(TIMEOUT, TIMEOUT), None, "exactly the timeout is not longer than it");
    let mut expired = Vec::new();
    while let Some(shelved) = shelf.expire(TIMEOUT + 2 * MS + 1, TIMEOUT) {
        expired.push((shelved.slot, shelved.since));
    }
    assert_eq!(expired, [(1, 0), (2, MS), (3, 2 * MS)]);
    assert_eq!((shelf.len(), shelf.oldest()), (1, Some(3 * MS)));
    assert_eq!(served(&mut shelf, 9), [4]);
    assert_eq!(shelf.oldest(), None);
}

#[test]
fn an_entry_that_waited_in_the_kernel_expires_by_its_true_age() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Newcomer, 1)]);
    assert_eq!(shelf.put(entry(3, Newcomer, 1, 0), false, 2 * MS), None);
    assert_eq!(shelf.put(entry(4, Established, 1, 0), false, 2 * MS), None);
    let expired: Vec<_> = std::iter::from_fn(|| shelf.expire(TIMEOUT + 1, TIMEOUT)).collect();
    assert_eq!(expired.iter().map(|shelved| shelved.slot).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn who_hangs_up_after_a_while_is_served_when_nothing_else_waits() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Newcomer, 1), (3, Established, 1)]);
    let late = HALF_CLOSE + 3 * MS;
    assert_eq!(shelf.hung_up(Newcomer, 2, 0, HALF_CLOSE + MS), None);
    assert_eq!(shelf.doubtful(), 0, "it has just sent its request, and closed its half");
    assert_eq!(shelf.hung_up(Newcomer, 2, 0, late), None);
    assert_eq!(shelf.hung_up(Established, 3, 1, late), None, "another life");
    assert_eq!((shelf.doubtful(), shelf.waiting(Newcomer), shelf.len()), (1, 1, 3));
    assert_eq!(shelf.hung_up(Newcomer, 2, 0, late), None, "known already");
    assert_eq!(shelf.put(entry(4, Established, 9, 0), true, late), None);
    assert_eq!((shelf.doubtful(), shelf.sources()), (2, 1));
    assert_eq!(served(&mut shelf, 9), [1, 3, 4, 2]);
    assert_eq!((shelf.doubtful(), shelf.len()), (0, 0));
}

#[test]
fn of_too_many_who_have_hung_up_the_first_is_given_up() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Established, 1), (3, Newcomer, 1)]);
    let late = 1_000 * MS;
    assert_eq!(shelf.hung_up(Newcomer, 1, 0, late), None);
    assert_eq!(shelf.hung_up(Newcomer, 3, 0, late), None);
    let given_up = shelf.hung_up(Established, 2, 0, late).unwrap();
    assert_eq!((given_up.slot, given_up.source, given_up.class), (1, SourceId(1), Newcomer));
    let given_up = shelf.put(entry(4, Newcomer, 1, 5 * MS), true, late).unwrap();
    assert_eq!((given_up.slot, shelf.len(), shelf.oldest(), shelf.longest()), (2, 2, None, Some(2 * MS)));
    let expired = shelf.expire(late + TIMEOUT, TIMEOUT).unwrap();
    assert_eq!((expired.slot, shelf.doubtful()), (3, 1), "they expire like others, by their age");
}

#[test]
fn how_many_may_be_kept_who_have_hung_up_can_be_changed() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Newcomer, 1), (3, Newcomer, 1), (4, Newcomer, 1)]);
    let late = 1_000 * MS;
    shelf.set_doubtful_max(3);
    let given_up = [1, 2, 3].map(|slot| shelf.hung_up(Newcomer, slot, 0, late));
    assert_eq!((given_up, shelf.doubtful()), ([None; 3], 3));
    shelf.set_doubtful_max(1);
    assert_eq!(shelf.hung_up(Newcomer, 4, 0, late).map(|shelved| shelved.slot), Some(1));
}

#[test]
fn what_is_removed_is_not_served() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Established, 1), (1, Datagram, 1)]);
    assert_eq!(shelf.remove(Newcomer, 1, 5), None, "another life");
    assert_eq!(shelf.remove(Newcomer, 3, 0), None);
    assert_eq!(shelf.remove(Newcomer, 5_000, 0), None);
    let removed = shelf.remove(Newcomer, 1, 0).unwrap();
    assert_eq!((removed.slot, removed.class), (1, Newcomer));
    assert_eq!(shelf.remove(Newcomer, 1, 0), None);
    let removed = shelf.remove(Datagram, 1, 0).unwrap();
    assert_eq!((removed.slot, removed.class), (1, Datagram));
    assert_eq!(served(&mut shelf, 9), [2]);
}

#[test]
fn room_for_a_newcomer_is_made_by_the_oldest_newcomer() {
    let mut shelf = shelf(LIMITS, &[(1, Established, 1), (2, Newcomer, 1), (3, Newcomer, 1)]);
    assert_eq!(shelf.displace(Newcomer, 0).unwrap().slot, 2);
    assert_eq!(shelf.displace(Newcomer, 0).unwrap().slot, 3);
    assert_eq!(shelf.displace(Newcomer, 0), None);
    assert_eq!(shelf.drain_one().unwrap().slot, 1);
    assert_eq!(shelf.drain_one(), None);
}

/// However fast a crowd comes, it does not push out who comes alone.
#[test]
fn room_for_a_newcomer_is_made_by_the_source_that_has_the_most() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1), (2, Newcomer, 2), (3, Newcomer, 2), (4, Newcomer, 2)]);
    for slot in 5..100 {
        assert_eq!(shelf.displace(Newcomer, 0).unwrap().slot, slot - 3);
        assert_eq!(shelf.put(entry(slot, Newcomer, 2, Nanos::from(slot) * MS), false, 0), None);
    }
    let displaced: Vec<u32> = (0..4).map(|_| shelf.displace(Newcomer, 0).unwrap().slot).collect();
    assert_eq!(displaced, [97, 98, 1, 99], "where each has one it is the oldest");
}

/// The turns in which each of `clients` of one source is served, if each connects anew as soon as it was.
fn closed_loop(shelf: &mut Plain, clients: u32, turns: usize) -> HashMap<u32, Vec<usize>> {
    let mut served: HashMap<u32, Vec<usize>> = HashMap::new();
    for slot in 0..clients {
        assert_eq!(shelf.put(entry(slot, Newcomer, 7, 0), false, 0), None);
    }
    for turn in 0..turns {
        let now = turn as Nanos * MS;
        let next = shelf.next(now).unwrap();
        served.entry(next.slot).or_default().push(turn);
        assert_eq!(shelf.put(Shelved { since: now, ..next }, false, now), None);
    }
    served
}

#[test]
fn clients_that_connect_anew_for_each_request_are_all_served() {
    let served = closed_loop(&mut Shelf::new(LIMITS), 32, 3_200);
    assert_eq!(served.len(), 32);
    let pauses = served.values().flat_map(|turns| turns.windows(2).map(|pair| pair[1] - pair[0]));
    assert!(pauses.max() <= Some(8 * 32), "one in eight turns is the oldest's");
}

#[test]
fn while_many_leave_no_turn_is_the_oldest_s() {
    let served = closed_loop(&mut left_by(100, 400 * MS), 32, 100);
    assert_eq!(served.len(), 1, "the freshest has all");
}

/// A shelf that knows of all newcomers who were refused.
const ALL_KNOWN: ShelfLimits = ShelfLimits { knows_refused: true, ..LIMITS };

#[test]
fn newcomers_who_can_all_be_served_soon_are_served_in_order_where_all_refusals_are_known() {
    let slowest = |limits| {
        let served = closed_loop(&mut Shelf::new(limits), 60, 3_000);
        let late = served.values().flat_map(|turns| turns.windows(2).map(|pair| pair[1] - pair[0]));
        late.max().unwrap()
    };
    assert!(slowest(LIMITS) > 3 * 60, "the freshest first");
    // The pace is known after some turns; until then the freshest had theirs.
    assert!(slowest(ALL_KNOWN) <= 2 * 60, "each waits for a round");
}

#[test]
fn newcomers_are_served_the_freshest_first_where_some_are_refused_or_the_last_would_be_served_late() {
    // More than 300 of a millisecond each.
    let served = closed_loop(&mut Shelf::new(ALL_KNOWN), 310, 3_000);
    let pauses = served.values().flat_map(|turns| turns.windows(2).map(|pair| pair[1] - pair[0]));
    assert!(pauses.min() == Some(1), "some are served again at once");
    let mut shelf = shelf(ALL_KNOWN, &[(1, Newcomer, 1), (2, Newcomer, 1), (3, Newcomer, 1)]);
    for turn in 0..100 {
        let next = shelf.next_newcomer(turn * MS).unwrap();
        assert_eq!(shelf.put(next, false, turn * MS), None);
    }
    assert!(shelf.is_in_order(), "turns in calm tell the pace too");
    // Each counts a 256th: after the fifth they are more than a 64th.
    (0..4).for_each(|_| shelf.note_refused());
    assert!(shelf.is_in_order());
    shelf.note_refused();
    assert!(!shelf.is_in_order() && shelf.stale_after().is_none());
}

#[test]
fn whoever_waited_when_a_flood_ended_is_served_before_those_who_come_later() {
    let new = |slot: u32, now| Shelved { since: now, ..entry(slot, Newcomer, 1, 0) };
    let mut shelf = shelf(ALL_KNOWN, &[]);
    // Four come for each that is served, and twenty may wait.
    let mut now = 0;
    for slot in 0..800 {
        now += MS / 4;
        if shelf.len() == 20 {
            assert!(shelf.displace(Newcomer, now).is_some());
        }
        assert_eq!(shelf.put(new(slot % 40, now), false, now), None);
        if slot % 4 == 0 {
            assert!(shelf.next(now).is_some());
        }
    }
    assert!(!shelf.is_in_order(), "the freshest are served, for the oldest have to make room");
    let (ended, left) = (now, shelf.len());
    let mut waited = 0;
    // One comes for each that is served.
    for slot in 0..200 {
        now += MS;
        assert_eq!(shelf.put(new(40 + slot % 60, now), false, now), None);
        let next = shelf.next(now).unwrap();
        assert!(now <= ended + 100 * MS || shelf.is_in_order());
        waited += usize::from(next.since <= ended);
    }
    assert!(left >= 19 && waited == left, "{waited} of {left}: none was passed over");
}

#[test]
fn an_entry_without_a_place_comes_back() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1)]);
    for stray in [entry(1, Established, 2, 5), entry(1_000, Newcomer, 1, 0), entry(50, Datagram, 1, 0)] {
        assert_eq!(shelf.put(stray, false, 0), Some(stray));
    }
    assert_eq!((shelf.len(), served(&mut shelf, 9)), (1, vec![1]));
}

#[derive(Clone, Copy, Debug)]
enum ShelfStep {
    Put(u32, Class, u128, bool),
    Next,
    Remove(Class, u32),
    HungUp(Class, u32),
    Expire,
    Displace,
    Cost(u128, Nanos),
    Refund(u128),
    Pass(Nanos),
}

fn step() -> impl Strategy<Value = ShelfStep> {
    let class = prop::sample::select(&Class::ALL[..]);
    let (slot, source) = (0..12_u32, 0..6_u128);
    prop_oneof![
        8 => (slot.clone(), class.clone(), source.clone(), prop::bool::weighted(0.2))
            .prop_map(|(slot, class, source, hung_up)| ShelfStep::Put(slot, class, source, hung_up)),
        6 => Just(ShelfStep::Next),
        1 => (class.clone(), slot.clone()).prop_map(|(class, slot)| ShelfStep::Remove(class, slot)),
        1 => (class, slot).prop_map(|(class, slot)| ShelfStep::HungUp(class, slot)),
        1 => Just(ShelfStep::Expire),
        1 => Just(ShelfStep::Displace),
        1 => (source.clone(), 0..50 * MS).prop_map(|(source, cost)| ShelfStep::Cost(source, cost)),
        1 => source.prop_map(ShelfStep::Refund),
        2 => (0..200 * MS).prop_map(ShelfStep::Pass),
    ]
}

/// What a plain list would know: by kind of slot and number, the entry and whether it is doubtful.
type Known = HashMap<(bool, u32), (Shelved<()>, bool)>;

fn key(class: Class, slot: u32) -> (bool, u32) {
    (class == Datagram, slot)
}

fn oldest(known: &Known) -> Option<Nanos> {
    known.values().filter(|(_, doubtful)| !doubtful).map(|(shelved, _)| shelved.since).min()
}

fn check_counts(shelf: &Plain, known: &Known) {
    assert_eq!(shelf.len(), known.len());
    assert_eq!(shelf.doubtful(), known.values().filter(|(_, doubtful)| *doubtful).count());
    assert!(shelf.doubtful() <= LIMITS.doubtful_max);
    for class in Class::ALL {
        let waiting = known.values().filter(|(shelved, doubtful)| !doubtful && shelved.class == class);
        assert_eq!(shelf.waiting(class), waiting.count());
    }
    let sources = known.values().filter(|(_, doubtful)| !doubtful).map(|(shelved, _)| shelved.source.0);
    assert_eq!(shelf.sources(), sources.collect::<std::collections::HashSet<_>>().len());
    assert_eq!(shelf.oldest(), oldest(known));
    assert_eq!(shelf.longest(), known.values().map(|(shelved, _)| shelved.since).min());
}

fn take(known: &mut Known, taken: Option<Shelved<()>>) {
    if let Some(shelved) = taken {
        let (put, _) = known.remove(&key(shelved.class, shelved.slot)).expect("it was on the shelf");
        assert_eq!(shelved, put);
    }
}

/// What was displaced is of a source that has the most newcomers, to within a factor of two; where each has one, it is the
/// oldest.
fn check_displaced(displaced: Option<Shelved<()>>, waiting: &[Shelved<()>]) {
    let crowd = |source| waiting.iter().filter(|shelved| shelved.source == source).count();
    let largest = waiting.iter().map(|shelved| crowd(shelved.source)).max();
    let Some(displaced) = displaced else { return assert_eq!(largest, None) };
    assert!(crowd(displaced.source) * 2 > largest.unwrap(), "{displaced:?}, {largest:?}");
    if largest == Some(1) {
        let oldest = waiting.iter().map(|shelved| shelved.since).min();
        assert_eq!(Some(displaced.since), oldest);
    }
}

/// Does a step with both and compares.
fn try_step(shelf: &mut Plain, known: &mut Known, now: &mut Nanos, step: ShelfStep) {
    match step {
        ShelfStep::Put(slot, class, source, hung_up) => {
            let new = entry(slot, class, source, now.saturating_sub(if hung_up { 150 * MS } else { 0 }));
            if known.contains_key(&key(class, slot)) {
                assert_eq!(shelf.put(new, hung_up, *now), Some(new));
                return;
            }
            let doubtful = hung_up && *now - new.since > HALF_CLOSE;
            known.insert(key(class, slot), (new, doubtful));
            let given_up = shelf.put(new, hung_up, *now);
            assert!(given_up.is_none() || doubtful);
            take(known, given_up);
        }
        ShelfStep::Next => {
            let next = shelf.next(*now);
            assert_eq!(next.is_some(), !known.is_empty());
            if let Some(next) = next {
                let only_doubtful = oldest(known).is_none();
                assert_eq!(known[&key(next.class, next.slot)].1, only_doubtful);
            }
            take(known, next);
        }
        ShelfStep::Remove(class, slot) => {
            let removed = shelf.remove(class, slot, 0);
            assert_eq!(removed.is_some(), known.contains_key(&key(class, slot)));
            take(known, removed);
        }
        ShelfStep::HungUp(class, slot) => {
            let given_up = shelf.hung_up(class, slot, 0, *now);
            if let Some((shelved, doubtful)) = known.get_mut(&key(class, slot)) {
                *doubtful |= *now - shelved.since > HALF_CLOSE;
            }
            take(known, given_up);
        }
        ShelfStep::Expire => {
            let timeout = 300 * MS;
            while let Some(expired) = shelf.expire(*now, timeout) {
                assert!(*now - expired.since > timeout);
                take(known, Some(expired));
            }
            assert!(oldest(known).is_none_or(|since| *now - since <= timeout));
        }
        ShelfStep::Displace => {
            let newcomers =
                |(shelved, doubtful): &&(Shelved<()>, bool)| !doubtful && shelved.class == Newcomer;
            let waiting: Vec<_> = known.values().filter(newcomers).map(|(shelved, _)| *shelved).collect();
            let displaced = shelf.displace(Newcomer, 0);
            check_displaced(displaced, &waiting);
            take(known, displaced);
        }
        ShelfStep::Cost(source, cost) => shelf.note_cost(SourceId(source), cost),
        ShelfStep::Refund(source) => shelf.refund(SourceId(source)),
        ShelfStep::Pass(time) => *now += time,
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_given_twice(steps in prop::collection::vec(step(), 0..200)) {
        let (mut shelf, mut known, mut now) = (Shelf::new(LIMITS), Known::new(), 1_000 * MS);
        for step in steps {
            try_step(&mut shelf, &mut known, &mut now, step);
            check_counts(&shelf, &known);
        }
        let mut last = 0;
        while let Some(drained) = shelf.drain_one() {
            prop_assert!(drained.since >= last, "the oldest is drained first");
            last = drained.since;
            take(&mut known, Some(drained));
        }
        prop_assert!(known.is_empty());
    }
}

#[test]
fn a_client_that_had_its_turn_in_an_earlier_round_is_due_again() {
    let mut shelf = shelf(LIMITS, &[(1, Established, 7), (2, Established, 7), (3, Established, 7)]);
    let [first, second, third] = [(); 3].map(|()| shelf.next(0).unwrap());
    assert_eq!([first.slot, second.slot, third.slot], [3, 2, 1]);
    for again in [second, third] {
        assert_eq!(shelf.put(again, false, 0), None);
    }
    assert_eq!(shelf.next(0).unwrap().slot, 1, "a new round");
    assert_eq!(shelf.put(first, false, 0), None);
    assert_eq!(
        served(&mut shelf, 9),
        [3, 2],
        "it came in the new round, had no turn in it, and is the freshest"
    );
}

/// Whether a connection that has had its turn and is fresh comes before one that is due and old, after clients left and
/// turns were given.
fn fresh_before_due(leavers: u32, turns: u32) -> bool {
    let mut shelf = Shelf::new(LIMITS);
    let wait = 1_000 * MS;
    for slot in 0..leavers {
        assert_eq!(shelf.put(entry(slot, Newcomer, 1, 0), false, 0), None);
        assert!(shelf.gone(Newcomer, slot, 0, wait).is_some());
    }
    for _ in 0..turns {
        assert_eq!(shelf.put(entry(900, Newcomer, 1, 0), false, 0), None);
        assert!(shelf.next(0).is_some());
    }
    for slot in [1, 2] {
        assert_eq!(shelf.put(entry(slot, Established, 7, wait), false, wait), None);
    }
    assert_eq!(shelf.next(wait).unwrap().slot, 2);
    assert_eq!(shelf.put(entry(2, Established, 7, 2 * wait), false, 2 * wait), None);
    shelf.next(2 * wait).unwrap().slot == 2
}

#[test]
fn while_many_leave_a_fresh_entry_comes_before_one_that_is_about_to_leave() {
    assert!(!fresh_before_due(0, 100), "nobody leaves, so all have their turns");
    assert!(fresh_before_due(100, 100));
    assert!(!fresh_before_due(100, 2_000), "that many left is long ago");
}

#[test]
fn entries_that_are_shed_count_like_those_whose_clients_left() {
    let mut shelf = Shelf::new(LIMITS);
    for slot in 0..200 {
        assert_eq!(shelf.put(entry(slot, Newcomer, 1, 0), false, 0), None);
    }
    assert_eq!(shelf.stale_after(), None);
    while shelf.waiting(Newcomer) > 100 {
        assert!(shelf.displace(Newcomer, 400 * MS).is_some());
    }
    assert_eq!(shelf.stale_after(), Some(100 * MS), "a quarter of the wait after which they were lost");
}

/// A slot that asks again, an instant after the last.
fn ask(shelf: &mut Plain, slot: u32, now: &mut Nanos) {
    *now += MS;
    assert_eq!(shelf.put(entry(slot, Established, 7, *now), false, *now), None);
}

#[test]
fn half_a_request_leaves_its_client_where_it_stood() {
    let mut shelf = Shelf::new(LIMITS);
    let mut now = 1_000 * MS;
    for slot in 0..200 {
        assert_eq!(shelf.put(entry(slot, Newcomer, 7, 0), false, 0), None);
        assert!(shelf.gone(Newcomer, slot, 0, now).is_some());
    }
    // Many leave, so a client that is fresh comes before one that is about to leave, though it has had its turn.
    for slot in [1, 2] {
        ask(&mut shelf, slot, &mut now);
    }
    assert_eq!(served(&mut shelf, 1), [2]);
    now += 1_000 * MS;
    ask(&mut shelf, 2, &mut now);
    assert_eq!(shelf.next(now).unwrap().slot, 2);
    // Half a request was all that came. The rest of it is behind a client that has had no turn, however fresh it is.
    shelf.found_nothing(2);
    ask(&mut shelf, 3, &mut now);
    ask(&mut shelf, 2, &mut now);
    assert_eq!(served(&mut shelf, 1), [3]);
}

#[test]
fn turns_from_before_the_shelf_was_empty_do_not_count() {
    let (mut shelf, mut now) = (shelf(LIMITS, &[(1, Established, 7), (2, Established, 7)]), 2 * MS);
    assert_eq!(served(&mut shelf, 2), [2, 1]);
    // The third has never had a turn, and the first two had theirs when the queue stood before.
    for slot in [3, 1, 2] {
        ask(&mut shelf, slot, &mut now);
    }
    assert_eq!(served(&mut shelf, 3), [2, 1, 3]);
}

/// A shelf that so many clients have left, each after this wait.
fn left_by(leavers: u32, wait: Nanos) -> Plain {
    let mut shelf = Shelf::new(LIMITS);
    leave(&mut shelf, leavers, wait);
    shelf
}

fn leave(shelf: &mut Plain, leavers: u32, wait: Nanos) {
    for slot in 0..leavers {
        assert_eq!(shelf.put(entry(slot, Newcomer, 1, 0), false, 0), None);
        assert!(shelf.gone(Newcomer, slot, 0, wait).is_some());
    }
}

#[test]
fn many_leave_when_they_are_more_than_an_eighth_of_turns_and_leavers() {
    // Each counts a 256th of the mean: 1 - (255/256)^n passes an eighth with the 35th.
    assert_eq!(left_by(34, MS).stale_after(), None);
    assert!(left_by(35, MS).stale_after().is_some());
    let mut shelf = left_by(100, MS);
    let mut turns = 0;
    while shelf.stale_after().is_some() {
        assert_eq!(shelf.put(entry(900, Newcomer, 1, 0), false, 0), None);
        assert!(shelf.next(0).is_some());
        turns += 1;
    }
    // Of 100 leavers 0.324 is left, and 0.324 (255/256)^n falls below an eighth with the 244th turn.
    assert_eq!(turns, 244);
}

#[test]
fn the_wait_after_which_clients_leave_is_a_mean_that_one_of_them_moves_by_a_256th() {
    let mut shelf = left_by(100, 400 * MS);
    assert_eq!(shelf.stale_after(), Some(100 * MS));
    leave(&mut shelf, 1, (400 + 256) * MS);
    assert_eq!(shelf.stale_after(), Some(100 * MS + MS / 4));
    leave(&mut shelf, 1, (401 - 256) * MS);
    assert_eq!(shelf.stale_after(), Some(100 * MS));
}

#[test]
fn who_has_hung_up_as_clients_of_one_request_do_is_served_like_others() {
    let mut shelf = shelf(LIMITS, &[(1, Newcomer, 1)]);
    assert_eq!(shelf.put(entry(2, Newcomer, 1, 5), true, 5 + HALF_CLOSE), None);
    assert_eq!((shelf.doubtful(), shelf.waiting(Newcomer)), (0, 2));
    assert_eq!(shelf.put(entry(3, Newcomer, 1, 4), true, 5 + HALF_CLOSE), None);
    assert_eq!((shelf.doubtful(), shelf.waiting(Newcomer)), (1, 2));
    assert_eq!(served(&mut shelf, 9), [2, 1, 3]);
}

#[test]
fn entries_of_one_age_expire_in_the_order_in_which_they_came() {
    let mut shelf = Shelf::new(LIMITS);
    for slot in [5, 3, 4] {
        assert_eq!(shelf.put(entry(slot, Established, 1, MS), false, MS), None);
    }
    let drained: Vec<_> = std::iter::from_fn(|| shelf.drain_one()).map(|shelved| shelved.slot).collect();
    assert_eq!(drained, [5, 3, 4]);
}

#[test]
fn a_client_whose_turn_was_the_last_of_a_round_is_due_in_the_next() {
    let mut shelf = shelf(LIMITS, &[(1, Established, 7), (2, Established, 7), (3, Established, 7)]);
    let [third, second] = [(); 2].map(|()| shelf.next(0).unwrap());
    for again in [third, second] {
        assert_eq!(shelf.put(again, false, 0), None);
    }
    let last = shelf.next(0).unwrap();
    assert_eq!(last.slot, 1);
    assert_eq!(served(&mut shelf, 1), [2], "a new round");
    assert_eq!(shelf.put(last, false, 0), None);
    assert_eq!(served(&mut shelf, 9), [1, 3], "the last is due, and the freshest");
}

#[test]
fn a_source_that_was_forgotten_begins_a_round_of_its_own() {
    let mut shelf = shelf(LIMITS, &[(9, Established, 8), (1, Established, 7)]);
    let first = shelf.next(0).unwrap();
    assert_eq!((first.slot, first.source), (1, SourceId(7)));
    // More sources than are remembered come and leave without a turn; another client waits all the time.
    for source in 1_000..4_000 {
        assert_eq!(shelf.put(entry(5, Newcomer, source, 0), false, 0), None);
        assert!(shelf.remove(Newcomer, 5, 0).is_some());
    }
    assert_eq!(shelf.put(entry(2, Established, 7, 5), false, 5), None);
    assert_eq!(shelf.put(entry(1, Established, 7, 6), false, 6), None);
    assert_eq!(served(&mut shelf, 9), [1, 9, 2], "its turn in a round that is forgotten does not count");
}

/// Whether a connection that has had its turn and asks again at `since` comes before one that is due, when that has waited
/// this long and clients leave after 400 ms.
fn passes_the_due(since: Nanos, waited: Nanos) -> bool {
    let mut shelf = left_by(100, 400 * MS);
    for slot in [1, 2] {
        assert_eq!(shelf.put(entry(slot, Established, 7, 0), false, 0), None);
    }
    assert_eq!(served(&mut shelf, 1), [2]);
    assert_eq!(shelf.put(entry(2, Established, 7, since), false, since), None);
    shelf.next(waited).unwrap().slot == 2
}

#[test]
fn an_entry_is_stale_when_it_has_waited_for_more_than_a_quarter_of_the_time_after_which_clients_leave() {
    assert!(!passes_the_due(50 * MS, 100 * MS) && passes_the_due(50 * MS, 100 * MS + 1));
    assert!(!passes_the_due(0, 200 * MS), "one that is no fresher does not pass it");
}

#[test]
fn those_who_have_probably_left_are_in_no_list_of_a_source() {
    let limits =
        ShelfLimits { connections: 4, datagrams: 0, doubtful_max: 2, fresh: false, knows_refused: false };
    for class in [Newcomer, Established] {
        let mut shelf = shelf(limits, &[(1, class, 0)]);
        assert_eq!(shelf.hung_up(class, 1, 0, 1_000 * MS), None);
        // As many sources as are known.
        for source in 0..Accounts::most(4) as u128 {
            assert_eq!(shelf.put(entry(2, class, source, 0), false, 0), None);
            assert_eq!((served(&mut shelf, 1), shelf.doubtful()), (vec![2], 1), "{source}");
        }
        assert_eq!(served(&mut shelf, 9), [1]);
    }
}

#[test]
fn a_turn_that_found_nothing_was_no_turn_of_its_round() {
    let entries = [(1, Established, 7), (2, Established, 7), (3, Established, 7)];
    for (found_nothing, next) in [(true, [3, 2, 1]), (false, [2, 1, 3])] {
        let mut shelf = shelf(LIMITS, &entries);
        let first = shelf.next(0).unwrap();
        assert_eq!(first.slot, 3);
        if found_nothing {
            shelf.found_nothing(3);
        }
        assert_eq!(shelf.put(first, false, 0), None);
        assert_eq!(served(&mut shelf, 9), next, "found nothing: {found_nothing}");
    }
    shelf(LIMITS, &entries).found_nothing(LIMITS.connections as u32);
}

#[test]
fn the_oldest_newcomer_is_found_among_others_that_have_waited_longer() {
    let mut shelf =
        shelf(LIMITS, &[(1, Established, 1), (2, Newcomer, 1), (3, Newcomer, 1), (4, Datagram, 1)]);
    let taken: Vec<_> = std::iter::from_fn(|| shelf.next_newcomer(0)).map(|shelved| shelved.slot).collect();
    assert_eq!((taken, shelf.len()), (vec![2, 3], 2));
}

#[test]
fn a_shelf_whose_places_are_all_taken_keeps_its_ages_apart() {
    let limits =
        ShelfLimits { connections: 4, datagrams: 2, doubtful_max: 2, fresh: true, knows_refused: false };
    let entries =
        [(3, Established, 1), (1, Datagram, 1), (2, Newcomer, 1), (0, Datagram, 1), (1, Newcomer, 1)];
    let mut shelf = shelf(limits, &entries);
    assert_eq!(shelf.put(entry(0, Established, 1, 9 * MS), false, 9 * MS), None);
    assert_eq!(shelf.hung_up(Newcomer, 1, 0, 1_000 * MS), None);
    assert_eq!((shelf.len(), shelf.doubtful(), shelf.oldest()), (6, 1, Some(0)));
    let drained = std::iter::from_fn(|| shelf.drain_one()).map(|shelved| (shelved.class, shelved.slot));
    let by_age = entries.iter().map(|&(slot, class, _)| (class, slot)).chain([(Established, 0)]);
    assert_eq!(drained.collect::<Vec<_>>(), by_age.collect::<Vec<_>>());
}
