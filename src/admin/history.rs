//! The last five minutes in a fixed ring, one sample a second: what the status page draws.

use crate::metrics::snapshot::{HistogramSnapshot, Snapshot};
use crate::reason::{DatagramDrop, DropReason, TurnOutcome, TurnShed, WouldDrop};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many samples are kept.
pub(super) const SAMPLES_MAX: usize = 300;

/// How often the latencies are kept, to tell what they were since then; and how often at most.
const LATENCIES_EVERY: Duration = Duration::from_secs(5);
const LATENCIES_MAX: usize = 13;

/// All latencies of a server up to some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    pub(super) queue_wait: HistogramSnapshot,
    pub(super) turn: HistogramSnapshot,
    /// Waiting for a place at a backend, and connecting to one.
    pub(super) gate_wait: HistogramSnapshot,
    pub(super) connect: HistogramSnapshot,
    /// HTTP requests, from the first byte to the end of the answer.
    pub(super) http: HistogramSnapshot,
}

impl Latencies {
    pub(super) fn of(seen: &Snapshot) -> Self {
        let mut all = Self { queue_wait: seen.queue_wait.clone(), ..Self::default() };
        for listener in &seen.listeners {
            all.turn.merge(&listener.turn_duration);
            listener.web.iter().for_each(|web| all.http.merge(&web.duration));
            let Some(gate) = &listener.backends else { continue };
            all.gate_wait.merge(&gate.wait);
            gate.backends.iter().for_each(|backend| all.connect.merge(&backend.connect));
        }
        all
    }

    /// What was observed since `earlier`.
    pub(super) fn since(&self, earlier: &Latencies) -> Self {
        Self {
            queue_wait: self.queue_wait.since(&earlier.queue_wait),
            turn: self.turn.since(&earlier.turn),
            gate_wait: self.gate_wait.since(&earlier.gate_wait),
            connect: self.connect.since(&earlier.connect),
            http: self.http.since(&earlier.http),
        }
    }
}

/// A quantile in seconds.
pub(super) fn quantile(seen: &HistogramSnapshot, q: f64) -> Option<f64> {
    seen.quantile(q).map(|time| time.as_secs_f64())
}

/// What is kept of one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) accepted: u64,
    pub(super) dropped: [u64; DropReason::COUNT],
    pub(super) datagrams_dropped: [u64; DatagramDrop::COUNT],
    /// HTTP requests for which a gate had no place.
    pub(super) requests_refused: [u64; DropReason::COUNT],
    /// What each gate turned away.
    pub(super) gates: Vec<GateRefusals>,
    /// Requests of connections that were served before, and that got no turn.
    pub(super) turns_shed: [u64; TurnShed::COUNT],
    /// What limits in a dry run would have turned away.
    pub(super) would_drop: [u64; WouldDrop::COUNT],
    /// Turns that did something.
    pub(super) turns: u64,
    pub(super) sent_bytes: u64,
    pub(super) queue_length: u64,
    pub(super) open: u64,
    pub(super) workers_limit: u64,
    pub(super) worker_busy: Duration,
    pub(super) handler_panics: u64,
    /// Processor time of the process.
    pub(super) cpu: Duration,
    /// The p99 of the queue wait since the sample before, in seconds; 0 where nothing waited.
    pub(super) wait_p99: f64,
}

impl Sample {
    pub(super) fn new(at: Instant, seen: &Snapshot, cpu: Duration) -> Self {
        let mut sample = Self {
            at,
            accepted: 0,
            dropped: [0; DropReason::COUNT],
            datagrams_dropped: [0; DatagramDrop::COUNT],
            requests_refused: [0; DropReason::COUNT],
            gates: Vec::new(),
            turns_shed: [0; TurnShed::COUNT],
            would_drop: [0; WouldDrop::COUNT],
            turns: 0,
            sent_bytes: 0,
            queue_length: seen.queue_length,
            open: 0,
            workers_limit: seen.workers_limit,
            worker_busy: seen.worker_busy,
            handler_panics: seen.handler_panics,
            cpu,
            wait_p99: 0.0,
        };
        for (at, listener) in seen.listeners.iter().enumerate() {
            sample.accepted += listener.accepted;
            sample.open += listener.open();
            sample.sent_bytes += listener.sent_bytes;
            sample.turns += listener.turns[TurnOutcome::Ok as usize];
            for (sum, n) in sample.dropped.iter_mut().zip(listener.dropped) {
                *sum += n;
            }
            let refused = listener.requests_refused();
            for (sum, n) in sample.requests_refused.iter_mut().zip(refused) {
                *sum += n;
            }
            if listener.backends.is_some() {
                let refused = GATE_REASONS.map(|it| listener.dropped[it as usize] + refused[it as usize]);
                sample.gates.push(GateRefusals { at, refused });
            }
            for (sum, n) in sample.turns_shed.iter_mut().zip(listener.turns_shed) {
                *sum += n;
            }
            for (sum, n) in sample.would_drop.iter_mut().zip(listener.would_drop) {
                *sum += n;
            }
            for (sum, n) in sample.datagrams_dropped.iter_mut().zip(listener.datagrams_dropped) {
                *sum += n;
            }
        }
        sample
    }

    /// All that was turned away: connections, requests and datagrams.
    pub(super) fn dropped_total(&self) -> u64 {
        let requests = self.turns_shed.iter().chain(&self.requests_refused);
        self.dropped.iter().chain(requests).chain(&self.datagrams_dropped).sum()
    }

    /// What was turned away since `earlier`, by reason: connections, requests and datagrams.
    pub(super) fn dropped_since(&self, earlier: &Sample) -> Dropped {
        Dropped {
            connections: since(&self.dropped, &earlier.dropped),
            requests: since(&self.requests_refused, &earlier.requests_refused),
            turns: since(&self.turns_shed, &earlier.turns_shed),
            would: since(&self.would_drop, &earlier.would_drop),
            datagrams: since(&self.datagrams_dropped, &earlier.datagrams_dropped),
        }
    }

    /// What each gate has turned away since `earlier`.
    pub(super) fn gates_since(&self, earlier: &Sample) -> Vec<GateRefusals> {
        let before = |at| earlier.gates.iter().find(|gate| gate.at == at).map_or([0; 3], |gate| gate.refused);
        let gates = self.gates.iter();
        gates.map(|gate| GateRefusals { refused: since(&gate.refused, &before(gate.at)), ..*gate }).collect()
    }

    /// Seconds since `earlier`, never 0.
    fn seconds_since(&self, earlier: &Sample) -> f64 {
        (self.at - earlier.at).as_secs_f64().max(0.001)
    }

    /// How many a second of something that is counted, since `earlier`.
    pub(super) fn rate(&self, earlier: &Sample, count: impl Fn(&Sample) -> u64) -> f64 {
        count(self).saturating_sub(count(earlier)) as f64 / self.seconds_since(earlier)
    }

    /// Processors that the process has used since `earlier`.
    pub(super) fn processors(&self, earlier: &Sample) -> f64 {
        self.cpu.saturating_sub(earlier.cpu).as_secs_f64() / self.seconds_since(earlier)
    }

    /// The share of all workers' time that was spent in turns since `earlier`, 0 to 1.
    pub(super) fn utilisation(&self, earlier: &Sample) -> f64 {
        let busy = self.worker_busy.saturating_sub(earlier.worker_busy).as_secs_f64();
        let all = self.seconds_since(earlier) * self.workers_limit.max(1) as f64;
        (busy / all).clamp(0.0, 1.0)
    }
}

/// The reasons for which a gate turns clients away that have not left.
pub(super) const GATE_REASONS: [DropReason; 3] =
    [DropReason::QueueFull, DropReason::QueueTimeout, DropReason::NoBackend];

/// What one gate turned away, connections and requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct GateRefusals {
    /// Its place among the listeners.
    pub(super) at: usize,
    /// By [`GATE_REASONS`].
    pub(super) refused: [u64; GATE_REASONS.len()],
}

impl GateRefusals {
    /// How many for this reason.
    pub(super) fn of(&self, reason: DropReason) -> u64 {
        GATE_REASONS.iter().zip(self.refused).find(|(it, _)| **it == reason).map_or(0, |(_, count)| count)
    }
}

/// What was turned away in some time, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    pub(super) connections: [u64; DropReason::COUNT],
    /// HTTP requests for which a gate had no place.
    pub(super) requests: [u64; DropReason::COUNT],
    pub(super) turns: [u64; TurnShed::COUNT],
    /// Let through in a dry run.
    pub(super) would: [u64; WouldDrop::COUNT],
    pub(super) datagrams: [u64; DatagramDrop::COUNT],
}

fn since<const N: usize>(later: &[u64; N], earlier: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|at| later[at].saturating_sub(earlier[at]))
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// The latencies at the last sample, and now and then before.
    last: Latencies,
    latencies: VecDeque<(Instant, Latencies)>,
}

impl History {
    pub(super) fn push(&mut self, at: Instant, seen: &Snapshot, cpu: Duration) {
        let latencies = Latencies::of(seen);
        let mut sample = Sample::new(at, seen, cpu);
        sample.wait_p99 = quantile(&latencies.since(&self.last).queue_wait, 0.99).unwrap_or(0.0);
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let is_due =
            |&(last, _): &(Instant, Latencies)| at.saturating_duration_since(last) >= LATENCIES_EVERY;
        if self.latencies.back().is_none_or(is_due) {
            if self.latencies.len() == LATENCIES_MAX {
                self.latencies.pop_front();
            }
            self.latencies.push_back((at, latencies.clone()));
        }
        self.last = latencies;
    }

    /// The newest latencies that are at least `age` old at `now`, or else the oldest there are, with their time.
    pub(super) fn latencies_before(&self, now: Instant, age: Duration) -> Option<&(Instant, Latencies)> {
        let old_enough = |kept: &&(Instant, Latencies)| now.saturating_duration_since(kept.0) >= age;
        self.latencies.iter().rev().find(old_enough).or_else(|| self.latencies.front())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::snapshot::ListenerSnapshot;

    fn seen(accepted: u64) -> Snapshot {
        let listener = ListenerSnapshot { accepted, ..ListenerSnapshot::default() };
        Snapshot { workers_limit: 4, listeners: vec![listener], ..Snapshot::default() }
    }

    fn sample(at: Instant) -> Sample {
        Sample::new(at, &seen(0), Duration::ZERO)
    }

    #[test]
    fn the_ring_keeps_five_minutes_and_no_more() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut history = History::default();
        assert!(history.before(start, Duration::ZERO).is_none());
        for second in 0..1000 {
            history.push(at(second), &seen(second * 10), Duration::ZERO);
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
        let earlier = sample(start);
        let later = Sample { worker_busy: Duration::from_secs(6), ..sample(start + Duration::from_secs(2)) };
        assert!((later.utilisation(&earlier) - 0.75).abs() < 1e-9);
        assert_eq!(earlier.utilisation(&earlier), 0.0);
    }

    #[test]
    fn latencies_are_kept_for_a_minute() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut history = History::default();
        assert!(history.latencies_before(start, Duration::ZERO).is_none());
        for second in 0..200 {
            history.push(at(second), &seen(0), Duration::ZERO);
        }
        assert_eq!(history.latencies.len(), LATENCIES_MAX);
        let minute = Duration::from_secs(60);
        assert_eq!(history.latencies_before(at(199), minute).map(|kept| kept.0), Some(at(135)));
    }
}
