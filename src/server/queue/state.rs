//! The life of a connection as one atomic word: who owns it, and whether it has more to do.
//!
//! ```text
//!            open                take                  park
//!   free ----------> queued ------------> owned ----------------> idle
//!    ^                 ^  ^                |  |  ready              | |
//!    |                 |  |    requeue     |  v                     | |
//!    |                 |  +----------------+  owned+again --+       | |
//!    |                 |                        | requeue   | ready | | claim
//!    |                 +------------------------+-----------+-------+ v
//!    +------------------------- release ------------------------- owned
//! ```
//!
//! *Queued*: exactly one entry for it is in the queue. *Owned*: exactly one thread (a worker, or
//! the parker that ends it) may touch its data. *Idle*: nobody does; a readiness event queues it.
//! An event that finds it owned leaves the mark *again*, so no edge is lost. The generation in the
//! word makes an event or an entry that outlived its connection harmless.

use crate::server::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const QUEUED: u32 = 1;
const OWNED: u32 = 2;
const AGAIN: u32 = 3;
const IDLE: u32 = 4;
const PLACE: u32 = 0b111;
/// The peer has closed its half, or the connection failed: a short read is not the end of input.
const HANGUP: u32 = 0b1000;
const GENERATION_SHIFT: u32 = 4;

/// Which life of a slot is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u32);

/// What an event asks of the thread that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Put it into the queue: it is queued now, and this thread alone knows.
    Enqueue,
    /// Nothing: it is queued or owned already, or gone.
    Known,
}

/// What becomes of a connection whose owner wanted to park it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// It is idle; the owner must not touch it any more.
    Idle,
    /// Something happened meanwhile; it is still owned and has more to do.
    Again,
}

/// The word.
#[derive(Debug)]
pub(crate) struct State(AtomicU32);

impl State {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// Begins a life, owned by the caller; only the holder of a free slot may call it.
    pub(crate) fn open(&self) -> Generation {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(word & PLACE, FREE);
        let generation = word >> GENERATION_SHIFT;
        self.0.store(generation << GENERATION_SHIFT | OWNED, Ordering::Release);
        Generation(generation)
    }

    /// The owner of a queue entry becomes the owner of the connection. `Some(hangup)`, or `None`
    /// when the entry outlived its connection.
    pub(crate) fn take(&self, generation: Generation) -> Option<bool> {
        let word = self.0.load(Ordering::Relaxed);
        if word >> GENERATION_SHIFT != generation.0 || word & PLACE != QUEUED {
            return None;
        }
        // A hangup may be marked meanwhile, nothing else can happen to a queued connection.
        let word = self.0.fetch_add(OWNED - QUEUED, Ordering::Acquire);
        Some(word & HANGUP != 0)
    }

    /// An event arrived.
    pub(crate) fn ready(&self, generation: Generation, hangup: bool) -> Ready {
        let mark = if hangup { HANGUP } else { 0 };
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> GENERATION_SHIFT != generation.0 {
                return Ready::Known;
            }
            let place = match word & PLACE {
                IDLE => QUEUED,
                OWNED => AGAIN,
                place @ (QUEUED | AGAIN) => place,
                _ => return Ready::Known,
            };
            let next = (word & !PLACE) | place | mark;
            if next == word {
                return Ready::Known;
            }
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if word & PLACE == IDLE => return Ready::Enqueue,
                Ok(_) => return Ready::Known,
                Err(now) => word = now,
            }
        }
    }

    /// The owner lets go, unless something happened meanwhile.
    pub(crate) fn park(&self) -> Parked {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (place, parked) = match word & PLACE {
                AGAIN => (OWNED, Parked::Again),
                _ => (IDLE, Parked::Idle),
            };
            let next = (word & !PLACE) | place;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return parked,
                Err(now) => word = now,
            }
        }
    }

    /// The owner wants another turn: it is queued, and the caller must put it into the queue.
    pub(crate) fn requeue(&self) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = (word & !PLACE) | QUEUED;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Takes an idle connection to end it, or to give it a turn that no event asked for.
    pub(crate) fn claim(&self, generation: Generation) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> GENERATION_SHIFT != generation.0 || word & PLACE != IDLE {
                return false;
            }
            let next = (word & !PLACE) | OWNED;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// The owner ends this life; whatever still names it is stale from now on.
    pub(crate) fn release(&self) {
        let generation = (self.0.load(Ordering::Relaxed) >> GENERATION_SHIFT).wrapping_add(1);
        // A swap, so that an event that marked this life meanwhile comes before its end for everyone.
        self.0.swap(generation << GENERATION_SHIFT | FREE, Ordering::AcqRel);
    }

    /// The present life, if the slot is in use: for scans, which must claim before they act.
    pub(crate) fn generation(&self) -> Option<Generation> {
        let word = self.0.load(Ordering::Relaxed);
        (word & PLACE != FREE).then_some(Generation(word >> GENERATION_SHIFT))
    }

    /// Whether it waits for its client at this moment.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PLACE == IDLE
    }

    /// Whether it waits for a worker at this moment.
    pub(crate) fn is_queued(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PLACE == QUEUED
    }
}
