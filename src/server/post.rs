//! Datagrams and the queue: putting one in, and dropping one that waits.

use super::clock::Nanos;
use super::core::Core;
use super::datagram::DatagramSocket;
use super::queue::{Claim, Entry, Kind};
use super::state::Generation;
use crate::limits::Overload;
use crate::reason::DatagramDrop;
use crate::sys::Taken;

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
    /// is dropped.
    pub(crate) fn post_or_drop(&self, number: usize, taken: &Taken, request: &[u8], row: usize, now: Nanos) {
        let posted = self.post(number, taken, request, now)
            || self.limits.overload == Overload::DropOldest
                && self.drop_oldest_datagram(row)
                && self.post(number, taken, request, now);
        if !posted {
            let column = self.datagrams.sockets[number].column;
            self.ledger(row, column).datagrams_dropped(DatagramDrop::QueueFull, 1);
        }
    }

    /// Drops the datagram that has waited longest, if one is near the head of the queue.
    fn drop_oldest_datagram(&self, row: usize) -> bool {
        for _ in 0..self.queue.len().min(64) {
            let Some(entry) = self.queue.pop() else { return false };
            if entry.kind == Kind::Datagram {
                self.drop_waiting(&entry, row, DatagramDrop::QueueFull);
                return true;
            }
            // Connections keep their claim, behind the others.
            let _ = self.queue.push(entry);
        }
        false
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
