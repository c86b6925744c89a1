//! Measures how long the turns of a service take. The server needs that to decide whether it wakes another worker
//! before a turn.

use crate::clock::Nanos;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A turn that is expected to last longer than this is worth waking another worker for: several
/// times what waking costs (about 5 us with the switch to it).
pub(crate) const SLOW_TURN: Nanos = 50_000;

/// What a service whose turns were cheap is thought to cost after one that seemed slow: the next turn is looked at closely,
/// and nobody is woken for it.
const SUSPECT: Nanos = SLOW_TURN + 1;

/// Turns compute while fewer than this share of them has waited for something.
const WAITS_SELDOM: u64 = ALL / 16;
/// All turns, as a share.
const ALL: u64 = 1 << 16;

/// Moving averages: what turns cost, in nanoseconds, and how many of the slow ones wait, in parts of [`ALL`].
#[derive(Debug)]
pub(crate) struct TurnCost {
    cost: AtomicU64,
    waits: AtomicU64,
}

impl TurnCost {
    /// Unknown services count as slow, and as waiting: waking one worker too many costs little.
    pub(crate) fn unknown() -> Self {
        Self { cost: AtomicU64::new(2 * SLOW_TURN), waits: AtomicU64::new(ALL) }
    }

    /// Notes how long a turn took by the clock on the wall, which a preempted worker sees go on. So outliers make a cheap
    /// service suspect and not slow, and one counts as a millisecond at most: its next turn is looked at closely.
    pub(crate) fn note(&self, took: Nanos) {
        let cost = self.get();
        let most = if cost > SLOW_TURN { u64::MAX } else { SUSPECT };
        self.cost.store(((cost * 7 + took.min(1_000_000)) / 8).min(most), Relaxed);
    }

    /// Notes what a turn really cost: see [`Probe`].
    pub(crate) fn note_probed(&self, Probed { cost, waited }: Probed) {
        self.cost.store(u64::midpoint(self.get(), cost.min(1_000_000)), Relaxed);
        let waits = self.waits.load(Relaxed);
        self.waits.store((waits * 31 + if waited { ALL } else { 0 }) / 32, Relaxed);
    }

    /// Whether turns of this service are slow and compute: they keep a processor busy, and wait for nothing.
    pub(crate) fn computes(&self) -> bool {
        is_slow(self.get()) && self.waits.load(Relaxed) < WAITS_SELDOM
    }

    /// Begins to look closely at a turn, if turns of this service seem slow.
    pub(crate) fn probe(&self) -> Option<Probe> {
        if self.get() <= SLOW_TURN {
            return None;
        }
        crate::sys::thread_usage().map(Probe)
    }

    pub(crate) fn get(&self) -> Nanos {
        self.cost.load(Relaxed)
    }
}

/// Whether a turn that costs this is worth waking another worker for.
pub(crate) fn is_slow(cost: Nanos) -> bool {
    cost > SUSPECT
}

/// A close look at a turn that is expected to be slow. On a busy machine a cheap turn can seem slow,
/// since its worker was preempted; to wake another worker then would only add to the load. What
/// counts is whether it waited (the thread gave up the processor by itself), and else the processor
/// time it used.
#[derive(Debug)]
pub(crate) struct Probe(crate::sys::ThreadUsage);

impl Probe {
    /// What is known of a turn that took this time.
    pub(crate) fn end(self, took: Nanos) -> Probed {
        match crate::sys::thread_usage() {
            Some(now) if now.waits == self.0.waits => {
                Probed { cost: now.processor.saturating_sub(self.0.processor), waited: false }
            }
            _ => Probed { cost: took, waited: true },
        }
    }
}

/// What a close look at a turn has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed {
    /// What it cost.
    pub(crate) cost: Nanos,
    /// Whether it waited for something.
    pub(crate) waited: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(times: usize, cost: Nanos, waited: bool) -> TurnCost {
        let known = TurnCost::unknown();
        (0..times).for_each(|_| known.note_probed(Probed { cost, waited }));
        known
    }

    #[test]
    fn a_service_computes_when_its_turns_are_slow_and_seldom_wait() {
        assert!(!TurnCost::unknown().computes(), "nobody knows");
        assert!(noted(200, 1_000_000, false).computes());
        assert!(!noted(200, 1_000_000, true).computes());
        assert!(!noted(200, SLOW_TURN / 2, false).computes(), "cheap turns are nobody's concern");
        let sometimes = TurnCost::unknown();
        (0..320).for_each(|n| sometimes.note_probed(Probed { cost: 1_000_000, waited: n % 8 == 0 }));
        assert!(!sometimes.computes());
    }

    #[test]
    fn the_bounds_themselves_do_not_count_as_computing() {
        let known = |cost, waits| TurnCost { cost: AtomicU64::new(cost), waits: AtomicU64::new(waits) };
        assert!(known(SUSPECT + 1, WAITS_SELDOM - 1).computes());
        assert!(!known(SUSPECT, WAITS_SELDOM - 1).computes());
        assert!(!known(SUSPECT + 1, WAITS_SELDOM).computes());
    }

    #[test]
    fn the_mean_moves_by_an_eighth_and_one_long_turn_counts_as_a_millisecond() {
        let known = TurnCost::unknown();
        known.note(20_000);
        assert_eq!(known.get(), (2 * SLOW_TURN * 7 + 20_000) / 8);
        let before = known.get();
        known.note(5_000_000_000);
        assert_eq!(known.get(), (before * 7 + 1_000_000) / 8);
        let before = known.get();
        known.note_probed(Probed { cost: 5_000_000_000, waited: false });
        assert_eq!(known.get(), u64::midpoint(before, 1_000_000), "a probe is worth more");
    }

    #[test]
    fn a_cheap_service_with_a_turn_that_seemed_slow_is_looked_at_closely_before_anybody_is_woken() {
        let cheap = || TurnCost { cost: AtomicU64::new(20_000), waits: AtomicU64::new(0) };
        let (preempted, slow) = (cheap(), cheap());
        for service in [&preempted, &slow] {
            assert!(service.probe().is_none());
            service.note(3_000_000);
            assert!(!is_slow(service.get()) && service.probe().is_some());
        }
        preempted.note_probed(Probed { cost: 20_000, waited: false });
        assert!(preempted.probe().is_none(), "it was only preempted");
        slow.note_probed(Probed { cost: 3_000_000, waited: false });
        assert!(is_slow(slow.get()) && slow.computes());
        let unmeasured = cheap();
        (0..4).for_each(|_| unmeasured.note(3_000_000));
        assert!(is_slow(unmeasured.get()), "where no close look can be had, the clock on the wall has to do");
        let just_cheap = TurnCost { cost: AtomicU64::new(SLOW_TURN), waits: AtomicU64::new(0) };
        just_cheap.note(3_000_000);
        assert_eq!(just_cheap.get(), SUSPECT);
    }

    #[test]
    fn a_turn_that_sleeps_is_seen_to_wait_and_one_that_computes_is_not() {
        let known = TurnCost::unknown();
        let probe = known.probe().expect("it is thought slow");
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(probe.end(2_000_000).waited);
        // The system may take the processor away, which is no wait; a lock inside the test's harness would be one.
        let computed = (0..20).any(|_| {
            let probe = known.probe().expect("it is thought slow");
            let sum = (0..20_000u64).fold(0u64, |sum, n| std::hint::black_box(sum ^ n));
            !probe.end(std::hint::black_box(sum) % 2 + 1_000_000).waited
        });
        assert!(computed);
    }
}
