//! Limits how many workers compute at once. More computing workers than processors make every turn longer, and no turn
//! ends sooner.
//!
//! When thirty-two workers share one processor, the system gives it to each in slices of some milliseconds. A turn that
//! needs one millisecond may then be interrupted, and wait for the slices of thirty-one others. So while one more
//! worker computes than there are processors, the others sleep. Whether the turns of a service compute is measured (see
//! [`TurnCost`](crate::server::queue::cost::TurnCost)): if they mostly wait, for a disk or a database, all workers take
//! part.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many workers are in turns that compute.
#[derive(Debug)]
pub(crate) struct Computing {
    count: AtomicUsize,
    /// As many as are worth their while.
    enough: usize,
}

impl Computing {
    pub(crate) fn new(processors: usize) -> Self {
        Self { count: AtomicUsize::new(0), enough: processors + 1 }
    }

    /// The calling worker begins a turn that will compute.
    pub(crate) fn enter(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended; whether as many others compute as are worth their while, so that the caller may rest: each of them
    /// asks the same when its turn has ended, and the last of them goes on.
    pub(crate) fn leave(&self) -> bool {
        self.count.fetch_sub(1, Ordering::SeqCst) > self.enough
    }

    /// Whether another worker would be one too many.
    pub(crate) fn is_enough(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_may_rest_while_enough_others_compute() {
        let computing = Computing::new(1);
        (0..3).for_each(|_| computing.enter());
        assert!(computing.is_enough());
        assert!(computing.leave(), "two others compute");
        assert!(computing.is_enough());
        assert!(!computing.leave(), "one does");
        assert!(!computing.is_enough());
        assert!(!computing.leave());
    }
}
