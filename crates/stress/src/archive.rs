//! Reports from files: reading, comparing and merging them.

use super::report::{Connections, Latencies, Latency, Measured, Report, SCHEMA};
use super::text;
use serde::Serialize;
use std::path::Path;
use tidegate_units::{read_bounded, visible};

/// The largest report that is read, in bytes; one of the longest run with a probe has about 2 MiB.
const MAX_REPORT: u64 = 64 << 20;
/// An error rate is not worse while it grew by less than this.
const ERROR_RATE_NOISE: f64 = 0.001;

/// Reads a report that `-o json` wrote.
///
/// # Errors
///
/// The file cannot be read, or it is no such report; the error names the file.
pub fn read(path: &Path) -> Result<Report, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let text = read_bounded(path, MAX_REPORT)?;
    // Some editors put this mark before a text in UTF-8.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let report: Report = serde_json::from_slice(text)
        .map_err(|_| cannot(&"it is no whole report of `tidegate stress -o json`"))?;
    if report.schema > SCHEMA {
        return Err(cannot(&format_args!(
            "it has form {}, and this tidegate knows forms up to {SCHEMA}",
            report.schema
        )));
    }
    Ok(report)
}

/// What two runs say about one measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// What is compared.
    pub measure: &'static str,
    /// Its value in the first run.
    pub before: f64,
    /// Its value in the second run.
    pub after: f64,
    /// Of `before`: 0.1 is a tenth more.
    pub change: Option<f64>,
    /// What to think of it.
    pub judgement: Judgement,
    #[serde(skip)]
    unit: Unit,
}

/// Whether a change is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Judgement {
    /// It is better.
    Better,
    /// It differs by no more than noise does.
    Same,
    /// It is worse.
    Worse,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Rate,
    Share,
    Time,
}

/// Compares a run with the one before it. What differs by no more than `noise` of itself is the same.
pub fn compare(before: &Report, after: &Report, noise: f64) -> Vec<Change> {
    let (old, new) = (&before.measured, &after.measured);
    let mut changes = vec![
        change("rate", Unit::Rate, old.rate, new.rate, noise),
        change("error_rate", Unit::Share, error_rate(old), error_rate(new), noise),
    ];
    if let (Some(before), Some(after)) = (old.useful_rate, new.useful_rate)
        && (has_late(old) || has_late(new))
    {
        changes.insert(1, change("useful_rate", Unit::Rate, before, after, noise));
    }
    for (measure, part) in [
        ("response p50", (|m: &Measured| at(&m.latency.response, |l| l.p50)) as fn(&Measured) -> Option<f64>),
        ("response p99", |m| at(&m.latency.response, |l| l.p99)),
        ("response p99.9", |m| at(&m.latency.response, |l| l.p999)),
        ("service p50", |m| at(&m.latency.service, |l| l.p50)),
        ("service p99", |m| at(&m.latency.service, |l| l.p99)),
        ("connect p99", |m| at(&m.latency.connect, |l| l.p99)),
        ("handshake p99", |m| at(&m.latency.handshake, |l| l.p99)),
    ] {
        if let (Some(old), Some(new)) = (part(old), part(new)) {
            changes.push(change(measure, Unit::Time, old, new, noise));
        }
    }
    changes
}

fn at(latency: &Option<Latency>, part: fn(&Latency) -> f64) -> Option<f64> {
    latency.as_ref().map(part)
}

/// Whether the rate of the useful replies is another than that of all.
fn has_late(measured: &Measured) -> bool {
    measured.too_late.is_some_and(|n| n > 0)
}

fn error_rate(measured: &Measured) -> f64 {
    1.0 - measured.done as f64 / measured.sent.max(1) as f64
}

fn change(measure: &'static str, unit: Unit, before: f64, after: f64, noise: f64) -> Change {
    let room = match unit {
        Unit::Share => (before * noise).max(ERROR_RATE_NOISE),
        _ => before * noise,
    };
    let more_is_worse = unit != Unit::Rate;
    let judgement = match after - before {
        difference if difference.abs() <= room => Judgement::Same,
        difference if (difference > 0.0) == more_is_worse => Judgement::Worse,
        _ => Judgement::Better,
    };
    Change { measure, before, after, change: (before > 0.0).then(|| after / before - 1.0), judgement, unit }
}

/// Why two runs may not be comparable, a line for each reason.
pub fn doubts(before: &Report, after: &Report) -> String {
    let mut doubts = String::new();
    for (name, report) in [("before", before), ("after", after)] {
        if !report.valid {
            doubts += &format!("The run {name} was not valid: {}\n", report.verdict);
        }
        if report.interrupted {
            doubts += &format!("The run {name} was interrupted\n");
        }
    }
    let (old, new) = (&before.measured, &after.measured);
    if old.useful.is_some() != new.useful.is_some() && (has_late(old) || has_late(new)) {
        doubts += "One of the runs does not tell which replies came too late: its rate counts them\n";
    }
    let (Ok(old), Ok(new)) = (serde_json::to_value(&before.plan), serde_json::to_value(&after.plan)) else {
        return visible(&doubts).into_owned();
    };
    // Two runs of one plan have seeds of their own, and the headline only says the rest again.
    let names = old.as_object().into_iter().flat_map(|plan| plan.keys());
    // A report of an older version has a probe and does not say how it asked.
    let untold = before.probe.is_some() && before.plan.probe.is_none();
    for name in names.filter(|name| !matches!(name.as_str(), "seed" | "headline")) {
        if old[name] != new[name] && !(name == "probe" && untold) {
            doubts += &format!("The plans differ: {name} was {} and is {}\n", old[name], new[name]);
        }
    }
    visible(&doubts).into_owned()
}

/// A comparison for people.
pub fn show(changes: &[Change], noise: f64) -> String {
    let mut table = format!("{:<15}{:>12}{:>12}{:>9}\n", "Compared", "before", "after", "change");
    for change in changes {
        let value = |value| match change.unit {
            Unit::Rate => format!("{value:.1}/s"),
            Unit::Share => format!("{:.2}%", 100.0 * value),
            Unit::Time => text::time(value),
        };
        let share = match change.change {
            Some(change) => format!("{:+.1}%", 100.0 * change),
            None => "-".to_owned(),
        };
        let judgement = match change.judgement {
            Judgement::Better => "better",
            Judgement::Same => "same",
            Judgement::Worse => "WORSE",
        };
        let (before, after) = (value(change.before), value(change.after));
        table += &format!("{:<15}{before:>12}{after:>12}{share:>9}  {judgement}\n", change.measure);
    }
    table + &format!("Differences up to {:.1}% count as noise\n", 100.0 * noise)
}

/// Makes one report of the reports of generators that ran beside each other. The worst verdict counts.
///
/// # Errors
///
/// There are no reports, they had different targets, or a histogram in one of them cannot be read.
pub fn merge(reports: Vec<Report>) -> Result<Report, String> {
    let count = reports.len();
    let mut reports = reports.into_iter();
    let mut merged = reports.next().ok_or("there is nothing to merge")?;
    for report in reports {
        if report.plan.url != merged.plan.url {
            let (one, two) = (visible(&merged.plan.url), visible(&report.plan.url));
            return Err(format!("these runs had different targets: {one} and {two}"));
        }
        let worse_verdict = badness(&report) > badness(&merged);
        merge_measured(&mut merged.measured, &report.measured)?;
        merged.probe = match (merged.probe.take(), report.probe) {
            (Some(mut one), Some(two)) => {
                merge_measured(&mut one, &two)?;
                Some(one)
            }
            (one, two) => one.or(two),
        };
        merged.plan.connections = merged.plan.connections.saturating_add(report.plan.connections);
        merged.plan.threads = merged.plan.threads.saturating_add(report.plan.threads);
        merged.plan.requests =
            merged.plan.requests.zip(report.plan.requests).map(|(a, b)| a.saturating_add(b));
        merged.started = merged.started.min(report.started);
        merged.interrupted |= report.interrupted;
        let (one, two) = (&mut merged.generator, &report.generator);
        one.cpu = one.cpu.max(two.cpu);
        one.busy = one.busy.max(two.busy);
        one.lag_p99 = worse(one.lag_p99, two.lag_p99);
        one.lag_max = worse(one.lag_max, two.lag_max);
        if worse_verdict {
            merged.valid = report.valid;
            merged.verdict = report.verdict;
            merged.verdict_reason = report.verdict_reason;
        }
        merged.warmup.offered = merged.warmup.offered.saturating_add(report.warmup.offered);
        merged.warmup.sent = merged.warmup.sent.saturating_add(report.warmup.sent);
        merged.warmup.done = merged.warmup.done.saturating_add(report.warmup.done);
        add_counts(&mut merged.warmup.outcomes, &report.warmup.outcomes);
    }
    if count > 1 {
        merged.plan.headline = format!("{}  (and {} more, merged)", merged.plan.headline, count - 1);
        merged.thresholds.clear();
        // Seconds of different generators do not begin together.
        for measured in std::iter::once(&mut merged.measured).chain(&mut merged.probe) {
            measured.timeline.clear();
            measured.worst_second = None;
            measured.silent_seconds = 0;
        }
    }
    Ok(merged)
}

/// Where a run's verdict stands among all, from the best.
fn badness(report: &Report) -> u8 {
    match (report.valid, report.verdict.as_str()) {
        (true, "kept-up") => 0,
        (true, _) => 1,
        (false, _) => 2,
    }
}

fn worse(one: Option<f64>, two: Option<f64>) -> Option<f64> {
    match (one, two) {
        (Some(x), Some(y)) => Some(x.max(y)),
        (x, y) => x.or(y),
    }
}

type Counts = std::collections::BTreeMap<String, u64>;

fn add_counts(to: &mut Counts, from: &Counts) {
    for (name, n) in from {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}

fn merge_measured(to: &mut Measured, from: &Measured) -> Result<(), String> {
    to.elapsed = to.elapsed.max(from.elapsed);
    to.offered = to.offered.saturating_add(from.offered);
    to.sent = to.sent.saturating_add(from.sent);
    to.done = to.done.saturating_add(from.done);
    to.unsent = to.unsent.saturating_add(from.unsent);
    to.sent_late = to.sent_late.saturating_add(from.sent_late);
    to.rate += from.rate;
    to.useful = to.useful.zip(from.useful).map(|(a, b)| a.saturating_add(b));
    to.too_late = to.too_late.zip(from.too_late).map(|(a, b)| a.saturating_add(b));
    to.useful_rate = to.useful_rate.zip(from.useful_rate).map(|(a, b)| a + b);
    add_counts(&mut to.outcomes, &from.outcomes);
    to.latency = Latencies {
        response: merge_latency(&to.latency.response, &from.latency.response)?,
        service: merge_latency(&to.latency.service, &from.latency.service)?,
        connect: merge_latency(&to.latency.connect, &from.latency.connect)?,
        handshake: merge_latency(&to.latency.handshake, &from.latency.handshake)?,
    };
    if let (Some(http), Some(more)) = (&mut to.http, &from.http) {
        add_counts(&mut http.statuses, &more.statuses);
        http.retry_after = http.retry_after.saturating_add(more.retry_after);
        http.retry_after_max = http.retry_after_max.max(more.retry_after_max);
        http.closed = http.closed.saturating_add(more.closed);
    }
    let (a, b) = (&to.connections, &from.connections);
    to.connections = Connections {
        opened: a.opened.saturating_add(b.opened),
        open_failed: a.open_failed.saturating_add(b.open_failed),
        closed_idle: a.closed_idle.saturating_add(b.closed_idle),
        bytes_sent: a.bytes_sent.saturating_add(b.bytes_sent),
        bytes_received: a.bytes_received.saturating_add(b.bytes_received),
    };
    Ok(())
}

fn merge_latency(one: &Option<Latency>, two: &Option<Latency>) -> Result<Option<Latency>, String> {
    let (Some(one), Some(two)) = (one, two) else {
        return Ok(one.as_ref().or(two.as_ref()).cloned());
    };
    let mut times = one.times()?;
    times.add(&two.times()?);
    Ok(Latency::of(&times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_not_a_change() {
        for (unit, before, after, judgement) in [
            (Unit::Time, 1.0, 1.04, Judgement::Same),
            (Unit::Time, 1.0, 1.06, Judgement::Worse),
            (Unit::Time, 1.0, 0.9, Judgement::Better),
            (Unit::Rate, 100.0, 94.0, Judgement::Worse),
            (Unit::Rate, 100.0, 106.0, Judgement::Better),
            (Unit::Share, 0.0, 0.0005, Judgement::Same),
            (Unit::Share, 0.0, 0.002, Judgement::Worse),
            (Unit::Share, 0.5, 0.52, Judgement::Same),
        ] {
            assert_eq!(change("m", unit, before, after, 0.05).judgement, judgement, "{before} {after}");
        }
    }
}
