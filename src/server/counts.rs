//! What a server counts of itself: a ledger for each thread and listener, how busy each worker is, and panics.

use crate::clock::Nanos;
use crate::contain::contain;
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot};
use crate::metrics::stats::{Ledger, Ledgers, WorkerClock};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, PoisonError};

/// Rows of the ledgers: the acceptor's, the timekeeper's, one for all threads that are not the server's, then one for each
/// worker.
pub(crate) const ACCEPTOR_ROW: usize = 0;
pub(crate) const KEEPER_ROW: usize = 1;
const FOREIGN_ROW: usize = 2;
const WORKER_ROWS: usize = 3;

/// A worker that has been in one turn for longer than this may be held by it: nobody counts on it soon. A turn that is
/// interrupted can last as long.
const HELD: Nanos = 2_000_000;

#[derive(Debug)]
pub(crate) struct Counts {
    ledgers: Ledgers,
    meters: Box<[WorkerClock]>,
    /// How many of the workers take turns.
    workers: AtomicUsize,
    /// A ledger has one writer at a time: threads that are not the server's take turns.
    foreign: Mutex<()>,
    panics: AtomicU64,
    /// Connections that were cut when their turn returned too late.
    cut_in_turns: AtomicU64,
}

/// The ledgers of one thread, which alone writes there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    ledgers: &'a Ledgers,
    row: usize,
}

impl<'a> Row<'a> {
    /// The thread's ledger for a listener (or, after those, for a datagram socket).
    pub(crate) fn of(self, column: usize) -> &'a Ledger {
        self.ledgers.of(self.row, column)
    }
}

impl Counts {
    pub(crate) fn new(workers: usize, columns: usize) -> Self {
        Self {
            ledgers: Ledgers::new(WORKER_ROWS + workers, columns),
            meters: (0..workers).map(|_| WorkerClock::default()).collect(),
            workers: AtomicUsize::new(workers),
            foreign: Mutex::new(()),
            panics: AtomicU64::new(0),
            cut_in_turns: AtomicU64::new(0),
        }
    }

    /// Makes the ledgers of these columns, before anything is counted there.
    pub(crate) fn open(&self, columns: impl IntoIterator<Item = usize>) {
        columns.into_iter().for_each(|column| self.ledgers.open(column));
    }

    /// Not all workers that there is room for take turns.
    pub(crate) fn with_workers(self, workers: usize) -> Self {
        self.set_workers(workers);
        self
    }

    /// How many take turns from now on.
    pub(crate) fn set_workers(&self, workers: usize) {
        self.workers.store(workers, Relaxed);
    }

    /// The ledgers of the thread with this row.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        Row { ledgers: &self.ledgers, row }
    }

    /// Counts something on a thread that may be anybody's.
    pub(crate) fn foreign(&self, count: impl FnOnce(Row<'_>)) {
        let _one_at_a_time = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        count(self.row(FOREIGN_ROW));
    }

    /// The ledgers of a worker.
    pub(crate) fn worker_row(&self, worker: usize) -> Row<'_> {
        self.row(WORKER_ROWS + worker)
    }

    /// How busy each worker is.
    pub(crate) fn meters(&self) -> &[WorkerClock] {
        &self.meters
    }

    /// Workers that are not in a turn. Those that stay out are in none, and are not free either.
    pub(crate) fn free_workers(&self) -> usize {
        self.workers.load(Relaxed).saturating_sub(self.busy_workers())
    }

    /// Workers that have been in one turn for longer than [`HELD`].
    pub(crate) fn held_workers(&self, now: Nanos) -> usize {
        let is_held = |meter: &&WorkerClock| meter.read(now).0.is_some_and(|lasted| lasted > HELD);
        self.meters.iter().filter(is_held).count()
    }

    /// Workers that are in a turn.
    pub(crate) fn busy_workers(&self) -> usize {
        self.meters.iter().filter(|meter| meter.is_busy()).count()
    }

    /// Calls code that others wrote; a panic is counted, and is `None`.
    #[inline]
    pub(crate) fn contain<T>(&self, code: impl FnOnce() -> T) -> Option<T> {
        let done = contain(code);
        if done.is_err() {
            self.panics.fetch_add(1, Relaxed);
        }
        done.ok()
    }

    /// Panics that were contained.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    pub(crate) fn cut_in_turn(&self) {
        self.cut_in_turns.fetch_add(1, Relaxed);
    }

    pub(crate) fn cut_in_turns(&self) -> u64 {
        self.cut_in_turns.load(Relaxed)
    }

    /// Sums one column; its queue waits are added to `queue_wait`.
    pub(crate) fn read(&self, column: usize, queue_wait: &mut HistogramSnapshot) -> ListenerSnapshot {
        self.ledgers.read(column, queue_wait)
    }

    /// Sums one column, without histograms.
    pub(crate) fn read_counts(&self, column: usize) -> ListenerSnapshot {
        self.ledgers.read_counts(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_contained_and_counted() {
        let counts = Counts::new(1, 1);
        assert_eq!(counts.contain(|| 3), Some(3));
        assert_eq!(counts.contain(|| -> u8 { std::panic::resume_unwind(Box::new(())) }), None);
        assert_eq!(counts.panics(), 1);
    }

    #[test]
    fn each_thread_writes_its_own_row_and_a_reading_is_their_sum() {
        let counts = Counts::new(2, 2);
        counts.row(ACCEPTOR_ROW).of(1).admitted();
        counts.row(KEEPER_ROW).of(1).admitted();
        counts.worker_row(0).of(1).admitted();
        counts.worker_row(1).of(0).admitted();
        counts.foreign(|row| row.of(0).admitted());
        assert_eq!((counts.read_counts(0).accepted, counts.read_counts(1).accepted), (2, 3));
    }

    #[test]
    fn a_worker_in_a_turn_is_not_free() {
        let counts = Counts::new(3, 1);
        counts.meters()[1].begin(5);
        assert_eq!((counts.free_workers(), counts.busy_workers()), (2, 1));
        assert_eq!((counts.held_workers(5 + HELD), counts.held_workers(6 + HELD)), (0, 1));
        counts.meters()[1].end(9);
        assert_eq!(counts.free_workers(), 3);
        counts.set_workers(1);
        assert_eq!(counts.free_workers(), 1, "two stay out");
        counts.meters()[1].begin(10);
        counts.meters()[2].begin(10);
        assert_eq!(counts.free_workers(), 0, "two end their turns before they stay out");
        counts.cut_in_turn();
        assert_eq!(counts.cut_in_turns(), 1);
    }
}
