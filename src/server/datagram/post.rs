//! Datagrams and the queue: putting one in, and dropping one that waits.

use crate::clock::Nanos;
use crate::reason::DatagramDrop;
use crate::server::core::{Core, PARKER_ROW};
use crate::server::datagram::socket::DatagramSocket;
use crate::server::queue::line::{Claim, Entry, Kind};
use crate::server::queue::state::Generation;
use crate::sys::Taken;

/// So many entries are looked at for a datagram that can be dropped.
const LOOKED_AT: usize = 64;

impl Core {
    /// What was dropped of a listener's datagrams, by the kernel too.
    pub(crate) fn datagrams_dropped(&self, socket: &DatagramSocket) -> [u64; DatagramDrop::COUNT] {
        let mut dropped = self.ledgers.read(socket.column, &mut Default::default()).datagrams_dropped;
        dropped[DatagramDrop::KernelBuffer as usize] += socket.dropped_in_kernel();
        dropped
    }

    /// Puts a datagram into the queue; false when there is no place for it.
    pub(crate) fn post(&self, number: usize, taken: &Taken, request: &[u8], now: Nanos) -> bool {
        if !self.has_queue_place() {
            return false;
        }
        let Some(place) = self.datagrams.waiting.put(number, taken, request) else {
            return false;
        };
        self.datagrams.sockets[number].begin();
        let entry = Entry {
            since: now,
            slot: place,
            generation: Generation(0),
            claim: Claim::Turn,
            kind: Kind::Datagram,
        };
        let refused = self.queue.push(entry);
        debug_assert!(refused.is_none(), "the queue has room for each waiting datagram");
        true
    }

    /// Puts a datagram into the queue; when it is full this one, or the one that has waited longest,
    /// is dropped. `older` says whether to look for such a one; false from when there is none.
    pub(crate) fn post_or_drop(
        &self,
        number: usize,
        taken: &Taken,
        request: &[u8],
        now: Nanos,
        older: &mut bool,
    ) {
        if self.post(number, taken, request, now) {
            return;
        }
        *older = *older && self.drop_oldest_datagram();
        if !*older || !self.post(number, taken, request, now) {
            let column = self.datagrams.sockets[number].column;
            self.ledger(PARKER_ROW, column).datagrams_dropped(DatagramDrop::QueueFull, 1);
        }
    }

    /// Drops the datagram that has waited longest, if one is near the head of the queue. The caller sees
    /// to it that a worker knows of those before it.
    fn drop_oldest_datagram(&self) -> bool {
        let oldest = self.queue.pop_first(LOOKED_AT, |entry| entry.kind == Kind::Datagram);
        if let Some(entry) = &oldest {
            self.drop_waiting(entry, PARKER_ROW, DatagramDrop::QueueFull);
        }
        oldest.is_some()
    }

    /// Drops a datagram whose entry the caller has taken from the queue.
    pub(crate) fn drop_waiting(&self, entry: &Entry, row: usize, reason: DatagramDrop) {
        let number = self.datagrams.waiting.lock(entry.slot).socket;
        self.datagrams.waiting.give_back(entry.slot);
        if let Some(socket) = self.datagrams.sockets.get(number) {
            self.ledger(row, socket.column).datagrams_dropped(reason, 1);
            socket.end();
        }
    }
}
