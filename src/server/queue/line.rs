//! The line between the threads that find work and the workers: one bounded channel.
//!
//! Its capacity is the sum of all connections that can be admitted, all places for datagrams, all datagram sockets, the
//! tick and the farewells. Each of them is in the line at most once, so it cannot overflow and no thread waits to add
//! an entry. How many requests wait is bounded by admission, which refuses newcomers while as many of them wait as
//! `--queue` says.

use super::room::NewcomerRoom;
use super::state::ConnectionId;
use crate::admit::turns::shelf::Shelf;
use crate::clock::Nanos;
use crate::metrics::stats::CountedAs;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// A connection wants a turn.
    Turn(ConnectionId, Claim),
    /// A connection's request has waited too long: its client is to be told.
    Overloaded(ConnectionId),
    /// The datagram in this place wants an answer.
    Datagram(u32),
    /// The datagram socket of this number can be read.
    Receive(u32),
    /// The owner's housekeeping is due.
    Tick,
    /// Sessions whose connections have ended are to be told.
    Farewell,
}

/// What the queue owes a connection that waits for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the connection's first turn: until then it is a newcomer, which takes one of the places of `--queue`.
    Newcomer,
    /// Another turn of an established connection.
    Turn,
}

impl Claim {
    /// Where a connection that waits with this claim is counted.
    pub(crate) fn place(self) -> CountedAs {
        match self {
            Claim::Newcomer => CountedAs::New,
            Claim::Turn => CountedAs::Queued,
        }
    }
}

/// A job, and since when it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) since: Nanos,
    pub(crate) job: Job,
}

const _: () = assert!(Shelf::<Entry>::PLACE_BYTES == 64, "one cache line");

impl Entry {
    /// The connection whose turn this is, and its claim.
    pub(crate) fn turn(&self) -> Option<(ConnectionId, Claim)> {
        match self.job {
            Job::Turn(id, claim) => Some((id, claim)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    sender: Sender<Entry>,
    receiver: Receiver<Entry>,
    /// Entries that were taken out and put back: they stand before those in the channel.
    front: Mutex<VecDeque<Entry>>,
    /// How many those are.
    front_len: AtomicUsize,
    /// Newcomers that wait, here or on the shelf; as many datagrams may wait beside them.
    newcomers: NewcomerRoom,
    datagrams: AtomicUsize,
}

impl Line {
    /// `capacity` is how many entries there can ever be, `limit` is `--queue`.
    pub(crate) fn new(capacity: usize, limit: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        let (front_len, datagrams) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let newcomers = NewcomerRoom::new(limit);
        Self { sender, receiver, front: Mutex::default(), front_len, newcomers, datagrams }
    }

    /// Adds an entry. A full channel is impossible by construction; should that construction be wrong, the entry is
    /// put among those at the front rather than lost, and nobody blocks.
    pub(crate) fn push(&self, entry: Entry) {
        match entry.job {
            Job::Turn(_, Claim::Newcomer) => self.newcomers.came(),
            Job::Datagram(_) => {
                self.datagrams.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        if let Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) =
            self.sender.try_send(entry)
        {
            debug_assert!(false, "the line has room for every entry there can be");
            self.put_back(&mut std::iter::once(entry));
        }
    }

    /// The entry that has waited longest.
    pub(crate) fn pop(&self) -> Option<Entry> {
        if self.front_len.load(SeqCst) > 0 {
            let mut front = self.front();
            let entry = front.pop_front();
            self.front_len.store(front.len(), SeqCst);
            if entry.is_some() {
                return entry;
            }
        }
        self.receiver.try_recv().ok()
    }

    /// Takes the first entry that is `wanted`, if it is among the first `most`; those before it keep their places. For
    /// a moment no worker sees them, so the caller must say that work was queued.
    pub(crate) fn pop_first(&self, most: usize, wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let mut passed = Vec::new();
        let mut found = None;
        while passed.len() < most
            && let Some(entry) = self.pop()
        {
            if wanted(&entry) {
                found = Some(entry);
                break;
            }
            passed.push(entry);
        }
        self.put_back(&mut passed.into_iter().rev());
        found
    }

    /// Puts entries before all others, the last one first.
    fn put_back(&self, entries: &mut dyn Iterator<Item = Entry>) {
        let mut front = self.front();
        entries.for_each(|entry| front.push_front(entry));
        self.front_len.store(front.len(), SeqCst);
    }

    pub(crate) fn len(&self) -> usize {
        self.front_len.load(SeqCst) + self.receiver.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.front_len.load(SeqCst) == 0 && self.receiver.is_empty()
    }

    /// A newcomer has met its worker, or was turned away: it waits no longer.
    pub(crate) fn newcomer_left(&self) {
        self.newcomers.left();
    }

    /// A datagram has met its worker, or was dropped.
    pub(crate) fn datagram_left(&self) {
        self.datagrams.fetch_sub(1, Relaxed);
    }

    /// Newcomers that wait for a worker, of all listeners together, and how many may.
    pub(crate) fn newcomers(&self) -> &NewcomerRoom {
        &self.newcomers
    }

    /// How many datagrams could be added now.
    pub(crate) fn datagram_room(&self, free_workers: usize) -> usize {
        (self.newcomers.limit() + free_workers).saturating_sub(self.datagrams.load(Relaxed))
    }

    fn front(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::queue::state::Generation;

    fn turn(slot: u32) -> Entry {
        Entry { since: 0, job: Job::Turn(ConnectionId { slot, generation: Generation(0) }, Claim::Turn) }
    }

    fn entry(job: Job) -> Entry {
        Entry { since: 0, job }
    }

    #[test]
    fn what_is_passed_over_keeps_its_place() {
        let line = Line::new(8, 8);
        let jobs =
            [turn(0), entry(Job::Receive(1)), entry(Job::Datagram(2)), turn(3), entry(Job::Datagram(4))];
        jobs.into_iter().for_each(|entry| line.push(entry));
        let first = |most| line.pop_first(most, |entry| matches!(entry.job, Job::Datagram(_)));
        assert!(!line.is_empty());
        assert_eq!(first(2), None, "it stands behind them");
        assert_eq!((first(3), line.len()), (Some(entry(Job::Datagram(2))), 4));
        assert_eq!((first(9), first(9), line.len()), (Some(entry(Job::Datagram(4))), None, 3));
        line.push(entry(Job::Tick));
        let order: Vec<Entry> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [turn(0), entry(Job::Receive(1)), turn(3), entry(Job::Tick)]);
        assert!(line.is_empty() && line.pop().is_none());
    }

    #[test]
    fn a_line_with_nothing_but_what_was_put_back_is_not_empty() {
        let line = Line::new(2, 2);
        line.push(turn(0));
        assert_eq!((line.pop_first(1, |_| false), line.is_empty(), line.len()), (None, false, 1));
        assert_eq!((line.pop(), line.is_empty(), line.len()), (Some(turn(0)), true, 0));
    }

    fn newcomer(slot: u32) -> Entry {
        let id = ConnectionId { slot, generation: Generation(0) };
        entry(Job::Turn(id, Claim::Newcomer))
    }

    #[test]
    fn only_newcomers_take_places_and_datagrams_have_their_own() {
        let line = Line::new(16, 2);
        line.push(entry(Job::Receive(0)));
        (1..6).for_each(|slot| line.push(turn(slot)));
        line.push(newcomer(6));
        assert_eq!((line.len(), line.newcomers().waiting(), line.datagram_room(0)), (7, 1, 2));
        assert!(line.newcomers().has_place(|| 0));
        line.push(newcomer(7));
        line.push(entry(Job::Datagram(0)));
        assert!(!line.newcomers().has_place(|| 0) && line.newcomers().has_place(|| 1));
        assert_eq!((line.datagram_room(0), line.datagram_room(3)), (1, 4));
        while line.pop().is_some() {}
        assert!(!line.newcomers().has_place(|| 0), "a newcomer waits until it has met its worker");
        line.newcomer_left();
        line.datagram_left();
        assert!(line.newcomers().has_place(|| 0));
        assert_eq!(line.datagram_room(0), 2);
    }

    #[test]
    fn only_a_turn_has_a_connection() {
        assert!(turn(3).turn().is_some_and(|(id, claim)| id.slot == 3 && claim == Claim::Turn));
        assert_eq!(entry(Job::Tick).turn(), None);
    }

    #[test]
    #[cfg(not(debug_assertions))]
    fn an_entry_that_does_not_fit_is_not_lost() {
        let line = Line::new(1, 1);
        line.push(turn(0));
        line.push(turn(1));
        assert_eq!((line.len(), line.pop(), line.pop()), (2, Some(turn(1)), Some(turn(0))));
    }
}
