//! Counters without a cache line that several threads write: each thread that counts has a [`Ledger`] of its own, and
//! only that thread writes it. Every update is zero-sum (queued -1, active +1) and is made under a sequence number. So
//! a reader sees each ledger balanced, and a sum of balanced ledgers is balanced.

use super::histogram::{Histogram, HistogramSnapshot};
use super::snapshot::ListenerSnapshot;
use super::tally::Tally;
use crate::limits::DryRun;
use crate::reason::{CloseReason, DatagramDrop, DropReason, TurnOutcome, TurnShed, WouldDrop};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize, fence};
use std::time::{Duration, Instant};

/// Where a connection is, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountedAs {
    /// It waits for its first turn, until which it may be turned away.
    New,
    /// It waits for another turn.
    Queued,
    /// It has a worker.
    Active,
    /// It waits for its client.
    Idle,
}

impl CountedAs {
    const COUNT: usize = 4;
}

/// One thread's counts for one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Ledger {
    sequence: AtomicUsize,
    accepted: Tally,
    places: [Tally; CountedAs::COUNT],
    dropped: [Tally; DropReason::COUNT],
    closed: [Tally; CloseReason::COUNT],
    turns: [Tally; TurnOutcome::COUNT],
    turns_shed: [Tally; TurnShed::COUNT],
    turn_duration: Histogram,
    queue_wait: Histogram,
    received_bytes: Tally,
    sent_bytes: Tally,
    datagrams_received: Tally,
    datagrams_dropped: [Tally; DatagramDrop::COUNT],
    would_drop: [Tally; WouldDrop::COUNT],
}

impl Ledger {
    /// Makes one balanced update; only the thread that owns this ledger may call what calls this.
    fn update(&self, change: impl FnOnce(&Self)) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        change(self);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// A connection was accepted and waits for a worker.
    pub fn admitted(&self) {
        self.update(|l| {
            l.accepted.add(1);
            l.places[CountedAs::New as usize].add(1);
        });
    }

    /// A connection was accepted and turned away.
    pub fn refused(&self, reason: DropReason) {
        self.update(|l| {
            l.accepted.add(1);
            l.dropped[reason as usize].add(1);
        });
    }

    /// A connection went from one place to another.
    pub fn moved(&self, from: CountedAs, to: CountedAs) {
        self.update(|l| {
            l.places[from as usize].add(-1);
            l.places[to as usize].add(1);
        });
    }

    /// A connection that waited for its first turn was turned away.
    pub fn shed(&self, from: CountedAs, reason: DropReason) {
        self.update(|l| {
            l.places[from as usize].add(-1);
            l.dropped[reason as usize].add(1);
        });
    }

    /// A connection ended.
    pub fn closed(&self, from: CountedAs, reason: CloseReason) {
        self.update(|l| {
            l.places[from as usize].add(-1);
            l.closed[reason as usize].add(1);
        });
    }

    /// A turn ended after `duration` nanoseconds. The duration of one that found nothing says nothing of the service.
    pub fn turn(&self, outcome: TurnOutcome, duration: u64) {
        self.turns[outcome as usize].add(1);
        if !matches!(outcome, TurnOutcome::End | TurnOutcome::Empty) {
            self.turn_duration.observe(duration);
        }
    }

    /// A request of an established connection got no turn.
    pub fn turn_shed(&self, reason: TurnShed) {
        self.turns_shed[reason as usize].add(1);
    }

    /// Whether a client that has passed a limit is to be turned away. In a dry run of this limit it is not: it is counted here
    /// instead. Every limit that can be in a dry run asks here.
    pub fn refuses(&self, tried: DryRun, reason: WouldDrop) -> bool {
        let dry = tried.has(reason);
        if dry {
            self.would_drop[reason as usize].add(1);
        }
        !dry
    }

    /// An entry met its worker; `nanos` is how long it was in the queue.
    pub fn waited(&self, nanos: u64) {
        self.queue_wait.observe(nanos);
    }

    /// Bytes came in and went out.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.received_bytes.add(received as i64);
        self.sent_bytes.add(sent as i64);
    }

    /// Datagrams were taken from the kernel.
    pub fn datagrams(&self, received: u64) {
        self.datagrams_received.add(received as i64);
    }

    /// Datagrams will not be answered.
    pub fn datagrams_dropped(&self, reason: DatagramDrop, count: u64) {
        self.datagrams_dropped[reason as usize].add(count as i64);
    }

    /// Reads this ledger into a sum, balanced.
    fn add_to(&self, out: &mut Sum) {
        loop {
            let before = self.sequence.load(Acquire);
            if before % 2 == 1 {
                // The owner is within four stores of the end, or was descheduled there.
                std::thread::yield_now();
                continue;
            }
            let balanced = (
                self.accepted.get(),
                self.places.each_ref().map(Tally::get),
                self.dropped.each_ref().map(Tally::get),
                self.closed.each_ref().map(Tally::get),
            );
            fence(Acquire);
            if self.sequence.load(Relaxed) == before {
                out.add(balanced);
                break;
            }
        }
        let listener = &mut out.listener;
        for (out, n) in listener.turns.iter_mut().zip(&self.turns) {
            *out += n.get() as u64;
        }
        for (out, n) in listener.turns_shed.iter_mut().zip(&self.turns_shed) {
            *out += n.get() as u64;
        }
        listener.received_bytes += self.received_bytes.get() as u64;
        listener.sent_bytes += self.sent_bytes.get() as u64;
        listener.datagrams_received += self.datagrams_received.get() as u64;
        for (out, n) in listener.datagrams_dropped.iter_mut().zip(&self.datagrams_dropped) {
            *out += n.get() as u64;
        }
        for (out, n) in listener.would_drop.iter_mut().zip(&self.would_drop) {
            *out += n.get() as u64;
        }
    }
}

type Balanced = (i64, [i64; CountedAs::COUNT], [i64; DropReason::COUNT], [i64; CloseReason::COUNT]);

/// A sum of ledgers in the making: places may be negative until they are settled.
#[derive(Debug, Default)]
struct Sum {
    listener: ListenerSnapshot,
    places: [i64; CountedAs::COUNT],
    took: Duration,
}

impl Sum {
    fn add(&mut self, (accepted, places, dropped, closed): Balanced) {
        self.listener.accepted += accepted as u64;
        for (out, n) in self.places.iter_mut().zip(places) {
            *out += n;
        }
        for (out, n) in self.listener.dropped.iter_mut().zip(dropped) {
            *out += n as u64;
        }
        for (out, n) in self.listener.closed.iter_mut().zip(closed) {
            *out += n as u64;
        }
    }

    /// Ledgers are read one after the other, so a connection that moves meanwhile can be seen to
    /// leave a place (in one thread's ledger) that it was not seen to enter (in another's). That
    /// makes a place negative by as many as moved, and another too large by the same number: take
    /// it from there. The sum stays what it is.
    fn settle(&mut self) {
        for place in 0..CountedAs::COUNT {
            while self.places[place] < 0 {
                let missing = -self.places[place];
                let largest = (0..CountedAs::COUNT).max_by_key(|&p| self.places[p]).unwrap_or(place);
                let taken = missing.min(self.places[largest].max(0));
                if taken == 0 {
                    // More were seen to end than to be accepted: they were accepted meanwhile.
                    self.listener.accepted += missing as u64;
                    self.places[place] = 0;
                    break;
                }
                self.places[largest] -= taken;
                self.places[place] += taken;
            }
        }
        let [new, queued, active, idle] = self.places.map(|n| n as u64);
        self.listener.newcomers = new;
        (self.listener.queued, self.listener.active, self.listener.idle) = (new + queued, active, idle);
    }
}

/// All ledgers of a server: one row for each counting thread, one column for each listener. A column is made when something
/// is counted there, or before that by [`open`](Self::open).
#[derive(Debug)]
pub struct Ledgers {
    threads: usize,
    columns: Box<[OnceLock<Box<[Ledger]>>]>,
}

impl Ledgers {
    /// What each thread's counts for each listener take of the machine.
    pub(crate) const BYTES: usize = size_of::<Ledger>() + 2 * Histogram::BYTES;

    /// Makes the ledgers for a known set of threads and listeners.
    pub fn new(threads: usize, listeners: usize) -> Self {
        Self { threads, columns: (0..listeners).map(|_| OnceLock::new()).collect() }
    }

    /// Makes the column of a listener, so that no thread has to when it counts there first.
    pub fn open(&self, listener: usize) {
        self.column(listener);
    }

    #[inline]
    fn column(&self, listener: usize) -> &[Ledger] {
        self.columns[listener].get_or_init(|| (0..self.threads).map(|_| Ledger::default()).collect())
    }

    /// The ledger that thread number `thread` keeps for listener number `listener`.
    pub fn of(&self, thread: usize, listener: usize) -> &Ledger {
        &self.column(listener)[thread]
    }

    /// Sums one listener's ledgers; its queue waits are added to `queue_wait`. The sum is conserved;
    /// its gauges can be off by as many connections as moved during one pass, which takes
    /// microseconds: a pass that was interrupted for longer than a millisecond is made again.
    pub fn read(&self, listener: usize, queue_wait: &mut HistogramSnapshot) -> ListenerSnapshot {
        let mut counts = self.read_counts(listener);
        // Last: the histograms have ten times as many bytes as the counts, and no place in the balance.
        for ledger in self.columns[listener].get().into_iter().flatten() {
            ledger.turn_duration.add_to(&mut counts.turn_duration);
            ledger.queue_wait.add_to(queue_wait);
        }
        counts
    }

    /// The same without the histograms, for those who ask often: with 32 workers the histograms are 200 KB, which would
    /// push what turns use out of the processor's caches each time.
    pub fn read_counts(&self, listener: usize) -> ListenerSnapshot {
        let mut sum = self.pass(listener);
        for _ in 0..Self::PASSES_MORE {
            if sum.took < Duration::from_millis(1) {
                break;
            }
            // The quickest is the most exact: on a busy machine any pass may be interrupted, the last one too.
            let again = self.pass(listener);
            if again.took < sum.took {
                sum = again;
            }
        }
        sum.settle();
        sum.listener
    }

    const PASSES_MORE: usize = 4;

    fn pass(&self, listener: usize) -> Sum {
        let began = Instant::now();
        let mut sum = Sum::default();
        // Read backwards: row 0 is the acceptor's, so that an accept is seen after what followed it.
        for ledger in self.columns[listener].get().into_iter().flatten().rev() {
            ledger.add_to(&mut sum);
        }
        sum.took = began.elapsed();
        sum
    }
}

/// What one worker is doing, for utilisation and stuck workers.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerClock {
    /// Nanoseconds since the server's start at which the present turn began; 0 between turns.
    busy_since: AtomicU64,
    busy_nanos: AtomicU64,
}

impl WorkerClock {
    /// A turn begins at `now` (nanoseconds since the server's start, never 0).
    pub fn begin(&self, now: u64) {
        self.busy_since.store(now, Relaxed);
    }

    /// The turn ends at `now`; nothing when there is none.
    pub fn end(&self, now: u64) {
        let since = self.busy_since.load(Relaxed);
        if since == 0 {
            return;
        }
        self.busy_nanos.store(self.busy_nanos.load(Relaxed) + now.saturating_sub(since), Relaxed);
        self.busy_since.store(0, Relaxed);
    }

    /// Whether there is a turn now.
    pub fn is_busy(&self) -> bool {
        self.busy_since.load(Relaxed) != 0
    }

    /// How long the present turn has lasted at `now`, if there is one, and the time in all turns,
    /// the present one included.
    pub fn read(&self, now: u64) -> (Option<u64>, u64) {
        let (since, total) = (self.busy_since.load(Relaxed), self.busy_nanos.load(Relaxed));
        match since {
            0 => (None, total),
            since => (Some(now.saturating_sub(since)), total + now.saturating_sub(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_read_while_connections_move_is_conserved() {
        let ledgers = Ledgers::new(3, 1);
        let stop = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (ledgers, stop) = (&ledgers, &stop);
            // Thread 0 admits, thread 1 takes, thread 2 ends, each as fast as it can, until the one before it has ended.
            let (admit, admitted) = crossbeam_channel::bounded::<()>(64);
            let (take, taken) = crossbeam_channel::bounded::<()>(64);
            scope.spawn(move || {
                while stop.load(Relaxed) == 0 {
                    ledgers.of(0, 0).admitted();
                    admit.send(()).unwrap();
                }
            });
            scope.spawn(move || {
                for () in admitted {
                    ledgers.of(1, 0).moved(CountedAs::New, CountedAs::Active);
                    take.send(()).unwrap();
                }
            });
            scope.spawn(move || {
                for () in taken {
                    ledgers.of(2, 0).closed(CountedAs::Active, CloseReason::Client);
                }
            });
            // Miri is slow, and tries other orders of the threads in each of its runs.
            let readings = if cfg!(miri) { 20 } else { 2_000 };
            for _ in 0..readings {
                let seen = ledgers.read(0, &mut HistogramSnapshot::default());
                assert!(seen.conserved(), "{seen:?}");
                assert!(seen.open() <= seen.accepted, "{seen:?}");
            }
            stop.store(1, Relaxed);
        });
        let end = ledgers.read(0, &mut HistogramSnapshot::default());
        assert_eq!((end.open(), end.closed_total()), (0, end.accepted), "{end:?}");
    }

    #[test]
    fn a_turn_is_counted_once_however_often_it_ends() {
        let clock = WorkerClock::default();
        clock.begin(100);
        assert_eq!(clock.read(150), (Some(50), 50));
        clock.end(300);
        clock.end(900);
        assert_eq!(clock.read(1_000), (None, 200));
    }
}
