//! The bell: the acceptor waits for a place, and the thread that frees one rings.
//!
//! A place can be one of those that all listeners share, or one of a listener's own. Both may be awaited at once, by
//! different listeners, and a place that frees at one listener wakes nobody who waits at another.

use crate::sys::sync::Ordering::{Relaxed, SeqCst};
use crate::sys::sync::fence;
use crate::sys::sync::in_order::AtomicU8;

/// What the acceptor waits for before it accepts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    QueuePlace,
    ConnectionPlace,
}

/// Which limit a place belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One of those that all listeners share.
    All,
    /// One that the listener of this number has of its own.
    Listener(usize),
}

const NOTHING: u8 = 0;
/// How far the bits of places at listeners are shifted in the word that sums all up.
const OWN: u8 = 2;

impl Awaited {
    const fn bit(self) -> u8 {
        match self {
            Awaited::QueuePlace => 1,
            Awaited::ConnectionPlace => 2,
        }
    }
}

/// One thread waits, any thread rings. The waiter says what it waits for and then looks once more, so a place
/// that is made meanwhile is either seen or rung for.
pub(crate) struct Bell {
    /// The shared places that are awaited; and whether any listener's own are, so that a thread which frees a place that
    /// nobody waits for has one word to look at.
    awaited: AtomicU8,
    /// What is awaited of each listener's own.
    own: Box<[AtomicU8]>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("awaited", &self.awaited).finish_non_exhaustive()
    }
}

impl Bell {
    /// `wake` makes the waiting thread look again.
    pub(crate) fn new(listeners: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            awaited: AtomicU8::new(NOTHING),
            own: (0..listeners).map(|_| AtomicU8::new(NOTHING)).collect(),
            wake: Box::new(wake),
        }
    }

    /// The caller waits for this too from now on; it looks once more after it has said so.
    pub(crate) fn wait_for(&self, awaited: Awaited, scope: Scope) {
        match scope {
            Scope::All => self.awaited.fetch_or(awaited.bit(), SeqCst),
            Scope::Listener(listener) => {
                self.own[listener].fetch_or(awaited.bit(), SeqCst);
                self.awaited.fetch_or(awaited.bit() << OWN, SeqCst)
            }
        };
        fence(SeqCst);
    }

    /// The caller waits for nothing.
    pub(crate) fn wait_for_nothing(&self) {
        self.own.iter().for_each(|own| own.store(NOTHING, SeqCst));
        self.awaited.store(NOTHING, SeqCst);
    }

    /// Whether the acceptor waits for something, so that newcomers stand in the kernel's backlog.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Relaxed) != NOTHING
    }

    /// Whether the acceptor waits for this. Asked after a place was given back: the reading must not be moved before that.
    pub(crate) fn awaits(&self, awaited: Awaited, scope: Scope) -> bool {
        let all = self.awaited.load(SeqCst);
        match scope {
            Scope::All => all & awaited.bit() != 0,
            Scope::Listener(listener) => {
                all & awaited.bit() << OWN != 0 && self.own[listener].load(SeqCst) & awaited.bit() != 0
            }
        }
    }

    /// There is what was awaited: wakes the acceptor, once, if it waits for that.
    pub(crate) fn ring(&self, made: Awaited, scope: Scope) {
        if !self.awaits(made, scope) {
            return;
        }
        let word = match scope {
            Scope::All => &self.awaited,
            Scope::Listener(listener) => &self.own[listener],
        };
        if word.fetch_and(!made.bit(), SeqCst) & made.bit() != 0 {
            (self.wake)();
        }
    }

    /// A connection of this listener has given its place back: the one of all, and the listener's own.
    pub(crate) fn connection_ended(&self, listener: usize) {
        self.ring(Awaited::ConnectionPlace, Scope::All);
        self.ring(Awaited::ConnectionPlace, Scope::Listener(listener));
    }

    /// There is a place for a newcomer of any listener, though it is not known for which: wakes the acceptor, once, if it
    /// waits for one anywhere.
    pub(crate) fn ring_for_all(&self, made: Awaited) {
        // A worker's note that it is free is in no order with the word of who awaits it.
        fence(SeqCst);
        let bits = made.bit() | made.bit() << OWN;
        if self.awaited.load(SeqCst) & bits != 0 && self.awaited.fetch_and(!bits, SeqCst) & bits != 0 {
            (self.wake)();
        }
    }

    /// Wakes the acceptor whatever it waits for.
    pub(crate) fn call(&self) {
        (self.wake)();
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::Awaited::{ConnectionPlace, QueuePlace};
    use super::Scope::{All, Listener};
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    fn bell(listeners: usize) -> (Bell, impl Fn() -> usize) {
        let rung = Arc::new(AtomicUsize::new(0));
        let count = rung.clone();
        let bell = Bell::new(listeners, move || {
            count.fetch_add(1, SeqCst);
        });
        (bell, move || rung.load(SeqCst))
    }

    #[test]
    fn it_rings_once_and_only_for_what_is_awaited() {
        let (bell, rings) = bell(0);
        bell.ring(QueuePlace, All);
        assert_eq!((rings(), bell.is_awaited()), (0, false), "nobody waits");
        bell.wait_for(QueuePlace, All);
        bell.ring(ConnectionPlace, All);
        assert_eq!((rings(), bell.is_awaited()), (0, true));
        assert!(bell.awaits(QueuePlace, All) && !bell.awaits(ConnectionPlace, All));
        bell.ring(QueuePlace, All);
        bell.ring(QueuePlace, All);
        assert_eq!((rings(), bell.is_awaited()), (1, false));
        bell.call();
        assert_eq!(rings(), 2);
    }

    #[test]
    fn places_of_listeners_are_awaited_apart_from_each_other_and_from_those_of_all() {
        let (bell, rings) = bell(2);
        bell.wait_for(QueuePlace, Listener(0));
        bell.wait_for(ConnectionPlace, Listener(1));
        for (made, scope) in [(QueuePlace, All), (ConnectionPlace, Listener(0)), (QueuePlace, Listener(1))] {
            assert!(!bell.awaits(made, scope));
            bell.ring(made, scope);
        }
        assert_eq!(rings(), 0, "that is not what is awaited there");
        bell.ring(QueuePlace, Listener(0));
        bell.ring(QueuePlace, Listener(0));
        assert_eq!((rings(), bell.awaits(ConnectionPlace, Listener(1))), (1, true));
        bell.ring(ConnectionPlace, Listener(1));
        assert_eq!(rings(), 2);
        bell.wait_for(QueuePlace, All);
        bell.wait_for(QueuePlace, Listener(1));
        bell.wait_for_nothing();
        assert!(!bell.is_awaited() && !bell.awaits(QueuePlace, Listener(1)));
        bell.ring(QueuePlace, Listener(1));
        assert_eq!(rings(), 2);
    }

    #[test]
    fn a_worker_that_is_free_rings_for_whoever_waits_for_a_place_in_the_queue() {
        let (bell, rings) = bell(2);
        bell.ring_for_all(QueuePlace);
        bell.wait_for(ConnectionPlace, Listener(0));
        bell.ring_for_all(QueuePlace);
        assert_eq!(rings(), 0);
        for scope in [All, Listener(1)] {
            bell.wait_for(QueuePlace, scope);
            bell.ring_for_all(QueuePlace);
            bell.ring_for_all(QueuePlace);
        }
        assert_eq!((rings(), bell.awaits(ConnectionPlace, Listener(0))), (2, true));
    }

    #[test]
    fn a_connection_that_ends_rings_for_whoever_waits_for_a_place_of_all_or_of_its_listener() {
        let (bell, rings) = bell(2);
        bell.wait_for(ConnectionPlace, Listener(0));
        bell.connection_ended(1);
        assert_eq!(rings(), 0, "another listener waits");
        bell.connection_ended(0);
        assert_eq!((rings(), bell.awaits(ConnectionPlace, Listener(0))), (1, false));
        bell.wait_for(ConnectionPlace, All);
        bell.connection_ended(1);
        bell.connection_ended(1);
        assert_eq!(rings(), 2);
    }

    #[test]
    fn a_place_for_any_listener_rings_once_where_those_of_all_and_of_one_are_awaited() {
        let (bell, rings) = bell(2);
        bell.wait_for(QueuePlace, All);
        bell.wait_for(QueuePlace, Listener(1));
        bell.ring_for_all(QueuePlace);
        assert_eq!((rings(), bell.is_awaited()), (1, false));
        assert!(!bell.awaits(QueuePlace, Listener(1)) && !bell.awaits(QueuePlace, All));
    }
}
