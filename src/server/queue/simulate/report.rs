//! What came of a run: useful answers in each second, how late, and whose.

use super::server::SECOND;
use crate::clock::Nanos;

/// What became of the requests of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupOutcome {
    pub(super) asked: usize,
    pub(super) useful: usize,
    pub(super) shed: usize,
    /// The latency of each useful answer.
    pub(super) latencies: Vec<Nanos>,
}

impl GroupOutcome {
    pub(super) fn percentile(&self, percent: f64) -> Nanos {
        percentile(&self.latencies, percent)
    }

    /// The share of requests that were answered within a time.
    pub(super) fn share_within(&self, time: Nanos) -> f64 {
        let within = self.latencies.iter().filter(|&&latency| latency <= time).count();
        within as f64 / self.asked.max(1) as f64
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct RunReport {
    /// Useful answers in each second, in cost of mean turns.
    pub(super) seconds: Vec<f64>,
    pub(super) groups: Vec<GroupOutcome>,
    pub(super) displaced: usize,
    pub(super) given_up: usize,
    pub(super) expired: usize,
    pub(super) gone: usize,
    /// Turns in each second for clients that had left, those not counted that were given because nobody else waited.
    pub(super) wasted: Vec<f64>,
    /// Turns, in cost of mean turns, that were for nobody and that no server could have known to be, or that were given
    /// because nobody else waited.
    pub(super) excused: f64,
    /// What the workers and the acceptor have done in the whole run, in cost of mean turns.
    pub(super) done: f64,
    /// SYNs that found the backlog full.
    pub(super) unheard: usize,
    pub(super) stood: Nanos,
}

impl RunReport {
    pub(super) fn useful(&mut self, group: usize, now: Nanos, latency: Nanos, cost: f64) {
        *second(&mut self.seconds, now) += cost;
        self.groups[group].useful += 1;
        self.groups[group].latencies.push(latency);
    }

    pub(super) fn wasted(&mut self, now: Nanos, cost: f64) {
        *second(&mut self.wasted, now) += cost;
    }

    /// A percentile of the latency of all useful answers.
    pub(super) fn percentile(&self, percent: f64) -> Nanos {
        let all: Vec<Nanos> = self.groups.iter().flat_map(|group| group.latencies.iter().copied()).collect();
        percentile(&all, percent)
    }

    /// Useful answers in seconds `from..to`, rounded, as the tables show them.
    pub(super) fn row(&self, from: usize, to: usize) -> Vec<u64> {
        (from..to).map(|second| self.seconds.get(second).copied().unwrap_or(0.0).round() as u64).collect()
    }
}

fn second(seconds: &mut Vec<f64>, now: Nanos) -> &mut f64 {
    let second = (now / SECOND) as usize;
    if seconds.len() <= second {
        seconds.resize(second + 1, 0.0);
    }
    &mut seconds[second]
}

fn percentile(latencies: &[Nanos], percent: f64) -> Nanos {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0)
}
