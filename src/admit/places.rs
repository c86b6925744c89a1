//! Places: as many as a limit says, each taken with one atomic step and given back when its holder is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens when a place is given back: called with how many are still taken.
type Freed = Box<dyn Fn(usize) + Send + Sync>;

/// A number of places: for connections, for lingering closes, at a backend.
pub(crate) struct Places {
    taken: AtomicUsize,
    limit: AtomicUsize,
    freed: Option<Freed>,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places")
            .field("taken", &self.taken)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A place that was taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit: AtomicUsize::new(limit), freed: None })
    }

    /// Places of which each that is given back is told: with how many are still taken.
    pub(crate) fn telling(limit: usize, freed: impl Fn(usize) + Send + Sync + 'static) -> Arc<Self> {
        let freed: Freed = Box::new(freed);
        Arc::new(Self { taken: AtomicUsize::new(0), limit: AtomicUsize::new(limit), freed: Some(freed) })
    }

    /// Takes a place, unless all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let limit = self.limit();
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1));
        taken.is_ok().then(|| Place(self.clone()))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
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

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.0.taken.fetch_sub(1, Ordering::AcqRel) - 1;
        if let Some(freed) = &self.0.freed {
            freed(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_place_comes_back_when_its_holder_goes() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let places = Places::telling(2, move |left| log.lock().unwrap().push(left));
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none() && places.is_full());
        drop(first);
        assert_eq!((places.taken(), places.is_full(), places.limit()), (1, false, 2));
        let third = places.take().unwrap();
        assert!(places.take().is_none());
        drop((second, third));
        assert_eq!(*told.lock().unwrap(), [1, 1, 0]);
        assert!(Places::new(0).take().is_none());
    }

    #[test]
    fn fewer_places_are_none_until_their_holders_have_gone() {
        let places = Places::new(2);
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
        let places = Places::new(3);
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
