//! Admission: places, sources, rates. A [`Permit`] is a connection's place and its share of its source; both
//! are given back when it is dropped, so no path can leak one.

pub(crate) mod bell;
pub(crate) mod bucket;
pub(crate) mod places;
pub(crate) mod refusal_budget;
pub(crate) mod sharing;
pub(crate) mod sources;
pub(crate) mod turns;

use crate::limits::Limits;
use crate::reason::DropReason;
use crate::transport::address::SourceAddress;
use places::{Place, Places};
use sources::{SourceNumber, Sources};
use std::sync::Arc;
use std::time::Instant;

/// Places for connections, and what is known of their sources.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Places>,
    sources: Sources,
}

/// A connection's place among the admitted.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    source: Option<SourceNumber>,
    /// Dropped last, after the source was told.
    _place: Place,
}

impl Admission {
    /// `freed` is told of each place that is given back, with how many are still taken.
    pub(crate) fn new(limits: &Limits, freed: impl Fn(usize) + Send + Sync + 'static) -> Arc<Self> {
        let places = Places::telling(limits.max_connections, freed);
        Arc::new(Self { places, sources: Sources::new(limits) })
    }

    /// Changes the limits. Connections that are open keep their places, and the sources that they came from.
    pub(crate) fn set_limits(&self, limits: &Limits, now: Instant) {
        self.places.set_limit(limits.max_connections);
        self.sources.set_limits(limits, now);
    }

    /// Whether there is no place left, before a connection is accepted.
    pub(crate) fn is_full(&self) -> bool {
        self.places.is_full()
    }

    /// How many places are taken.
    pub(crate) fn open(&self) -> usize {
        self.places.taken()
    }

    /// Takes a place for a connection from `source`. `refuses` is asked about one that its source's limits do not allow:
    /// where they are in a dry run it is let in, and is not counted for its source.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: impl Into<SourceAddress>,
        now: Instant,
        refuses: impl FnOnce(DropReason) -> bool,
    ) -> Result<Permit, DropReason> {
        let place = self.places.take().ok_or(DropReason::MaxConnections)?;
        // From here on the place is given back on every path.
        let source = match self.sources.are_wanted() {
            true => match self.sources.admit(source, now) {
                Err(reason) if refuses(reason) => return Err(reason),
                admitted => admitted.ok(),
            },
            false => None,
        };
        Ok(Permit { admission: self.clone(), source, _place: place })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(id) = self.source {
            self.admission.sources.leave(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_permit_gives_back_its_place_and_its_source() {
        let mut limits = Limits::default();
        (limits.max_connections, limits.max_per_source) = (2, 1);
        let admission = Admission::new(&limits, |_| {});
        let [a, b, c] = [1, 2, 3].map(|n| SourceAddress::from(IpAddr::from([10, 0, 0, n])));
        let admit = |source: SourceAddress| admission.admit(source, Instant::now(), |_| true);
        assert!(!admission.is_full());
        let first = admit(a).unwrap();
        assert_eq!(admit(a).unwrap_err(), DropReason::PerSource);
        assert_eq!(admission.open(), 1, "a refused source gives its place back");
        let _second = admit(b).unwrap();
        assert!(admission.is_full() && admission.open() == 2);
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
    fn in_a_dry_run_the_limits_of_a_source_let_in_whom_they_would_refuse_and_no_more_are_counted_for_it() {
        let limits = Limits::default().max_connections(3).max_per_source(1);
        let admission = Admission::new(&limits, |_| {});
        let source = SourceAddress::from(IpAddr::from([10, 0, 0, 1]));
        let asked = std::cell::RefCell::new(Vec::new());
        let admit = || {
            admission.admit(source, Instant::now(), |reason| {
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
        assert!(admission.is_full());
        assert_eq!(admit().unwrap_err(), DropReason::MaxConnections, "this limit is in force");
        drop((second, third, again));
        assert_eq!(admission.open(), 0);
    }
}
