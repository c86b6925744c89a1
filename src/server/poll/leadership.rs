//! The lead: at most one thread polls, and other threads can wake it while it sleeps in the poll.

use crate::sys::sync::{AtomicBool, Ordering, fence};

/// At most one thread leads. While it sleeps in the poll it is *blocked*, and who takes that mark
/// away has the duty to wake it.
#[derive(Debug)]
pub(crate) struct Leadership {
    led: AtomicBool,
    blocked: AtomicBool,
}

impl Leadership {
    pub(crate) fn new() -> Self {
        Self { led: AtomicBool::new(false), blocked: AtomicBool::new(false) }
    }

    /// Becomes the leader, if there is none.
    pub(crate) fn take(&self) -> bool {
        !self.led.load(Ordering::Relaxed) && !self.led.swap(true, Ordering::SeqCst)
    }

    /// The leader ends its lead.
    pub(crate) fn release(&self) {
        // A swap, for the same reason as in `block`.
        self.led.swap(false, Ordering::SeqCst);
    }

    /// The leader will sleep in the poll unless it finds work after this call.
    pub(crate) fn block(&self) {
        // A swap, so that the marks of all threads stand in one order; the processor does the same for a store.
        self.blocked.swap(true, Ordering::SeqCst);
    }

    /// Takes the mark away: for the leader when it returns, for others who then must wake it. True
    /// for one of them only.
    pub(crate) fn unblock(&self) -> bool {
        self.blocked.swap(false, Ordering::SeqCst)
    }

    /// Whether the leader sleeps in the poll, roughly.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst)
    }

    /// Whether a thread leads, roughly.
    pub(crate) fn is_led(&self) -> bool {
        self.led.load(Ordering::Relaxed)
    }

    /// Whether a thread leads, after everything the caller has published.
    pub(crate) fn is_led_after_publishing(&self) -> bool {
        fence(Ordering::SeqCst);
        self.led.load(Ordering::SeqCst)
    }
}
