//! The queue between those who find work and the workers: one bounded channel.
//!
//! Its capacity is all connections that can be admitted, all places for datagrams, all datagram
//! sockets, the tick and the farewell, and each of them is in it at most once: it cannot overflow and
//! nobody blocks on sending. What bounds waiting is admission, which refuses newcomers while
//! as many wait as `--queue` says.

use crate::clock::Nanos;
use crate::server::queue::state::Generation;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What an entry is about, and so what its `slot` is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection wants a turn.
    Connection,
    /// A datagram wants an answer.
    Datagram,
    /// A socket has datagrams.
    Receive,
    /// The owner's housekeeping is due.
    Tick,
    /// Sessions whose connections have ended are to be told.
    Farewell,
}

/// What the queue owes an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is a connection's first turn: until then it may be turned away.
    Newcomer,
    /// It is a connection's first request, which came later than the connection and found as many
    /// waiting as may: it waits for a burst to pass, and then is turned away.
    Surplus,
    /// Its turn, whatever happens.
    Turn,
}

/// An entry: what wants to be worked at, and since when it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) since: Nanos,
    pub(crate) slot: u32,
    pub(crate) generation: Generation,
    pub(crate) claim: Claim,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) struct Queue {
    sender: Sender<Entry>,
    receiver: Receiver<Entry>,
    /// Entries that were taken out and put back: they stand before those in the channel.
    front: Mutex<VecDeque<Entry>>,
    /// How many those are.
    front_len: AtomicUsize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver, front: Mutex::default(), front_len: AtomicUsize::new(0) }
    }

    /// Adds an entry. A full queue is impossible by construction; should that construction be
    /// wrong, the entry comes back instead of a blocked thread.
    #[must_use]
    pub(crate) fn push(&self, entry: Entry) -> Option<Entry> {
        self.sender.try_send(entry).err().map(|refused| refused.into_inner())
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

    /// Takes the first entry that is `wanted`, if it is among the first `most`; those before it keep
    /// their places. For a moment no worker sees them, so the caller must say that work was queued.
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
        if !passed.is_empty() {
            let mut front = self.front();
            passed.into_iter().rev().for_each(|entry| front.push_front(entry));
            self.front_len.store(front.len(), SeqCst);
        }
        found
    }

    pub(crate) fn len(&self) -> usize {
        self.front_len.load(SeqCst) + self.receiver.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.front_len.load(SeqCst) == 0 && self.receiver.is_empty()
    }

    fn front(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u32, kind: Kind) -> Entry {
        Entry { since: 0, slot, generation: Generation(0), claim: Claim::Turn, kind }
    }

    #[test]
    fn what_is_passed_over_keeps_its_place() {
        let queue = Queue::new(8);
        let kinds = [Kind::Connection, Kind::Receive, Kind::Datagram, Kind::Connection, Kind::Datagram];
        for (slot, kind) in kinds.into_iter().enumerate() {
            assert!(queue.push(entry(slot as u32, kind)).is_none());
        }
        let first =
            |most| queue.pop_first(most, |entry| entry.kind == Kind::Datagram).map(|entry| entry.slot);
        assert_eq!(first(2), None, "it stands behind them");
        assert_eq!((first(3), queue.len()), (Some(2), 4));
        assert_eq!((first(9), first(9), queue.len()), (Some(4), None, 3));
        assert!(queue.push(entry(5, Kind::Tick)).is_none());
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|entry| entry.slot).collect();
        assert_eq!((order, queue.is_empty()), (vec![0, 1, 3, 5], true));
    }
}
