//! The priority requests that wait for a place, in the order in which they came. They are served before all other
//! requests, and few may wait.

use super::name::Name;
use crate::clock::Nanos;
use std::collections::VecDeque;

/// The priority requests that wait.
#[derive(Debug, Default)]
pub(super) struct PriorityList {
    waiting: VecDeque<(Name, Nanos)>,
}

impl PriorityList {
    /// How many may wait. Each balancer in front of a gate asks for its health with one request at a time.
    pub(super) const MOST: usize = 16;

    /// Slots for names, which a ticket keeps until its owner has seen the answer.
    pub(super) const SLOTS: usize = 2 * Self::MOST;

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= Self::MOST
    }

    /// Since when the request that has waited longest has waited.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        self.waiting.iter().map(|(_, since)| *since).min()
    }

    pub(super) fn join(&mut self, name: Name, since: Nanos) {
        debug_assert!(!self.is_full());
        self.waiting.push_back((name, since));
    }

    /// Takes out a request that has waited for longer than the timeout; call it until there is none.
    pub(super) fn expire(&mut self, now: Nanos, timeout: Nanos) -> Option<Name> {
        let late = |(_, since): &(Name, Nanos)| now.saturating_sub(*since) > timeout;
        let at = self.waiting.iter().position(late)?;
        self.waiting.remove(at).map(|(name, _)| name)
    }

    /// Takes out the request that came first.
    pub(super) fn next(&mut self) -> Option<Name> {
        self.waiting.pop_front().map(|(name, _)| name)
    }

    pub(super) fn remove(&mut self, name: Name) {
        self.waiting.retain(|(other, _)| *other != name);
    }
}
