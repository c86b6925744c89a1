//! How the threads of a server sleep, and how other threads wake them. The models under `model/` use threads of their own
//! instead of these.

use super::crew::Rouse;
use mio::Waker;
use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;

/// A sleeper looks around this often even if nobody wakes it: the deadline of its wait.
const NAP: Duration = Duration::from_secs(1);

/// The workers by their numbers, and the wakers of the polls in which the leader and the timekeeper sleep.
#[derive(Debug)]
pub(crate) struct Threads {
    workers: Box<[OnceLock<Thread>]>,
    leader: Waker,
    keeper: Waker,
}

impl Threads {
    pub(crate) fn new(workers: usize, leader: Waker, keeper: Waker) -> Self {
        Self { workers: (0..workers).map(|_| OnceLock::new()).collect(), leader, keeper }
    }

    /// Names the calling thread as worker `me`.
    pub(crate) fn register(&self, me: usize) {
        self.workers[me].get_or_init(std::thread::current);
    }
}

impl Rouse for Threads {
    fn leader(&self) {
        // It fails only when the kernel has no memory; the leader's own timeout is the way out.
        let _ = self.leader.wake();
    }

    fn worker(&self, worker: usize) {
        if let Some(thread) = self.workers[worker].get() {
            thread.unpark();
        }
    }

    fn keeper(&self) {
        // As for the leader.
        let _ = self.keeper.wake();
    }

    fn nap(&self, _me: usize) {
        std::thread::park_timeout(NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Instant;

    /// The polls are the leader's and the timekeeper's.
    fn threads(workers: usize) -> (Threads, [Poll; 2]) {
        let polls = [(); 2].map(|()| Poll::new().unwrap());
        let [leader, keeper] = [0, 1].map(|at: usize| Waker::new(polls[at].registry(), Token(0)).unwrap());
        (Threads::new(workers, leader, keeper), polls)
    }

    /// Whether a thread that sleeps in this poll would be woken.
    fn is_woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn each_is_woken_by_its_own_call() {
        let (threads, [mut leader, mut keeper]) = threads(1);
        threads.leader();
        assert_eq!((is_woken(&mut leader), is_woken(&mut keeper)), (true, false));
        threads.keeper();
        assert_eq!((is_woken(&mut leader), is_woken(&mut keeper)), (false, true));
    }

    #[test]
    fn a_worker_that_was_woken_before_its_nap_does_not_nap_and_is_woken_once() {
        let (threads, _polls) = threads(2);
        threads.worker(1);
        threads.register(1);
        threads.worker(1);
        let began = Instant::now();
        threads.nap(1);
        assert!(began.elapsed() < NAP, "it was woken");
        let (began, moment) = (Instant::now(), Duration::from_millis(20));
        std::thread::park_timeout(moment);
        assert!(began.elapsed() >= moment, "the nap has used up the call");
    }
}
