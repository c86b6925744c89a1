//! The shelf: what waits while the queue stands, and the order in which it is served.
//!
//! While the queue stands the workers move all that comes out of the channel to the shelf, and take from it:
//!
//! 1. the source whose turn it is (see [`accounts`](super::accounts)): no source waits while another has more than its share;
//! 2. of that source a newcomer, an established connection or a datagram, in turn;
//! 3. of those the freshest. An established connection that has had its turn stands behind the source's others until
//!    each of them has had one. Without this rule the clients that ask again at once would be the freshest always, and as
//!    few of them as there are workers would have the server for themselves.
//!
//! A client that has hung up after it had waited for a while may have left, or may have closed its sending half and
//! listen. Such entries are *doubtful*: they are served when nothing else waits, and they are few: beyond
//! `doubtful_max` the one that came first is given up.
//!
//! Each connection and each datagram has one place, so the shelf is bounded by the limits of both, and nothing is
//! allocated after it was made. An operation takes the same time however many wait.

use super::accounts::{Accounts, Class, SourceId};
use super::lists::Lists;
use crate::clock::Nanos;

/// A client that hangs up sooner than this after its request has closed its sending half, as clients of one request
/// do. One that waited longer has probably left.
pub(crate) const HALF_CLOSE: Nanos = 100_000_000;

/// Clients that leave are many when they are more than this share of turns and leavers together, ...
const MANY_LEAVE: f64 = 0.125;
/// ... each of which counts this much in the mean.
const NEW_IN_MEAN: f64 = 1.0 / 256.0;

/// An entry that has waited for this share of the time after which clients leave is stale.
const STALE: f64 = 0.25;

/// How many neighbours an entry may be moved past, to stand where its age belongs. Entries come nearly in order: only
/// what waited in the kernel before is older than it seems.
const OUT_OF_ORDER: usize = 8;

/// The lists of entries by age: one for each class, and that of the doubtful.
const AGES: usize = 4;
const DOUBTFUL: usize = 3;
const EACH_AGE: [usize; AGES] = [0, 1, 2, DOUBTFUL];

/// The lists of each source's entries.
const OF_SOURCE: u32 = 4;
const DUE: [u32; 3] = [0, 1, 2];
/// Established connections that have had a turn in the source's present round.
const SERVED: u32 = 3;

/// What waits. A connection's slot and a datagram's place are numbers of two kinds; the class says of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shelved<T> {
    pub(crate) slot: u32,
    /// Which life of the slot is meant.
    pub(crate) generation: u32,
    pub(crate) since: Nanos,
    pub(crate) class: Class,
    pub(crate) source: SourceId,
    /// Whatever else the caller wants back.
    pub(crate) entry: T,
}

/// The place of one connection or datagram.
#[derive(Clone, Copy, Debug)]
struct Seat<T> {
    since: Nanos,
    /// The turn in which this life of the slot was last served, or 0.
    served: u64,
    generation: u32,
    source: u32,
    standing: Stand,
    entry: Option<T>,
}

/// Whether a place is taken, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Absent,
    Waiting(Class),
    Doubtful(Class, SourceId),
}

/// How large a shelf is and how it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShelfLimits {
    pub(crate) connections: usize,
    pub(crate) datagrams: usize,
    /// How many entries may be kept whose client has probably left.
    pub(crate) doubtful_max: usize,
    /// The freshest first; otherwise in the order in which they came.
    pub(crate) fresh: bool,
}

impl ShelfLimits {
    fn places(&self) -> usize {
        self.connections + self.datagrams
    }
}

#[derive(Debug)]
pub(crate) struct Shelf<T> {
    limits: ShelfLimits,
    places: Box<[Seat<T>]>,
    sources: Accounts,
    /// For each source the turn with which the present round of its established connections began.
    rounds: Box<[u64]>,
    /// The entries in their order: those of each source, and the doubtful.
    order: Lists,
    /// The entries by age.
    ages: Lists,
    counts: [usize; 3],
    doubtful: usize,
    /// Turns given so far.
    turns: u64,
    /// The share of those whose clients left among all that were served or left, of late.
    leavers: f64,
    /// After which wait clients leave, in the mean of late; 0 if none has left.
    left_after: f64,
}

impl<T: Copy> Shelf<T> {
    pub(crate) fn new(limits: ShelfLimits) -> Self {
        let (places, sources) = (limits.places(), Accounts::most(limits.places()));
        let absent =
            Seat { since: 0, served: 0, generation: 0, source: 0, standing: Stand::Absent, entry: None };
        Self {
            limits,
            places: vec![absent; places].into(),
            sources: Accounts::new(places, limits.fresh),
            rounds: vec![0; sources].into(),
            order: Lists::new(places + sources * OF_SOURCE as usize + 1),
            ages: Lists::new(places + AGES),
            counts: [0; 3],
            doubtful: 0,
            turns: 0,
            leavers: 0.0,
            left_after: 0.0,
        }
    }

    /// The bytes that a shelf of these limits takes.
    pub(crate) fn bytes(limits: &ShelfLimits) -> usize {
        let source = Accounts::SOURCE_BYTES + size_of::<u64>() + OF_SOURCE as usize * Lists::NODE_BYTES;
        let place = size_of::<Seat<T>>() + 2 * Lists::NODE_BYTES;
        limits.places() * place + Accounts::most(limits.places()) * source
    }

    /// How many entries are on the shelf.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum::<usize>() + self.doubtful
    }

    /// How many of a class wait, those not counted whose client has probably left.
    pub(crate) fn waiting(&self, class: Class) -> usize {
        self.counts[class as usize]
    }

    pub(crate) fn doubtful(&self) -> usize {
        self.doubtful
    }

    /// How many sources wait.
    pub(crate) fn sources(&self) -> usize {
        self.sources.active()
    }

    /// Since when the entry has waited that has waited longest, those not counted whose client has probably left.
    pub(crate) fn oldest(&self) -> Option<Nanos> {
        let oldest = self.oldest_of(&EACH_AGE[..DOUBTFUL])?;
        Some(self.places[oldest as usize].since)
    }

    /// Puts an entry on the shelf; with `hung_up` its client has closed at least its sending half. What has to be given
    /// up for it comes back: an entry whose client has probably left. So does an entry that is on the shelf already,
    /// or for which there is no place, which are mistakes of the caller.
    #[must_use = "an entry that is given up has to be ended"]
    pub(crate) fn put(&mut self, new: Shelved<T>, hung_up: bool, now: Nanos) -> Option<Shelved<T>> {
        let Some(number) = self.place_of(new.class, new.slot) else { return Some(new) };
        let place = &mut self.places[number as usize];
        if place.standing != Stand::Absent {
            return Some(new);
        }
        if place.generation != new.generation {
            place.served = 0;
        }
        place.since = new.since;
        place.generation = new.generation;
        place.entry = Some(new.entry);
        if hung_up && now.saturating_sub(new.since) > HALF_CLOSE {
            self.note_leaver(now.saturating_sub(new.since));
            return self.doubt(number, new.class, new.source);
        }
        place.standing = Stand::Waiting(new.class);
        let (source, unknown) = self.sources.find_or_add(new.source);
        self.places[number as usize].source = source;
        if unknown {
            self.rounds[source as usize] = self.turns + 1;
        }
        let served = self.places[number as usize].served >= self.rounds[source as usize];
        let list = if new.class == Class::Established && served { SERVED } else { DUE[new.class as usize] };
        self.order.push_first(self.source_list(source, list), number);
        self.sources.came(source, new.class, new.since);
        self.counts[new.class as usize] += 1;
        self.insert_by_age(number, new.class as usize);
        None
    }

    /// Takes the entry whose turn it is.
    pub(crate) fn next(&mut self, now: Nanos) -> Option<Shelved<T>> {
        let Some((source, class)) = self.sources.pick(self.stale_after().is_none()) else {
            return self.order.first(self.doubtful_list()).map(|number| self.take_out(number));
        };
        let list = match class {
            Class::Established => self.established_list(source, now),
            _ => self.source_list(source, DUE[class as usize]),
        };
        let number = if self.limits.fresh { self.order.first(list) } else { self.order.last(list) };
        let number = number.expect("a source in the order of a class has an entry of it");
        self.turns += 1;
        self.leavers -= self.leavers * NEW_IN_MEAN;
        self.places[number as usize].served = self.turns;
        Some(self.take_out(number))
    }

    /// Of which list of the source an established connection has its turn. When all that wait have had one in the source's
    /// round, the next round begins.
    ///
    /// Where many clients leave, the due are not served to the last: those at the end are about to leave, and a turn of
    /// one that is fresh is worth more.
    fn established_list(&mut self, source: u32, now: Nanos) -> u32 {
        let (due, served) = (self.source_list(source, DUE[1]), self.source_list(source, SERVED));
        let since = |list| self.order.first(list).map(|number| self.places[number as usize].since);
        let (freshest, fresher) = (since(due), since(served));
        let Some(freshest) = freshest else {
            self.rounds[source as usize] = self.turns + 1;
            self.order.move_all_first(served, due);
            return due;
        };
        let stale = self.stale_after().is_some_and(|stale| now.saturating_sub(freshest) > stale);
        if stale && self.limits.fresh && fresher > Some(freshest) { served } else { due }
    }

    /// The wait after which an entry is stale; `None` while few clients leave.
    fn stale_after(&self) -> Option<Nanos> {
        (self.leavers > MANY_LEAVE).then_some((self.left_after * STALE) as Nanos)
    }

    /// A client has left, or was shed, after this wait.
    fn note_leaver(&mut self, waited: Nanos) {
        self.leavers += (1.0 - self.leavers) * NEW_IN_MEAN;
        let waited = waited as f64;
        self.left_after = if self.left_after == 0.0 {
            waited
        } else {
            self.left_after + (waited - self.left_after) * NEW_IN_MEAN
        };
    }

    /// The entry that was taken last from this source had no turn: its client had left.
    pub(crate) fn refund(&mut self, source: SourceId) {
        self.sources.refund(source);
    }

    /// What a turn of this source has cost. Accounts whose turns are expensive have fewer.
    pub(crate) fn note_cost(&mut self, source: SourceId, cost: Nanos) {
        self.sources.note_cost(source, cost);
    }

    /// Takes an entry out wherever it stands; `None` if it is not on the shelf, or is of another life of the slot.
    pub(crate) fn remove(&mut self, class: Class, slot: u32, generation: u32) -> Option<Shelved<T>> {
        let number = self.present(class, slot, generation)?;
        Some(self.take_out(number))
    }

    /// Takes an entry out whose client is gone for certain.
    pub(crate) fn gone(
        &mut self,
        class: Class,
        slot: u32,
        generation: u32,
        now: Nanos,
    ) -> Option<Shelved<T>> {
        let gone = self.remove(class, slot, generation)?;
        self.note_leaver(now.saturating_sub(gone.since));
        Some(gone)
    }

    /// The client of an entry has closed at least its sending half. If it has waited for a while it has probably left,
    /// and is served when nothing else waits. What has to be given up for it comes back.
    #[must_use = "an entry that is given up has to be ended"]
    pub(crate) fn hung_up(
        &mut self,
        class: Class,
        slot: u32,
        generation: u32,
        now: Nanos,
    ) -> Option<Shelved<T>> {
        let number = self.present(class, slot, generation)?;
        let place = self.places[number as usize];
        let Stand::Waiting(class) = place.standing else { return None };
        if now.saturating_sub(place.since) <= HALF_CLOSE {
            return None;
        }
        self.note_leaver(now.saturating_sub(place.since));
        let shelved = self.take_out(number);
        self.places[number as usize].entry = Some(shelved.entry);
        self.doubt(number, class, shelved.source)
    }

    /// Takes out an entry that has waited for longer than `timeout`, the oldest first.
    pub(crate) fn expire(&mut self, now: Nanos, timeout: Nanos) -> Option<Shelved<T>> {
        let number = self.oldest_of(&EACH_AGE)?;
        let waited = now.saturating_sub(self.places[number as usize].since);
        if waited <= timeout {
            return None;
        }
        self.note_leaver(waited);
        Some(self.take_out(number))
    }

    /// Takes out the entry of a class that has waited longest, to make room for another. Whoever has waited longest has the
    /// least use for its turn.
    pub(crate) fn displace(&mut self, class: Class, now: Nanos) -> Option<Shelved<T>> {
        let number = self.oldest_of(&[class as usize])?;
        self.note_leaver(now.saturating_sub(self.places[number as usize].since));
        Some(self.take_out(number))
    }

    /// Takes out the newcomer that has waited longest.
    pub(crate) fn oldest_newcomer(&mut self) -> Option<Shelved<T>> {
        self.oldest_of(&[Class::Newcomer as usize]).map(|number| self.take_out(number))
    }

    /// Takes out the entry that has waited longest: a server that ends empties its shelf with this.
    pub(crate) fn drain_one(&mut self) -> Option<Shelved<T>> {
        self.oldest_of(&EACH_AGE).map(|number| self.take_out(number))
    }

    fn oldest_of(&self, lists: &[usize]) -> Option<u32> {
        let firsts = lists.iter().filter_map(|&list| self.ages.first(self.age_list(list)));
        firsts.min_by_key(|&number| self.places[number as usize].since)
    }

    /// Takes the entry of a place out of all lists and counts.
    fn take_out(&mut self, number: u32) -> Shelved<T> {
        let place = self.places[number as usize];
        self.order.unlink(number);
        self.ages.unlink(number);
        let (class, source) = match place.standing {
            Stand::Doubtful(class, source) => {
                self.doubtful -= 1;
                (class, source)
            }
            Stand::Waiting(class) => {
                self.leave_source(place.source, class);
                self.counts[class as usize] -= 1;
                (class, self.sources.id(place.source))
            }
            Stand::Absent => unreachable!("only an entry that is on the shelf is taken out"),
        };
        let place = &mut self.places[number as usize];
        place.standing = Stand::Absent;
        let slot = if class == Class::Datagram { number - self.limits.connections as u32 } else { number };
        let entry = place.entry.take().expect("a place that is taken has an entry");
        Shelved { slot, generation: place.generation, since: place.since, class, source, entry }
    }

    fn leave_source(&mut self, source: u32, class: Class) {
        let mut last = self.order.is_empty(self.source_list(source, DUE[class as usize]));
        if class == Class::Established {
            last &= self.order.is_empty(self.source_list(source, SERVED));
        }
        self.sources.left(source, class, last);
    }

    /// Puts a place, which is in no list, among the doubtful; returns the one that has to be given up for it.
    fn doubt(&mut self, number: u32, class: Class, source: SourceId) -> Option<Shelved<T>> {
        self.places[number as usize].standing = Stand::Doubtful(class, source);
        self.order.push_first(self.doubtful_list(), number);
        self.insert_by_age(number, DOUBTFUL);
        self.doubtful += 1;
        if self.doubtful <= self.limits.doubtful_max {
            return None;
        }
        self.ages.first(self.age_list(DOUBTFUL)).map(|first| self.take_out(first))
    }

    fn insert_by_age(&mut self, number: u32, list: usize) {
        let list = self.age_list(list);
        let since = self.places[number as usize].since;
        let mut place = self.ages.last(list);
        for _ in 0..OUT_OF_ORDER {
            match place {
                Some(older) if self.places[older as usize].since > since => {
                    place = self.ages.before(list, older);
                }
                _ => break,
            }
        }
        self.ages.insert_after(place.unwrap_or(list), number);
    }

    /// The place of an entry that is on the shelf.
    fn present(&self, class: Class, slot: u32, generation: u32) -> Option<u32> {
        let number = self.place_of(class, slot)?;
        let place = &self.places[number as usize];
        (place.standing != Stand::Absent && place.generation == generation).then_some(number)
    }

    fn place_of(&self, class: Class, slot: u32) -> Option<u32> {
        let (first, most) = match class {
            Class::Datagram => (self.limits.connections, self.limits.datagrams),
            _ => (0, self.limits.connections),
        };
        ((slot as usize) < most).then_some(first as u32 + slot)
    }

    fn source_list(&self, source: u32, list: u32) -> u32 {
        self.places.len() as u32 + source * OF_SOURCE + list
    }

    fn doubtful_list(&self) -> u32 {
        self.places.len() as u32 + self.rounds.len() as u32 * OF_SOURCE
    }

    fn age_list(&self, list: usize) -> u32 {
        (self.places.len() + list) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const MS: Nanos = 1_000_000;
    const TIMEOUT: Nanos = 5_000 * MS;
    const LIMITS: ShelfLimits =
        ShelfLimits { connections: 1000, datagrams: 50, doubtful_max: 2, fresh: true };

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
        assert_eq!((given_up.slot, shelf.len(), shelf.oldest()), (2, 2, None));
        let expired = shelf.expire(late + TIMEOUT, TIMEOUT).unwrap();
        assert_eq!((expired.slot, shelf.doubtful()), (3, 1), "they expire like others, by their age");
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
    }

    fn take(known: &mut Known, taken: Option<Shelved<()>>) {
        if let Some(shelved) = taken {
            let (put, _) = known.remove(&key(shelved.class, shelved.slot)).expect("it was on the shelf");
            assert_eq!(shelved, put);
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
                let oldest = known.values().filter(newcomers).map(|(shelved, _)| shelved.since).min();
                let displaced = shelf.displace(Newcomer, 0);
                assert_eq!(displaced.map(|shelved| shelved.since), oldest);
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
}
