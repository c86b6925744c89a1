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
//! the timekeeper that ends it) may touch its data. *Idle*: nobody does; a readiness event queues it.
//! An event that finds it owned leaves the mark *again*, so no edge is lost. The generation in the
//! word makes an event or an entry that outlived its connection harmless.
//!
//! The moves of an owner (`park`, `requeue`, `release`) assert that there is one.

use crate::sys::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const QUEUED: u32 = 1;
const OWNED: u32 = 2;
const AGAIN: u32 = 3;
const IDLE: u32 = 4;
const PLACE: u32 = 0b111;
/// The peer has closed its half, or the connection failed: a short read is not the end of input.
const HANGUP: u32 = 0b1000;
/// The same of the other socket that the connection may have: see [`Host::watch`](crate::service::Host::watch).
const OTHER_HANGUP: u32 = 0b1_0000;
/// Which of its sockets had an event since the last turn.
const EVENT: u32 = 0b10_0000;
const OTHER_EVENT: u32 = 0b100_0000;
const EVENTS: u32 = EVENT | OTHER_EVENT;
/// The connection failed. It is a word to whoever hears of the event, and is not kept: a turn sees the failure itself.
const FAILED: u32 = 1 << 31;
const GENERATION_SHIFT: u32 = 7;

/// What events say of a connection. Of a hang-up every later turn is told, of an event the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(u32);

impl Marks {
    /// It has more to do, and no socket said so.
    pub(crate) const NONE: Self = Self(0);

    /// An event of its client's socket.
    pub(crate) fn of_client(hangup: bool) -> Self {
        Self(if hangup { EVENT | HANGUP } else { EVENT })
    }

    /// The same; `failed` says that the connection is no more: the client has reset it, or the kernel has given it up.
    pub(crate) fn with_failure(self, failed: bool) -> Self {
        if failed { Self(self.0 | HANGUP | FAILED) } else { self }
    }

    /// The client is gone for certain, so that nobody would get a reply.
    pub(crate) fn failed(self) -> bool {
        self.0 & FAILED != 0
    }

    /// An event of its other socket.
    pub(crate) fn of_other(hangup: bool) -> Self {
        Self(if hangup { OTHER_EVENT | OTHER_HANGUP } else { OTHER_EVENT })
    }

    /// The client has closed its half, or its connection failed.
    pub(crate) fn hangup(self) -> bool {
        self.0 & HANGUP != 0
    }

    /// Whether the client's socket had an event.
    pub(crate) fn client(self) -> bool {
        self.0 & EVENT != 0
    }

    /// Whether the other socket had an event, and whether it told of a hang-up.
    pub(crate) fn other(self) -> (bool, bool) {
        (self.0 & OTHER_EVENT != 0, self.0 & OTHER_HANGUP != 0)
    }
}

/// Which life of a slot is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u32);

/// Which connection is meant: its slot, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    pub(crate) slot: u32,
    pub(crate) generation: Generation,
}

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

fn is_owned(word: u32) -> bool {
    matches!(word & PLACE, OWNED | AGAIN)
}

/// The word with its place changed.
fn placed(word: u32, place: u32) -> u32 {
    (word & !PLACE) | place
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
        debug_assert_eq!(word & PLACE, FREE, "only a free slot is opened");
        let generation = word >> GENERATION_SHIFT;
        self.0.store(generation << GENERATION_SHIFT | OWNED, Ordering::Release);
        Generation(generation)
    }

    /// The owner of a queue entry becomes the owner of the connection, and is told what happened; `None` when the entry
    /// outlived its connection.
    pub(crate) fn take(&self, generation: Generation) -> Option<Marks> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> GENERATION_SHIFT != generation.0 || word & PLACE != QUEUED {
                return None;
            }
            // Events may be marked meanwhile, nothing else can happen to a queued connection.
            let next = placed(word & !EVENTS, OWNED);
            match self.0.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Marks(word & (EVENTS | HANGUP | OTHER_HANGUP))),
                Err(now) => word = now,
            }
        }
    }

    /// An event arrived.
    pub(crate) fn ready(&self, generation: Generation, Marks(marks): Marks) -> Ready {
        let mark = marks & !FAILED;
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
            let next = placed(word, place) | mark;
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
            debug_assert!(is_owned(word), "parked without an owner: {word:#x}");
            let (place, parked) = match word & PLACE {
                AGAIN => (OWNED, Parked::Again),
                _ => (IDLE, Parked::Idle),
            };
            let next = placed(word, place);
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
            debug_assert!(is_owned(word), "queued without an owner: {word:#x}");
            let next = placed(word, QUEUED);
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
            let next = placed(word, OWNED);
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// The owner ends this life; whatever still names it is stale from now on.
    pub(crate) fn release(&self) {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(is_owned(word), "released without an owner: {word:#x}");
        let generation = (word >> GENERATION_SHIFT).wrapping_add(1);
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

    /// Whether its client has closed at least its half, as far as this life of it is known.
    pub(crate) fn has_hung_up(&self, generation: Generation) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        word >> GENERATION_SHIFT == generation.0 && word & HANGUP != 0
    }

    /// Whether it waits for a worker at this moment.
    #[cfg(test)]
    pub(crate) fn is_queued(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PLACE == QUEUED
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    /// A state in its first life, where the name of the test wants it.
    fn owned() -> (State, Generation) {
        let state = State::new();
        let generation = state.open();
        (state, generation)
    }

    #[test]
    fn a_failure_is_a_hangup_too_and_stays_one() {
        for marks in [Marks::of_client(false), Marks::of_client(true)] {
            let failed = marks.with_failure(true);
            assert!(failed.failed() && failed.hangup() && !marks.failed());
            assert_eq!((failed.with_failure(true), marks.with_failure(false)), (failed, marks));
        }
    }

    #[test]
    fn one_life_goes_round_and_ends() {
        let (state, life) = owned();
        assert!(!state.is_idle() && !state.is_queued());
        assert_eq!((state.take(life), state.claim(life)), (None, false), "owned already");
        state.requeue();
        assert!(state.is_queued());
        assert_eq!((state.claim(life), state.generation()), (false, Some(life)));
        assert_eq!(state.take(life).map(Marks::hangup), Some(false));
        assert_eq!(state.park(), Parked::Idle);
        assert!(state.is_idle());
        assert_eq!(state.take(life), None, "it is in no queue");
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Enqueue);
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Known, "once is enough");
        assert_eq!(state.take(life).map(Marks::hangup), Some(false));
        state.release();
        assert_eq!(state.generation(), None);
        assert_eq!(
            (state.ready(life, Marks::of_client(true)), state.take(life), state.claim(life)),
            (Ready::Known, None, false)
        );
        assert_eq!(state.open(), Generation(life.0 + 1));
    }

    #[test]
    fn an_event_that_finds_an_owner_is_kept_for_when_it_parks() {
        let (state, life) = owned();
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Known);
        assert_eq!(state.park(), Parked::Again);
        assert_eq!(state.park(), Parked::Idle, "once");
        assert!(state.claim(life));
        assert_eq!(state.park(), Parked::Idle);
    }

    #[test]
    fn a_hangup_is_marked_wherever_the_connection_is_and_stays() {
        let (state, life) = owned();
        state.requeue();
        assert!(!state.has_hung_up(life));
        assert_eq!(state.ready(life, Marks::of_client(true)), Ready::Known);
        assert!(state.has_hung_up(life) && !state.has_hung_up(Generation(life.0 + 1)));
        assert_eq!(state.ready(life, Marks::of_client(true)), Ready::Known);
        assert!(state.has_hung_up(life), "a second event takes no mark away");
        let failed = Marks::of_client(false).with_failure(true);
        assert!(failed.failed() && failed.hangup() && !Marks::of_client(true).with_failure(false).failed());
        assert_eq!(
            state.ready(life, failed),
            Ready::Known,
            "a failure alone is nothing new, and no other life"
        );
        assert_eq!(state.take(life).map(Marks::hangup), Some(true));
        assert_eq!(state.park(), Parked::Idle);
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Enqueue);
        assert_eq!(state.take(life).map(Marks::hangup), Some(true));
        state.release();
        let life = state.open();
        state.requeue();
        assert_eq!(state.take(life).map(Marks::hangup), Some(false), "another life has its own");
    }

    #[test]
    fn the_next_turn_is_told_which_socket_had_an_event() {
        let (state, life) = owned();
        let told = |marks: Marks| (marks.client(), marks.hangup(), marks.other());
        assert_eq!(state.ready(life, Marks::of_other(false)), Ready::Known);
        assert_eq!(state.park(), Parked::Again);
        state.requeue();
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Known, "it is queued already");
        assert_eq!(state.take(life).map(told), Some((true, false, (true, false))));
        assert_eq!(state.park(), Parked::Idle);
        assert_eq!(state.ready(life, Marks::of_other(true)), Ready::Enqueue);
        assert_eq!(state.take(life).map(told), Some((false, false, (true, true))));
        assert_eq!(state.park(), Parked::Idle);
        assert_eq!(state.ready(life, Marks::NONE), Ready::Enqueue);
        assert_eq!(state.take(life).map(told), Some((false, false, (false, true))), "a hang-up stays");
    }

    #[test]
    fn events_of_another_life_are_nothing() {
        let (state, life) = owned();
        let other = Generation(life.0 + 1);
        assert_eq!(state.park(), Parked::Idle);
        assert_eq!((state.ready(other, Marks::of_client(true)), state.claim(other)), (Ready::Known, false));
        assert!(state.is_idle());
        assert_eq!(state.ready(life, Marks::of_client(false)), Ready::Enqueue);
        assert_eq!(state.take(other), None);
        assert_eq!(state.take(life).map(Marks::hangup), Some(false));
    }

    #[test]
    fn an_owners_moves_assert_that_there_is_one() {
        let moves: [fn(&State); 3] = [|s| _ = s.park(), |s| s.requeue(), |s| s.release()];
        for act in moves {
            let queued = || {
                let (state, _) = owned();
                state.requeue();
                state
            };
            let idle = || {
                let (state, _) = owned();
                assert_eq!(state.park(), Parked::Idle);
                state
            };
            for state in [State::new(), queued(), idle()] {
                let word = format!("{state:?}");
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&state)));
                assert_eq!(done.is_err(), cfg!(debug_assertions), "{word}");
            }
        }
    }
}
