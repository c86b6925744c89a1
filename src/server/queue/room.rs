//! Room for newcomers that wait for a worker: for those of all listeners together, and for those of each.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// How many newcomers wait, and how many may.
#[derive(Debug)]
pub(crate) struct NewcomerRoom {
    waiting: AtomicUsize,
    limit: AtomicUsize,
}

impl NewcomerRoom {
    pub(crate) fn new(limit: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// One more waits.
    pub(crate) fn came(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    /// One has met its worker, or was turned away.
    ///
    /// Those that a dry run of the limit lets in beside it are not counted when they come, and are counted here. So the number
    /// is that of a queue which had refused them and is worked off as fast as this one. It is never below 0.
    pub(crate) fn left(&self) {
        let _ = self.waiting.fetch_update(Relaxed, Relaxed, |waiting| waiting.checked_sub(1));
    }

    /// The one that came last was let in beside the limit, and takes none of the places.
    pub(crate) fn is_beside(&self) {
        self.left();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How many may wait.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Changes how many may wait. More that wait already go on waiting.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Whether one more may wait: fewer wait than the limit says, those that one of the free workers is about to take not
    /// counted.
    pub(crate) fn has_place(&self, free_workers: impl FnOnce() -> usize) -> bool {
        let (waiting, limit) = (self.waiting(), self.limit());
        waiting < limit || waiting < limit + free_workers()
    }

    /// Whether it is worth waking the acceptor: an eighth of the places is free. To wake it for each place would be a
    /// switch of threads for each turn under overload.
    pub(crate) fn has_an_eighth_free(&self) -> bool {
        let limit = self.limit();
        self.waiting() <= limit - limit.div_ceil(8)
    }
}

#[cfg(test)]
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
    fn the_acceptor_is_woken_when_an_eighth_is_free() {
        let room = NewcomerRoom::new(16);
        (0..15).for_each(|_| room.came());
        assert!(!room.has_an_eighth_free());
        room.left();
        assert!(room.has_an_eighth_free());
        assert!(NewcomerRoom::new(0).has_an_eighth_free(), "with no places, when nobody waits");
    }
}
