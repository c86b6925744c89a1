//! Where workers sleep: a stack, so that the one that slept last (whose caches are warm) is woken
//! first.

use crate::server::poll::awake::Awake;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// A sleeper looks around this often even if nobody wakes it: the deadline of its wait.
const NAP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Dormitory {
    stack: Mutex<Vec<usize>>,
    sleeping: AtomicUsize,
    threads: Box<[OnceLock<Thread>]>,
    pub(crate) awake: Awake,
}

impl Dormitory {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            stack: Mutex::new(Vec::with_capacity(workers)),
            sleeping: AtomicUsize::new(0),
            threads: (0..workers).map(|_| OnceLock::new()).collect(),
            awake: Awake::new(workers),
        }
    }

    /// Names the calling thread as worker `me`.
    pub(crate) fn register(&self, me: usize) {
        self.threads[me].get_or_init(std::thread::current);
    }

    /// Worker `me` sleeps until it is woken, unless `work` finds some after it has lain down.
    pub(crate) fn sleep(&self, me: usize, work: impl Fn() -> bool) {
        {
            let mut stack = self.stack();
            stack.push(me);
            self.sleeping.store(stack.len(), Ordering::Relaxed);
        }
        self.awake.rest();
        if !work() {
            std::thread::park_timeout(NAP);
        }
        self.rise(me);
    }

    /// Worker `me` gets up: whoever woke it has done the counting, otherwise it does itself.
    fn rise(&self, me: usize) {
        let mut stack = self.stack();
        if let Some(at) = stack.iter().rposition(|&worker| worker == me) {
            stack.remove(at);
            self.sleeping.store(stack.len(), Ordering::Relaxed);
            self.awake.rise();
        }
    }

    /// Wakes the worker that slept last, if one sleeps.
    pub(crate) fn wake_one(&self) -> bool {
        let woken = {
            let mut stack = self.stack();
            let woken = stack.pop();
            self.sleeping.store(stack.len(), Ordering::Relaxed);
            woken
        };
        let Some(worker) = woken else { return false };
        self.awake.rise();
        if let Some(thread) = self.threads[worker].get() {
            thread.unpark();
        }
        true
    }

    /// Wakes every sleeper.
    pub(crate) fn wake_all(&self) {
        while self.wake_one() {}
    }

    /// How many sleep, roughly.
    pub(crate) fn sleeping(&self) -> usize {
        self.sleeping.load(Ordering::Relaxed)
    }

    fn stack(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
