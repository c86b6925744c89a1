//! Places: as many as a limit says, each taken with one atomic step and given back when its holder is dropped.

use crate::sys::sync::Ordering;
use crate::sys::sync::in_order::AtomicUsize;
use std::sync::Arc;

/// A number of places: for connections, for lingering closes, at a backend.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    limit: AtomicUsize,
}

/// A place that was taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct TakenPlace(Arc<Places>);

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// Takes a place, unless all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<TakenPlace> {
        self.count_one().then(|| TakenPlace(self.clone()))
    }

    /// Counts one more as taken, unless all are: the caller [gives it back](Self::give_back).
    pub(super) fn count_one(&self) -> bool {
        let limit = self.limit();
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }

    /// One that was counted is free again; how many are still taken. In one order with the word of the
    /// [bell](super::bell::Bell): either the acceptor sees the place, or the one that gives it back sees that it is awaited.
    pub(super) fn give_back(&self) -> usize {
        self.taken.fetch_sub(1, Ordering::SeqCst) - 1
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Changes how many there are. Where more are taken, they stay with their holders.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken() >= self.limit()
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_its_holder_goes() {
        let places = Arc::new(Places::new(2));
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none() && places.is_full());
        drop(first);
        assert_eq!((places.taken(), places.is_full(), places.limit()), (1, false, 2));
        let third = places.take().unwrap();
        assert!(places.take().is_none());
        drop((second, third));
        assert_eq!(places.taken(), 0);
        assert!(Arc::new(Places::new(0)).take().is_none());
    }

    #[test]
    fn fewer_places_are_none_until_their_holders_have_gone() {
        let places = Arc::new(Places::new(2));
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        places.set_limit(1);
        assert!(places.take().is_none() && places.is_full());
        drop(first);
        assert!(places.take().is_none() && places.is_full());
        drop(second);
        let _held = places.take().unwrap();
        assert!(places.take().is_none());
        places.set_limit(2);
        assert!(places.take().is_some());
    }

    #[test]
    fn threads_never_take_more_than_there_are() {
        let places = Arc::new(Places::new(3));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let place = places.take();
                        assert!(places.taken() <= 3);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.taken(), 0);
    }
}
