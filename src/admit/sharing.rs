//! The source that a client belongs to, when sources take turns.

use super::sources::{Prefix, SourceKey};
use super::turns::accounts::SourceId;
use crate::limits::{Fair, Limits};
use crate::transport::address::SourceAddress;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

/// A source as one number, which fits beside a connection: a hash of its address with a key of this process, so that
/// nobody can choose addresses that share a heap with another's. 0 is everybody, where sources do not take turns.
#[derive(Debug)]
pub(crate) struct Sharing {
    by_source: bool,
    /// Both numbers in one.
    prefix: AtomicU16,
    hasher: RandomState,
}

impl Sharing {
    pub(crate) fn new(limits: &Limits) -> Self {
        let by_source = limits.fair == Fair::Source;
        let prefix = AtomicU16::new(packed(limits.source_prefix));
        Self { by_source, prefix, hasher: RandomState::new() }
    }

    /// Changes the prefix. Clients that are there stay in the heap that they came into.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.prefix.store(packed(limits.source_prefix), Relaxed);
    }

    /// The leading bits of an address that name a source.
    pub(crate) fn prefix(&self) -> Prefix {
        let [v4, v6] = self.prefix.load(Relaxed).to_be_bytes();
        (v4, v6)
    }

    /// The heap of a client. A source has one at each listener, so that a flood at one service does not take the turns of
    /// clients with the same address at another: they may be behind one router, or on this machine.
    pub(crate) fn heap(&self, listener: usize, source: impl Into<SourceAddress>) -> u64 {
        if !self.by_source {
            return 0;
        }
        self.hasher.hash_one((listener, SourceKey::new(source, self.prefix()))).max(1)
    }

    /// The source that a heap is of.
    pub(crate) fn source(heap: u64) -> SourceId {
        SourceId(u128::from(heap))
    }
}

fn packed((v4, v6): Prefix) -> u16 {
    u16::from_be_bytes([v4, v6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_one_heap_and_another_has_another() {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let sharing = Sharing::new(&Limits::default());
        let heap = |text: &str| sharing.heap(0, ip(text));
        assert_eq!(heap("fd00::1"), heap("fd00::2"), "one /64");
        assert_ne!(heap("10.0.0.1"), heap("10.0.0.2"));
        assert_eq!(heap("10.0.0.1"), heap("::ffff:10.0.0.1"));
        assert_ne!(heap("10.0.0.1"), sharing.heap(1, ip("10.0.0.1")), "another listener");
        let user = |uid| sharing.heap(0, SourceAddress::User(uid));
        assert_eq!(user(Some(1)), user(Some(1)));
        assert!(user(Some(1)) != user(Some(0)) && user(None) != user(Some(0)));
        assert_eq!(Sharing::source(0), SourceId::EVERYONE);
        sharing.set_limits(&Limits::default().source_prefix((24, 128)));
        assert_eq!(heap("10.0.0.1"), heap("10.0.0.2"));
        assert_ne!(heap("fd00::1"), heap("fd00::2"));
        let off = Sharing::new(&Limits::default().fair(Fair::Off));
        assert_eq!([ip("10.0.0.1"), ip("fd00::1")].map(|address| off.heap(1, address)), [0; 2]);
    }
}
