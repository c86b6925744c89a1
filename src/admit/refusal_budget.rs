//! How many clients may be turned away: a refusal is work that a flood must not be able to order without end.

use super::bucket::Bucket;
use crate::limits::RefusalRate;
use std::time::{Duration, Instant};

/// What refusals may cost while processors have no rest, of one processor. At 5 % connections for one request each, at
/// ten times what a processor can do, left 0.93 of it for useful work; at 3 % they leave 0.95.
/// (`tidegate-bench scene one-shot --servers tidegate --capacity 950`.) At 3.5 and 4 % it was 0.92 in the mean of five runs, at 3 % 0.93 in
/// three between them, on a machine that had other work. With 5 % README's demonstration had a p99 of a second.
const SHARE: f64 = 0.03;

/// As much may be spent at once as in this time: bursts of refusals are as costly as floods.
const DEPTH: Duration = Duration::from_millis(100);

/// What a refusal costs until that was measured, in nanoseconds.
const FIRST_COST: f64 = 20_000.0;

/// The budget of `refusal_rate`. The clock, and whether processors have rest, are handed in.
#[derive(Debug)]
pub(crate) struct RefusalBudget {
    rate: RefusalRate,
    /// For a rate: refusals. For `auto`: nanoseconds of processor time.
    bucket: Bucket,
    /// A moving average, in nanoseconds.
    cost: f64,
}

impl RefusalBudget {
    pub(crate) fn new(rate: RefusalRate, now: Instant) -> Self {
        Self { rate, bucket: bucket(rate, now), cost: FIRST_COST }
    }

    /// Changes the rate; what a refusal costs is known already.
    pub(crate) fn set_rate(&mut self, rate: RefusalRate, now: Instant) {
        if rate != self.rate {
            (self.rate, self.bucket) = (rate, bucket(rate, now));
        }
    }

    /// Whether one more may be refused now; `rest` says whether processors have rest.
    pub(crate) fn take(&mut self, now: Instant, rest: bool) -> bool {
        match self.rate {
            RefusalRate::All => true,
            RefusalRate::PerSecond(_) => self.bucket.take(now, 1.0),
            RefusalRate::Auto => self.bucket.take(now, self.cost) || rest,
        }
    }

    /// Gives one back that was taken for nothing.
    pub(crate) fn give_back(&mut self) {
        self.bucket.give_back(self.price());
    }

    /// How long until one more may be refused; `None` if that will never be.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let price = self.price();
        self.bucket.next(now, price)
    }

    /// What refusals have cost: `spent` for `count` of them.
    pub(crate) fn note_cost(&mut self, spent: Duration, count: u32) {
        if count > 0 {
            let cost = spent.as_nanos() as f64 / f64::from(count);
            // From a tenth to ten times of what was guessed, whatever the clock says.
            self.cost = (self.cost * 0.9 + cost * 0.1).clamp(FIRST_COST / 10.0, FIRST_COST * 10.0);
        }
    }

    fn price(&self) -> f64 {
        if matches!(self.rate, RefusalRate::Auto) { self.cost } else { 1.0 }
    }
}

/// Tokens at this rate, as many as may be spent at once.
fn bucket(rate: RefusalRate, now: Instant) -> Bucket {
    match rate {
        RefusalRate::PerSecond(rate) => {
            Bucket::with_depth(rate, (rate / 10.0).max(f64::from(rate > 0.0)), now)
        }
        RefusalRate::Auto | RefusalRate::All => {
            Bucket::with_depth(SHARE * 1e9, SHARE * DEPTH.as_nanos() as f64, now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_in_a_second(rate: RefusalRate, rest: bool, cost: Option<Duration>) -> usize {
        let start = Instant::now();
        let mut budget = RefusalBudget::new(rate, start);
        (0..200).for_each(|_| cost.into_iter().for_each(|cost| budget.note_cost(cost, 1)));
        // What may be spent at once is not what is spent for long.
        while budget.take(start, false) && rate != RefusalRate::All {}
        let times = (1..=20_000).map(|n| start + Duration::from_micros(50 * n));
        times.filter(|&now| budget.take(now, rest)).count()
    }

    #[test]
    fn auto_refuses_all_with_rest_and_for_three_hundredths_of_a_processor_without() {
        assert_eq!(refused_in_a_second(RefusalRate::Auto, true, None), 20_000);
        let guessed = refused_in_a_second(RefusalRate::Auto, false, None);
        assert!((1_450..=1_550).contains(&guessed), "{guessed}");
        let measured = refused_in_a_second(RefusalRate::Auto, false, Some(Duration::from_micros(10)));
        assert!((2_950..=3_050).contains(&measured), "{measured}");
        let dear = refused_in_a_second(RefusalRate::Auto, false, Some(Duration::from_secs(1)));
        assert!((145..=155).contains(&dear), "{dear}");
    }

    #[test]
    fn all_are_refused_or_as_many_as_the_rate_says() {
        assert_eq!(refused_in_a_second(RefusalRate::All, false, None), 20_000);
        let rate = refused_in_a_second(RefusalRate::PerSecond(500.0), true, None);
        assert!((495..=505).contains(&rate), "{rate}");
        assert_eq!(refused_in_a_second(RefusalRate::PerSecond(0.0), true, None), 0);
    }

    #[test]
    fn the_cost_of_several_is_that_of_each() {
        let mut budget = RefusalBudget::new(RefusalRate::Auto, Instant::now());
        budget.note_cost(Duration::from_micros(160), 4);
        assert!((budget.cost - (0.9 * FIRST_COST + 0.1 * 40_000.0)).abs() < 1.0, "{}", budget.cost);
        let before = budget.cost;
        budget.note_cost(Duration::from_secs(1), 0);
        assert_eq!(budget.cost.to_bits(), before.to_bits(), "of none nothing is learned");
    }

    #[test]
    fn a_cost_is_believed_from_a_tenth_to_ten_times_of_the_first_guess() {
        for (measured, believed) in [(Duration::ZERO, 2_000.0), (Duration::from_secs(1), 200_000.0)] {
            let mut budget = RefusalBudget::new(RefusalRate::Auto, Instant::now());
            (0..200).for_each(|_| budget.note_cost(measured, 1));
            assert!((budget.cost - believed).abs() < 1.0, "{measured:?}: {}", budget.cost);
        }
    }

    #[test]
    fn a_rate_that_changes_keeps_what_a_refusal_was_found_to_cost() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(RefusalRate::PerSecond(0.0), now);
        (0..200).for_each(|_| budget.note_cost(Duration::from_micros(10), 1));
        assert!(!budget.take(now, true));
        budget.set_rate(RefusalRate::PerSecond(20.0), now);
        assert_eq!((0..9).filter(|_| budget.take(now, true)).count(), 2, "a tenth of a second's");
        budget.set_rate(RefusalRate::PerSecond(20.0), now);
        assert!(!budget.take(now, true), "the same rate gives none anew");
        budget.set_rate(RefusalRate::Auto, now);
        assert!((budget.cost - 10_000.0).abs() < 10.0, "{}", budget.cost);
        assert!(budget.take(now, false));
    }

    #[test]
    fn auto_spends_at_once_what_it_may_spend_in_a_tenth_of_a_second() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(RefusalRate::Auto, now);
        let taken = (0..1_000).filter(|_| budget.take(now, false)).count();
        assert_eq!(taken, 150, "3 ms of processor time for refusals of 20 us");
    }

    #[test]
    fn one_that_was_taken_for_nothing_comes_back() {
        let now = Instant::now();
        let mut budget = RefusalBudget::new(RefusalRate::PerSecond(1.0), now);
        assert!(budget.take(now, false) && !budget.take(now, true));
        assert_eq!(budget.next(now), Some(Duration::from_secs(1)));
        budget.give_back();
        assert!(budget.take(now, false));
        assert_eq!(RefusalBudget::new(RefusalRate::PerSecond(0.0), now).next(now), None);
        let mut auto = RefusalBudget::new(RefusalRate::Auto, now);
        while auto.take(now, false) {}
        let next = auto.next(now).expect("later").as_micros();
        assert!((600..=700).contains(&next), "20 us at three hundredths: {next}");
    }
}
