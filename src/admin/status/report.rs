//! What the status page is made of: one snapshot, and what has happened since the ones before.
//!
//! Everything that is said of "now" comes from the one snapshot, so that no two places of the page contradict each
//! other.

use super::super::banner::{Banner, Lately};
use super::super::history::{Dropped, History, Latencies, Sample};
use crate::metrics::configuration::{self, ConfigurationState};
use crate::metrics::process::ProcessSnapshot;
use crate::metrics::snapshot::{ListenerSnapshot, Observe, RefusalEntry, RefusedSource, Snapshot};
use std::time::{Duration, Instant};

/// How far back latencies and the drops "lately" go.
const WINDOW: Duration = Duration::from_secs(60);
/// How far back the banner looks for drops.
const BANNER_WINDOW: Duration = Duration::from_secs(3);

/// Everything that the status page says.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) seen: Snapshot,
    pub(super) banner: Banner,
    pub(super) process: ProcessSnapshot,
    pub(super) refusals: Vec<RefusalEntry>,
    pub(super) refused_sources: Vec<RefusedSource>,
    pub(super) limits: Vec<(&'static str, String)>,
    /// Those that a listener has of its own, by its place among the listeners.
    own_limits: Vec<Vec<(&'static str, String)>>,
    /// Of the program's configuration, where there is one.
    pub(super) configuration: Option<ConfigurationState>,
    pub(super) recent: Recent,
    /// Processors that the process may use.
    pub(super) processors: usize,
}

/// What happened in the windows that the page looks back on.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Seconds that the window of drops has.
    pub(super) seconds: f64,
    pub(super) accepted_rate: f64,
    pub(super) dropped_rate: f64,
    pub(super) turn_rate: f64,
    pub(super) sent_rate: f64,
    /// Of the workers' time, in the last second and in the last ten.
    pub(super) busy: f64,
    pub(super) utilisation: f64,
    /// Processors in use, in the last ten seconds.
    pub(super) processors: f64,
    pub(super) dropped: Dropped,
    /// Seconds that the window of latencies has.
    pub(super) latency_seconds: f64,
    pub(super) latencies: Latencies,
}

impl Report {
    pub(super) fn new(
        now: Instant,
        observe: &dyn Observe,
        process: &ProcessSnapshot,
        history: &History,
    ) -> Self {
        let seen = observe.snapshot();
        let sample = Sample::new(now, &seen, process.cpu);
        let refused_sources = observe.refused_sources();
        Self {
            banner: Banner::new(&seen, &lately(&sample, &refused_sources, history)),
            process: *process,
            refusals: observe.refusals(),
            refused_sources,
            limits: observe.limits(),
            own_limits: observe.own_limits(),
            configuration: configuration::state(),
            recent: Recent::new(&sample, &seen, history),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            seen,
        }
    }

    pub(super) fn listener_name(&self, at: usize) -> &str {
        self.seen.listeners.get(at).map_or("", |l| l.listener.as_str())
    }

    /// The limits that the listener at this place has of its own.
    pub(super) fn own_limits(&self, at: usize) -> &[(&'static str, String)] {
        self.own_limits.get(at).map_or(&[], Vec::as_slice)
    }

    /// The sum over all listeners.
    pub(super) fn total(&self, count: impl Fn(&ListenerSnapshot) -> u64) -> u64 {
        self.seen.listeners.iter().map(count).sum()
    }
}

impl Recent {
    fn new(sample: &Sample, seen: &Snapshot, history: &History) -> Self {
        let Some(minute_ago) = history.before(sample.at, WINDOW) else {
            return Self::default();
        };
        let ten_ago = history.before(sample.at, Duration::from_secs(10)).unwrap_or(minute_ago);
        let second_ago = history.before(sample.at, Duration::from_secs(1)).unwrap_or(minute_ago);
        let mut recent = Self {
            seconds: (sample.at - minute_ago.at).as_secs_f64(),
            accepted_rate: sample.rate(second_ago, |s| s.accepted),
            dropped_rate: sample.rate(second_ago, Sample::dropped_total),
            turn_rate: sample.rate(second_ago, |s| s.turns),
            sent_rate: sample.rate(second_ago, |s| s.sent_bytes),
            busy: sample.utilisation(second_ago),
            utilisation: sample.utilisation(ten_ago),
            processors: sample.processors(ten_ago),
            dropped: sample.dropped_since(minute_ago),
            ..Self::default()
        };
        if let Some((at, before)) = history.latencies_before(sample.at, WINDOW) {
            recent.latency_seconds = (sample.at - *at).as_secs_f64();
            recent.latencies = Latencies::of(seen).since(before);
        }
        recent
    }
}

fn lately(sample: &Sample, sources: &[RefusedSource], history: &History) -> Lately {
    let before = |age| history.before(sample.at, age).unwrap_or(sample);
    let banner = before(BANNER_WINDOW);
    Lately {
        dropped: sample.dropped_since(banner),
        gates: sample.gates_since(banner),
        seconds: (sample.at - banner.at).as_secs_f64(),
        utilisation: sample.utilisation(before(Duration::from_secs(10))),
        panics: sample.handler_panics - before(WINDOW).handler_panics.min(sample.handler_panics),
        source: sources.first().map(|source| source.source.clone()),
    }
}
