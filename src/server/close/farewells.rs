//! Farewells: sessions whose connection has ended, until a worker calls their `finish`.
//!
//! The timekeeper ends a connection that has no worker, for a deadline or at the end of the server. The socket ends at
//! once. But `finish` and `drop` of its session are the author's code and may be slow, and the timekeeper must not wait.
//! So a worker calls them later. Until then the session keeps the connection's place among the admitted, which bounds the
//! number of farewells.

use crate::admit::Permit;
use crate::reason::CloseReason;
use crate::server::queue::cost::TurnCost;
use crate::service::Session;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A session that is to be told why its connection has ended.
pub(crate) struct Farewell {
    pub(crate) session: Box<dyn Session>,
    pub(crate) reason: CloseReason,
    pub(crate) permit: Permit,
}

/// All that are to be told.
pub(crate) struct Farewells {
    waiting: Mutex<VecDeque<Farewell>>,
    /// The one job for them is in the line, or in the hand of a thread that will look here.
    called: AtomicBool,
    /// How many wait or are being told.
    pending: AtomicUsize,
    /// How long one takes.
    pub(crate) cost: TurnCost,
}

impl Farewells {
    /// Bytes for one that waits; the room for them grows by doubling.
    pub(crate) const BYTES: usize = 2 * size_of::<Farewell>();

    pub(crate) fn new() -> Self {
        let (called, pending) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { waiting: Mutex::default(), called, pending, cost: TurnCost::unknown() }
    }

    /// Adds one; true when the caller must put the job for them into the line.
    #[must_use]
    pub(crate) fn add(&self, farewell: Farewell) -> bool {
        self.pending.fetch_add(1, SeqCst);
        self.waiting().push_back(farewell);
        self.call()
    }

    /// Whether the job for them is not in the line yet, and is the caller's to put there.
    #[must_use]
    pub(crate) fn call(&self) -> bool {
        !self.called.swap(true, SeqCst)
    }

    /// The job left the line: whatever is added from now on needs another.
    pub(crate) fn answer_call(&self) {
        self.called.store(false, SeqCst);
    }

    /// Takes the one that has waited longest, and whether there are more.
    pub(crate) fn take(&self) -> Option<(Farewell, bool)> {
        let mut waiting = self.waiting();
        let farewell = waiting.pop_front()?;
        let more = !waiting.is_empty();
        if !more {
            // As many as a whole server has may have waited.
            *waiting = VecDeque::new();
        }
        Some((farewell, more))
    }

    /// One was told to the end.
    pub(crate) fn told(&self) {
        self.pending.fetch_sub(1, SeqCst);
    }

    /// How many connections have ended whose sessions have not been told to the end.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Farewell>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::Admission;
    use crate::limits::Limits;
    use crate::service::{Stream, Turn};

    struct Quiet;

    impl Session for Quiet {
        fn turn(&mut self, _: &mut Stream<'_>) -> std::io::Result<Turn> {
            Ok(Turn::Close)
        }
    }

    #[test]
    fn one_job_is_called_for_however_many_wait_and_they_go_in_order() {
        let admission = Admission::new(&Limits::default(), &[Limits::default()], |_, _| {});
        let farewell = |reason| {
            let permit = admission
                .admit(0, std::net::Ipv4Addr::LOCALHOST, std::time::Instant::now(), |_| true)
                .unwrap();
            Farewell { session: Box::new(Quiet), reason, permit }
        };
        let farewells = Farewells::new();
        assert!(farewells.take().is_none());
        assert!(farewells.add(farewell(CloseReason::IdleTimeout)));
        assert!(!farewells.add(farewell(CloseReason::Shutdown)), "it is called for");
        assert_eq!((farewells.pending(), admission.open()), (2, 2));
        farewells.answer_call();
        let (first, more) = farewells.take().unwrap();
        assert_eq!((first.reason, more), (CloseReason::IdleTimeout, true));
        assert!(farewells.call() && !farewells.call());
        let (second, more) = farewells.take().unwrap();
        assert_eq!((second.reason, more, farewells.pending()), (CloseReason::Shutdown, false, 2));
        drop((first, second));
        farewells.told();
        farewells.told();
        assert_eq!((farewells.pending(), admission.open()), (0, 0), "places come back with the sessions");
    }

    #[test]
    fn the_list_takes_no_more_than_it_says() {
        let admission = Admission::new(&Limits::default(), &[Limits::default()], |_, _| {});
        let farewells = Farewells::new();
        for count in 1..200 {
            let permit = admission
                .admit(0, std::net::Ipv4Addr::LOCALHOST, std::time::Instant::now(), |_| true)
                .unwrap();
            let _ =
                farewells.add(Farewell { session: Box::new(Quiet), reason: CloseReason::Shutdown, permit });
            let bytes = farewells.waiting().capacity() * size_of::<Farewell>();
            // A list begins with four.
            assert!(bytes <= Farewells::BYTES * count.max(4), "{bytes} bytes for {count}");
        }
        while farewells.take().is_some() {}
        assert_eq!(farewells.waiting().capacity(), 0, "all is given back");
    }
}
