//! How quickly turns follow each other while entries wait, and so how long it takes to serve all of them.

use crate::clock::Nanos;

/// So many intervals are measured before they say anything, and each counts this much in the mean.
const KNOWN_AFTER: u32 = 32;
const NEW_IN_MEAN: f64 = 1.0 / 32.0;

/// The mean time between two turns.
#[derive(Debug, Default)]
pub(super) struct TurnPace {
    /// The last turn, unless nothing has waited since.
    last: Option<Nanos>,
    mean: f64,
    measured: u32,
}

impl TurnPace {
    /// An entry gets its turn.
    pub(super) fn turn(&mut self, now: Nanos) {
        if let Some(last) = self.last.replace(now) {
            self.mean += (now.saturating_sub(last) as f64 - self.mean) * NEW_IN_MEAN;
            self.measured = self.measured.saturating_add(1);
        }
    }

    /// Nothing has waited: the time until the next turn says nothing of how quickly turns can follow.
    pub(super) fn rest(&mut self) {
        self.last = None;
    }

    /// Whether `entries` are served within `time`, as far as is known.
    pub(super) fn serves(&self, entries: usize, time: Nanos) -> bool {
        self.measured >= KNOWN_AFTER && entries as f64 * self.mean <= time as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_within_a_time_is_known_from_the_turns_before_and_not_from_the_rest_between_them() {
        let mut pace = TurnPace::default();
        for nth in 0..=u64::from(KNOWN_AFTER) {
            assert!(!pace.serves(0, Nanos::MAX), "too little is known after {nth}");
            pace.turn(1_000 * nth);
        }
        // Seven parts in twenty of the true mean are still missing.
        assert!(pace.serves(99, 99_000) && !pace.serves(1_000, 99_000));
        pace.rest();
        pace.turn(1_000_000_000);
        assert!(pace.serves(99, 99_000), "a rest is no interval");
        for nth in 1..1_000 {
            pace.turn(1_000_000_000 + 10_000 * nth);
        }
        assert!(pace.serves(9, 99_000) && !pace.serves(11, 99_000), "it follows");
    }
}
