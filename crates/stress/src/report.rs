//! The report: the plan beside the measurements. Its JSON form is a contract, described in docs/stress.md. Times are in
//! seconds.

use super::answers::Answers;
use super::clock::seconds;
use super::load::Ending;
use super::outcome::{Outcome, Outcomes};
use super::plan::{Mode, Pace, Plan, Reuse, Think};
use super::recorder::{Interval, Tally, Times};
use super::run::Outturn;
use super::timeline::{Point, WorstSecond};
use super::verdict::{Evidence, judge};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tidegate_units::show_time;

/// The version of the JSON's form.
pub(crate) const SCHEMA: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of tidegate that made it.
    pub tidegate: String,
    /// The form of this report.
    pub schema: u32,
    /// What was planned.
    pub plan: PlanReport,
    /// Seconds since 1970.
    pub started: f64,
    /// What was measured of the load.
    #[serde(flatten)]
    pub measured: Measured,
    /// How the generator itself fared.
    pub generator: Generator,
    /// `kept-up`, `server-limited`, `generator-limited`, `nothing-done` or `interrupted`.
    pub verdict: String,
    /// Whether the numbers speak of the server.
    pub valid: bool,
    /// Why, where the verdict alone does not say it.
    pub verdict_reason: String,
    /// Whether the run was ended before its time.
    pub interrupted: bool,
    /// The conditions it was judged by.
    pub thresholds: Vec<ThresholdReport>,
    /// What the warm-up did; it counts nowhere else, but for connections and bytes.
    pub warmup: Warmup,
    /// What was measured of the probe.
    pub probe: Option<Measured>,
    /// The search that it is the best trial of.
    pub find_max: Option<FindMax>,
}

/// What was planned.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlanReport {
    /// The target.
    pub url: String,
    /// The plan in one line.
    pub headline: String,
    /// A [`Mode`](crate::Mode)'s name.
    pub mode: String,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub kind: String,
    /// Clients, each with one connection at a time.
    pub connections: usize,
    /// Load threads.
    pub threads: usize,
    /// Length of the measured part, in seconds; none: `requests` ends it.
    pub duration: Option<f64>,
    /// The number of requests that ends the run.
    pub requests: Option<u64>,
    /// In seconds.
    pub warmup: f64,
    /// In seconds, from a request to its whole reply.
    pub timeout: f64,
    /// In seconds, from the start of a connection to its establishment.
    pub connect_timeout: f64,
    /// The open loop's rate or stages.
    pub rate: Option<String>,
    /// A [`Spread`](crate::Spread)'s name, of an open loop.
    pub arrival: Option<String>,
    /// A closed loop's pause, as it is written on the command line.
    pub think: Option<String>,
    /// Requests on each connection; none: all.
    pub reuse: Option<u32>,
    /// A [`Close`](crate::Close)'s name.
    pub close: String,
    /// Bytes of the largest request.
    pub request_bytes: usize,
    /// Local addresses that connections come from; none: what the kernel chooses.
    #[serde(default)]
    pub source_ip: Option<String>,
    /// Of all random numbers.
    pub seed: u64,
    /// The probe beside the load.
    #[serde(default)]
    pub probe: Option<ProbePlan>,
}

/// What was planned of a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbePlan {
    /// Requests a second, in all.
    pub rate: f64,
    /// The most connections at a time.
    pub connections: usize,
    /// They are opened before the run and kept; else each request has one of its own.
    pub standing: bool,
    /// Local addresses that they come from; none: what the kernel chooses.
    pub source_ip: Option<String>,
}

impl ProbePlan {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            rate: plan.first_rate().unwrap_or(0.0),
            connections: plan.connections,
            standing: plan.opens_ahead(),
            source_ip: plan.sources.map(|sources| sources.to_string()),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measured {
    /// Length of the measured part; where a number of requests ends it, up to the last good reply.
    pub elapsed: f64,
    /// Requests that were due.
    pub offered: u64,
    /// Requests that were tried.
    pub sent: u64,
    /// Requests answered well.
    pub done: u64,
    /// Good replies a second in the measured part.
    pub rate: f64,
    /// Of those, the replies that came in time: within the timeout, which counts in an open loop from the instant at which the
    /// request was due, and in a closed loop from sending. None in other modes than `request`, and in reports of older
    /// versions.
    #[serde(default)]
    pub useful: Option<u64>,
    /// The rest of them: too late to be of use.
    #[serde(default)]
    pub too_late: Option<u64>,
    /// Useful replies a second in the measured part.
    #[serde(default)]
    pub useful_rate: Option<f64>,
    /// Requests that were due and not tried.
    pub unsent: u64,
    /// Requests sent more than a millisecond after their instant.
    pub sent_late: u64,
    /// What became of the requests; every outcome is there.
    pub outcomes: BTreeMap<String, u64>,
    /// Replies over HTTP by the class of their status; none for other protocols.
    #[serde(default)]
    pub http: Option<HttpAnswers>,
    /// How long replies took.
    pub latency: Latencies,
    /// Connections and bytes; warm-up included.
    pub connections: Connections,
    /// The measured second with the fewest useful replies; none where no whole second was measured, or none was told
    /// apart.
    #[serde(default)]
    pub worst_second: Option<WorstSecond>,
    /// Measured seconds without a useful reply; in an open loop, of those in which at least 10 requests were due.
    #[serde(default)]
    pub silent_seconds: u64,
    /// Second by second, from the beginning of the schedule: the warm-up and the replies after the end included.
    #[serde(default)]
    pub timeline: Vec<Point>,
}

/// Replies over HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HttpAnswers {
    /// By the class of their status: `1xx` to `5xx`, every class is there. An answer to the handshake of a WebSocket is one
    /// too.
    pub statuses: BTreeMap<String, u64>,
    /// Those that said when to come again (`Retry-After`).
    pub retry_after: u64,
    /// The longest time that one of them said, in seconds.
    pub retry_after_max: u32,
    /// Those after which the connection ended (`Connection: close`).
    pub closed: u64,
}

impl HttpAnswers {
    fn of(answers: &Answers) -> Self {
        let classes = answers.classes.iter().enumerate();
        Self {
            statuses: classes.map(|(class, n)| (format!("{}xx", class + 1), *n)).collect(),
            retry_after: answers.retry_after,
            retry_after_max: answers.retry_after_max,
            closed: answers.closed,
        }
    }
}

/// The three latencies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latencies {
    /// From the instant at which a request was due to its whole reply.
    pub response: Option<Latency>,
    /// From the first byte of a request on a standing connection to the whole reply.
    pub service: Option<Latency>,
    /// From the start of a connection to its establishment.
    pub connect: Option<Latency>,
    /// Of that, the handshake of TLS; none for other protocols.
    #[serde(default)]
    pub handshake: Option<Latency>,
}

/// One latency, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// How many times there are.
    pub count: u64,
    /// How many of them are "at least this long".
    pub censored: u64,
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The 99.99th percentile.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// The whole histogram, in nanoseconds: HdrHistogram V2, deflated, base64.
    pub histogram: String,
}

/// Connections and bytes, warm-up included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connections {
    /// Established.
    pub opened: u64,
    /// Tried before the run and not established.
    pub open_failed: u64,
    /// Ended by the server between requests.
    pub closed_idle: u64,
    /// Bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// The generator itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Generator {
    /// Of its busiest thread: on a processor, 0 to 1.
    pub cpu: f64,
    /// Of its busiest thread: on a processor or waiting for one, 0 to 1.
    pub busy: f64,
    /// From intended instants to their noticing; none in a closed loop.
    pub lag_p99: Option<f64>,
    /// The greatest lag.
    pub lag_max: Option<f64>,
    /// The longest that a load thread was away from its clients, in seconds.
    #[serde(default)]
    pub pause_max: f64,
}

/// One threshold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ThresholdReport {
    /// The condition as it was written.
    pub expression: String,
    /// The value measured, as text; none where nothing was measured.
    pub value: Option<String>,
    /// Whether it holds.
    pub passed: bool,
}

/// The warm-up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warmup {
    /// Requests that were due.
    pub offered: u64,
    /// Requests that were tried.
    pub sent: u64,
    /// Requests answered well.
    pub done: u64,
    /// What became of the requests; every outcome is there.
    pub outcomes: BTreeMap<String, u64>,
}

/// A search for the highest rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FindMax {
    /// The condition as it was written.
    pub condition: String,
    /// Requests a second; none if no rate met the condition.
    pub rate: Option<f64>,
    /// Whether the load generator was the limit at the next higher rate that was tried: the server may be able to do more.
    #[serde(default)]
    pub generator_limited: bool,
    /// What was tried, in order.
    pub trials: Vec<Trial>,
}

/// One try of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// Good replies a second.
    pub done_rate: f64,
    /// The value measured, as text.
    pub value: Option<String>,
    /// Whether the rate is a good one.
    pub passed: bool,
    /// The trial's own verdict.
    pub verdict: String,
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
    fn new(total: &Interval, elapsed: f64, replies: u64, useful: Option<u64>) -> Self {
        let outcomes = &total.tally.outcomes;
        let done = outcomes[Outcome::Ok];
        let a_second = |n: u64| if elapsed > 0.0 { n as f64 / elapsed } else { 0.0 };
        Self {
            elapsed,
            offered: total.tally.offered,
            sent: outcomes.sent(),
            done,
            rate: a_second(replies),
            useful: useful.map(|_| total.tally.useful()),
            too_late: useful.map(|_| total.tally.too_late),
            useful_rate: useful.map(a_second),
            unsent: outcomes.unsent(),
            sent_late: total.tally.sent_late,
            outcomes: outcome_map(outcomes),
            http: None,
            latency: Latencies {
                response: Latency::of(&total.response),
                service: Latency::of(&total.service),
                connect: Latency::of(&total.connect),
                handshake: Latency::of(&total.handshake),
            },
            connections: Connections {
                opened: total.connections.opened,
                open_failed: total.connections.open_failed,
                closed_idle: total.connections.closed_idle,
                bytes_sent: total.connections.bytes_sent,
                bytes_received: total.connections.bytes_received,
            },
            worst_second: None,
            silent_seconds: 0,
            timeline: Vec::new(),
        }
    }

    /// What a run measured. The rate counts the replies of a span of time, since counting the requests that began
    /// in it would be wrong by those under way at its ends.
    pub(crate) fn of(plan: &Plan, outturn: &Outturn) -> Self {
        let begin = outturn.summaries.iter().map(|s| s.measured.0).min().unwrap_or(0);
        let end = outturn.summaries.iter().map(|s| s.measured.1).max().unwrap_or(0);
        let total = &outturn.total;
        let all = (total.tally.outcomes[Outcome::Ok], total.tally.useful());
        let (end, (replies, useful)) = match plan.requests {
            Some(_) if total.last_done > 0 => (total.last_done, all),
            // What stays is done when the run is over.
            _ if plan.mode.stays() => (end, all),
            _ => (end, (total.replies, total.useful)),
        };
        // In the other modes a reply is not what a client waits for.
        let useful = (plan.mode == Mode::Request).then_some(useful);
        let mut measured = Self::new(total, seconds(end.saturating_sub(begin)), replies, useful);
        if plan.url.scheme.has_path() {
            measured.http = Some(HttpAnswers::of(&total.tally.answers));
        }
        measured.timeline = outturn.timeline.points().to_vec();
        // In the other modes a reply is not what a second is for.
        if plan.mode == Mode::Request {
            measured.worst_second = outturn.timeline.worst().cloned();
            measured.silent_seconds = outturn.timeline.silent();
        }
        measured
    }

    /// The one way in which every connection failed, where there never was one: too few were tried to give up early.
    pub(crate) fn never_connected(&self) -> Option<Outcome> {
        const FAILURES: [Outcome; 6] = [
            Outcome::Refused,
            Outcome::TlsFailed,
            Outcome::ConnectTimeout,
            Outcome::Unreachable,
            Outcome::AddressUnavailable,
            Outcome::DescriptorLimit,
        ];
        let of = |outcome: &Outcome| self.count(*outcome) > 0 && self.count(*outcome) == self.sent;
        FAILURES.into_iter().find(of).filter(|_| self.connections.opened == 0)
    }

    /// The count of one outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.as_str()).copied().unwrap_or(0)
    }
}

impl Warmup {
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
            arrival: arrival.map(|spread| spread.as_str().to_owned()),
            think: match &plan.pace {
                Pace::Closed(Think::Fixed(time)) if !time.is_zero() => Some(show_time(*time)),
                Pace::Closed(Think::Exponential(mean)) => Some(format!("exp:{}", show_time(*mean))),
                _ => None,
            },
            reuse: match plan.reuse {
                Reuse::Forever => None,
                Reuse::Times(times) => Some(times),
            },
            close: plan.close.as_str().to_owned(),
            request_bytes: plan.wire.largest(),
            source_ip: plan.sources.map(|sources| sources.to_string()),
            seed: plan.seed,
            probe: None,
        }
    }
}

impl Report {
    /// The report for programs; docs/stress.md describes it.
    ///
    /// # Errors
    ///
    /// A number in it is one that JSON does not have.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| format!("cannot write the report: {error}"))
    }

    /// The same report with every text in it changed by `change`: a report that was kept is a file, and its texts are
    /// whatever somebody wrote there.
    pub(crate) fn map_texts(&self, change: impl Fn(&str) -> String) -> Self {
        let mut mapped = self.clone();
        let plan = &mut mapped.plan;
        let mut texts = vec![&mut mapped.tidegate, &mut mapped.verdict, &mut mapped.verdict_reason];
        texts.extend([&mut plan.url, &mut plan.headline, &mut plan.mode, &mut plan.kind, &mut plan.close]);
        texts.extend([&mut plan.rate, &mut plan.arrival, &mut plan.think].into_iter().flatten());
        texts.extend(&mut plan.source_ip);
        texts.extend(plan.probe.iter_mut().flat_map(|probe| &mut probe.source_ip));
        for threshold in &mut mapped.thresholds {
            texts.push(&mut threshold.expression);
            texts.extend(&mut threshold.value);
        }
        if let Some(search) = &mut mapped.find_max {
            texts.push(&mut search.condition);
            for trial in &mut search.trials {
                texts.push(&mut trial.verdict);
                texts.extend(&mut trial.value);
            }
        }
        texts.into_iter().for_each(|text| *text = change(text));
        mapped
    }

    /// Whether no request was answered well.
    pub fn is_empty(&self) -> bool {
        self.measured.count(Outcome::Ok) == 0
    }

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
            pause_max: most(|s| seconds(s.pass_max)),
        };
        let verdict = judge(Evidence {
            open: matches!(plan.pace, Pace::Open { .. }) || plan.mode.stays(),
            elapsed: measured.elapsed,
            offered: measured.offered,
            outcomes: &outturn.total.tally.outcomes,
            too_late: outturn.total.tally.too_late,
            cpu: generator.cpu,
            busy: generator.busy,
            lag_p99: generator.lag_p99,
            response_p99: measured.latency.response.as_ref().map(|l| l.p99),
            pause_max: generator.pause_max,
            silent_seconds: measured.silent_seconds,
            interrupted: outturn.ending == Ending::Interrupted,
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
            interrupted: outturn.ending == Ending::Interrupted,
            thresholds: Vec::new(),
            warmup: Warmup::of(&outturn.total.warm),
            probe: None,
            find_max: None,
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
