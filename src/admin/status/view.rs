//! What the status page shows, in words, paths and rows.

use super::super::history::{GATE_REASONS, History, SAMPLES_MAX, Sample, quantile};
use super::super::show;
use super::report::Report;
use super::web;
use crate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use crate::metrics::configuration::ConfigurationState;
use crate::metrics::registry::VERSION;
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot, RefusalEntry};
use crate::reason::{BackendFailure, CloseReason, DatagramDrop, DropReason, TurnShed, WouldDrop};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// The height of a sparkline, in its own units; it is as wide as there are samples.
const SPARK_HEIGHT: f64 = 40.0;

/// What the page shows, by the names that its elements carry.
#[derive(Debug, Default, Serialize)]
pub(super) struct View {
    pub(super) state: &'static str,
    pub(super) text: BTreeMap<&'static str, String>,
    /// Sparklines: the `d` of a path.
    pub(super) path: BTreeMap<&'static str, String>,
    /// Gauges: 0 to 100.
    pub(super) meter: BTreeMap<&'static str, f64>,
    /// Tables: rows of cells.
    pub(super) rows: BTreeMap<&'static str, Vec<Vec<String>>>,
}

impl View {
    pub(super) fn new(report: &Report, history: &History) -> Self {
        let mut view = View { state: report.banner.state.as_str(), ..View::default() };
        let now = unix_ms();
        view.put_head(report, now);
        view.put_gauges(report);
        view.put_sparklines(report, history);
        view.put_latencies(report);
        view.put_drops(report);
        view.put_tables(report, now);
        view
    }

    fn put_head(&mut self, report: &Report, now: u64) {
        let mut text = |name, value: String| self.text.insert(name, value);
        text("title", report.banner.title.to_owned());
        text("why", report.banner.why.clone());
        text("advice", report.banner.advice.to_owned());
        text("version", format!("tidegate {VERSION}"));
        text("uptime", show::age(report.seen.uptime));
        text("time", format!("{} UTC", show::time_of_day(now)));
        text("window", format!("last {:.0} s", report.recent.seconds.max(1.0)));
        text("latency-window", format!("last {:.0} s", report.recent.latency_seconds.max(1.0)));
    }

    fn put_gauges(&mut self, report: &Report) {
        let Report { seen, process, recent, .. } = report;
        let mut gauge = |name, used: u64, limit: u64| {
            self.text.insert(name, show::number(used));
            let share = used as f64 / limit.max(1) as f64;
            self.meter.insert(name, (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0);
        };
        gauge("workers", seen.workers_busy, seen.workers_limit);
        let newcomers = report.total(|l| l.newcomers);
        gauge("queue", newcomers, seen.queue_limit);
        gauge("connections", report.total(ListenerSnapshot::open), seen.connections_limit);
        let max_fds = process.max_fds.unwrap_or(u64::MAX);
        gauge("descriptors", process.open_fds.unwrap_or(0), max_fds);
        let mut text = |name, value: String| self.text.insert(name, value);
        // The limit is for newcomers: the meter is theirs, the number is of all.
        text("queue", show::number(seen.queue_length));
        text("workers-limit", show::number(seen.workers_limit));
        text("queue-limit", show::number(seen.queue_limit));
        text("connections-limit", show::number(seen.connections_limit));
        text("descriptors-limit", process.max_fds.map_or("no limit".to_owned(), show::number));
        let utilisation = show::percent(recent.utilisation);
        let processors = show::processors(recent.processors, report.processors);
        text("workers-note", format!("{utilisation} of the last 10 s, {processors}"));
        text("queue-note", show::waiting(seen, newcomers));
        let idle = show::number(report.total(|l| l.idle));
        text("connections-note", format!("{idle} idle, {} lingering", show::number(seen.lingering)));
        let memory = process.resident_bytes.map_or("-".to_owned(), show::size);
        let threads = process.threads.map_or("-".to_owned(), show::number);
        text("descriptors-note", format!("{memory} resident, {threads} threads"));
    }

    fn put_sparklines(&mut self, report: &Report, history: &History) {
        let Report { seen, recent, .. } = report;
        let rate = |count: fn(&Sample) -> u64| history.each_step(|from, to| to.rate(from, count));
        let n = |value: f64| show::number(value.round() as u64);
        self.spark("turns", &rate(|s| s.turns), recent.turn_rate, 1.0, show::rate);
        self.spark("accepted", &rate(|s| s.accepted), recent.accepted_rate, 1.0, show::rate);
        self.spark("dropped", &rate(|s| s.dropped_total()), recent.dropped_rate, 1.0, show::rate);
        let busy = history.each_step(|from, to| to.utilisation(from));
        self.spark("busy", &busy, recent.busy, 1.0, show::percent);
        self.spark("waiting", &history.each(|s| s.queue_length as f64), seen.queue_length as f64, 1.0, n);
        let waits = history.each(|s| s.wait_p99);
        let wait = waits.last().copied().unwrap_or(0.0);
        self.spark("wait", &waits, wait, 0.001, |seconds| show::latency(Some(seconds)));
        let open = report.total(ListenerSnapshot::open) as f64;
        self.spark("open", &history.each(|s| s.open as f64), open, 1.0, n);
        let bytes = |rate: f64| format!("{}/s", show::size(rate as u64));
        self.spark("sent", &rate(|s| s.sent_bytes), recent.sent_rate, 1.0, bytes);
    }

    fn put_latencies(&mut self, report: &Report) {
        let row = |name: &str, seen: &HistogramSnapshot| {
            let q = |q| show::latency(quantile(seen, q));
            vec![name.to_owned(), q(0.5), q(0.9), q(0.99), q(0.999), show::number(seen.count())]
        };
        let latencies = &report.recent.latencies;
        let mut rows = vec![row("wait for a worker", &latencies.queue_wait), row("turn", &latencies.turn)];
        if report.seen.listeners.iter().any(|l| l.backends.is_some()) {
            rows.push(row("wait for a backend", &latencies.gate_wait));
            rows.push(row("connect to a backend", &latencies.connect));
        }
        if report.seen.listeners.iter().any(|l| l.web.is_some()) {
            rows.push(row("HTTP request", &latencies.http));
        }
        self.rows.insert("latency", rows);
    }

    fn put_drops(&mut self, report: &Report) {
        let n = show::number;
        let recent = &report.recent.dropped;
        let dropped = DropReason::ALL.iter().map(|&reason| {
            let at = reason as usize;
            (reason.to_string(), vec![recent.connections[at], report.total(|l| l.dropped[at])])
        });
        let datagrams = report.seen.listeners.iter().any(|l| l.datagram);
        let datagrams = DatagramDrop::ALL.iter().filter(|_| datagrams).map(|&reason| {
            let at = reason as usize;
            let total = report.total(|l| l.datagrams_dropped[at]);
            (format!("datagram: {reason}"), vec![recent.datagrams[at], total])
        });
        let requests = requests_turned_away(report);
        let requests = requests.into_iter().map(|(reason, counts)| (format!("request: {reason}"), counts));
        let would = WouldDrop::ALL.iter().filter_map(|&reason| {
            let total = report.total(|l| l.would_drop[reason as usize]);
            let counts = vec![recent.would[reason as usize], total];
            (total > 0).then(|| (format!("dry run, let through: {reason}"), counts))
        });
        self.put_reasons("drops", "drops-rest", dropped.chain(requests).chain(datagrams).chain(would));
        let sources =
            report.refused_sources.iter().map(|source| vec![source.source.clone(), n(source.count)]);
        self.rows.insert("sources", sources.collect());
    }

    /// A row for each reason that has occurred, and the names of the others in one line: a table of zeros hides what is
    /// not zero.
    fn put_reasons(
        &mut self,
        rows: &'static str,
        rest: &'static str,
        reasons: impl Iterator<Item = (String, Vec<u64>)>,
    ) {
        let (occurred, others): (Vec<_>, Vec<_>) =
            reasons.partition(|(_, counts)| counts.iter().any(|&count| count > 0));
        let row = |(reason, counts): (String, Vec<u64>)| {
            std::iter::once(reason).chain(counts.into_iter().map(show::number)).collect()
        };
        self.rows.insert(rows, occurred.into_iter().map(row).collect());
        let others: Vec<_> = others.into_iter().map(|(reason, _)| reason).collect();
        let others =
            if others.is_empty() { String::new() } else { format!("Not once: {}.", others.join(", ")) };
        self.text.insert(rest, others);
    }

    fn put_tables(&mut self, report: &Report, now: u64) {
        let closed = CloseReason::ALL.iter();
        let closed =
            closed.map(|&reason| (reason.to_string(), vec![report.total(|l| l.closed[reason as usize])]));
        self.put_reasons("closes", "closes-rest", closed);
        let gates = report.seen.listeners.iter().filter_map(|l| Some((l, l.backends.as_ref()?)));
        self.rows.insert("gates", gates.clone().map(|(l, gate)| gate_row(l, gate)).collect());
        let backends = gates.flat_map(|(l, gate)| gate.backends.iter().map(|one| backend_row(l, one)));
        self.rows.insert("backends", backends.collect());
        let rows = report.seen.listeners.iter().enumerate();
        let rows = rows.map(|(at, listener)| listener_row(listener, report.own_limits(at)));
        self.rows.insert("listeners", rows.collect());
        let listeners = &report.seen.listeners;
        self.rows.insert("http", web::http_rows(listeners));
        self.rows.insert("websockets", web::socket_rows(listeners));
        self.rows.insert("tls", web::tls_rows(listeners, now));
        let refusals = report.refusals.iter().map(|r| refusal_row(r, report.listener_name(r.listener), now));
        self.rows.insert("refusals", refusals.collect());
        let limits = report.limits.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        let configuration = report.configuration.iter().map(configuration_row);
        self.rows.insert("limits", configuration.chain(limits).collect());
    }

    /// One sparkline: its path, what the value is now, and its peak. It is drawn to its own peak, or to `least` if that
    /// is more.
    fn spark(
        &mut self,
        name: &'static str,
        values: &[f64],
        now: f64,
        least: f64,
        show: impl Fn(f64) -> String,
    ) {
        let peak = values.iter().copied().fold(now, f64::max);
        self.path.insert(name, spark_path(values, peak.max(least)));
        let (now_name, peak_name) =
            SPARK_TEXTS.iter().find(|texts| texts.0 == name).map_or(("", ""), |texts| (texts.1, texts.2));
        self.text.insert(now_name, show(now));
        self.text.insert(peak_name, format!("peak {}", show(peak)));
    }
}

/// The names of the words that go with each sparkline.
const SPARK_TEXTS: [(&str, &str, &str); 8] = [
    ("turns", "turns-now", "turns-peak"),
    ("accepted", "accepted-now", "accepted-peak"),
    ("dropped", "dropped-now", "dropped-peak"),
    ("busy", "busy-now", "busy-peak"),
    ("waiting", "waiting-now", "waiting-peak"),
    ("wait", "wait-now", "wait-peak"),
    ("open", "open-now", "open-peak"),
    ("sent", "sent-now", "sent-peak"),
];

/// A closed area under the values, the newest at the right; one unit is one second.
pub(super) fn spark_path(values: &[f64], top: f64) -> String {
    let height = |value: f64| SPARK_HEIGHT - (value / top * (SPARK_HEIGHT - 2.0)).round();
    let Some(&first) = values.first() else {
        return String::new();
    };
    let start = SAMPLES_MAX - values.len();
    let mut path = format!("M{start} {SPARK_HEIGHT}V{}", height(first));
    for pair in values.windows(2) {
        let _ = write!(path, "l1 {}", height(pair[1]) - height(pair[0]));
    }
    let _ = write!(path, "V{SPARK_HEIGHT}z");
    path
}

fn listener_row(listener: &ListenerSnapshot, own: &[(&'static str, String)]) -> Vec<String> {
    let n = show::number;
    let name = vec![listener.listener.clone(), listener.service.clone()];
    let numbers = if listener.datagram {
        let dropped: u64 = listener.datagrams_dropped.iter().sum();
        let dash = || "-".to_owned();
        let state = if listener.is_closed { "closed".to_owned() } else { dash() };
        vec![dash(), dash(), dash(), n(listener.datagrams_received), n(dropped), state]
    } else {
        let backlog = listener.backlog;
        let backlog = match backlog {
            _ if listener.is_closed => "closed".to_owned(),
            Some(b) => format!("{} of {}", n(b.connections), n(b.limit)),
            None => "-".to_owned(),
        };
        vec![
            n(listener.queued),
            n(listener.active),
            n(listener.idle),
            n(listener.accepted),
            n(listener.turned_away()),
            backlog,
        ]
    };
    let own: Vec<_> = own.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let own = if own.is_empty() { "-".to_owned() } else { own.join(", ") };
    [name, numbers, vec![own]].concat()
}

/// Requests of open connections that were turned away, by reason: lately, and since the start. Some got no turn; a gate for
/// HTTP had no place for others.
fn requests_turned_away(report: &Report) -> Vec<(&'static str, Vec<u64>)> {
    let recent = &report.recent.dropped;
    let listeners = &report.seen.listeners;
    let of_gate = |reason: &&DropReason| {
        GATE_REASONS.contains(reason) && listeners.iter().any(|l| l.backends.is_some() && l.web.is_some())
    };
    let sheds = TurnShed::ALL.iter().map(|&reason| {
        (
            reason.as_str(),
            vec![recent.turns[reason as usize], report.total(|l| l.turns_shed[reason as usize])],
        )
    });
    let mut all: Vec<_> = sheds.collect();
    for &reason in DropReason::ALL.iter().filter(|it| of_gate(it) || **it == DropReason::ClientGone) {
        let counts =
            [recent.requests[reason as usize], report.total(|l| l.requests_refused()[reason as usize])];
        match all.iter_mut().find(|(name, _)| *name == reason.as_str()) {
            Some((_, known)) => known.iter_mut().zip(counts).for_each(|(known, count)| *known += count),
            None => all.push((reason.as_str(), counts.to_vec())),
        }
    }
    all
}

fn gate_row(listener: &ListenerSnapshot, gate: &BackendsSnapshot) -> Vec<String> {
    let n = show::number;
    let oldest = gate.oldest.map(|time| time.as_secs_f64());
    let refused: u64 = gate.refused().iter().map(|(_, count)| count).sum();
    vec![
        listener.listener.clone(),
        format!("{} of {}", n(gate.in_use), n(gate.limit)),
        n(gate.waiting),
        show::latency(oldest),
        gate.stood_for.filter(|_| gate.waiting > 0).map_or("-".to_owned(), show::age),
        n(refused),
    ]
}

fn backend_row(listener: &ListenerSnapshot, one: &BackendSnapshot) -> Vec<String> {
    let n = show::number;
    let state = match one.aside_for {
        _ if one.leaving => "leaving".to_owned(),
        None => "up".to_owned(),
        Some(time) => {
            let why = if one.last_failure_why.is_empty() { "" } else { ": " };
            format!("set aside {} ago{why}{}", show::age(time), one.last_failure_why)
        }
    };
    let failures = BackendFailure::ALL.iter().map(|&reason| (reason, one.failures[reason as usize]));
    let failures: Vec<_> = failures.filter(|&(_, count)| count > 0).collect();
    let failures = match failures.is_empty() {
        true => "0".to_owned(),
        false => {
            let said = failures.iter().map(|(reason, count)| format!("{} {reason}", n(*count)));
            said.collect::<Vec<_>>().join(", ")
        }
    };
    vec![
        one.address.clone(),
        listener.listener.clone(),
        state,
        format!("{} of {}", n(one.in_use), n(one.limit)),
        n(one.connected),
        show::latency(quantile(&one.connect, 0.99)),
        failures,
        show::size(one.to_backend),
        show::size(one.to_client),
        answers(one),
    ]
}

/// The answers to HTTP requests, by class, and the requests that have none; those that there are.
fn answers(one: &BackendSnapshot) -> String {
    let classes = BackendSnapshot::CLASSES.iter().zip(one.answers);
    let mut all: Vec<_> = classes.filter(|(_, count)| *count > 0).collect();
    let failed = one.request_failures.iter().sum();
    all.extend((failed > 0).then_some((&"failed", failed)));
    let said = all.iter().map(|(class, count)| format!("{} {class}", show::number(*count)));
    said.collect::<Vec<_>>().join(", ")
}

fn refusal_row(refusal: &RefusalEntry, listener: &str, now: u64) -> Vec<String> {
    let ago = Duration::from_millis(now.saturating_sub(refusal.at_unix_ms));
    vec![
        format!("{} ago", show::age(ago)),
        if refusal.requests { format!("request: {}", refusal.reason) } else { refusal.reason.to_string() },
        show::number(refusal.count),
        listener.to_owned(),
        show::time_of_day(refusal.at_unix_ms),
    ]
}

fn configuration_row(last: &ConfigurationState) -> Vec<String> {
    let mut said = format!("read at {}", show::time_of_day(last.read_at * 1000));
    if let Some(why) = &last.failure {
        let _ = write!(said, "; the last reload failed: {why}");
    }
    vec!["configuration".to_owned(), said]
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}
