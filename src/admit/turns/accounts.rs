//! The accounts of sources: which one has the next turn, so that none has more than its share.
//!
//! Time is counted in *rounds*. In one round each source that waits may have one turn of mean cost; a source whose
//! turns cost ten times as much as the mean has one in ten rounds, and one whose turns cost a tenth has ten in each.
//! (Turns by number would let a source with expensive requests take nearly the whole server from the others.) A turn
//! moves the round on by its cost divided by the number of sources that wait, so a round lasts as long as it takes to
//! give each of them its turn. This is the virtual time of weighted fair queueing, in whole rounds.
//!
//! A source that has had its share waits for a later round in one of [`AHEAD`] lists. All others are *due*, and among
//! those the freshest is first: a source stands where its newest entry put it. Fair queueing would serve them in the
//! order in which they came, which under overload is too late for each of them.
//!
//! A source that had its turn and asks for nothing counts until its round is over, because its turn came before the others'.
//! If it did not count, a round would be shorter than a turn for each, and those that have waited longest would get none.
//!
//! The due take turns by class: a newcomer's, an established connection's, a datagram's. Without that, newcomers who come
//! as quickly as they are served would always be the freshest, and nobody else would be served, and the other way round.
//!
//! A source that leaves the shelf is remembered. Otherwise a client with one connection that asks again at once would be
//! new each time, and always the freshest.

use super::crowds::Crowds;
use super::lists::Lists;
use crate::clock::Nanos;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Where clients come from, as far as their turns are concerned: an address without its host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceId(pub(crate) u128);

impl SourceId {
    /// The one source of a server that does not tell sources apart.
    pub(crate) const EVERYONE: Self = Self(0);
}

/// What an entry waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// The first turn of a connection.
    Newcomer = 0,
    /// Another turn.
    Established = 1,
    /// The answer to a datagram.
    Datagram = 2,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Newcomer, Self::Established, Self::Datagram];
}

// Where a number below is called chosen, it follows from nothing: it is what the scenes and worlds of the simulator were played
// with when they were written (`cargo test --lib simulate`), and others near it would do as well.

/// A turn of mean cost, and the length of a round. Rounds are fractions with 16 bits: a turn that is charged a sixteenth, beside
/// four thousand sources, still moves the round on.
const ONE: u64 = 1 << ROUND_SHIFT;
const ROUND_SHIFT: u32 = 16;

/// For how many rounds ahead there are lists: chosen, and a power of two, so that the list of a round is found with a mask.
const AHEAD: u64 = 64;

/// The least and the most that one turn is charged, however cheap or expensive. The most is what fits into the lists ahead with
/// room to spare, in whole quarters of them. The least is chosen: a source has at most 16 turns in a round.
const CHARGE_LEAST: u64 = ONE / 16;
const CHARGE_MOST: u64 = ONE * 48;

/// How far behind its share a source that waits can be and still catch up. Its turns come one after the other then: 16 turns of
/// a millisecond are still fewer than the 20 ms above which a wait counts as long.
const CREDIT_MOST: u64 = ONE * 16;

// A source is picked when it is due, so it is at most one round ahead, and is charged once.
const _: () = assert!(CHARGE_MOST + 2 * ONE < AHEAD * ONE);

/// A source that has had its turn and does not wait (its client is in its turn, mostly) counts only while such sources are
/// at most this many more than those that wait. Without a limit, clients that come once would make a round last for
/// thousands of turns, and a client that stays would have to wait for its end. Chosen: twice the 32 workers that there are by default,
/// so that all whose clients are in their turns count.
const SERVED_MOST: u32 = 64;

/// While many clients leave, a round has at most this many turns of mean cost. Where more sources wait, one that comes again
/// quickly may have more than its share then, but no more than this part of the whole; and a client that is fresh need not
/// wait for thousands of others that are about to leave. Chosen: 256 turns of a millisecond are a quarter of a second, within which
/// polite clients are promised an answer beside a noisy one.
const ROUND_MOST: u32 = 256;

/// A source that is this far behind its share comes first, however fresh the others are, as long as clients wait.
/// One round behind is usual: its turn of the round that goes on may be still to come.
const BEHIND: u64 = 2 * ONE;

/// The lists of sources that are due: those whose entries came while they were, and those that have become due with a
/// round. Each is in the order of freshness, and so the freshest is the first of one of them.
const DUE: usize = 2;

/// One source, waiting or remembered.
#[derive(Clone, Copy, Debug)]
struct Account {
    id: SourceId,
    /// The round from which on it is due.
    tag: u64,
    /// The mean cost of its turns, or 0 when unknown.
    cost: Nanos,
    /// Since when its newest entry waits, or waited.
    newest: Nanos,
    /// Its entries on the shelf.
    waiting: u32,
    /// The next source with the same hash, plus one; 0 if there is none.
    chain: u32,
}

/// The sources: a bounded table, and the order of their turns.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// Those that have been used: there is room for [`most`](Self::most), which is touched when it is needed.
    all: Vec<Account>,
    most: usize,
    hasher: RandomState,
    /// For each hash its first source plus one, or 0: pages of zeros take no memory.
    chains: Box<[u32]>,
    /// A list of those that are remembered, the longest first.
    remembered: Lists,
    /// How many newcomers of each source wait.
    crowds: Crowds,
    /// For each class: those that are due, then a list for each round ahead.
    order: [Lists; 3],
    /// The present round.
    round: u64,
    /// Accounts that wait.
    active: u32,
    /// Sources that do not wait, and whose last turn was for a round that has not begun.
    served: u32,
    /// How many of those there are for each round ahead.
    served_for: [u32; AHEAD as usize],
    /// The class whose turn it is.
    class: usize,
    /// The mean cost of all turns, or 0 when unknown.
    mean: Nanos,
}

impl Accounts {
    /// Bytes for each source.
    pub(crate) const SOURCE_BYTES: usize =
        size_of::<Account>() + 4 * Lists::NODE_BYTES + 2 * size_of::<u32>() + Crowds::SOURCE_BYTES;

    /// How many sources are known where `entries` can wait: each may have one of its own, and some are remembered.
    pub(crate) fn most(entries: usize) -> usize {
        entries + entries / 8 + 64
    }

    pub(crate) fn new(entries: usize) -> Self {
        let most = Self::most(entries);
        let order = || Lists::new(most + DUE + AHEAD as usize);
        Self {
            all: Vec::with_capacity(most),
            most,
            hasher: RandomState::new(),
            chains: vec![0; most.next_power_of_two()].into(),
            remembered: Lists::new(most + 1),
            crowds: Crowds::new(most),
            order: [order(), order(), order()],
            round: ONE,
            active: 0,
            served: 0,
            served_for: [0; AHEAD as usize],
            class: 0,
            mean: 0,
        }
    }

    /// What it takes of the allocator.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let orders: usize = self.order.iter().map(Lists::bytes).sum();
        let accounts = self.all.capacity() * size_of::<Account>();
        let chains = self.chains.len() * size_of::<u32>();
        accounts + chains + self.remembered.bytes() + self.crowds.bytes() + orders
    }

    /// Sources that were served and do not wait, by both ways in which they are counted.
    #[cfg(test)]
    pub(crate) fn served(&self) -> (u32, u32) {
        (self.served, self.served_for.iter().sum())
    }

    /// Accounts that wait.
    #[cfg(test)]
    pub(crate) fn active(&self) -> usize {
        self.active as usize
    }

    /// The source's number, and whether it is new or had been forgotten.
    pub(crate) fn find_or_add(&mut self, id: SourceId) -> (u32, bool) {
        let chain = self.chain(id);
        if let Some(found) = self.find_in(chain, id) {
            return (found, false);
        }
        let forgotten = (self.all.len() == self.most).then(|| self.forget_one());
        let account = Account { id, tag: 0, cost: 0, newest: 0, waiting: 0, chain: self.chains[chain] };
        let number = match forgotten {
            Some(number) => {
                self.all[number as usize] = account;
                number
            }
            None => {
                self.all.push(account);
                self.all.len() as u32 - 1
            }
        };
        self.chains[chain] = number + 1;
        self.remembered.push_last(self.remembered_list(), number);
        (number, true)
    }

    pub(super) fn find(&self, id: SourceId) -> Option<u32> {
        self.find_in(self.chain(id), id)
    }

    fn find_in(&self, chain: usize, id: SourceId) -> Option<u32> {
        let mut next = self.chains[chain];
        while let Some(number) = next.checked_sub(1) {
            if self.all[number as usize].id == id {
                return Some(number);
            }
            next = self.all[number as usize].chain;
        }
        None
    }

    fn chain(&self, id: SourceId) -> usize {
        self.hasher.hash_one(id) as usize & (self.chains.len() - 1)
    }

    /// Forgets the source that has not waited for the longest time. There is one: more sources are known than entries
    /// can wait.
    fn forget_one(&mut self) -> u32 {
        let number = self.remembered.first(self.remembered_list()).expect("more sources than entries");
        self.remembered.unlink(number);
        let chain = self.chain(self.all[number as usize].id);
        let after = self.all[number as usize].chain;
        let mut next = self.chains[chain];
        if next == number + 1 {
            self.chains[chain] = after;
            return number;
        }
        while self.all[next as usize - 1].chain != number + 1 {
            next = self.all[next as usize - 1].chain;
        }
        self.all[next as usize - 1].chain = after;
        number
    }

    pub(crate) fn id(&self, number: u32) -> SourceId {
        self.all[number as usize].id
    }

    /// An entry of the source was put on the shelf, which waits since then: the newest of them all.
    pub(crate) fn came(&mut self, number: u32, class: Class, since: Nanos) {
        if self.active == 0 {
            // Nobody waited, so nobody was kept from a turn by those who had many: a new account for all.
            self.round += AHEAD * ONE;
            self.served = 0;
            self.served_for = [0; AHEAD as usize];
        }
        if self.all[number as usize].waiting == 0 {
            self.begin_waiting(number);
        }
        let account = &mut self.all[number as usize];
        account.waiting += 1;
        account.newest = account.newest.max(since);
        let tag = account.tag;
        let list = self.list(tag);
        let order = &mut self.order[class as usize];
        order.unlink(number);
        order.push_first(list, number);
        if class == Class::Newcomer {
            self.crowds.came(number);
        }
    }

    /// The source that has the most newcomers waiting; `None` if no source has more than one.
    pub(crate) fn largest_crowd(&mut self) -> Option<u32> {
        self.crowds.largest()
    }

    fn begin_waiting(&mut self, number: u32) {
        self.remembered.unlink(number);
        self.active += 1;
        let tag = self.all[number as usize].tag;
        if self.is_ahead(tag) {
            self.served -= 1;
            self.served_for[nth_ahead(tag)] -= 1;
        }
        // It did not wait in the rounds that have passed, so they owe it nothing.
        self.all[number as usize].tag = tag.max(self.round);
    }

    /// An entry of the source left the shelf; `last` if it was the only one of its class.
    pub(crate) fn left(&mut self, number: u32, class: Class, last: bool) {
        if last {
            self.order[class as usize].unlink(number);
        }
        if class == Class::Newcomer {
            self.crowds.left(number);
        }
        self.all[number as usize].waiting -= 1;
        if self.all[number as usize].waiting == 0 {
            self.active -= 1;
            self.remembered.push_last(self.remembered_list(), number);
            self.count_if_served(number);
        }
    }

    /// A source that does not wait counts as served until its round begins.
    fn count_if_served(&mut self, number: u32) {
        let tag = self.all[number as usize].tag;
        if self.is_ahead(tag) {
            self.served += 1;
            self.served_for[nth_ahead(tag)] += 1;
        }
    }

    /// The source whose turn it is, and which of its classes; it is charged for the turn. With `patient` clients a source
    /// that is far behind its share comes before those that are fresher, and `in_order` whoever has waited longest of those
    /// that are due.
    pub(crate) fn pick(&mut self, patient: bool, in_order: bool) -> Option<(u32, Class)> {
        if self.active == 0 {
            return None;
        }
        let (number, class) = match self.due(patient, in_order) {
            Some(due) => due,
            None => {
                self.go_to_next_round();
                self.due(patient, in_order)?
            }
        };
        self.class = (class as usize + 1) % Class::ALL.len();
        let charge = self.charge(number);
        let source = &mut self.all[number as usize];
        source.tag = source.tag.max(self.round.saturating_sub(CREDIT_MOST)) + charge;
        self.place(number);
        let sources = self.active + self.served.min(self.active + SERVED_MOST);
        self.advance(charge / u64::from(if patient { sources } else { sources.min(ROUND_MOST) }));
        Some((number, class))
    }

    /// A turn that the source was charged for did not take place.
    pub(crate) fn refund(&mut self, id: SourceId) {
        let Some(number) = self.find(id) else { return };
        let charge = self.charge(number);
        let account = self.all[number as usize];
        let waits = account.waiting > 0;
        if !waits && self.is_ahead(account.tag) {
            self.served -= 1;
            self.served_for[nth_ahead(account.tag)] -= 1;
        }
        self.all[number as usize].tag = account.tag.saturating_sub(charge);
        if waits {
            self.place(number);
        } else {
            self.count_if_served(number);
        }
    }

    /// What a turn of the source has cost.
    pub(crate) fn note_cost(&mut self, id: SourceId, cost: Nanos) {
        let cost = cost.max(1);
        self.mean = if self.mean == 0 { cost } else { (self.mean * 63 + cost).div_ceil(64) };
        if let Some(number) = self.find(id) {
            let known = &mut self.all[number as usize].cost;
            *known = if *known == 0 { cost } else { (*known * 3 + cost).div_ceil(4) };
        }
    }

    /// What the source's next turn is charged, in rounds: its own mean over that of all.
    fn charge(&self, number: u32) -> u64 {
        let cost = self.all[number as usize].cost;
        if cost == 0 || self.mean == 0 {
            return ONE;
        }
        let charge = u128::from(cost) * u128::from(ONE) / u128::from(self.mean);
        u64::try_from(charge).unwrap_or(CHARGE_MOST).clamp(CHARGE_LEAST, CHARGE_MOST)
    }

    /// The first of those that are due, of the class whose turn it is or the next that has one.
    fn due(&self, patient: bool, in_order: bool) -> Option<(u32, Class)> {
        (0..Class::ALL.len()).find_map(|nth| {
            let class = Class::ALL[(self.class + nth) % Class::ALL.len()];
            let order = &self.order[class as usize];
            let newest = |number: &u32| self.all[*number as usize].newest;
            let lists = || (0..DUE as u32).map(|list| self.due_list() + list);
            let stalest = lists().filter_map(|list| order.last(list)).min_by_key(newest)?;
            // A client that sent a datagram cannot be seen to leave, so what is old there is as good as gone.
            let patient = patient && class != Class::Datagram;
            if in_order || patient && self.all[stalest as usize].tag + BEHIND <= self.round {
                return Some((stalest, class));
            }
            let freshest = lists().filter_map(|list| order.first(list)).max_by_key(newest)?;
            Some((freshest, class))
        })
    }

    /// Nobody is due: the next round in which somebody is becomes the present one.
    fn go_to_next_round(&mut self) {
        for _ in 0..AHEAD {
            self.round = (self.round | (ONE - 1)) + 1;
            if self.begin_round(self.round) {
                return;
            }
        }
    }

    fn advance(&mut self, by: u64) {
        let before = self.round;
        self.round += by;
        for number in (before >> ROUND_SHIFT) + 1..=self.round >> ROUND_SHIFT {
            self.begin_round(number << ROUND_SHIFT);
        }
    }

    /// Those that waited for this round are due now; whether there are any.
    fn begin_round(&mut self, round: u64) -> bool {
        let (from, into) = (self.list_ahead(round), self.due_list() + 1);
        self.served -= std::mem::take(&mut self.served_for[nth_ahead(round)]);
        let mut any = false;
        for order in &mut self.order {
            any |= !order.is_empty(from);
            order.move_all_first(from, into);
        }
        any
    }

    /// Moves a source that waits to the list where its tag belongs.
    fn place(&mut self, number: u32) {
        let list = self.list(self.all[number as usize].tag);
        for order in &mut self.order {
            if !order.is_empty(number) {
                order.unlink(number);
                order.push_first(list, number);
            }
        }
    }

    fn list(&self, tag: u64) -> u32 {
        if self.is_ahead(tag) { self.list_ahead(tag) } else { self.due_list() }
    }

    /// Whether the tag is of a round that has not begun.
    fn is_ahead(&self, tag: u64) -> bool {
        tag >> ROUND_SHIFT > self.round >> ROUND_SHIFT
    }

    fn due_list(&self) -> u32 {
        self.most as u32
    }

    fn list_ahead(&self, tag: u64) -> u32 {
        self.due_list() + DUE as u32 + nth_ahead(tag) as u32
    }

    fn remembered_list(&self) -> u32 {
        self.most as u32
    }
}

/// Which of the rounds ahead a tag belongs to.
fn nth_ahead(tag: u64) -> usize {
    (tag >> ROUND_SHIFT & (AHEAD - 1)) as usize
}
