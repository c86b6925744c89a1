//! The search for the highest rate at which a condition holds. The rate is doubled until the condition fails, and then
//! the gap between the best good rate and the lowest bad one is halved.

use super::report::{Report, Trial};
use super::threshold::Threshold;
use super::verdict::GENERATOR_LIMITED;

/// The search ends when the highest good rate and the lowest bad one are this near.
const NEAR: f64 = 1.05;
/// The most trials.
const TRIALS: usize = 24;
/// A good trial answers this share of what is offered in time; else its latency is that of the few that got in.
const ANSWERED: f64 = 0.99;

/// Where a search is.
#[derive(Debug)]
pub(crate) struct Search {
    next: f64,
    good: Option<f64>,
    bad: Option<f64>,
    pub(crate) trials: Vec<Trial>,
}

impl Search {
    /// A search that begins at this rate a second.
    pub(crate) fn new(first: f64) -> Self {
        Self { next: first, good: None, bad: None, trials: Vec::new() }
    }

    /// The rate to try next; none when the search is over.
    pub(crate) fn next(&self, highest: f64) -> Option<f64> {
        let near = match (self.good, self.bad) {
            (Some(good), Some(bad)) => bad / good <= NEAR,
            (None, Some(bad)) => bad <= 1.0,
            (Some(good), None) => good >= highest,
            (None, None) => false,
        };
        (!near && self.trials.len() < TRIALS).then_some(self.next.min(highest))
    }

    /// Takes what a trial showed; true if it is the best so far.
    pub(crate) fn take(&mut self, rate: f64, condition: &Threshold, report: &Report) -> bool {
        let judged = condition.judge(report);
        let measured = &report.measured;
        let answered = measured.useful.unwrap_or(measured.done) as f64 >= ANSWERED * measured.offered as f64;
        let passed = judged.passed && answered && report.valid;
        self.trials.push(Trial {
            rate,
            done_rate: measured.rate,
            value: judged.value,
            passed,
            verdict: report.verdict.clone(),
        });
        self.note(rate, passed);
        passed && self.good == Some(rate)
    }

    fn note(&mut self, rate: f64, passed: bool) {
        if passed {
            self.good = Some(self.good.map_or(rate, |good| good.max(rate)));
        } else {
            self.bad = Some(self.bad.map_or(rate, |bad| bad.min(rate)));
        }
        self.next = match (self.good, self.bad) {
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) => bad / 4.0,
            (None, None) => self.next,
        };
    }

    /// The highest rate that was good.
    pub(crate) fn best(&self) -> Option<f64> {
        self.good
    }

    /// Whether the lowest rate that was not good says nothing of the server.
    pub(crate) fn met_the_generator(&self) -> bool {
        let failed = self.trials.iter().filter(|trial| !trial.passed);
        let lowest = failed.min_by(|one, other| one.rate.total_cmp(&other.rate));
        lowest.is_some_and(|trial| trial.verdict == GENERATOR_LIMITED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search whose trials are good up to a rate.
    fn find(first: f64, limit: f64, highest: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(first);
        let mut tries = 0;
        while let Some(rate) = search.next(highest) {
            tries += 1;
            assert!(tries <= TRIALS);
            let passed = rate <= limit;
            search.trials.push(Trial { rate, done_rate: rate, value: None, passed, verdict: String::new() });
            search.note(rate, passed);
        }
        (search.best(), tries)
    }

    #[test]
    fn the_limit_is_that_of_whoever_failed_first() {
        let trial = |rate, passed, verdict: &str| Trial {
            rate,
            done_rate: rate,
            value: None,
            passed,
            verdict: verdict.to_owned(),
        };
        let met = |trials: Vec<Trial>| Search { trials, ..Search::new(1.0) }.met_the_generator();
        let good = || trial(100.0, true, "kept-up");
        assert!(met(vec![good(), trial(200.0, false, GENERATOR_LIMITED)]));
        assert!(!met(vec![
            good(),
            trial(200.0, false, GENERATOR_LIMITED),
            trial(150.0, false, "server-limited")
        ]));
        assert!(!met(vec![good()]));
    }

    #[test]
    fn the_limit_is_found() {
        for (first, limit) in [(100.0, 12_345.0), (100.0, 3.0), (5000.0, 5000.0), (1.0, 1.0)] {
            let (best, tries) = find(first, limit, 1e7);
            let best = best.unwrap();
            assert!(
                best <= limit && best * NEAR * 1.001 >= limit.min(1e7),
                "{first} {limit}: {best} in {tries}"
            );
        }
        assert_eq!(find(100.0, 0.0, 1e7).0, None);
        assert_eq!(find(100.0, 1e9, 1000.0).0, Some(1000.0));
    }
}
