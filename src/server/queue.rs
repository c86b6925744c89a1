//! The queue between those who find work and the workers: one bounded channel.
//!
//! Its capacity is all connections that can be admitted, all places for datagrams and all datagram
//! sockets, and each of them is in it at most once: it cannot overflow and nobody blocks on sending.
//! What bounds waiting is admission, which refuses newcomers while as many wait as `--queue` says.

use super::clock::Nanos;
use super::state::Generation;
use crossbeam_channel::{Receiver, Sender, bounded};

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
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver }
    }

    /// Adds an entry. A full queue is impossible by construction; should that construction be
    /// wrong, the entry comes back instead of a blocked thread.
    #[must_use]
    pub(crate) fn push(&self, entry: Entry) -> Option<Entry> {
        self.sender.try_send(entry).err().map(|refused| refused.into_inner())
    }

    /// The entry that has waited longest.
    pub(crate) fn pop(&self) -> Option<Entry> {
        self.receiver.try_recv().ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}
