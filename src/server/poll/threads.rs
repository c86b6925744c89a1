//! How the real threads of a server sleep and are woken.

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
