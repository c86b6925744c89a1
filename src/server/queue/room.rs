//! Room for newcomers that wait for a worker: for those of all listeners together, and for those of each.

use crate::sys::sync::AtomicBool;
use crate::sys::sync::Ordering::{Relaxed, SeqCst};
use crate::sys::sync::in_order::AtomicUsize;

/// How many newcomers wait, and how many may.
#[derive(Debug)]
pub(crate) struct NewcomerRoom {
    waiting: AtomicUsize,
    limit: AtomicUsize,
    /// How many may wait now, if they are fewer than the limit says.
    shrunk: AtomicUsize,
    /// Whether a newcomer had to make room for another since there was rest.
    overflowed: AtomicBool,
}

impl NewcomerRoom {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            shrunk: AtomicUsize::new(usize::MAX),
            overflowed: AtomicBool::new(false),
        }
    }

    /// One more waits.
    pub(crate) fn came(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    /// One has met its worker, or was turned away.
    ///
    /// Those that a dry run of the limit lets in beside it are not counted when they come, and are counted here. So the number
    /// is that of a queue which had refused them and is worked off as fast as this one. It is never below 0.
    ///
    /// The number stands in one order with the word of the [bell](crate::admit::bell::Bell): either the acceptor sees the place that
    /// this makes, or the caller sees that the acceptor waits for one.
    pub(crate) fn left(&self) {
        let _ = self.waiting.fetch_update(SeqCst, Relaxed, |waiting| waiting.checked_sub(1));
    }

    /// The one that came last was let in beside the limit, and takes none of the places.
    pub(crate) fn is_beside(&self) {
        self.left();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// How many may wait.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Changes how many may wait. More that wait already go on waiting.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// A newcomer had to make room for another.
    pub(crate) fn note_overflow(&self) {
        self.overflowed.store(true, Relaxed);
    }

    /// Lets at most `most` wait from now on, and never more than the limit, if some had to make room. Where all that come
    /// fit within the limit, nobody is to be turned away. Those that wait already and are too many now are the
    /// [surplus](Self::surplus).
    pub(crate) fn shrink_to(&self, most: usize) {
        let most = if self.overflowed.load(Relaxed) { most } else { usize::MAX };
        self.shrunk.store(most, Relaxed);
    }

    /// As many may wait again as the limit says.
    pub(crate) fn grow(&self) {
        self.overflowed.store(false, Relaxed);
        self.shrunk.store(usize::MAX, Relaxed);
    }

    /// How many may wait now.
    pub(crate) fn places(&self) -> usize {
        self.limit().min(self.shrunk.load(Relaxed))
    }

    /// Whether one more may wait: fewer wait than there are places, those that one of the free workers is about to take not
    /// counted.
    pub(crate) fn has_place(&self, free_workers: impl FnOnce() -> usize) -> bool {
        let (waiting, places) = (self.waiting(), self.places());
        waiting < places || waiting < places + free_workers()
    }

    /// How many wait that are too many since the room has shrunk by much; those that one of the free workers is about to take are
    /// not. The room and the free workers change from moment to moment, and the few that are too many then have to be paid for as
    /// others are: refused at once, they were a quarter of all refusals at ten times the load.
    pub(crate) fn surplus(&self, free_workers: impl FnOnce() -> usize) -> usize {
        let most = self.shrunk.load(Relaxed);
        let over = self.waiting().saturating_sub(most);
        if over > most / 2 { over.saturating_sub(free_workers()) } else { 0 }
    }

    /// Whether it is worth waking the acceptor: an eighth of the places is free. To wake it for each place would be a
    /// switch of threads for each turn under overload.
    pub(crate) fn has_an_eighth_free(&self) -> bool {
        let places = self.places();
        self.waiting() <= places - places.div_ceil(8)
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_place_until_as_many_wait_as_may_and_the_free_workers_take() {
        let room = NewcomerRoom::new(2);
        room.came();
        assert!(room.has_place(|| unreachable!("there is a place without a free worker")));
        room.came();
        assert!(!room.has_place(|| 0) && room.has_place(|| 1));
        room.set_limit(3);
        assert!(room.has_place(|| 0) && room.limit() == 3);
        room.set_limit(0);
        assert!(!room.has_place(|| 2) && room.has_place(|| 3), "more that wait go on waiting");
        room.left();
        room.left();
        assert_eq!((room.waiting(), room.has_place(|| 0), room.has_place(|| 1)), (0, false, true));
    }

    #[test]
    fn newcomers_beside_the_limit_take_no_place_and_make_one_when_they_are_served() {
        let room = NewcomerRoom::new(1);
        room.came();
        room.came();
        room.is_beside();
        assert_eq!((room.waiting(), room.has_place(|| 0)), (1, false));
        room.left();
        assert!(room.has_place(|| 0), "a turn is a turn, whoever has it");
        room.left();
        assert_eq!(room.waiting(), 0);
    }

    #[test]
    fn once_some_had_to_make_room_fewer_newcomers_may_wait_than_the_limit_says() {
        let room = NewcomerRoom::new(4);
        room.shrink_to(1);
        room.came();
        assert!(room.has_place(|| 0), "nobody had to make room so far");
        room.note_overflow();
        room.shrink_to(1);
        assert!(!room.has_place(|| 0) && room.has_place(|| 1), "a free worker is one more place");
        assert!(!room.has_an_eighth_free() && room.limit() == 4);
        assert_eq!(room.surplus(|| unreachable!("as many wait as may")), 0);
        room.came();
        assert_eq!((room.surplus(|| 0), room.surplus(|| 1), room.surplus(|| 9)), (1, 0, 0));
        room.left();
        room.grow();
        room.shrink_to(1);
        for waiting in 1..4 {
            assert!(room.has_place(|| 0), "{waiting} wait");
            room.came();
        }
        assert!(!room.has_place(|| 0), "4 is the limit");
    }

    #[test]
    fn the_acceptor_is_woken_when_an_eighth_is_free() {
        let room = NewcomerRoom::new(16);
        (0..15).for_each(|_| room.came());
        assert!(!room.has_an_eighth_free());
        room.left();
        assert!(room.has_an_eighth_free());
        assert!(NewcomerRoom::new(0).has_an_eighth_free(), "with no places, when nobody waits");
    }
}
