//! The clients that wait for a place at a backend, and their order, which is that of the server's queue (see
//! [`shelf`](crate::admit::turns::shelf)). Normally the client that has waited longest is first. While the list *stands*,
//! that is, while waits have been long for some time, the sources take turns, and the freshest client of each is first,
//! unless all can be served soon: then it is the oldest of each.

use super::name::Name;
use super::priority::PriorityList;
use crate::admit::turns::accounts::{Class, SourceId};
use crate::admit::turns::shelf::{Shelf, ShelfLimits, Shelved};
use crate::admit::turns::standing::{INTERVAL, Standing};
use crate::clock::Nanos;
use std::cell::Cell;

/// How many clients may wait, for how long, and in which order they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitLimits {
    /// How many may wait. When there are more, one is refused: the new one, or the one that has waited longest.
    pub(crate) most: usize,
    /// A client that has waited for longer is refused.
    pub(crate) timeout: Nanos,
    /// The list stands once the longest wait has been above this for 100 ms.
    pub(crate) target: Nanos,
    /// While the list stands, serve the freshest client first, unless all can be served soon.
    pub(crate) fresh: bool,
    /// While the list stands, let the sources take turns.
    pub(crate) fair: bool,
    /// When the list is full, always refuse the client that has waited longest, also while the list does not stand.
    pub(crate) drop_oldest: bool,
}

#[derive(Debug)]
pub(super) struct WaitList {
    limits: WaitLimits,
    standing: Standing,
    /// Made when a client waits for the first time.
    shelf: Option<Box<Shelf<()>>>,
    /// How many places the shelf has.
    places: usize,
    /// Until then the list stands even if nobody waits for long: those that had waited longest were just refused.
    displaces_until: Nanos,
    /// Nobody has waited since before this. It is looked up anew only when that would be too long.
    least_since: Cell<Nanos>,
}

/// What happened to a client that wanted to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    Waits,
    /// It waits, and this other client has to be refused for it.
    Displaced(Name),
    Full,
}

/// The size of a shelf with this number of slots, and how it serves.
fn shelf_limits(limits: &WaitLimits, slots: usize) -> ShelfLimits {
    ShelfLimits {
        connections: slots,
        datagrams: 0,
        doubtful_max: limits.most / 4 + 1,
        fresh: limits.fresh,
        knows_refused: true,
    }
}

impl WaitList {
    pub(super) fn new(limits: WaitLimits) -> Self {
        let standing = Standing::new(limits.target);
        Self { limits, standing, shelf: None, places: 0, displaces_until: 0, least_since: Cell::new(0) }
    }

    pub(super) fn timeout(&self) -> Nanos {
        self.limits.timeout
    }

    /// How many slots there are for names, those of priority requests included. There are more than clients may wait, since
    /// a ticket keeps its slot until its owner has seen the answer, and since a new client must fit in before the oldest is
    /// refused for it. The number never gets smaller: clients that wait have slot numbers up to the largest that there was.
    pub(super) fn slots(&mut self) -> usize {
        self.places = self.places.max(Self::slots_for(self.limits.most));
        self.places
    }

    /// The number of slots for names, for this limit of clients that wait.
    pub(super) fn slots_for(most: usize) -> usize {
        2 * most + 16 + PriorityList::SLOTS
    }

    /// The bytes that a list with these limits can take.
    pub(super) fn memory_ceiling(limits: &WaitLimits) -> usize {
        Shelf::<()>::bytes(&shelf_limits(limits, Self::slots_for(limits.most)))
            + 2 * PriorityList::SLOTS * size_of::<(Name, Nanos)>()
    }

    /// Changes the limits. Clients that wait stay, even if fewer may wait from now on.
    pub(super) fn set_limits(&mut self, limits: WaitLimits, now: Nanos) {
        self.limits = limits;
        self.standing.set_target(limits.target);
        if self.shelf.is_some() {
            let waiting = std::iter::from_fn(|| self.shelf.as_mut().and_then(|shelf| shelf.drain_one()));
            let waiting: Vec<_> = waiting.collect();
            self.shelf = None;
            for shelved in waiting {
                let again = self.shelf().put(shelved, false, now);
                debug_assert!(again.is_none(), "a shelf that is no smaller has a place for each");
            }
        }
    }

    fn shelf(&mut self) -> &mut Shelf<()> {
        let slots = self.slots();
        let limits = shelf_limits(&self.limits, slots);
        self.shelf.get_or_insert_with(|| Box::new(Shelf::new(limits)))
    }

    pub(super) fn len(&self) -> usize {
        self.shelf.as_ref().map_or(0, |shelf| shelf.len())
    }

    /// Since when the client has waited that has waited longest.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        self.shelf.as_ref().and_then(|shelf| shelf.oldest())
    }

    /// Notes how long the longest wait is. True while the list stands: a client waits for too long, or one would if the
    /// oldest were not refused.
    pub(super) fn observe(&self, now: Nanos) -> bool {
        let oldest = if self.may_wait_for(now, self.standing.target()) { self.oldest() } else { None };
        self.standing.observe(now, oldest) || now < self.displaces_until
    }

    /// Whether a client may have waited for longer than `time`. Each request asks this several times, and the answer is
    /// mostly no without a look at the lists.
    fn may_wait_for(&self, now: Nanos, time: Nanos) -> bool {
        if now.saturating_sub(self.least_since.get()) <= time {
            return false;
        }
        let least = self.shelf.as_ref().and_then(|shelf| shelf.longest()).unwrap_or(now);
        self.least_since.set(least);
        now.saturating_sub(least) > time
    }

    /// For how long the list has stood.
    pub(super) fn stood_for(&self, now: Nanos) -> Option<Nanos> {
        self.standing.stood_for(now)
    }

    /// Adds a client, whose slot is below [`slots`](Self::slots), if it may wait.
    pub(super) fn join(&mut self, name: Name, source: SourceId, since: Nanos, now: Nanos) -> Joined {
        let mut displaced = None;
        // Clients that have probably left are not counted. The shelf keeps only a few of them.
        if self.shelf().waiting(Class::Newcomer) >= self.limits.most {
            let stands = self.limits.fresh && self.observe(now);
            if stands {
                self.displaces_until = now + INTERVAL;
            }
            let displaces = stands || self.limits.drop_oldest;
            displaced = if displaces { self.shelf().displace(Class::Newcomer, now) } else { None };
            if displaced.is_none() {
                self.note_refused();
                return Joined::Full;
            }
        }
        let source = if self.limits.fair { source } else { SourceId::EVERYONE };
        self.least_since.set(self.least_since.get().min(since));
        let (slot, generation) = name;
        let new = Shelved { slot, generation, since, class: Class::Newcomer, source, entry: () };
        let refused = self.shelf().put(new, false, now);
        debug_assert!(refused.is_none(), "a slot that is free is not on the shelf");
        match displaced {
            Some(oldest) => Joined::Displaced((oldest.slot, oldest.generation)),
            None if refused.is_some() => Joined::Full,
            None => Joined::Waits,
        }
    }

    /// A client could not wait, because too many do.
    pub(super) fn note_refused(&mut self) {
        if let Some(shelf) = &mut self.shelf {
            shelf.note_refused();
        }
    }

    /// Removes a client that has waited for too long. Call it until there is none.
    pub(super) fn expire(&mut self, now: Nanos) -> Option<Name> {
        let timeout = self.limits.timeout;
        if !self.may_wait_for(now, timeout) {
            return None;
        }
        let expired = self.shelf.as_mut()?.expire(now, timeout)?;
        Some((expired.slot, expired.generation))
    }

    /// Removes the client whose turn it is.
    pub(super) fn next(&mut self, now: Nanos) -> Option<Name> {
        let stands = self.observe(now) && (self.limits.fresh || self.limits.fair);
        let shelf = self.shelf.as_mut()?;
        let in_order = if stands { None } else { shelf.next_newcomer(now) };
        let next = in_order.or_else(|| shelf.next(now))?;
        Some((next.slot, next.generation))
    }

    /// Removes any client: all will be refused.
    pub(super) fn drain_one(&mut self) -> Option<Name> {
        let drained = self.shelf.as_mut()?.drain_one()?;
        Some((drained.slot, drained.generation))
    }

    /// A client that may wait has left.
    pub(super) fn gone(&mut self, (slot, generation): Name, now: Nanos) {
        if let Some(shelf) = &mut self.shelf {
            let _ = shelf.gone(Class::Newcomer, slot, generation, now);
        }
    }

    /// A client has hung up while it waits. Returns a client that has to be refused because too many have hung up.
    pub(super) fn hung_up(&mut self, (slot, generation): Name, now: Nanos) -> Option<Name> {
        let given_up = self.shelf.as_mut()?.hung_up(Class::Newcomer, slot, generation, now)?;
        Some((given_up.slot, given_up.generation))
    }
}
