//! The places of open connections: each has one of all, and one of its listener's own.

use super::bell::Scope;
use super::places::Places;

/// Called when a place was given back: with the number of its listener, and how many places are still taken.
type Freed = Box<dyn Fn(usize, usize) + Send + Sync>;

/// The places, which whoever takes one [gives back](Self::give_back) once.
pub(crate) struct OpenPlaces {
    all: Places,
    /// How many of those each listener may have.
    own: Box<[Places]>,
    freed: Freed,
}

impl std::fmt::Debug for OpenPlaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenPlaces").field("all", &self.all).field("own", &self.own).finish_non_exhaustive()
    }
}

impl OpenPlaces {
    pub(crate) fn new(
        all: usize,
        own: impl Iterator<Item = usize>,
        freed: impl Fn(usize, usize) + Send + Sync + 'static,
    ) -> Self {
        Self { all: Places::new(all), own: own.map(Places::new).collect(), freed: Box::new(freed) }
    }

    pub(crate) fn set_limits(&self, all: usize, own: impl Iterator<Item = usize>) {
        self.all.set_limit(all);
        self.own.iter().zip(own).for_each(|(places, own)| places.set_limit(own));
    }

    /// The limit that leaves no place at this listener; none if there is a place.
    pub(crate) fn full(&self, listener: usize) -> Option<Scope> {
        if self.all.is_full() {
            Some(Scope::All)
        } else {
            self.own[listener].is_full().then_some(Scope::Listener(listener))
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.all.taken()
    }

    /// How many of a listener's own are taken.
    pub(crate) fn taken_at(&self, listener: usize) -> usize {
        self.own[listener].taken()
    }

    /// Takes a place for a connection of this listener, if there is one.
    pub(crate) fn take(&self, listener: usize) -> bool {
        if !self.all.count_one() {
            return false;
        }
        let is_taken = self.own[listener].count_one();
        if !is_taken {
            self.free(listener);
        }
        is_taken
    }

    /// Gives the place of a connection back: that of the listener first.
    pub(crate) fn give_back(&self, listener: usize) {
        self.own[listener].give_back();
        self.free(listener);
    }

    fn free(&self, listener: usize) {
        let left = self.all.give_back();
        (self.freed)(listener, left);
    }
}
