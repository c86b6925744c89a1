//! What was promised, and what was measured.

use crate::measure::Sample;
use crate::plots::thousands;
use crate::results::{ClientRates, Results, SHARED};
use crate::stats::{median, spread};
use std::io::Write;

/// A promise as a number: a lower bound, an upper bound, or none if the figure is only shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Shown,
}

/// One line of the table of goals.
pub(crate) struct Goal {
    /// What is done.
    pub(crate) work: String,
    /// What is compared with what.
    pub(crate) figure: String,
    pub(crate) bound: Bound,
    /// One value for each round, servers and clients apart; empty when it was not measured.
    pub(crate) values: Vec<f64>,
    /// The same with servers and clients sharing all cores.
    pub(crate) shared: Vec<f64>,
    /// Replies for each CPU second of the server over the same of the other, apart: what the rates come to when each
    /// server has its core to itself. It holds on a machine that is busy with other work, where the rates do not.
    pub(crate) per_cpu: Vec<f64>,
    /// What the values are in, after the number.
    pub(crate) unit: &'static str,
    /// What is said where nothing was measured.
    pub(crate) unmeasured: &'static str,
}

impl Goal {
    /// Not measured yet.
    pub(crate) fn new(work: impl Into<String>, figure: impl Into<String>, bound: Bound) -> Self {
        Self {
            work: work.into(),
            figure: figure.into(),
            bound,
            values: Vec::new(),
            shared: Vec::new(),
            per_cpu: Vec::new(),
            unit: "",
            unmeasured: "not measured",
        }
    }

    /// Whether the median of these keeps the promise; none when nothing was measured, or promised.
    fn met(&self, values: &[f64]) -> Option<bool> {
        let value = median(values);
        match self.bound {
            _ if value.is_nan() => None,
            Bound::Shown => None,
            Bound::AtLeast(bound) => Some(value >= bound),
            Bound::AtMost(bound) => Some(value <= bound),
        }
    }

    /// The median, the least and the most of the rounds, and what is to be said of them; nothing for nothing.
    pub(crate) fn measured(&self, values: &[f64]) -> String {
        let (least, most) = spread(values);
        let verdict = match self.met(values) {
            Some(true) => ", met",
            Some(false) => ", **missed**",
            None if values.is_empty() => return String::new(),
            None => "",
        };
        let (middle, unit) = (digits(median(values)), self.unit);
        match values.len() {
            1 => format!("{middle}{unit}{verdict}"),
            _ => format!("{middle}{unit} ({} to {}){verdict}", digits(least), digits(most)),
        }
    }

    /// The promise in words.
    pub(crate) fn promise(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {}{}", digits(bound), self.unit),
            Bound::AtMost(bound) => format!("at most {}{}", digits(bound), self.unit),
            Bound::Shown => "none".to_owned(),
        }
    }
}

/// Prints goals and what became of them, a line for each.
pub(crate) fn print(out: &mut impl Write, goals: &[Goal]) -> std::io::Result<()> {
    for goal in goals {
        let measured = match goal.values.as_slice() {
            [] => goal.unmeasured.to_owned(),
            values => goal.measured(values).replace("**", ""),
        };
        writeln!(out, "goal: {}: {}: {}: {measured}", goal.work, goal.figure, goal.promise())?;
    }
    Ok(())
}

/// Three digits that matter.
fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

const RATE: fn(&Sample) -> f64 = |sample| sample.outcome.rate;
/// Replies for each CPU second of the server.
const PER_CPU: fn(&Sample) -> f64 = |sample| 1.0 / sample.cpu_per_request;
const P50: fn(&Sample) -> f64 = |sample| sample.outcome.p50;
const MEMORY: fn(&Sample) -> f64 = |sample| sample.peak_rss as f64;

/// All of them; `others` are those of the scenes and of the gate, which stand in the middle.
pub(crate) fn all(results: &Results, others: Vec<Goal>) -> Vec<Goal> {
    let work = SideBySide(results);
    let mut goals = work.streams();
    goals.extend(survival(results));
    goals.extend(others);
    goals.push(start(results));
    goals.push(work.features());
    goals.extend(work.datagrams());
    goals.extend(clients(results));
    goals
}

/// What was measured of servers side by side.
struct SideBySide<'a>(&'a Results);

impl SideBySide<'_> {
    /// A figure of one server over that of another, in each round.
    fn ratio(&self, key: &str, server: &str, other: &str, figure: fn(&Sample) -> f64) -> Vec<f64> {
        let ratios = self.0.work.get(key).and_then(|comparison| {
            let at = |name: &str| comparison.servers.iter().position(|server| server == name);
            Some(comparison.ratios(at(server)?, at(other)?, figure))
        });
        ratios.unwrap_or_default()
    }

    /// The same, of tidegate over another.
    fn bounded(&self, work: &str, key: &str, other: &str, bound: Bound) -> Goal {
        Goal {
            values: self.ratio(key, "tidegate", other, RATE),
            shared: self.ratio(&format!("{key}{SHARED}"), "tidegate", other, RATE),
            per_cpu: self.ratio(key, "tidegate", other, PER_CPU),
            ..Goal::new(work, format!("replies/s over {}", crate::plots::title_of(other)), bound)
        }
    }

    /// At least this part of another's rate.
    fn rate(&self, work: &str, key: &str, other: &str, least: f64) -> Goal {
        self.bounded(work, key, other, Bound::AtLeast(least))
    }

    /// At most this part of what another takes.
    fn cost(
        &self,
        work: &str,
        (key, other): (&str, &str),
        what: &str,
        of: fn(&Sample) -> f64,
        most: f64,
    ) -> Goal {
        Goal {
            values: self.ratio(key, "tidegate", other, of),
            shared: self.ratio(&format!("{key}{SHARED}"), "tidegate", other, of),
            ..Goal::new(work, what, Bound::AtMost(most))
        }
    }

    fn streams(&self) -> Vec<Goal> {
        let p50 = "p50 over thread per connection";
        let memory = "peak memory, 10,000 connections active";
        vec![
            self.cost("echo 64 B, 1 connection", ("echo-64-1", "thread"), p50, P50, 1.1),
            self.rate("echo 64 B, 32 connections", "echo-64-32", "tokio", 1.3),
            self.rate("echo 64 B, 32 connections", "echo-64-32", "epoll", 0.85),
            self.rate("echo 64 B, 1,000 connections", "echo-64-1000", "tokio", 1.1),
            self.rate("echo 64 B, 1,000 connections", "echo-64-1000", "epoll", 0.9),
            self.rate("echo 64 B, 10,000 connections", "echo-64-10000", "tokio", 1.1),
            self.rate("echo 64 B, 10,000 connections", "echo-64-10000", "epoll", 0.9),
            self.rate("echo 64 KiB, 32 connections", "echo-65536-32", "tokio", 1.0),
            self.rate("connect + echo + close", "churn", "tokio", 1.0),
            self.rate("connect + echo + close", "churn", "epoll", 0.95),
            self.rate("refusals", "refuse", "reset", 0.9),
            self.cost(memory, ("echo-64-10000", "tokio"), "bytes over tokio", MEMORY, 1.0 / 15.0),
        ]
    }

    fn features(&self) -> Goal {
        let (on, off) = ("tidegate:on", "tidegate:off");
        Goal {
            values: self.ratio("features", on, off, RATE),
            shared: self.ratio("features-shared", on, off, RATE),
            per_cpu: self.ratio("features", on, off, PER_CPU),
            ..Goal::new("metrics, limits and timeouts all on", "replies/s over all off", Bound::AtLeast(0.97))
        }
    }

    fn datagrams(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for (key, sockets) in [
            ("1", "1 socket"),
            ("1x32", "1 socket with 32 in flight"),
            ("32", "32 sockets"),
            ("1000", "1,000 sockets"),
        ] {
            // One request in flight measures the wake-ups of both sides, which no server can make 20 times shorter.
            let over_python = if key == "1" { Bound::Shown } else { Bound::AtLeast(20.0) };
            for name in ["echo", "time"] {
                let (key, work) = (format!("udp-{name}-{key}"), format!("UDP {name}, {sockets}"));
                goals.push(self.bounded(&work, &key, "python", over_python));
                goals.push(self.rate(&work, &key, "udp", 0.9));
            }
        }
        goals
    }
}

fn start(results: &Results) -> Goal {
    let starts = results.starts.get("tidegate");
    let millis = starts.map(|starts| starts.iter().map(|seconds| seconds * 1e3).collect());
    Goal {
        values: millis.unwrap_or_default(),
        unit: " ms",
        ..Goal::new("start to first reply", "time", Bound::AtMost(20.0))
    }
}

/// `tidegate stress` beside other load clients.
fn clients(results: &Results) -> Vec<Goal> {
    let goal = |work: String, other: &str, least: f64, rates: Option<&ClientRates>| Goal {
        values: rates.map(ClientRates::ratios).unwrap_or_default(),
        ..Goal::new(work, format!("replies/s over {other}"), Bound::AtLeast(least))
    };
    let mut goals = Vec::new();
    for connections in CLIENT_CONNECTIONS {
        let work = format!("`tidegate stress`, {} connections", thousands(connections as f64));
        goals.push(goal(work, "the bare client", 0.85, results.clients.get(&connections)));
    }
    let work = "`tidegate stress --reuse never`, 32 at once".to_owned();
    goals.push(goal(work, "the bare client", 0.9, results.clients_churn.as_ref()));
    for connections in CLIENT_CONNECTIONS {
        let work = format!("`tidegate stress` over http, {} connections", thousands(connections as f64));
        let mut http = goal(work, "wrk", 1.0, results.clients_http.get(&connections));
        if !results.wrk {
            http.unmeasured = NO_WRK;
        }
        goals.push(http);
    }
    goals
}

fn survival(results: &Results) -> Vec<Goal> {
    let points = results.survival.as_ref().map(|survival| survival.points.as_slice()).unwrap_or_default();
    let values = |figure: fn(&Sample) -> f64| -> Vec<f64> {
        let last = points.last();
        let at = last.and_then(|point| point.comparison.servers.iter().position(|name| name == "tidegate"));
        match (last, at) {
            (Some(last), Some(at)) => last.comparison.values(at, figure),
            _ => Vec::new(),
        }
    };
    let rates = points.iter().filter_map(|point| point.of("tidegate", RATE));
    let peak = rates.fold(f64::MIN_POSITIVE, f64::max);
    // All that may wait, here and in the kernel, and all that may be served at once, at the rate of serving.
    let work = "useful work at 10 times the load";
    let promise = f64::from(BACKLOG + QUEUE + WORKERS) / peak * 1e3;
    vec![
        Goal {
            values: values(RATE).iter().map(|rate| rate / peak).collect(),
            ..Goal::new(work, "replies/s over the peak", Bound::AtLeast(0.95))
        },
        Goal {
            values: values(|sample| sample.outcome.p99 * 1e3),
            unit: " ms",
            ..Goal::new(
                work,
                "p99; promised is (backlog 128 + queue 128 + workers 32) / peak",
                Bound::AtMost(promise),
            )
        },
    ]
}

/// What stands for the figures of wrk where there is none.
pub(crate) const NO_WRK: &str = "not measured: wrk is not installed";

/// The numbers of connections at which the load clients are compared.
pub(crate) const CLIENT_CONNECTIONS: [usize; 3] = [32, 1_000, 10_000];

/// Of the measured tidegate.
const WORKERS: u32 = 32;
const QUEUE: u32 = 128;
const BACKLOG: u32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_by_its_median_and_only_when_measured() {
        let goal = |bound| Goal::new("", "", bound);
        assert_eq!(goal(Bound::AtLeast(0.9)).met(&[0.1, 0.9, 1.0]), Some(true));
        assert_eq!(goal(Bound::AtLeast(0.9)).met(&[0.1, 0.89, 1.0]), Some(false));
        assert_eq!(goal(Bound::AtMost(1.1)).measured(&[1.2]), "1.20, **missed**");
        assert_eq!(goal(Bound::AtMost(1.1)).measured(&[]), "");
        assert_eq!(goal(Bound::Shown).measured(&[1.2]), "1.20");
        assert_eq!(goal(Bound::Shown).measured(&[]), "");
        assert_eq!(goal(Bound::AtMost(1.125)).measured(&[1.0, 1.25]), "1.12 (1.00 to 1.25), met");
    }
}
