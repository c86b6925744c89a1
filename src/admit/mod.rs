//! Admission: places, sources, rates. A [`Permit`] is a connection's place and its share of its source; both
//! are given back when it is dropped, so no path can leak one.

pub(crate) mod bell;
pub(crate) mod bucket;
mod open_places;
pub(crate) mod places;
pub(crate) mod refusal_budget;
pub(crate) mod sharing;
pub(crate) mod sources;
pub(crate) mod turns;

use crate::limits::Limits;
use crate::reason::DropReason;
use crate::transport::address::SourceAddress;
use bell::Scope;
use open_places::OpenPlaces;
use sources::{SourceNumber, Sources};
use std::sync::Arc;
use std::time::Instant;

/// Places for connections, and what is known of their sources.
pub(crate) struct Admission {
    places: OpenPlaces,
    sources: Sources,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("places", &self.places).finish_non_exhaustive()
    }
}

/// A connection's place among the admitted: one of all, and one of its listener's.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    source: Option<SourceNumber>,
    listener: u32,
}

impl Admission {
    /// `own` are the limits of each listener. `freed` is called when a connection has given its place back: with the number
    /// of its listener, and how many places are still taken.
    pub(crate) fn new(
        limits: &Limits,
        own: &[Limits],
        freed: impl Fn(usize, usize) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let own = own.iter().map(|own| own.max_connections);
        let places = OpenPlaces::new(limits.max_connections, own, freed);
        Arc::new(Self { places, sources: Sources::new(limits) })
    }

    /// Changes the limits. Connections that are open keep their places, and the sources that they came from.
    pub(crate) fn set_limits(&self, limits: &Limits, own: &[Limits], now: Instant) {
        self.places.set_limits(limits.max_connections, own.iter().map(|own| own.max_connections));
        self.sources.set_limits(limits, now);
    }

    /// The limit that leaves no place for a connection of this listener, before it is accepted; none if there is a place.
    pub(crate) fn full(&self, listener: usize) -> Option<Scope> {
        self.places.full(listener)
    }

    /// How many places are taken.
    pub(crate) fn open(&self) -> usize {
        self.places.taken()
    }

    /// How many connections of a listener are open.
    pub(crate) fn open_at(&self, listener: usize) -> usize {
        self.places.taken_at(listener)
    }

    /// Takes a place for a connection of a listener from `source`. `refuses` is asked about one that its source's limits do
    /// not allow: where they are in a dry run it is let in, and is not counted for its source.
    pub(crate) fn admit(
        self: &Arc<Self>,
        listener: usize,
        source: impl Into<SourceAddress>,
        now: Instant,
        refuses: impl FnOnce(DropReason) -> bool,
    ) -> Result<Permit, DropReason> {
        if !self.places.take(listener) {
            return Err(DropReason::MaxConnections);
        }
        let mut permit = Permit { admission: self.clone(), source: None, listener: listener as u32 };
        // From here on the places are given back on every path.
        if self.sources.are_wanted() {
            permit.source = match self.sources.admit(source, now) {
                Err(reason) if refuses(reason) => return Err(reason),
                admitted => admitted.ok(),
            };
        }
        Ok(permit)
    }
}

impl Permit {
    /// How many places are taken, this one among them.
    pub(crate) fn open(&self) -> usize {
        self.admission.open()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(id) = self.source {
            self.admission.sources.leave(id);
        }
        self.admission.places.give_back(self.listener as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Mutex;

    #[test]
    fn a_permit_gives_back_its_place_and_its_source() {
        let mut limits = Limits::default();
        (limits.max_connections, limits.max_per_source) = (2, 1);
        let admission = Admission::new(&limits, &[limits.clone()], |_, _| {});
        let [a, b, c] = [1, 2, 3].map(|n| SourceAddress::from(IpAddr::from([10, 0, 0, n])));
        let admit = |source: SourceAddress| admission.admit(0, source, Instant::now(), |_| true);
        assert_eq!(admission.full(0), None);
        let first = admit(a).unwrap();
        assert_eq!(admit(a).unwrap_err(), DropReason::PerSource);
        assert_eq!(admission.open(), 1, "a refused source gives its place back");
        let _second = admit(b).unwrap();
        assert_eq!((admission.full(0), admission.open()), (Some(Scope::All), 2));
        assert_eq!(admit(c).unwrap_err(), DropReason::MaxConnections);
        drop(first);
        assert_eq!(admission.open(), 1);
        assert!(admit(a).is_ok());
        drop(admit(a).unwrap());
        let user = SourceAddress::User(Some(0));
        let of_user = admit(user).unwrap();
        drop(_second);
        assert_eq!(admit(user).unwrap_err(), DropReason::PerSource);
        assert!(admit(SourceAddress::User(Some(1))).is_ok(), "another user is another source");
        drop(of_user);
    }

    #[test]
    fn a_listener_has_its_own_places_within_those_of_all() {
        let limits = Limits::default().max_connections(3);
        let own = [limits.clone().max_connections(1), limits.clone()];
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let admission =
            Admission::new(&limits, &own, move |listener, left| log.lock().unwrap().push((listener, left)));
        let source = IpAddr::from([10, 0, 0, 1]);
        let comes = |listener| admission.admit(listener, source, Instant::now(), |_| true);
        let one = comes(0).unwrap();
        assert_eq!(comes(0).unwrap_err(), DropReason::MaxConnections);
        assert_eq!((admission.full(0), admission.full(1)), (Some(Scope::Listener(0)), None));
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), [(0, 1)], "the place of all comes back");
        let others = (comes(1).unwrap(), comes(1).unwrap());
        assert_eq!([0, 1].map(|listener| admission.open_at(listener)), [1, 2]);
        assert_eq!([0, 1].map(|listener| admission.full(listener)), [Some(Scope::All); 2]);
        drop(one);
        assert_eq!([0, 1].map(|listener| admission.full(listener)), [None; 2]);
        admission.set_limits(&limits, &[limits.clone(), limits.clone().max_connections(1)], Instant::now());
        assert_eq!((admission.full(0), admission.full(1)), (None, Some(Scope::Listener(1))));
        drop(others);
        assert_eq!((admission.open(), &*told.lock().unwrap()), (0, &vec![(0, 2), (1, 1), (1, 0)]));
    }

    #[test]
    fn in_a_dry_run_the_limits_of_a_source_let_in_whom_they_would_refuse_and_no_more_are_counted_for_it() {
        let limits = Limits::default().max_connections(3).max_per_source(1);
        let admission = Admission::new(&limits, std::slice::from_ref(&limits), |_, _| {});
        let source = SourceAddress::from(IpAddr::from([10, 0, 0, 1]));
        let asked = std::cell::RefCell::new(Vec::new());
        let admit = || {
            admission.admit(0, source, Instant::now(), |reason| {
                asked.borrow_mut().push(reason);
                false
            })
        };
        let first = admit().unwrap();
        let (second, third) = (admit().unwrap(), admit().unwrap());
        assert_eq!(*asked.borrow(), [DropReason::PerSource; 2]);
        drop(first);
        let again = admit().unwrap();
        assert_eq!(asked.borrow().len(), 2, "the place of the first is free, whoever was let in beside it");
        assert_eq!(admission.full(0), Some(Scope::All));
        assert_eq!(admit().unwrap_err(), DropReason::MaxConnections, "this limit is in force");
        drop((second, third, again));
        assert_eq!(admission.open(), 0);
    }
}
