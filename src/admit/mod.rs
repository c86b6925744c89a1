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

    /// Takes a place for a connection from `source`.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: impl Into<SourceAddress>,
        now: Instant,
    ) -> Result<Permit, DropReason> {
        let place = self.places.take().ok_or(DropReason::MaxConnections)?;
        // From here on the place is given back on every path.
        let source = match self.sources.are_wanted() {
            true => Some(self.sources.admit(source, now)?),
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
        let (now, [a, b, c]) = (Instant::now(), [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n])));
        assert!(!admission.is_full());
        let first = admission.admit(a, now).unwrap();
        assert_eq!(admission.admit(a, now).unwrap_err(), DropReason::PerSource);
        assert_eq!(admission.open(), 1, "a refused source gives its place back");
        let _second = admission.admit(b, now).unwrap();
        assert!(admission.is_full() && admission.open() == 2);
        assert_eq!(admission.admit(c, now).unwrap_err(), DropReason::MaxConnections);
        drop(first);
        assert_eq!(admission.open(), 1);
        assert!(admission.admit(a, now).is_ok());
        drop(admission.admit(a, now).unwrap());
        let user = SourceAddress::User(Some(0));
        let of_user = admission.admit(user, now).unwrap();
        drop(_second);
        assert_eq!(admission.admit(user, now).unwrap_err(), DropReason::PerSource);
        assert!(admission.admit(SourceAddress::User(Some(1)), now).is_ok(), "another user is another source");
        drop(of_user);
    }
}
