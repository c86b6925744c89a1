//! How far a server has come between bind and its end, and which of its threads have ended.

use crate::phase::Phase;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

/// Atomics only: every thread reads them, few write.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: AtomicU8,
    /// The phase is [`Phase::Draining`] or later; for turns, which look at it.
    draining: AtomicBool,
    /// Turns that wait in plain blocking style must give up.
    stopping: AtomicBool,
    /// Workers must return.
    stopped: AtomicBool,
    /// Another process accepts from now on.
    handed_over: AtomicBool,
    /// The acceptor has not closed the listeners yet.
    accepting: AtomicBool,
    workers_alive: AtomicUsize,
    workers_started: AtomicUsize,
    /// Connections that are admitted before no more are wanted.
    end_after: Option<u64>,
    admitted: AtomicU64,
    enough: AtomicBool,
}

impl Lifecycle {
    pub(crate) fn new(workers: usize, end_after: Option<u64>) -> Self {
        Self {
            phase: AtomicU8::new(0),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            accepting: AtomicBool::new(true),
            workers_alive: AtomicUsize::new(workers),
            workers_started: AtomicUsize::new(workers),
            end_after,
            admitted: AtomicU64::new(0),
            enough: AtomicBool::new(end_after == Some(0)),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Leaving,
            3 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Goes on to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, SeqCst);
        if phase >= Phase::Draining {
            self.draining.store(true, SeqCst);
        }
    }

    /// Whether the server has begun to end what it admitted.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// For turns, which look at it.
    pub(crate) fn draining_flag(&self) -> &AtomicBool {
        &self.draining
    }

    /// Tells turns that wait for their clients to give up.
    pub(crate) fn stop_turns(&self) {
        self.stopping.store(true, SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// For turns, which look at it while they wait.
    pub(crate) fn stopping_flag(&self) -> &AtomicBool {
        &self.stopping
    }

    /// Tells the workers to return.
    pub(crate) fn stop_workers(&self) {
        self.stopped.store(true, SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Another process has the listening sockets from now on.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, SeqCst);
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Relaxed)
    }

    /// Whether listeners may open: nothing ends the server, as far as is known.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) fn takes_newcomers(&self) -> bool {
        self.phase() <= Phase::Serving && !self.is_handed_over() && !self.has_enough() && self.is_accepting()
    }

    /// The acceptor has taken the last newcomer, and its listeners are closed.
    pub(crate) fn acceptor_ended(&self) {
        self.accepting.store(false, SeqCst);
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.accepting.load(SeqCst)
    }

    /// More workers are about to be started.
    pub(crate) fn workers_start(&self, count: usize) {
        self.workers_alive.fetch_add(count, SeqCst);
        self.workers_started.fetch_add(count, SeqCst);
    }

    /// They could not be started.
    pub(crate) fn workers_fail(&self, count: usize) {
        self.workers_alive.fetch_sub(count, SeqCst);
        self.workers_started.fetch_sub(count, SeqCst);
    }

    /// Workers that were started, whether they have ended or not: the next one has this number.
    pub(crate) fn workers_started(&self) -> usize {
        self.workers_started.load(SeqCst)
    }

    /// A worker's thread is about to end; true for the last one.
    pub(crate) fn worker_ended(&self) -> bool {
        self.workers_alive.fetch_sub(1, SeqCst) == 1
    }

    pub(crate) fn workers_alive(&self) -> usize {
        self.workers_alive.load(SeqCst)
    }

    /// Counts an admitted connection against `end_after`.
    pub(crate) fn admitted(&self) {
        if let Some(enough) = self.end_after
            && self.admitted.fetch_add(1, Relaxed) + 1 >= enough
        {
            self.enough.store(true, SeqCst);
        }
    }

    /// Whether no more connections are wanted.
    pub(crate) fn has_enough(&self) -> bool {
        self.enough.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_never_left_backwards() {
        let life = Lifecycle::new(1, None);
        assert_eq!(life.phase(), Phase::Starting);
        for phase in [Phase::Serving, Phase::Leaving, Phase::Draining, Phase::Stopped] {
            life.enter(phase);
            assert_eq!(life.is_draining(), phase >= Phase::Draining);
            assert_eq!(life.draining_flag().load(Relaxed), life.is_draining());
            life.enter(Phase::Starting);
            assert_eq!(life.phase(), phase);
        }
        assert!(life.is_draining());
    }

    #[test]
    fn the_last_worker_that_ends_is_known() {
        let life = Lifecycle::new(2, None);
        assert_eq!((life.worker_ended(), life.workers_alive()), (false, 1));
        assert_eq!((life.worker_ended(), life.workers_alive()), (true, 0));
    }

    #[test]
    fn enough_is_said_once_as_many_were_admitted_as_were_wanted() {
        let (none, two, all) =
            (Lifecycle::new(1, Some(0)), Lifecycle::new(1, Some(2)), Lifecycle::new(1, None));
        assert!(none.has_enough());
        two.admitted();
        all.admitted();
        assert!(!two.has_enough());
        two.admitted();
        assert!(two.has_enough() && !all.has_enough());
    }

    #[test]
    fn each_order_is_separate() {
        let life = Lifecycle::new(1, None);
        assert!(life.is_accepting() && !life.is_stopping() && !life.is_stopped());
        life.stop_turns();
        assert!(life.is_stopping() && life.stopping_flag().load(Relaxed) && !life.is_stopped());
        life.stop_workers();
        assert!(life.is_stopped() && life.is_accepting());
        life.acceptor_ended();
        assert!(!life.is_accepting());
    }
}
