//! The workers as a crew: which one polls, which ones sleep, and which one is woken for work. A sleeping worker is
//! woken whenever there is work for it, and never more workers than there is work.
//!
//! At most one worker polls at a time, the *leader*. Other workers without work sleep. The sleepers are a stack: the
//! one that fell asleep last is woken first, because its caches are warm. The timekeeper sleeps too, for long while the
//! server is quiet.
//!
//! A thread that is about to rest announces it, checks for work once more, and rests. A thread that adds work publishes
//! it, and then checks which threads rest. So at least one of the two sees the other. How a thread sleeps and is woken
//! is handed in ([`Rouse`]), so the models check this code and not a copy.

use crate::server::poll::awake::Awake;
use crate::server::poll::leadership::Leadership;
use crate::sys::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use std::sync::PoisonError;

/// How threads sleep and are woken.
pub(crate) trait Rouse {
    /// Makes the leader return from the poll.
    fn leader(&self);
    /// Wakes this worker from its nap, or from its next one if it is just about to lie down.
    fn worker(&self, worker: usize);
    /// Wakes the timekeeper.
    fn keeper(&self);
    /// Worker `me`, the caller, sleeps until it is woken, or until a deadline.
    fn nap(&self, me: usize);
}

#[derive(Debug)]
pub(crate) struct Crew<R> {
    leadership: Leadership,
    awake: Awake,
    sleepers: Mutex<Vec<usize>>,
    /// How many sleep.
    sleeping: AtomicUsize,
    /// Workers that stay out: there are more than are wanted.
    out: Mutex<Vec<usize>>,
    /// The timekeeper sleeps long; a thread that starts work wakes it.
    keeper_sleeps: AtomicBool,
    /// A turn began since the timekeeper last looked.
    stirred: AtomicBool,
    rouse: R,
}

/// The right to poll, until dropped.
#[derive(Debug)]
pub(crate) struct Lead<'a, R>(&'a Crew<R>);

impl<R: Rouse> Crew<R> {
    pub(crate) fn new(workers: usize, rouse: R) -> Self {
        Self {
            leadership: Leadership::new(),
            awake: Awake::new(workers),
            sleepers: Mutex::new(Vec::with_capacity(workers)),
            sleeping: AtomicUsize::new(0),
            out: Mutex::new(Vec::new()),
            keeper_sleeps: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            rouse,
        }
    }

    pub(crate) fn rouse(&self) -> &R {
        &self.rouse
    }

    /// Becomes the leader, if there is none.
    pub(crate) fn lead(&self) -> Option<Lead<'_, R>> {
        // Lazily: a `Lead` that is made only to be dropped would end another's.
        self.leadership.take().then(|| Lead(self))
    }

    /// Worker `me`, which does not lead, sleeps until it is woken, unless there is `work`, or nobody leads, after it has
    /// lain down.
    pub(crate) fn sleep(&self, me: usize, work: impl Fn() -> bool) {
        {
            let mut sleepers = self.sleepers();
            sleepers.push(me);
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
        }
        self.awake.rest();
        if !work() && self.leadership.is_led_after_publishing() {
            self.rouse.nap(me);
        }
        self.rise(me);
    }

    /// Worker `me` sleeps though there is work, until it is woken: enough others are at it, and each of them looks for
    /// more when it has done its own. Not if all is `over` after it has lain down.
    pub(crate) fn stand_back(&self, me: usize, over: impl Fn() -> bool) {
        {
            let mut sleepers = self.sleepers();
            sleepers.push(me);
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
        }
        self.awake.rest();
        if !over() {
            self.rouse.nap(me);
        }
        self.rise(me);
    }

    /// Worker `me`, which neither leads nor has work, takes none until it is `wanted` again. If there is `work` that others
    /// left to it, or nobody leads, another is woken for that.
    pub(crate) fn stay_out(&self, me: usize, wanted: impl Fn() -> bool, work: impl Fn() -> bool) {
        self.out().push(me);
        self.awake.rest();
        if work() || !self.leadership.is_led_after_publishing() {
            self.wake_worker();
        }
        while !wanted() {
            self.rouse.nap(me);
        }
        self.out().retain(|&worker| worker != me);
        self.awake.rise();
    }

    /// After more are wanted, or all is over: those that stay out look whether they are wanted.
    pub(crate) fn call_back(&self) {
        self.out().iter().for_each(|&worker| self.rouse.worker(worker));
    }

    /// One more worker is about to be started.
    pub(crate) fn join(&self) {
        self.awake.rise();
    }

    /// It could not be started.
    pub(crate) fn part(&self) {
        self.awake.rest();
    }

    /// Worker `me` gets up: a thread that woke it has done the counting, otherwise it does so itself.
    fn rise(&self, me: usize) {
        let mut sleepers = self.sleepers();
        if let Some(at) = sleepers.iter().rposition(|&worker| worker == me) {
            sleepers.remove(at);
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
            self.awake.rise();
        }
    }

    /// After work was queued: wakes a worker if none is awake to find it.
    pub(crate) fn work_queued(&self) {
        if self.awake.count_after_publishing() == 0 {
            self.wake_worker();
        } else {
            // The workers that are awake may be in long turns; the timekeeper sees to that, unless it sleeps long.
            self.rouse_keeper();
        }
    }

    /// Wakes the leader if it sleeps in the poll, else a sleeper.
    pub(crate) fn wake_worker(&self) {
        if !self.wake_leader() {
            self.wake_sleeper();
        }
    }

    /// Makes a leader that sleeps in the poll return from it; false if none sleeps there, or another thread woke it.
    pub(crate) fn wake_leader(&self) -> bool {
        let mine = self.leadership.unblock();
        if mine {
            self.awake.rise();
            self.rouse.leader();
        }
        mine
    }

    /// Wakes the worker that slept last, if one sleeps.
    pub(crate) fn wake_sleeper(&self) -> bool {
        let woken = {
            let mut sleepers = self.sleepers();
            let woken = sleepers.pop();
            self.sleeping.store(sleepers.len(), Ordering::Relaxed);
            woken
        };
        let Some(worker) = woken else { return false };
        self.awake.rise();
        self.rouse.worker(worker);
        true
    }

    /// Wakes everybody who rests.
    pub(crate) fn wake_all(&self) {
        while self.wake_sleeper() {}
        self.wake_leader();
        self.call_back();
    }

    /// Wakes the timekeeper from a long sleep; nothing while it ticks.
    pub(crate) fn rouse_keeper(&self) {
        if self.keeper_sleeps.load(Ordering::Relaxed) && self.keeper_sleeps.swap(false, Ordering::SeqCst) {
            self.rouse.keeper();
        }
    }

    /// Wakes the timekeeper, however long it sleeps: it has been given something to do.
    pub(crate) fn wake_keeper(&self) {
        self.rouse.keeper();
    }

    /// A turn begins: the timekeeper must look at it now and then.
    pub(crate) fn stir(&self) {
        if !self.stirred.load(Ordering::Relaxed) {
            self.stirred.store(true, Ordering::Relaxed);
            // The timekeeper announces its sleep and then looks at the mark; this is the other half.
            fence(Ordering::SeqCst);
            self.rouse_keeper();
        }
    }

    /// Whether a turn has begun since [`take_stir`](Self::take_stir).
    pub(crate) fn is_stirred(&self) -> bool {
        self.stirred.load(Ordering::Relaxed)
    }

    /// The same, and forgets it.
    pub(crate) fn take_stir(&self) -> bool {
        self.stirred.swap(false, Ordering::Relaxed)
    }

    /// The timekeeper will sleep long, unless a turn has begun or there is `work`; whether it may.
    pub(crate) fn keeper_rests(&self, work: impl Fn() -> bool) -> bool {
        self.keeper_sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let rests = !self.is_stirred() && !work();
        if !rests {
            self.keeper_rises();
        }
        rests
    }

    /// The timekeeper is up.
    pub(crate) fn keeper_rises(&self) {
        self.keeper_sleeps.store(false, Ordering::Relaxed);
    }

    /// How many workers sleep, roughly.
    pub(crate) fn sleeping(&self) -> usize {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// How many workers are awake, roughly.
    pub(crate) fn awake(&self) -> usize {
        self.awake.count()
    }

    /// Whether a thread leads, roughly.
    pub(crate) fn is_led(&self) -> bool {
        self.leadership.is_led()
    }

    /// Whether a thread leads, after everything the caller has published.
    pub(crate) fn is_led_after_publishing(&self) -> bool {
        self.leadership.is_led_after_publishing()
    }

    /// Whether the leader sleeps in the poll, where an event or [`wake_leader`](Self::wake_leader) reaches it.
    pub(crate) fn is_leader_asleep(&self) -> bool {
        self.leadership.is_blocked()
    }

    fn out(&self) -> MutexGuard<'_, Vec<usize>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<usize>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Rouse> Lead<'_, R> {
    /// The leader sleeps in `poll`, unless there is `work` after it has said so: then a thread that queues work wakes
    /// it.
    pub(crate) fn rest(&self, work: impl Fn() -> bool, poll: impl FnOnce()) {
        let crew = self.0;
        crew.leadership.block();
        crew.awake.rest();
        if !work() {
            poll();
        }
        if crew.leadership.unblock() {
            crew.awake.rise();
        }
    }
}

impl<R> Drop for Lead<'_, R> {
    fn drop(&mut self) {
        self.0.leadership.release();
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize as Count;

    /// Counts whom it was told to wake; a nap is over at once.
    #[derive(Debug, Default)]
    struct Told {
        leader: Count,
        keeper: Count,
        naps: Count,
        workers: std::sync::Mutex<Vec<usize>>,
    }

    impl Rouse for Told {
        fn leader(&self) {
            self.leader.fetch_add(1, Ordering::SeqCst);
        }

        fn worker(&self, worker: usize) {
            self.workers.lock().unwrap().push(worker);
        }

        fn keeper(&self) {
            self.keeper.fetch_add(1, Ordering::SeqCst);
        }

        fn nap(&self, _me: usize) {
            self.naps.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn crew(workers: usize) -> Crew<Told> {
        Crew::new(workers, Told::default())
    }

    fn get(count: &Count) -> usize {
        count.load(Ordering::SeqCst)
    }

    #[test]
    fn one_leads_until_it_lets_go() {
        let crew = crew(2);
        let lead = crew.lead().expect("nobody leads");
        assert!(crew.lead().is_none() && crew.is_led() && crew.is_led_after_publishing());
        drop(lead);
        assert!(!crew.is_led() && !crew.is_led_after_publishing());
        assert!(crew.lead().is_some());
    }

    #[test]
    fn a_leader_that_sleeps_is_woken_once_and_counts_as_awake_from_then_on() {
        let crew = crew(1);
        let lead = crew.lead().unwrap();
        lead.rest(
            || false,
            || {
                assert_eq!((crew.awake(), crew.is_leader_asleep()), (0, true));
                crew.work_queued();
                assert_eq!((crew.awake(), crew.is_leader_asleep(), get(&crew.rouse.leader)), (1, false, 1));
                assert!(!crew.wake_leader());
            },
        );
        assert_eq!((crew.awake(), get(&crew.rouse.leader)), (1, 1));
        lead.rest(|| true, || unreachable!("there is work"));
        lead.rest(|| false, || {});
        assert_eq!((crew.awake(), crew.is_leader_asleep()), (1, false));
    }

    #[test]
    fn the_worker_that_slept_last_is_woken_first_and_once() {
        let crew = crew(3);
        let _lead = crew.lead().unwrap();
        crew.sleep(1, || {
            crew.sleep(2, || {
                assert_eq!((crew.sleeping(), crew.awake()), (2, 1));
                assert!(crew.wake_sleeper());
                assert_eq!((crew.sleeping(), crew.awake()), (1, 2));
                true
            });
            assert_eq!((crew.sleeping(), crew.awake()), (1, 2));
            false
        });
        assert_eq!((crew.sleeping(), crew.awake(), get(&crew.rouse.naps)), (0, 3, 1));
        assert_eq!(*crew.rouse.workers.lock().unwrap(), [2]);
        assert!(!crew.wake_sleeper());
    }

    #[test]
    fn nobody_sleeps_while_nobody_leads() {
        let crew = crew(1);
        crew.sleep(0, || false);
        assert_eq!(get(&crew.rouse.naps), 0);
        let lead = crew.lead();
        crew.sleep(0, || true);
        assert_eq!(get(&crew.rouse.naps), 0, "there is work");
        crew.sleep(0, || false);
        assert_eq!(get(&crew.rouse.naps), 1);
        drop(lead);
    }

    #[test]
    fn a_worker_that_stands_back_sleeps_though_there_is_work_and_can_be_woken() {
        let crew = crew(2);
        crew.stand_back(1, || {
            assert_eq!((crew.sleeping(), crew.awake()), (1, 1));
            false
        });
        assert_eq!((get(&crew.rouse.naps), crew.sleeping(), crew.awake()), (1, 0, 2));
        crew.stand_back(1, || true);
        assert_eq!(get(&crew.rouse.naps), 1, "all is over");
        crew.stand_back(1, || crew.wake_sleeper());
        assert_eq!((*crew.rouse.workers.lock().unwrap()).as_slice(), [1]);
        assert_eq!((crew.sleeping(), crew.awake()), (0, 2));
    }

    #[test]
    fn a_worker_that_is_not_wanted_stays_out_until_it_is_and_leaves_work_and_lead_to_another() {
        let crew = crew(3);
        let woken = || crew.rouse.workers.lock().unwrap().clone();
        let lead = crew.lead().unwrap();
        crew.sleep(1, || {
            let wanted = || {
                assert_eq!(crew.awake(), 1);
                get(&crew.rouse.naps) == 2
            };
            crew.stay_out(2, wanted, || false);
            assert_eq!((get(&crew.rouse.naps), crew.sleeping(), crew.awake()), (2, 1, 2));
            crew.call_back();
            assert!(woken().is_empty(), "nothing is to be done, somebody leads, and nobody is out");
            crew.stay_out(2, || true, || true);
            assert_eq!((woken(), crew.sleeping()), (vec![1], 0), "there is work");
            true
        });
        drop(lead);
        crew.stand_back(1, || {
            crew.stay_out(2, || true, || false);
            assert_eq!(woken(), [1, 1], "nobody leads");
            true
        });
        let call = || {
            crew.call_back();
            true
        };
        crew.stay_out(0, call, || false);
        assert_eq!(woken(), [1, 1, 0]);
    }

    #[test]
    fn a_worker_that_joins_counts_as_awake_unless_it_could_not_be_started() {
        let crew = crew(2);
        crew.join();
        assert_eq!(crew.awake(), 3);
        crew.part();
        assert_eq!(crew.awake(), 2);
    }

    #[test]
    fn queued_work_wakes_a_sleeper_only_when_nobody_is_awake() {
        let crew = crew(1);
        let _lead = crew.lead().unwrap();
        crew.work_queued();
        assert!(crew.rouse.workers.lock().unwrap().is_empty());
        crew.sleep(0, || {
            crew.work_queued();
            crew.work_queued();
            true
        });
        assert_eq!(*crew.rouse.workers.lock().unwrap(), [0]);
        assert_eq!(get(&crew.rouse.leader), 0);
    }

    #[test]
    fn wake_all_wakes_sleepers_and_the_leader() {
        let crew = crew(3);
        let lead = crew.lead().unwrap();
        crew.sleep(0, || {
            crew.sleep(1, || {
                lead.rest(|| false, || crew.wake_all());
                true
            });
            true
        });
        assert_eq!(*crew.rouse.workers.lock().unwrap(), [1, 0]);
        assert_eq!((get(&crew.rouse.leader), crew.awake(), crew.sleeping()), (1, 3, 0));
    }

    #[test]
    fn a_timekeeper_that_sleeps_long_is_woken_by_the_first_turn() {
        let crew = crew(1);
        crew.stir();
        assert_eq!(get(&crew.rouse.keeper), 0, "it is up");
        assert!(!crew.keeper_rests(|| false), "a turn has begun");
        assert!(crew.is_stirred() && crew.take_stir() && !crew.take_stir());
        assert!(!crew.keeper_rests(|| true), "there is work");
        crew.rouse_keeper();
        assert_eq!(get(&crew.rouse.keeper), 0);
        assert!(crew.keeper_rests(|| false));
        crew.stir();
        crew.stir();
        crew.rouse_keeper();
        assert_eq!(get(&crew.rouse.keeper), 1);
        crew.take_stir();
        assert!(crew.keeper_rests(|| false));
        crew.work_queued();
        assert_eq!(get(&crew.rouse.keeper), 2, "those that are awake may be in long turns");
        assert!(crew.keeper_rests(|| false));
        crew.keeper_rises();
        crew.rouse_keeper();
        assert_eq!(get(&crew.rouse.keeper), 2);
        crew.wake_keeper();
        assert_eq!(get(&crew.rouse.keeper), 3, "always");
    }
}
