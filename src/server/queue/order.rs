//! The order of turns: which entry a worker gets when it asks for work.
//!
//! While the queue does not stand, an entry goes from the channel to the worker, and this module costs it two loads.
//! Once the queue stands (see [`standing`](super::standing)), and until the shelf is empty again, a worker that asks
//! first moves what has come out of the channel to the [`shelf`](super::shelf), and then takes the entry whose turn it
//! is. So there is one order for all that waits. A source that had less than its share is served next, however many
//! requests of other sources wait. And newcomers, established connections and datagrams take turns, so that sources
//! which come only once cannot starve a source that has many requests waiting.
//!
//! # What each stage does
//!
//! *Admission.* `queue` counts newcomers only. A newcomer ([`Class::Newcomer`]) is a connection that has had no turn;
//! its entry counts from its admission to its first turn, in the channel and on the shelf. An established connection
//! takes no place of `queue`, so established connections cannot keep newcomers out. The turns by class make sure that
//! newcomers, once admitted, are served. The source is computed once, at admission, and kept beside the slot, where
//! other threads than the connection's owner can read it.
//!
//! *Acceptor.* While [`Standing::is_calm`], the backlog is deep (4,096), and the acceptor accepts what is there, at the
//! latest when the backlog is half full. If `queue` is full then, that is a burst, and newcomers wait in the kernel.
//! Otherwise the backlog is as long as can be worked off in 50 ms (a twentieth of the turns in a second, from 8 to
//! `queue`): what waits in the kernel waits in the order of arrival, and the server cannot choose among it. When the
//! length changes, `listen` is called again. A newcomer's `since` is the time at which the kernel completed its
//! handshake, so that a wait in a deep backlog is seen. It is read from `TCP_INFO`, unless the queue is calm and the
//! backlog was empty.
//!
//! The acceptor accepts while fewer than `queue` newcomers wait. Once some had to make room, and for as long as the queue stands
//! and the processors are busy, fewer may wait: as many as the workers serve in 25 ms, and one for each turn under way. Those that a free worker
//! is about to take do not count. If more wait when this begins, they are shed at once, whatever the budget. Beyond that, while [`Standing::stands`], each refusal that the budget pays for accepts the newcomer and sheds one that waits
//! ([`Order::displace`], reason `queue_full`): the oldest of the source that has the most, whose reply is least useful. Both
//! refusals cost the same. Before that the acceptor moves what is in the channel to the shelf ([`Order::shelve`]), so that
//! the largest crowd is known. When the queue begins to stand, the same is done, whatever the budget, with the newcomers in
//! the backlog that exceed its new length. The budget is 3 % of a processor while workers compete for it. While processors
//! are idle, none is needed.
//!
//! *Worker.* It calls [`Order::take`] instead of the channel's `pop`. An [`Offer::GiveUp`] is shed (`client_gone`). For
//! an [`Offer::Turn`] it takes the slot by its state word. If the entry has waited long, or its client has hung up, it
//! checks the socket; if the client has certainly left, the entry is shed (`client_gone`) and its source gets the turn
//! back ([`Order::refund`]). Before the turn, the worker may wake another one; [`Order::len`] counts as waiting. After
//! the turn it calls [`Order::note_cost`]. A worker may sleep when the channel and [`Order::len`] are both empty; an
//! entry on its way from one to the other is counted.
//!
//! *Datagrams.* When a datagram finds no place, the one that has waited longest on the shelf makes room
//! ([`Order::displace`], reason `queue_full`). The server cannot see that the client of a datagram has left, and
//! without this rule datagrams that nobody waits for any more would keep the places.
//!
//! *Leader.* When an event says that the client of a queued connection has hung up, the leader calls [`Order::hung_up`],
//! and when the connection has failed [`Order::gone`]. It sheds what they return.
//!
//! *Timekeeper.* At each scan it calls [`Order::expire_late`] and sheds what that returns (`queue_timeout`). While all
//! workers are in long turns none of them takes entries, and only then can an entry in the channel grow old: the
//! timekeeper moves it to the shelf ([`Order::shelve`]).
//!
//! *Drain.* Before its deadline, entries on the shelf are served like others. At the deadline the drain calls
//! [`Order::drain_one`] until the shelf is empty.
//!
//! Each of these calls takes the entry off the shelf before it returns, so exactly one thread serves or ends it. For
//! entries in the channel, the state word decides the same.

use super::accounts::{Class, SourceId};
use super::shelf::{Shelf, ShelfLimits, Shelved};
use super::standing::Standing;
use crate::clock::Nanos;
use crate::sys::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use std::sync::PoisonError;
use std::time::Duration;

/// Entries that are moved to the shelf at once, so that the lock is held for some ten microseconds at most. While more
/// come than that, the next worker goes on.
pub(super) const MOVED_AT_ONCE: usize = 256;

/// What must be known of an entry to put it on the shelf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) since: Nanos,
    pub(crate) class: Class,
    pub(crate) source: SourceId,
    /// The client has closed at least its sending half.
    pub(crate) hung_up: bool,
}

/// What a worker gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Offer<E> {
    /// It has its turn.
    Turn(E),
    /// Its client has probably left, and there is no more room for such entries: end it without a turn.
    GiveUp(E),
}

/// The queue that work comes from.
pub(crate) trait Arrivals<E> {
    /// The entry that has waited longest.
    fn pop(&self) -> Option<E>;
    /// Since when an entry waits.
    fn since(entry: &E) -> Nanos;
    /// What the shelf must know of it; `None` for an entry that is not for a client, which is served at once.
    fn about(&self, entry: &E) -> Option<About>;
}

/// The shelf behind its lock, and whether it is in use.
#[derive(Debug)]
pub(crate) struct Order<E> {
    standing: Standing,
    /// See [`ShelfLimits::fresh`].
    fresh: bool,
    /// Entries on the shelf, and one more while a worker moves some there.
    len: AtomicUsize,
    /// It is there from the start: it is needed when the load is highest, and then memory may be short. Most of what is never used
    /// of it is never touched: with 10,000 places a program that serves nobody yet holds 0.3 MiB more.
    shelf: Mutex<Box<Shelf<E>>>,
}

impl<E: Copy> Order<E> {
    pub(crate) fn new(limits: ShelfLimits, target: Nanos) -> Self {
        let (fresh, shelf) = (limits.fresh, Mutex::new(Box::new(Shelf::new(limits))));
        Self { standing: Standing::new(target), fresh, len: AtomicUsize::new(0), shelf }
    }

    /// The bytes that it can take.
    pub(crate) fn bytes(limits: &ShelfLimits) -> usize {
        Shelf::<E>::bytes(limits)
    }

    /// Changes how many entries may be kept whose client has probably left.
    pub(crate) fn set_doubtful_max(&self, most: usize) {
        self.lock().set_doubtful_max(most);
    }

    /// Whether the freshest come first while the queue stands.
    pub(crate) fn prefers_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether what is on the shelf is served in the order in which it came: see [`Shelf::is_in_order`].
    pub(crate) fn is_in_order(&self) -> bool {
        self.with(|shelf| shelf.is_in_order()).unwrap_or(!self.fresh)
    }

    /// Whether the queue stands, and for how long.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// How many entries are on the shelf. It is never 0 while an entry is on its way there.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// The entry whose turn it is.
    pub(crate) fn take<L: Arrivals<E>>(&self, now: Nanos, line: &L) -> Option<Offer<E>> {
        if self.len.load(Ordering::Relaxed) > 0 {
            return self.take_from_shelf(now, line, None);
        }
        let Some(entry) = line.pop() else {
            self.standing.observe(now, None);
            return None;
        };
        // A queue that drains, which is the usual case, need not know whose entry it is.
        if self.standing.is_at_rest(now, L::since(&entry)) {
            return Some(Offer::Turn(entry));
        }
        match line.about(&entry) {
            Some(about) if self.standing.observe(now, Some(about.since)) => {
                self.take_from_shelf(now, line, Some(entry))
            }
            _ => Some(Offer::Turn(entry)),
        }
    }

    /// Moves what has come to the shelf, with `first` before it, and takes from there.
    fn take_from_shelf(&self, now: Nanos, line: &impl Arrivals<E>, first: Option<E>) -> Option<Offer<E>> {
        let mut guard = self.lock();
        // Before the first entry leaves the channel: a worker that is going to sleep must see it in one place or the other.
        self.len.fetch_add(1, Ordering::SeqCst);
        let shelf = &mut **guard;
        let taken = Self::move_and_take(shelf, now, line, first);
        self.standing.observe(now, shelf.oldest());
        self.len.store(shelf.len(), Ordering::SeqCst);
        taken
    }

    fn move_and_take(
        shelf: &mut Shelf<E>,
        now: Nanos,
        line: &impl Arrivals<E>,
        mut first: Option<E>,
    ) -> Option<Offer<E>> {
        for _ in 0..MOVED_AT_ONCE {
            let Some(entry) = first.take().or_else(|| line.pop()) else { break };
            let Some(about) = line.about(&entry) else { return Some(Offer::Turn(entry)) };
            let About { slot, generation, since, class, source, hung_up } = about;
            let shelved = Shelved { slot, generation, since, class, source, entry };
            if let Some(given_up) = shelf.put(shelved, hung_up, now) {
                return Some(Offer::GiveUp(given_up.entry));
            }
        }
        shelf.next(now).map(|shelved| Offer::Turn(shelved.entry))
    }

    /// For the timekeeper, while workers in long turns take nothing: moves what has come to the shelf, with `first` before it.
    /// `other` gets what cannot stand there: entries that are for no client, and what has to be given up.
    pub(crate) fn shelve(
        &self,
        now: Nanos,
        line: &impl Arrivals<E>,
        mut first: Option<E>,
        mut other: impl FnMut(Offer<E>),
    ) {
        let mut guard = self.lock();
        self.len.fetch_add(1, Ordering::SeqCst);
        let shelf = &mut **guard;
        let mut given_up = Vec::new();
        let mut misfits = Vec::new();
        for _ in 0..MOVED_AT_ONCE {
            let Some(entry) = first.take().or_else(|| line.pop()) else { break };
            let Some(about) = line.about(&entry) else {
                // Those behind it are not held up by it.
                misfits.push(entry);
                continue;
            };
            let About { slot, generation, since, class, source, hung_up } = about;
            let shelved = Shelved { slot, generation, since, class, source, entry };
            given_up.extend(shelf.put(shelved, hung_up, now).map(|shelved| shelved.entry));
        }
        self.standing.observe(now, shelf.oldest());
        self.len.store(shelf.len(), Ordering::SeqCst);
        drop(guard);
        misfits.into_iter().for_each(|entry| other(Offer::Turn(entry)));
        given_up.into_iter().for_each(|entry| other(Offer::GiveUp(entry)));
    }

    /// The entry of this source that was taken last had no turn.
    pub(crate) fn refund(&self, source: SourceId) {
        self.with(|shelf| shelf.refund(source));
    }

    /// The turn of this connection found nothing: see [`Shelf::found_nothing`].
    pub(crate) fn found_nothing(&self, slot: u32) {
        self.with(|shelf| shelf.found_nothing(slot));
    }

    /// What a turn of this source has cost, by the clock: what it kept a worker for. Nothing while the shelf is empty: then
    /// the source, which is in the second cache line of its slot, is not asked for.
    #[inline]
    pub(crate) fn note_cost(&self, source: impl FnOnce() -> SourceId, cost: Nanos) {
        self.with(|shelf| shelf.note_cost(source(), cost));
    }

    /// The client of a queued entry has closed at least its sending half: see [`Shelf::hung_up`].
    #[must_use = "an entry that is given up has to be ended"]
    pub(crate) fn hung_up(&self, class: Class, slot: u32, generation: u32, now: Nanos) -> Option<E> {
        self.take_out(|shelf| shelf.hung_up(class, slot, generation, now))
    }

    /// Takes an entry off the shelf, if it is there: its client is gone for certain.
    #[must_use = "the entry has to be ended"]
    pub(crate) fn gone(&self, class: Class, slot: u32, generation: u32, now: Nanos) -> Option<E> {
        self.take_out(|shelf| shelf.gone(class, slot, generation, now))
    }

    /// Takes out the entries that have waited too long: those that have waited longer than `least` and are `late`.
    #[must_use = "the entries have to be ended"]
    pub(crate) fn expire_late(&self, now: Nanos, least: Nanos, late: impl Fn(&E, Nanos) -> bool) -> Vec<E> {
        let expired = self.with(|shelf| {
            let expired = shelf.expire_late(now, least, late);
            self.len.store(shelf.len(), Ordering::SeqCst);
            expired
        });
        let expired = expired.unwrap_or_default();
        if !expired.is_empty() {
            self.standing.shed(now);
        }
        expired.into_iter().map(|shelved| shelved.entry).collect()
    }

    /// An entry of a class on the shelf, to make room for another: see [`Shelf::displace`].
    #[must_use = "the entry has to be ended"]
    pub(crate) fn displace(&self, class: Class, now: Nanos) -> Option<E> {
        self.displace_one(class, now, |_| true)
    }

    /// The same of those that are `wanted`.
    #[must_use = "the entry has to be ended"]
    pub(crate) fn displace_one(&self, class: Class, now: Nanos, wanted: impl Fn(&E) -> bool) -> Option<E> {
        let displaced = self.take_out(|shelf| shelf.displace_one(class, now, wanted));
        displaced.inspect(|_| self.standing.shed(now))
    }

    /// The entry on the shelf that has waited longest, whatever it is.
    #[must_use = "the entry has to be ended"]
    pub(crate) fn drain_one(&self) -> Option<E> {
        self.take_out(Shelf::drain_one)
    }

    /// For how long the oldest entry on the shelf has waited.
    pub(crate) fn oldest(&self, now: Nanos) -> Option<Nanos> {
        self.with(|shelf| shelf.oldest()).flatten().map(|since| now.saturating_sub(since))
    }

    fn take_out(&self, take: impl FnOnce(&mut Shelf<E>) -> Option<Shelved<E>>) -> Option<E> {
        let taken = self.with(|shelf| {
            let taken = take(shelf);
            self.len.store(shelf.len(), Ordering::SeqCst);
            taken
        });
        taken.flatten().map(|shelved| shelved.entry)
    }

    /// Does something with the shelf, if there is something on it. Turns ask in calm too.
    #[inline]
    fn with<R>(&self, act: impl FnOnce(&mut Shelf<E>) -> R) -> Option<R> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(act(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, Box<Shelf<E>>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shortest and the longest time that a client is told to stay away.
const RETRY_AFTER_LEAST: Duration = Duration::from_secs(1);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(120);

/// The time it takes to work off what waits, which is what a client that is turned away can be told: `waiting` turns of
/// `turn` each, `at_once` of them at a time. It is in whole seconds, rounded up, as `Retry-After` is.
pub(crate) fn retry_after(waiting: usize, turn: Duration, at_once: usize) -> Duration {
    let nanos = turn.as_nanos().saturating_mul(waiting as u128) / at_once.max(1) as u128;
    let seconds = u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).clamp(RETRY_AFTER_LEAST, RETRY_AFTER_MOST)
}
