//! The bell: the acceptor waits for a place, and the thread that frees one rings.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, fence};

/// What the acceptor waits for before it accepts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Awaited {
    Nothing = 0,
    QueuePlace = 1,
    ConnectionPlace = 2,
}

/// One thread waits, any thread rings. The waiter says what it waits for and then looks once more, so a place
/// that is made meanwhile is either seen or rung for.
pub(crate) struct Bell {
    awaited: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("awaited", &self.awaited).finish_non_exhaustive()
    }
}

impl Bell {
    /// `wake` makes the waiting thread look again.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { awaited: AtomicU8::new(Awaited::Nothing as u8), wake: Box::new(wake) }
    }

    /// What the caller waits for from now on; it looks once more after it has said so.
    pub(crate) fn wait_for(&self, awaited: Awaited) {
        self.awaited.store(awaited as u8, SeqCst);
        fence(SeqCst);
    }

    /// Whether the acceptor waits for something, so that newcomers stand in the kernel's backlog.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Relaxed) != Awaited::Nothing as u8
    }

    /// Whether the acceptor waits for this.
    pub(crate) fn awaits(&self, awaited: Awaited) -> bool {
        self.awaited.load(Relaxed) == awaited as u8
    }

    /// There is what was awaited: wakes the acceptor, once, if it waits for that.
    pub(crate) fn ring(&self, made: Awaited) {
        let (made, nothing) = (made as u8, Awaited::Nothing as u8);
        if self.awaited.load(Relaxed) == made
            && self.awaited.compare_exchange(made, nothing, SeqCst, Relaxed).is_ok()
        {
            (self.wake)();
        }
    }

    /// Wakes the acceptor whatever it waits for.
    pub(crate) fn call(&self) {
        (self.wake)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn it_rings_once_and_only_for_what_is_awaited() {
        let rung = Arc::new(AtomicUsize::new(0));
        let count = rung.clone();
        let bell = Bell::new(move || {
            count.fetch_add(1, SeqCst);
        });
        let rings = || rung.load(SeqCst);
        bell.ring(Awaited::QueuePlace);
        assert_eq!((rings(), bell.is_awaited()), (0, false), "nobody waits");
        bell.wait_for(Awaited::QueuePlace);
        bell.ring(Awaited::ConnectionPlace);
        assert_eq!((rings(), bell.is_awaited()), (0, true));
        assert!(bell.awaits(Awaited::QueuePlace) && !bell.awaits(Awaited::ConnectionPlace));
        bell.ring(Awaited::QueuePlace);
        bell.ring(Awaited::QueuePlace);
        assert_eq!((rings(), bell.is_awaited()), (1, false));
        bell.call();
        assert_eq!(rings(), 2);
    }
}
