//! What the status page shows, in words, paths and rows.

use super::super::history::{History, SAMPLES_MAX, Sample, between, quantile};
use super::super::show;
use super::{Report, unix_ms};
use crate::metrics::registry::VERSION;
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot, Refusal};
use crate::reason::{CloseReason, DatagramDrop, DropReason};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

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

impl Report {
    pub(super) fn view(&self, history: &History) -> View {
        let mut view = View { state: self.banner.state.as_str(), ..View::default() };
        self.put_head(&mut view);
        self.put_gauges(&mut view);
        self.put_sparklines(&mut view, history);
        self.put_tables(&mut view);
        view
    }

    fn put_head(&self, view: &mut View) {
        let now = unix_ms();
        let mut text = |name, value: String| view.text.insert(name, value);
        text("title", self.banner.title.to_owned());
        text("why", self.banner.why.clone());
        text("version", format!("tidegate {VERSION}"));
        text("uptime", show::age(self.seen.uptime));
        text("time", format!("{} UTC", show::time_of_day(now)));
        text("window", format!("last {:.0} s", self.recent.seconds.max(1.0)));
    }

    fn put_gauges(&self, view: &mut View) {
        let Self { seen, process, .. } = self;
        let open = seen.listeners.iter().map(ListenerSnapshot::open).sum();
        let mut gauge = |name, used: u64, limit: u64| {
            view.text.insert(name, show::number(used));
            let share = used as f64 / limit.max(1) as f64;
            view.meter.insert(name, (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0);
        };
        gauge("workers", seen.workers_busy, seen.workers_limit);
        gauge("queue", seen.queue_length, seen.queue_limit);
        gauge("connections", open, seen.connections_limit);
        let max_fds = process.max_fds.unwrap_or(u64::MAX);
        gauge("descriptors", process.open_fds.unwrap_or(0), max_fds);
        let mut text = |name, value: String| view.text.insert(name, value);
        text("workers-limit", show::number(seen.workers_limit));
        text("queue-limit", show::number(seen.queue_limit));
        text("connections-limit", show::number(seen.connections_limit));
        text("descriptors-limit", process.max_fds.map_or("no limit".to_owned(), show::number));
        text("workers-note", format!("{} of their time", show::percent(self.recent.utilisation)));
        let wait = quantile(&self.recent.queue_wait, 0.99);
        text("queue-note", format!("p99 wait {}", show::latency(wait)));
        let sum = |count: fn(&ListenerSnapshot) -> u64| show::number(seen.listeners.iter().map(count).sum());
        text(
            "connections-note",
            format!("{} idle, {} lingering", sum(|l| l.idle), show::number(seen.lingering)),
        );
        let memory = process.resident_bytes.map_or("-".to_owned(), show::size);
        let threads = process.threads.map_or("-".to_owned(), show::number);
        text("descriptors-note", format!("{memory} resident, {threads} threads"));
    }

    fn put_sparklines(&self, view: &mut View, history: &History) {
        let rate = |count: fn(&Sample) -> u64| history.each_step(|from, to| to.rate(from, count));
        let waits = history
            .each_step(|from, to| quantile(&between(&from.queue_wait, &to.queue_wait), 0.99).unwrap_or(0.0));
        let n = |value: f64| show::number(value.round() as u64);
        view.spark("turns", &rate(|s| s.turns), 1.0, show::rate);
        view.spark("accepted", &rate(|s| s.accepted), 1.0, show::rate);
        view.spark("dropped", &rate(|s| s.dropped_total()), 1.0, show::rate);
        view.spark("busy", &history.each_step(|from, to| to.utilisation(from)), 1.0, show::percent);
        view.spark("waiting", &history.each(|s| s.queue_length as f64), 1.0, n);
        view.spark("wait", &waits, 0.001, |seconds| show::latency(Some(seconds)));
        view.spark("open", &history.each(|s| s.open as f64), 1.0, n);
        let bytes = |rate: f64| format!("{}/s", show::size(rate as u64));
        view.spark("sent", &rate(|s| s.sent_bytes), 1.0, bytes);
    }

    fn put_tables(&self, view: &mut View) {
        let Self { seen, recent, .. } = self;
        let n = show::number;
        let latency = |name: &str, seen: &HistogramSnapshot| {
            let q = |q| show::latency(quantile(seen, q));
            vec![name.to_owned(), q(0.5), q(0.9), q(0.99), q(0.999), n(seen.count())]
        };
        view.rows.insert(
            "latency",
            vec![latency("queue wait", &recent.queue_wait), latency("turn", &recent.turn_duration)],
        );
        let sum = |count: &dyn Fn(&ListenerSnapshot) -> u64| seen.listeners.iter().map(count).sum::<u64>();
        let dropped = DropReason::ALL.iter().map(|&reason| {
            let (at, total) = (reason as usize, sum(&|l| l.dropped[reason as usize]));
            vec![reason.to_string(), n(recent.dropped.connections[at]), n(total)]
        });
        let datagrams = DatagramDrop::ALL.iter().filter(|_| seen.listeners.iter().any(|l| l.datagram));
        let datagrams = datagrams.map(|&reason| {
            let at = reason as usize;
            let total = sum(&|l| l.datagrams_dropped[at]);
            vec![format!("datagram: {reason}"), n(recent.dropped.datagrams[at]), n(total)]
        });
        view.rows.insert("drops", dropped.chain(datagrams).collect());
        let closed = CloseReason::ALL.iter();
        let closed = closed.map(|&r| vec![r.to_string(), n(sum(&|l| l.closed[r as usize]))]);
        view.rows.insert("closes", closed.collect());
        view.rows.insert("listeners", seen.listeners.iter().map(listener_row).collect());
        let now = unix_ms();
        view.rows.insert("refusals", self.refusals.iter().map(|r| self.refusal_row(r, now)).collect());
        let limits = self.limits.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        view.rows.insert("limits", limits.collect());
    }

    fn refusal_row(&self, refusal: &Refusal, now: u64) -> Vec<String> {
        let ago = Duration::from_millis(now.saturating_sub(refusal.at_unix_ms));
        vec![
            format!("{} ago", show::age(ago)),
            refusal.reason.to_string(),
            show::number(refusal.count),
            self.listener_name(refusal.listener).to_owned(),
            show::time_of_day(refusal.at_unix_ms),
        ]
    }
}

impl View {
    /// One sparkline: its path, its newest value and its peak. It is drawn to its own peak, or to
    /// `least` if that is more.
    fn spark(&mut self, name: &'static str, values: &[f64], least: f64, show: impl Fn(f64) -> String) {
        let peak = values.iter().copied().fold(0.0, f64::max);
        self.path.insert(name, spark_path(values, peak.max(least)));
        let now = values.last().copied().unwrap_or(0.0);
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

fn listener_row(listener: &ListenerSnapshot) -> Vec<String> {
    let n = show::number;
    let name = vec![listener.listener.clone(), listener.service.clone()];
    let numbers = if listener.datagram {
        let dropped: u64 = listener.datagrams_dropped.iter().sum();
        let dash = || "-".to_owned();
        vec![dash(), dash(), dash(), n(listener.datagrams_received), n(dropped), dash()]
    } else {
        let backlog = listener.backlog;
        let backlog = backlog.map_or("-".to_owned(), |b| format!("{} of {}", n(b.connections), n(b.limit)));
        vec![
            n(listener.queued),
            n(listener.active),
            n(listener.idle),
            n(listener.accepted),
            n(listener.dropped_total()),
            backlog,
        ]
    };
    [name, numbers].concat()
}
