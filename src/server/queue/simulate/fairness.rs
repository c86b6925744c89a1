//! How much of its share each source has had, computed as simply as possible, to check the accounts of [`Order`]
//! against it.
//!
//! There are two ways to say what a share is. Each turn is divided either among the sources that wait, or among these
//! and the sources that had turns early and have not made up for them yet. The accounts lie between the two, since they
//! count in whole rounds. So a source counts as ahead only if it is ahead by the first way, and as behind only if it is
//! behind by the second.

use super::server::RequestModel;
use crate::server::queue::accounts::SourceId;
use std::collections::HashMap;

/// A source has more than its share when it is more turns ahead than the first, and less when it is further behind
/// than the second.
const AHEAD: f64 = 3.0;
const BEHIND: f64 = -3.0;

/// A share is never less than this, however many sources wait.
const SHARE_LEAST: f64 = 1.0 / 256.0;

#[derive(Debug, Default)]
struct SourceShare {
    waiting: usize,
    /// Turns it had beyond its share, divided among those that wait.
    ahead: f64,
    /// The same, divided among those that wait or have not paid.
    paid: f64,
}

/// What each source had, in turns of equal cost, and what is on the shelf as far as the accounts are concerned.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    sources: HashMap<SourceId, SourceShare>,
    entries: HashMap<(bool, u32), SourceId>,
}

impl Fairness {
    pub(super) fn came(&mut self, request: &RequestModel) {
        if self.entries.is_empty() {
            // Nobody waited, so nobody was kept waiting by another.
            self.sources.clear();
        }
        let known = self.entries.insert(request.seat(), request.source);
        assert!(known.is_none(), "{request:?} is on the shelf already");
        let had = self.sources.entry(request.source).or_default();
        if had.waiting == 0 {
            (had.ahead, had.paid) = (had.ahead.max(0.0), had.paid.max(0.0));
        }
        had.waiting += 1;
    }

    /// An entry has left the shelf, or its client has probably left.
    pub(super) fn left(&mut self, seat: (bool, u32)) {
        if let Some(source) = self.entries.remove(&seat) {
            self.sources.get_mut(&source).expect("it waited").waiting -= 1;
        }
    }

    /// An entry is given its turn.
    pub(super) fn picked(&mut self, request: &RequestModel) {
        if !self.entries.contains_key(&request.seat()) {
            assert!(self.entries.is_empty(), "a doubtful entry has its turn while others wait");
            return;
        }
        let waiting = || self.sources.values().filter(|had| had.waiting > 0);
        let ahead = self.sources[&request.source].ahead;
        if ahead > AHEAD {
            let least = waiting().map(|had| had.paid).fold(0.0, f64::min);
            let source = request.source;
            assert!(least > BEHIND, "{source:?} is {ahead} turns ahead, and another is {least} behind");
        }
        let counted = waiting().count();
        let unpaid = self.sources.values().filter(|had| had.waiting == 0 && had.paid > 0.0).count();
        let (share, smaller) = (1.0 / counted as f64, 1.0 / (counted + unpaid) as f64);
        for had in self.sources.values_mut() {
            had.ahead -= share.max(SHARE_LEAST);
            had.paid -= if had.waiting > 0 || had.paid > 0.0 { smaller } else { 0.0 };
        }
        self.give(request.source, 1.0);
        self.forgive();
        self.left(request.seat());
    }

    pub(super) fn refunded(&mut self, source: SourceId) {
        if self.sources.contains_key(&source) {
            self.give(source, -1.0);
        }
    }

    fn give(&mut self, source: SourceId, turns: f64) {
        let had = self.sources.get_mut(&source).expect("it is known");
        had.ahead += turns;
        had.paid += turns;
    }

    /// While everyone who waits is ahead of its share, nobody is kept from anything.
    fn forgive(&mut self) {
        let least = |of: fn(&SourceShare) -> f64| {
            self.sources.values().filter(|had| had.waiting > 0).map(of).fold(f64::MAX, f64::min)
        };
        let (ahead, paid) = (least(|had| had.ahead), least(|had| had.paid));
        for had in self.sources.values_mut() {
            had.ahead -= if ahead < f64::MAX { ahead.max(0.0) } else { 0.0 };
            had.paid -= if paid < f64::MAX { paid.max(0.0) } else { 0.0 };
        }
    }
}
