//! The source that a client belongs to, when sources take turns.

use super::sources::{Prefix, SourceKey};
use super::turns::accounts::SourceId;
use crate::limits::{Fair, Limits};
use crate::transport::address::SourceAddress;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A source as one number, which fits beside a connection: a hash of its address with a key of this process, so that
/// nobody can choose addresses that share a heap with another's. 0 is everybody, where sources do not take turns.
#[derive(Debug)]
pub(crate) struct Sharing {
    by_source: bool,
    prefix: Prefix,
    hasher: RandomState,
}

impl Sharing {
    pub(crate) fn new(limits: &Limits) -> Self {
        let by_source = limits.fair == Fair::Source;
        Self { by_source, prefix: limits.source_prefix, hasher: RandomState::new() }
    }

    /// The heap of a client.
    pub(crate) fn heap(&self, source: impl Into<SourceAddress>) -> u64 {
        if !self.by_source {
            return 0;
        }
        self.hasher.hash_one(SourceKey::new(source, self.prefix)).max(1)
    }

    /// The source that a heap is of.
    pub(crate) fn source(heap: u64) -> SourceId {
        SourceId(u128::from(heap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_one_heap_and_another_has_another() {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let sharing = Sharing::new(&Limits::default());
        assert_eq!(sharing.heap(ip("fd00::1")), sharing.heap(ip("fd00::2")), "one /64");
        assert_ne!(sharing.heap(ip("10.0.0.1")), sharing.heap(ip("10.0.0.2")));
        assert_eq!(sharing.heap(ip("10.0.0.1")), sharing.heap(ip("::ffff:10.0.0.1")));
        let user = |uid| sharing.heap(SourceAddress::User(uid));
        assert_eq!(user(Some(1)), user(Some(1)));
        assert!(user(Some(1)) != user(Some(0)) && user(None) != user(Some(0)));
        assert_eq!(Sharing::source(0), SourceId::EVERYONE);
        let off = Sharing::new(&Limits::default().fair(Fair::Off));
        assert_eq!([ip("10.0.0.1"), ip("fd00::1")].map(|address| off.heap(address)), [0; 2]);
    }
}
