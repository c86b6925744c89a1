//! The report: the plan beside what happened. Its JSON is a contract (docs/stress.md); times are seconds.

use super::clock::seconds;
use super::outcome::{Outcome, Outcomes};
use super::plan::{Pace, Plan, Reuse, Think};
use super::recorder::{Interval, Tally, Times};
use super::run::Outturn;
use super::schedule::Spread;
use super::verdict::{Evidence, judge};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The version of the JSON's form.
pub(crate) const SCHEMA: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of tidegate that made it.
    pub(crate) tidegate: String,
    pub(crate) schema: u32,
    pub(crate) plan: PlanReport,
    /// Seconds since 1970.
    pub(crate) started: f64,
    #[serde(flatten)]
    pub(crate) measured: Measured,
    pub(crate) generator: Generator,
    pub(crate) verdict: String,
    pub(crate) valid: bool,
    pub(crate) verdict_reason: String,
    pub(crate) interrupted: bool,
    pub(crate) thresholds: Vec<ThresholdReport>,
    /// What the warm-up did; it counts nowhere else, but for connections and bytes.
    pub(crate) warmup: WarmupReport,
    pub(crate) probe: Option<Measured>,
    pub(crate) find_max: Option<FindMaxReport>,
    pub(crate) timeline: Vec<Point>,
}

/// What was planned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlanReport {
    pub(crate) url: String,
    /// The plan in one line.
    pub(crate) headline: String,
    pub(crate) mode: String,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub(crate) kind: String,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) duration: Option<f64>,
    pub(crate) requests: Option<u64>,
    pub(crate) warmup: f64,
    pub(crate) timeout: f64,
    pub(crate) connect_timeout: f64,
    /// The open loop's rate or stages.
    pub(crate) rate: Option<String>,
    pub(crate) arrival: Option<String>,
    pub(crate) think: Option<String>,
    /// Requests on each connection; none: all.
    pub(crate) reuse: Option<u32>,
    pub(crate) close: String,
    /// Bytes of the largest request.
    pub(crate) request_bytes: usize,
    pub(crate) seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Length of the measured part; where a number of requests ends it, up to the last good reply.
    pub(crate) elapsed: f64,
    /// Requests that were due.
    pub(crate) offered: u64,
    pub(crate) sent: u64,
    /// Requests answered well.
    pub(crate) done: u64,
    /// Good replies a second in the measured part.
    pub(crate) rate: f64,
    pub(crate) unsent: u64,
    /// Requests sent more than a millisecond after their instant.
    pub(crate) sent_late: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) latency: Latencies,
    /// Warm-up included.
    pub(crate) connections: ConnectionsReport,
}

/// The three latencies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) response: Option<Latency>,
    pub(crate) service: Option<Latency>,
    pub(crate) connect: Option<Latency>,
}

/// One latency, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    /// How many of them are "at least this long".
    pub(crate) censored: u64,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) p9999: f64,
    pub(crate) max: f64,
    /// The whole histogram, in nanoseconds: HdrHistogram V2, deflated, base64.
    pub(crate) histogram: String,
}

/// Connections and bytes, warm-up included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConnectionsReport {
    pub(crate) opened: u64,
    /// Tried before the run and not established.
    pub(crate) open_failed: u64,
    /// Ended by the server between requests.
    pub(crate) closed_idle: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// The generator itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// Of its busiest thread: on a processor, 0 to 1.
    pub(crate) cpu: f64,
    /// Of its busiest thread: on a processor or waiting for one, 0 to 1.
    pub(crate) busy: f64,
    /// From intended instants to their noticing; none in a closed loop.
    pub(crate) lag_p99: Option<f64>,
    pub(crate) lag_max: Option<f64>,
}

/// One threshold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ThresholdReport {
    pub(crate) expression: String,
    /// The value measured, as text; none where nothing was measured.
    pub(crate) value: Option<String>,
    pub(crate) passed: bool,
}

/// The warm-up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WarmupReport {
    pub(crate) offered: u64,
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
}

/// A search for the highest rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FindMaxReport {
    pub(crate) condition: String,
    /// Requests a second; none if no rate met the condition.
    pub(crate) rate: Option<f64>,
    pub(crate) trials: Vec<Trial>,
}

/// One try of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) rate: f64,
    pub(crate) done_rate: f64,
    pub(crate) value: Option<String>,
    pub(crate) passed: bool,
    pub(crate) verdict: String,
}

/// Some seconds of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// When it began, from the run's start; warm-up included.
    pub(crate) at: f64,
    pub(crate) seconds: f64,
    pub(crate) offered: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Of the response.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// Counts by name; every outcome is there.
pub(crate) fn outcome_map(outcomes: &Outcomes) -> BTreeMap<String, u64> {
    let named = outcomes.iter().map(|(outcome, n)| (outcome.as_str().to_owned(), n));
    named.collect()
}

impl Latency {
    /// The latency of these times; none without any.
    pub(crate) fn of(times: &Times) -> Option<Self> {
        let histogram = &times.histogram;
        let at = |quantile| seconds(histogram.value_at_quantile(quantile).min(histogram.max()));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            censored: times.censored,
            min: seconds(histogram.min()),
            mean: histogram.mean() / 1e9,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: seconds(histogram.max()),
            histogram: encode(histogram),
        })
    }

    /// The times again.
    pub(crate) fn times(&self) -> Result<Times, String> {
        Ok(Times { histogram: decode(&self.histogram)?, censored: self.censored })
    }
}

/// A histogram as HdrHistogram's own tools write it in text: V2, deflated, base64.
pub(crate) fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory does not fail; without its histogram a report is still a report.
    let _ = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    BASE64.encode(&bytes)
}

fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64.decode(text).map_err(|_| "a histogram is not base64")?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("a histogram cannot be read: {error}"))
}

impl Measured {
    fn new(total: &Interval, elapsed: f64, replies: u64) -> Self {
        let outcomes = &total.tally.outcomes;
        let done = outcomes[Outcome::Ok];
        Self {
            elapsed,
            offered: total.tally.offered,
            sent: outcomes.sent(),
            done,
            rate: if elapsed > 0.0 { replies as f64 / elapsed } else { 0.0 },
            unsent: outcomes.unsent(),
            sent_late: total.tally.sent_late,
            outcomes: outcome_map(outcomes),
            latency: Latencies {
                response: Latency::of(&total.response),
                service: Latency::of(&total.service),
                connect: Latency::of(&total.connect),
            },
            connections: ConnectionsReport {
                opened: total.connections.opened,
                open_failed: total.connections.open_failed,
                closed_idle: total.connections.closed_idle,
                bytes_sent: total.connections.bytes_sent,
                bytes_received: total.connections.bytes_received,
            },
        }
    }

    /// What a run measured. The rate counts the replies of a span of time, since counting the requests that began
    /// in it would be wrong by those under way at its ends.
    pub(crate) fn of(plan: &Plan, outturn: &Outturn) -> Self {
        let begin = outturn.summaries.iter().map(|s| s.measured.0).min().unwrap_or(0);
        let end = outturn.summaries.iter().map(|s| s.measured.1).max().unwrap_or(0);
        let total = &outturn.total;
        let (end, replies) = match plan.requests {
            Some(_) if total.last_done > 0 => (total.last_done, total.tally.outcomes[Outcome::Ok]),
            // What stays is done when the run is over.
            _ if plan.mode.stays() => (end, total.tally.outcomes[Outcome::Ok]),
            _ => (end, total.replies),
        };
        Self::new(total, seconds(end.saturating_sub(begin)), replies)
    }

    /// The count of one outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.as_str()).copied().unwrap_or(0)
    }
}

impl WarmupReport {
    fn of(tally: &Tally) -> Self {
        Self {
            offered: tally.offered,
            sent: tally.outcomes.sent(),
            done: tally.outcomes[Outcome::Ok],
            outcomes: outcome_map(&tally.outcomes),
        }
    }
}

impl PlanReport {
    fn of(plan: &Plan) -> Self {
        use crate::cli::units::show_duration;
        let (rate, arrival) = match &plan.pace {
            Pace::Closed(_) => (None, None),
            Pace::Open { spread, label, .. } => (Some(label.clone()), Some(*spread)),
        };
        Self {
            url: plan.url.to_string(),
            headline: plan.headline(),
            mode: plan.mode.as_str().to_owned(),
            kind: if rate.is_some() { "open" } else { "closed" }.to_owned(),
            connections: plan.connections,
            threads: plan.threads,
            duration: plan.duration.map(|d| d.as_secs_f64()),
            requests: plan.requests,
            warmup: plan.warmup.as_secs_f64(),
            timeout: plan.timeout.as_secs_f64(),
            connect_timeout: plan.connect_timeout.as_secs_f64(),
            rate,
            arrival: arrival.map(|spread| match spread {
                Spread::Uniform => "uniform".to_owned(),
                Spread::Poisson => "poisson".to_owned(),
            }),
            think: match &plan.pace {
                Pace::Closed(Think::Fixed(time)) if !time.is_zero() => Some(show_duration(*time)),
                Pace::Closed(Think::Exponential(mean)) => Some(format!("exp:{}", show_duration(*mean))),
                _ => None,
            },
            reuse: match plan.reuse {
                Reuse::Forever => None,
                Reuse::Times(times) => Some(times),
            },
            close: plan.close.as_str().to_owned(),
            request_bytes: plan.wire.largest(),
            seed: plan.seed,
        }
    }
}

impl Report {
    /// The report of a run.
    pub(crate) fn of(plan: &Plan, outturn: &Outturn) -> Self {
        let measured = Measured::of(plan, outturn);
        let lag = &outturn.total.lag.histogram;
        let lag_at = |value: u64| (!lag.is_empty()).then(|| seconds(value));
        let most =
            |part: fn(&super::load::Summary) -> f64| outturn.summaries.iter().map(part).fold(0.0, f64::max);
        let generator = Generator {
            cpu: most(|s| s.load.cpu),
            busy: most(|s| s.load.busy),
            lag_p99: lag_at(lag.value_at_quantile(0.99)),
            lag_max: lag_at(lag.max()),
        };
        let verdict = judge(Evidence {
            open: matches!(plan.pace, Pace::Open { .. }) || plan.mode.stays(),
            elapsed: measured.elapsed,
            offered: measured.offered,
            outcomes: &outturn.total.tally.outcomes,
            cpu: generator.cpu,
            busy: generator.busy,
            lag_p99: generator.lag_p99,
            response_p99: measured.latency.response.as_ref().map(|l| l.p99),
            thinks: !matches!(plan.pace, Pace::Closed(Think::Fixed(Duration::ZERO))),
        });
        Self {
            tidegate: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA,
            plan: PlanReport::of(plan),
            started: outturn.started.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()),
            measured,
            generator,
            verdict: verdict.name.to_owned(),
            valid: verdict.valid,
            verdict_reason: verdict.reason,
            interrupted: outturn.ending == super::load::Ending::Interrupted,
            thresholds: Vec::new(),
            warmup: WarmupReport::of(&outturn.total.warm),
            probe: None,
            find_max: None,
            timeline: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_keeps_its_histogram() {
        let mut times = Times::new();
        for n in 1..=1000u64 {
            times.record(n * 1_000_000, n > 990);
        }
        let latency = Latency::of(&times).unwrap();
        assert!((latency.p50 - 0.5).abs() < 0.001 && (latency.p99 - 0.99).abs() < 0.001, "{latency:?}");
        let again = latency.times().unwrap();
        assert_eq!(again.histogram, times.histogram);
        assert_eq!(again.censored, 10);
        assert!(Latency::of(&Times::new()).is_none());
    }
}
