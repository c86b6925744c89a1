//! The shelf: what waits while the queue stands, and the order in which it is served.
//!
//! While the queue stands the workers move all that comes out of the channel to the shelf, and take from it:
//!
//! 1. the source whose turn it is (see [`accounts`](super::accounts)): no source waits while another has more than its share;
//! 2. of that source a newcomer, an established connection or a datagram, in turn;
//! 3. of those the freshest, or the oldest while all that waits will be served soon and nobody leaves (a server, which does
//!    not know of all newcomers whom it could not let in, says this only while no newcomer waits). An established connection that has had its turn stands behind the source's others until each of them has had one. Without this
//!    rule the clients that ask again at once would be the freshest always, and as few of them as there are workers
//!    would have the server for themselves.
//!
//! A client that has hung up after it had waited for a while may have left, or may have closed its sending half and
//! listen. Such entries are *doubtful*: they are served when nothing else waits, and they are few: beyond
//! `doubtful_max` the one that came first is given up.
//!
//! Each connection and each datagram has one place, so the shelf is bounded by the limits of both, and nothing is
//! allocated after it was made. An operation takes the same time however many wait.

use super::accounts::{Accounts, Class, SourceId};
use super::lists::Lists;
use super::pace::TurnPace;
use super::seats::{Seats, ShelfSeat, Stand};
use crate::clock::Nanos;
use std::collections::HashMap;

/// A client that hangs up sooner than this after its request has closed its sending half, as clients of one request
/// do. One that waited longer has probably left. A client that closes its half behind its request does so within a round trip, which
/// is below 100 ms nearly everywhere; one that gives up does so after some hundreds of milliseconds at the soonest.
pub(crate) const HALF_CLOSE: Nanos = 100_000_000;

// Where a number below is called chosen, others near it do as well: the simulator's scenes and the worlds of 60 seeds hold with a
// quarter and with four times of it (`SEEDS=0..60 cargo test --lib simulate`).

/// Clients that leave are many when they are more than this share of turns and leavers together (chosen), ...
const MANY_LEAVE: f64 = 0.125;
/// ... each of which counts this much in the mean, so that it follows within some hundred turns: a few tenths of a second at a
/// thousand turns a second.
const NEW_IN_MEAN: f64 = 1.0 / 256.0;

/// While at most this share leaves or has to make room, and all that waits is served within this time, it is served in the
/// order in which it came: nobody waits in vain then, and the freshest first would only make some wait many times as
/// long as others. While newcomers wait this holds only where [all who are refused are known](ShelfLimits::knows_refused).
/// The time is below the 350 ms within which 99 of 100 useful replies are promised. The share is that of five who leave one after the
/// other: fewer leave for reasons of their own.
const FEW_LEAVE: f64 = 1.0 / 64.0;
const IN_ORDER_WITHIN: Nanos = 300_000_000;

/// The same holds when nobody has left or had to make room for this time, the interval by which [`standing`](super::standing) tells a
/// burst from a queue that stands: a flood has ended then. The mean would need a thousand turns to say so, and meanwhile whoever
/// waited at its end would be passed over for all that came later.
const OVER_AFTER: Nanos = super::standing::INTERVAL;

/// An entry that has waited for this share of the time after which clients leave is stale (chosen).
const STALE: f64 = 0.25;

/// While few clients leave, one in this number of turns of newcomers is that of the oldest of its source. Clients
/// that connect anew for each request are the freshest always: without this rule the same few of them would have all
/// turns, and the others none.
/// With one in eight each waits for eight rounds at most, and seven in eight are served as quickly as by the freshest first alone.
const OLDEST_EACH: u32 = 8;

/// How many neighbours an entry may be moved past, to stand where its age belongs. Entries come nearly in order: only what
/// waited in the kernel before is older than it seems. The number bounds the time under the lock.
const OUT_OF_ORDER: usize = 8;

/// How many entries of a list by age [`expire_late`](Shelf::expire_late) passes in a look that may wait longer than others: some
/// ten microseconds under the lock.
pub(super) const PASSED_MOST: usize = 256;

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

/// How large a shelf is and how it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShelfLimits {
    pub(crate) connections: usize,
    pub(crate) datagrams: usize,
    /// How many entries may be kept whose client has probably left.
    pub(crate) doubtful_max: usize,
    /// The freshest first; otherwise in the order in which they came.
    pub(crate) fresh: bool,
    /// Of all newcomers that are not let in the shelf hears: they had to make room for others here, or are
    /// [noted](Shelf::note_refused). A server's do not: many are turned away, or wait in the kernel, before they come here. In
    /// README's demonstration, where nine of ten are, newcomers had a p99 of 205 to 357 ms in the order of arrival, and 70 with
    /// the freshest first.
    pub(crate) knows_refused: bool,
}

impl ShelfLimits {
    fn places(&self) -> usize {
        self.connections + self.datagrams
    }
}

#[derive(Debug)]
pub(crate) struct Shelf<T> {
    limits: ShelfLimits,
    places: Seats<T>,
    sources: Accounts,
    /// For each source the turn with which the present round of its established connections began.
    rounds: Box<[u64]>,
    /// The entries in their order: those of each source, and the doubtful.
    order: Lists,
    /// The entries by age.
    ages: Lists,
    /// For each of those where the next look for late ones begins, if not with the oldest.
    passed_to: [Option<u32>; AGES],
    counts: [usize; 3],
    /// The doubtful, with the source of each.
    doubtful: HashMap<u32, SourceId>,
    /// Turns given so far.
    turns: u64,
    /// Turns given to newcomers so far.
    newcomer_turns: u32,
    /// The turn with which the shelf was last empty. All that waited had been served, so earlier turns do not count.
    begun: u64,
    /// The share of those whose clients left among all that were served or left, of late.
    leavers: f64,
    /// After which wait clients leave, in the mean of late; 0 if none has left.
    left_after: f64,
    /// When the last of them left.
    left_at: Nanos,
    /// When an entry last came, had its turn or left.
    seen: Nanos,
    pace: TurnPace,
}

impl<T: Copy> Shelf<T> {
    pub(crate) fn new(limits: ShelfLimits) -> Self {
        let (places, sources) = (limits.places(), Accounts::most(limits.places()));
        Self {
            limits,
            places: Seats::new(limits.connections, limits.datagrams),
            sources: Accounts::new(places),
            rounds: vec![0; sources].into(),
            order: Lists::new(places + sources * OF_SOURCE as usize + 1),
            ages: Lists::new(places + AGES),
            passed_to: [None; AGES],
            counts: [0; 3],
            doubtful: HashMap::with_capacity(limits.doubtful_max.min(places) + 1),
            turns: 0,
            newcomer_turns: 0,
            begun: 0,
            leavers: 0.0,
            left_after: 0.0,
            left_at: 0,
            seen: 0,
            pace: TurnPace::default(),
        }
    }

    /// Changes how many entries may be kept whose client has probably left. Where there are more, they go as others come.
    pub(crate) fn set_doubtful_max(&mut self, most: usize) {
        self.limits.doubtful_max = most;
        self.doubtful.reserve((most.min(self.limits.places()) + 1).saturating_sub(self.doubtful.len()));
    }

    /// The bytes of one entry's place.
    pub(crate) const PLACE_BYTES: usize = size_of::<ShelfSeat<T>>();

    /// The bytes that a shelf of these limits takes.
    pub(crate) fn bytes(limits: &ShelfLimits) -> usize {
        let source = Accounts::SOURCE_BYTES + size_of::<u64>() + OF_SOURCE as usize * Lists::NODE_BYTES;
        let place = Self::PLACE_BYTES + 2 * Lists::NODE_BYTES;
        let doubtful = limits.doubtful_max.min(limits.places()) * 2 * size_of::<(u32, SourceId)>();
        limits.places() * place + Accounts::most(limits.places()) * source + doubtful
    }

    /// What it has taken of the allocator.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        let places = self.places.bytes() + self.rounds.len() * size_of::<u64>();
        places + self.sources.bytes() + self.order.bytes() + self.ages.bytes()
    }

    /// How many entries are on the shelf.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum::<usize>() + self.doubtful.len()
    }

    /// How many of a class wait, those not counted whose client has probably left.
    pub(crate) fn waiting(&self, class: Class) -> usize {
        self.counts[class as usize]
    }

    #[cfg(test)]
    pub(crate) fn doubtful(&self) -> usize {
        self.doubtful.len()
    }

    /// How many sources wait.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> usize {
        self.sources.active()
    }

    /// Since when the entry has waited that has waited longest, those not counted whose client has probably left.
    pub(crate) fn oldest(&self) -> Option<Nanos> {
        let oldest = self.oldest_of(&EACH_AGE[..DOUBTFUL])?;
        Some(self.places[oldest].since)
    }

    /// The same of all entries.
    pub(crate) fn longest(&self) -> Option<Nanos> {
        let longest = self.oldest_of(&EACH_AGE)?;
        Some(self.places[longest].since)
    }

    /// Puts an entry on the shelf; with `hung_up` its client has closed at least its sending half. What has to be given
    /// up for it comes back: an entry whose client has probably left. So does an entry that is on the shelf already,
    /// or for which there is no place, which are mistakes of the caller.
    #[must_use = "an entry that is given up has to be ended"]
    pub(crate) fn put(&mut self, new: Shelved<T>, hung_up: bool, now: Nanos) -> Option<Shelved<T>> {
        let Some(number) = self.place_of(new.class, new.slot) else { return Some(new) };
        if self.len() == 0 {
            self.begun = self.turns + 1;
            self.pace.rest();
        }
        let place = self.places.make(number);
        if place.standing != Stand::Absent {
            return Some(new);
        }
        if place.generation != new.generation {
            (place.served, place.served_before) = (0, 0);
        }
        place.since = new.since;
        place.generation = new.generation;
        place.entry = Some(new.entry);
        self.seen = now;
        if hung_up && now.saturating_sub(new.since) > HALF_CLOSE {
            self.note_leaver(now.saturating_sub(new.since), now);
            return self.doubt(number, new.class, new.source);
        }
        place.standing = Stand::Waiting(new.class);
        let (source, unknown) = self.sources.find_or_add(new.source);
        self.places[number].source = source;
        if unknown {
            self.rounds[source as usize] = self.turns + 1;
        }
        let round = self.rounds[source as usize].max(self.begun);
        let served = self.places[number].served >= round;
        let list = if new.class == Class::Established && served { SERVED } else { DUE[new.class as usize] };
        self.order.push_first(self.source_list(source, list), number);
        self.sources.came(source, new.class, new.since);
        self.counts[new.class as usize] += 1;
        self.insert_by_age(number, new.class as usize);
        None
    }

    /// Takes the entry whose turn it is.
    pub(crate) fn next(&mut self, now: Nanos) -> Option<Shelved<T>> {
        self.seen = now;
        let in_order = self.is_in_order();
        self.pace.turn(now);
        let Some((source, class)) = self.sources.pick(self.stale_after().is_none(), in_order) else {
            return self.order.first(self.doubtful_list()).map(|number| self.take_out(number));
        };
        let list = match class {
            Class::Established => self.established_list(source, now),
            _ => self.source_list(source, DUE[class as usize]),
        };
        let oldest = in_order || class == Class::Newcomer && self.is_turn_of_the_oldest();
        let number = if oldest { self.order.last(list) } else { self.order.first(list) };
        let number = number.expect("a source in the order of a class has an entry of it");
        self.turns += 1;
        self.note_served();
        let place = &mut self.places[number];
        (place.served_before, place.served) = (place.served, self.turns);
        Some(self.take_out(number))
    }

    /// Whether the next turn is that of whoever has waited longest.
    pub(crate) fn is_in_order(&self) -> bool {
        !self.limits.fresh || self.serves_all_soon()
    }

    /// Whether all that waits can be served in time, and nobody has given up or had to make room of late, as far as is known.
    fn serves_all_soon(&self) -> bool {
        (self.limits.knows_refused || self.counts[Class::Newcomer as usize] == 0)
            && (self.leavers <= FEW_LEAVE || self.seen.saturating_sub(self.left_at) > OVER_AFTER)
            && self.pace.serves(self.len(), IN_ORDER_WITHIN)
    }

    /// Counts a turn of a newcomer: while clients are patient, now and then it is the oldest's of its source.
    fn is_turn_of_the_oldest(&mut self) -> bool {
        self.newcomer_turns = self.newcomer_turns.wrapping_add(1);
        self.newcomer_turns.is_multiple_of(OLDEST_EACH) && self.stale_after().is_none()
    }

    /// Of which list of the source an established connection has its turn. When all that wait have had one in the source's
    /// round, the next round begins.
    ///
    /// Where many clients leave, the due are not served to the last: those at the end are about to leave, and a turn of
    /// one that is fresh is worth more.
    fn established_list(&mut self, source: u32, now: Nanos) -> u32 {
        let (due, served) = (self.source_list(source, DUE[1]), self.source_list(source, SERVED));
        let since = |list| self.order.first(list).map(|number| self.places[number].since);
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
    pub(super) fn stale_after(&self) -> Option<Nanos> {
        (self.leavers > MANY_LEAVE).then_some((self.left_after * STALE) as Nanos)
    }

    fn note_served(&mut self) {
        self.leavers -= self.leavers * NEW_IN_MEAN;
    }

    /// A newcomer was refused that never had a place here.
    pub(crate) fn note_refused(&mut self) {
        self.left_at = self.seen;
        self.leavers += (1.0 - self.leavers) * NEW_IN_MEAN;
    }

    /// A client has left, or was shed, after this wait.
    fn note_leaver(&mut self, waited: Nanos, now: Nanos) {
        (self.seen, self.left_at) = (now, now);
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

    /// The turn of this connection found nothing, or half a request. So it was no turn of its source's round, and the
    /// connection stands where it stood before: no better either, or clients that send their requests in pieces would
    /// have more turns than others.
    pub(crate) fn found_nothing(&mut self, slot: u32) {
        if let Some(number) = self.place_of(Class::Established, slot)
            && self.places.get(number).is_some()
        {
            let place = &mut self.places[number];
            place.served = place.served_before;
        }
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
        self.note_leaver(now.saturating_sub(gone.since), now);
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
        let place = self.places[number];
        let Stand::Waiting(class) = place.standing else { return None };
        if now.saturating_sub(place.since) <= HALF_CLOSE {
            return None;
        }
        self.note_leaver(now.saturating_sub(place.since), now);
        let shelved = self.take_out(number);
        self.places[number].entry = Some(shelved.entry);
        self.doubt(number, class, shelved.source)
    }

    /// Takes out an entry that has waited for longer than `timeout`, the oldest first.
    pub(crate) fn expire(&mut self, now: Nanos, timeout: Nanos) -> Option<Shelved<T>> {
        let number = self.oldest_of(&EACH_AGE)?;
        let waited = now.saturating_sub(self.places[number].since);
        if waited <= timeout {
            return None;
        }
        self.note_leaver(waited, now);
        Some(self.take_out(number))
    }

    /// Takes out an entry of a class to make room for another: the one that has waited longest, because it has the least use
    /// for its turn. Of newcomers it is the one that has waited longest of the source that has the most.
    pub(crate) fn displace(&mut self, class: Class, now: Nanos) -> Option<Shelved<T>> {
        self.displace_one(class, now, |_| true)
    }

    /// The same of those entries that are `wanted`. If that one is not wanted, it is the one that has waited longest of all that
    /// are; this looks at those that have waited longer than the one that it finds.
    pub(crate) fn displace_one(
        &mut self,
        class: Class,
        now: Nanos,
        wanted: impl Fn(&T) -> bool,
    ) -> Option<Shelved<T>> {
        let is_wanted = |places: &Seats<T>, number: u32| places[number].entry.as_ref().is_some_and(&wanted);
        let crowd = if class == Class::Newcomer { self.sources.largest_crowd() } else { None };
        let of_crowd =
            crowd.and_then(|source| self.order.last(self.source_list(source, DUE[class as usize])));
        let list = self.age_list(class as usize);
        let mut found = of_crowd.filter(|&number| is_wanted(&self.places, number));
        let mut next = if found.is_none() { self.ages.first(list) } else { None };
        while let Some(number) = next {
            found = is_wanted(&self.places, number).then_some(number);
            next = if found.is_none() { self.ages.after(list, number) } else { None };
        }
        let number = found?;
        self.note_leaver(now.saturating_sub(self.places[number].since), now);
        Some(self.take_out(number))
    }

    /// Takes out entries that have waited longer than `least` and are `late` after their wait, the oldest first. Where some may
    /// wait longer than others, it passes some hundreds of those at most, and the next call goes on behind them.
    pub(crate) fn expire_late(
        &mut self,
        now: Nanos,
        least: Nanos,
        late: impl Fn(&T, Nanos) -> bool,
    ) -> Vec<Shelved<T>> {
        let mut expired = Vec::new();
        for list in EACH_AGE {
            let mut next = self.passed_to[list].take().or_else(|| self.ages.first(self.age_list(list)));
            let mut passed = 0;
            while let Some(number) = next {
                next = self.ages.after(self.age_list(list), number);
                let place = &self.places[number];
                let waited = now.saturating_sub(place.since);
                // The doubtful stand in the order in which their clients hung up, which is not that of their age.
                if waited <= least && list != DOUBTFUL {
                    break;
                }
                if waited > least && place.entry.as_ref().is_some_and(|entry| late(entry, waited)) {
                    self.note_leaver(waited, now);
                    expired.push(self.take_out(number));
                    continue;
                }
                passed += 1;
                if passed == PASSED_MOST {
                    self.passed_to[list] = next;
                    break;
                }
            }
        }
        expired.sort_by_key(|shelved| shelved.since);
        expired
    }

    /// Takes the newcomer that has waited longest, whatever its source: its turn has come.
    pub(crate) fn next_newcomer(&mut self, now: Nanos) -> Option<Shelved<T>> {
        let number = self.oldest_of(&[Class::Newcomer as usize])?;
        self.seen = now;
        self.pace.turn(now);
        self.note_served();
        Some(self.take_out(number))
    }

    /// Takes out the entry that has waited longest: a server that ends empties its shelf with this.
    pub(crate) fn drain_one(&mut self) -> Option<Shelved<T>> {
        self.oldest_of(&EACH_AGE).map(|number| self.take_out(number))
    }

    fn oldest_of(&self, lists: &[usize]) -> Option<u32> {
        let firsts = lists.iter().filter_map(|&list| self.ages.first(self.age_list(list)));
        firsts.min_by_key(|&number| self.places[number].since)
    }

    /// Takes the entry of a place out of all lists and counts.
    fn take_out(&mut self, number: u32) -> Shelved<T> {
        let place = self.places[number];
        self.order.unlink(number);
        for (list, passed_to) in self.passed_to.iter_mut().enumerate() {
            if *passed_to == Some(number) {
                *passed_to = self.ages.after((self.limits.places() + list) as u32, number);
            }
        }
        self.ages.unlink(number);
        let (class, source) = match place.standing {
            Stand::Doubtful(class) => {
                let source = self.doubtful.remove(&number).expect("the source of a doubtful entry is kept");
                (class, source)
            }
            Stand::Waiting(class) => {
                self.leave_source(place.source, class);
                self.counts[class as usize] -= 1;
                (class, self.sources.id(place.source))
            }
            Stand::Absent => unreachable!("only an entry that is on the shelf is taken out"),
        };
        let place = &mut self.places[number];
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
        self.places[number].standing = Stand::Doubtful(class);
        self.doubtful.insert(number, source);
        self.order.push_first(self.doubtful_list(), number);
        self.insert_by_age(number, DOUBTFUL);
        if self.doubtful.len() <= self.limits.doubtful_max {
            return None;
        }
        self.ages.first(self.age_list(DOUBTFUL)).map(|first| self.take_out(first))
    }

    fn insert_by_age(&mut self, number: u32, list: usize) {
        let list = self.age_list(list);
        let since = self.places[number].since;
        let mut place = self.ages.last(list);
        for _ in 0..OUT_OF_ORDER {
            match place {
                Some(older) if self.places[older].since > since => {
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
        let place = self.places.get(number)?;
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
        self.limits.places() as u32 + source * OF_SOURCE + list
    }

    fn doubtful_list(&self) -> u32 {
        self.limits.places() as u32 + self.rounds.len() as u32 * OF_SOURCE
    }

    fn age_list(&self, list: usize) -> u32 {
        (self.limits.places() + list) as u32
    }
}
