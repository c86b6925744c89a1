//! Puts a datagram into the queue for a worker, and drops one that waits there.

use super::socket::{DatagramListeners, DatagramSocket};
use crate::admit::turns::accounts::Class;
use crate::clock::Nanos;
use crate::reason::DatagramDrop;
use crate::server::counts::{Counts, KEEPER_ROW, Row};
use crate::server::queue::line::{Entry, Job, Line};
use crate::server::queue::order::Order;
use crate::sys::Taken;

/// So many entries are looked at for a datagram that can be dropped.
const LOOKED_AT: usize = 64;

/// The parts that datagrams need on their way into the line and out of it: only references.
#[derive(Clone, Copy)]
pub(crate) struct Intake<'a> {
    pub(crate) datagrams: &'a DatagramListeners,
    pub(crate) line: &'a Line,
    pub(crate) counts: &'a Counts,
    pub(crate) order: &'a Order<Entry>,
}

impl Intake<'_> {
    /// Puts a datagram into the line; false when there is no place for it.
    pub(crate) fn post(&self, number: usize, taken: &Taken, request: &[u8], now: Nanos) -> bool {
        if self.line.datagram_room(self.counts.free_workers()) == 0 {
            return false;
        }
        let Some(slot) = self.datagrams.slots().put(number, taken, request) else {
            return false;
        };
        self.datagrams.sockets[number].begin();
        self.line.push(Entry { since: now, job: Job::Datagram(slot) });
        true
    }

    /// For the timekeeper: puts a datagram into the line; when it is full this one, or the one that has waited longest,
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
        *older = *older && self.drop_oldest(self.counts.row(KEEPER_ROW), now);
        if !*older || !self.post(number, taken, request, now) {
            let column = self.datagrams.sockets[number].column;
            self.counts.row(KEEPER_ROW).of(column).datagrams_dropped(DatagramDrop::QueueFull, 1);
        }
    }

    /// Drops the datagram that has waited longest, if one is set aside or near the head of the line. The caller sees to it
    /// that a worker knows of those before it. `row` is the ledgers of the calling thread.
    pub(crate) fn drop_oldest(&self, row: Row<'_>, now: Nanos) -> bool {
        let of_line = || self.line.pop_first(LOOKED_AT, |entry| matches!(entry.job, Job::Datagram(_)));
        let oldest = self.order.displace(Class::Datagram, now).or_else(of_line);
        let Some(Entry { job: Job::Datagram(slot), .. }) = oldest else { return false };
        self.drop_waiting(slot, row, DatagramDrop::QueueFull);
        true
    }

    /// Drops a datagram whose entry the caller has taken from the line.
    pub(crate) fn drop_waiting(&self, slot: u32, row: Row<'_>, reason: DatagramDrop) {
        self.line.datagram_left();
        let number = self.datagrams.slots().lock(slot).socket;
        self.datagrams.slots().give_back(slot);
        if let Some(socket) = self.datagrams.sockets.get(number) {
            row.of(socket.column).datagrams_dropped(reason, 1);
            socket.end();
        }
    }

    /// What was dropped of a listener's datagrams, by the kernel too.
    pub(crate) fn dropped(&self, socket: &DatagramSocket) -> [u64; DatagramDrop::COUNT] {
        let mut dropped = self.counts.read_counts(socket.column).datagrams_dropped;
        dropped[DatagramDrop::KernelBuffer as usize] += socket.dropped_in_kernel();
        dropped
    }

    /// One log line for each listener and reason with what was dropped since the last call.
    pub(crate) fn sum_up(&self) {
        for socket in self.datagrams.sockets.iter() {
            let dropped = self.dropped(socket);
            for (at, &reason) in DatagramDrop::ALL.iter().enumerate() {
                let count = dropped[at].saturating_sub(socket.seen(at, dropped[at]));
                if count > 0 {
                    tracing::warn!(listener = %socket.url, reason = %reason, count, "datagrams dropped");
                }
            }
        }
    }
}
