//! The last five minutes in a fixed ring, one sample a second: what the status page draws.

use crate::metrics::snapshot::{BUCKETS, HistogramSnapshot, Snapshot};
use crate::reason::{DatagramDrop, DropReason};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many samples are kept.
pub(super) const SAMPLES_MAX: usize = 300;

/// What is kept of one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) accepted: u64,
    pub(super) dropped: [u64; DropReason::COUNT],
    pub(super) datagrams_dropped: [u64; DatagramDrop::COUNT],
    pub(super) turns: u64,
    pub(super) sent_bytes: u64,
    pub(super) queue_length: u64,
    pub(super) open: u64,
    pub(super) workers_limit: u64,
    pub(super) worker_busy: Duration,
    pub(super) handler_panics: u64,
    pub(super) queue_wait: HistogramSnapshot,
    pub(super) turn_duration: HistogramSnapshot,
}

impl Sample {
    pub(super) fn new(at: Instant, seen: &Snapshot) -> Self {
        let mut sample = Self {
            at,
            accepted: 0,
            dropped: [0; DropReason::COUNT],
            datagrams_dropped: [0; DatagramDrop::COUNT],
            turns: 0,
            sent_bytes: 0,
            queue_length: seen.queue_length,
            open: 0,
            workers_limit: seen.workers_limit,
            worker_busy: seen.worker_busy,
            handler_panics: seen.handler_panics,
            queue_wait: seen.queue_wait.clone(),
            turn_duration: HistogramSnapshot::default(),
        };
        for listener in &seen.listeners {
            sample.accepted += listener.accepted;
            sample.open += listener.open();
            sample.sent_bytes += listener.sent_bytes;
            sample.turns += listener.turns.iter().sum::<u64>();
            sample.turn_duration.merge(&listener.turn_duration);
            for (sum, n) in sample.dropped.iter_mut().zip(listener.dropped) {
                *sum += n;
            }
            for (sum, n) in sample.datagrams_dropped.iter_mut().zip(listener.datagrams_dropped) {
                *sum += n;
            }
        }
        sample
    }

    /// All that was turned away, connections and datagrams.
    pub(super) fn dropped_total(&self) -> u64 {
        self.dropped.iter().chain(&self.datagrams_dropped).sum()
    }

    /// What was turned away since `earlier`, by reason: connections and datagrams.
    pub(super) fn dropped_since(&self, earlier: &Sample) -> Dropped {
        Dropped {
            connections: since(&self.dropped, &earlier.dropped),
            datagrams: since(&self.datagrams_dropped, &earlier.datagrams_dropped),
        }
    }

    /// Seconds since `earlier`, never 0.
    fn seconds_since(&self, earlier: &Sample) -> f64 {
        (self.at - earlier.at).as_secs_f64().max(0.001)
    }

    /// How many a second of something that is counted, since `earlier`.
    pub(super) fn rate(&self, earlier: &Sample, count: impl Fn(&Sample) -> u64) -> f64 {
        count(self).saturating_sub(count(earlier)) as f64 / self.seconds_since(earlier)
    }

    /// The share of all workers' time that was spent in turns since `earlier`, 0 to 1.
    pub(super) fn utilisation(&self, earlier: &Sample) -> f64 {
        let busy = self.worker_busy.saturating_sub(earlier.worker_busy).as_secs_f64();
        let all = self.seconds_since(earlier) * self.workers_limit.max(1) as f64;
        (busy / all).clamp(0.0, 1.0)
    }
}

/// What was turned away in some time, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    pub(super) connections: [u64; DropReason::COUNT],
    pub(super) datagrams: [u64; DatagramDrop::COUNT],
}

fn since<const N: usize>(later: &[u64; N], earlier: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|at| later[at].saturating_sub(earlier[at]))
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The newest sample that is at least `age` old at `now`, or else the oldest there is.
    pub(super) fn before(&self, now: Instant, age: Duration) -> Option<&Sample> {
        let old_enough = |sample: &&Sample| now.saturating_duration_since(sample.at) >= age;
        self.samples.iter().rev().find(old_enough).or_else(|| self.samples.front())
    }

    /// What `read` makes of each sample, oldest first.
    pub(super) fn each(&self, read: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(read).collect()
    }

    /// What `read` makes of each sample and the one before it, oldest first.
    pub(super) fn each_step(&self, read: impl Fn(&Sample, &Sample) -> f64) -> Vec<f64> {
        let later = self.samples.iter().skip(1);
        self.samples.iter().zip(later).map(|(earlier, sample)| read(earlier, sample)).collect()
    }
}

/// What was observed between two readings of one histogram.
pub(super) fn between(earlier: &HistogramSnapshot, later: &HistogramSnapshot) -> HistogramSnapshot {
    let mut difference = later.clone();
    for (count, before) in difference.counts.iter_mut().zip(earlier.counts) {
        *count = count.saturating_sub(before);
    }
    difference.sum = later.sum.saturating_sub(earlier.sum);
    difference
}

/// The quantile `q` in seconds, between its bucket's bounds in proportion, as Prometheus's
/// `histogram_quantile` has it; the last bound for what is above it. `None` without observations.
pub(super) fn quantile(seen: &HistogramSnapshot, q: f64) -> Option<f64> {
    let total = seen.count();
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (&upper, count) in BUCKETS.iter().zip(seen.counts) {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * ((rank - below) / count));
        }
        below += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, accepted: u64) -> Sample {
        Sample { accepted, ..Sample::new(at, &Snapshot { workers_limit: 4, ..Snapshot::default() }) }
    }

    #[test]
    fn the_ring_keeps_five_minutes_and_no_more() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut history = History::default();
        assert!(history.before(start, Duration::ZERO).is_none());
        for second in 0..1000 {
            history.push(sample(at(second), second * 10));
        }
        assert_eq!(history.each(|s| s.accepted as f64).len(), SAMPLES_MAX);
        let minute_ago = history.before(at(999), Duration::from_secs(60)).unwrap();
        assert_eq!(minute_ago.accepted, 9390);
        let oldest = history.before(at(999), Duration::from_secs(9999)).unwrap();
        assert_eq!(oldest.accepted, 7000);
        let rates = history.each_step(|earlier, sample| sample.rate(earlier, |s| s.accepted));
        assert!(rates.len() == SAMPLES_MAX - 1 && rates.iter().all(|rate| (rate - 10.0).abs() < 1e-6));
    }

    #[test]
    fn utilisation_is_a_share_of_all_workers_time() {
        let start = Instant::now();
        let earlier = sample(start, 0);
        let later =
            Sample { worker_busy: Duration::from_secs(6), ..sample(start + Duration::from_secs(2), 0) };
        assert!((later.utilisation(&earlier) - 0.75).abs() < 1e-9);
        assert_eq!(earlier.utilisation(&earlier), 0.0);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let mut seen = HistogramSnapshot::default();
        assert_eq!(quantile(&seen, 0.5), None);
        seen.counts[0] = 50;
        seen.counts[6] = 50;
        assert!((quantile(&seen, 0.25).unwrap() - 0.00005).abs() < 1e-9);
        assert!((quantile(&seen, 0.75).unwrap() - 0.0075).abs() < 1e-9);
        seen.counts[BUCKETS.len()] = 10_000;
        assert_eq!(quantile(&seen, 0.99), Some(10.0));
        assert_eq!(between(&seen, &seen).count(), 0);
    }
}
