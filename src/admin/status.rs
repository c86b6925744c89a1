//! The status page and its JSON: one report, shown in two ways.
//!
//! What the page shows is made here once, as words, paths and rows; the page is rendered with
//! them, and its script only puts newer ones in their places. So it says the same without a script.

use super::banner::{Banner, Lately};
use super::history::{Dropped, History, Sample, between, quantile};
use crate::metrics::process::ProcessSnapshot;
use crate::metrics::registry::{REVISION, VERSION};
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot, Observe, Refusal, Snapshot};
use crate::reason::{AcceptError, CloseReason, DatagramDrop, DropReason, TurnOutcome};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

mod view;

use view::View;

const TEMPLATE: &str = include_str!("status.html");
const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");

/// What the page may do: nothing but its own style, its own script and `status.json`. The hashes
/// are those of the two files (a test compares them).
pub(super) const CSP: &str = concat!(
    "default-src 'none'; style-src 'sha256-9Lw2qKD6HY74RySU7Cb4Ff5N+VPBUbMbvaBaQxjdhnI='; ",
    "script-src 'sha256-Mjv5H00z440vTw2xFozmz2qhJBos7uyzF0xgWG5L0To='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// How far back latencies and the drops "lately" go.
const WINDOW: Duration = Duration::from_secs(60);
/// How far back the banner looks for drops.
const BANNER_WINDOW: Duration = Duration::from_secs(3);

/// Everything that the status page says.
#[derive(Debug)]
pub(super) struct Report {
    seen: Snapshot,
    banner: Banner,
    process: ProcessSnapshot,
    refusals: Vec<Refusal>,
    limits: Vec<(&'static str, String)>,
    recent: Recent,
    view: View,
}

/// What happened in the windows that the page looks back on.
#[derive(Debug, Default)]
struct Recent {
    /// Seconds that the window of latencies and drops has.
    seconds: f64,
    accepted_rate: f64,
    dropped_rate: f64,
    turn_rate: f64,
    utilisation: f64,
    dropped: Dropped,
    queue_wait: HistogramSnapshot,
    turn_duration: HistogramSnapshot,
}

impl Report {
    pub(super) fn new(
        now: Instant,
        observe: &dyn Observe,
        process: &ProcessSnapshot,
        history: &History,
    ) -> Self {
        let seen = observe.snapshot();
        let sample = Sample::new(now, &seen);
        let recent = Recent::new(&sample, history);
        let banner = Banner::new(&seen, &lately(&sample, history));
        let mut report = Self {
            banner,
            process: *process,
            refusals: observe.refusals(),
            limits: observe.limits(),
            recent,
            view: View::default(),
            seen,
        };
        report.view = report.view(history);
        report
    }

    /// The page, whole.
    pub(super) fn to_html(&self) -> Vec<u8> {
        let mut out = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + 32 * 1024);
        let mut rest = TEMPLATE;
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            self.fill(name, &mut out);
            rest = after;
        }
        out.push_str(rest);
        out.into_bytes()
    }

    fn fill(&self, name: &str, out: &mut String) {
        let view = &self.view;
        match name.split_once(':') {
            Some(("text", name)) => escape(view.text.get(name).map_or("", String::as_str), out),
            Some(("path", name)) => out.push_str(view.path.get(name).map_or("", String::as_str)),
            Some(("meter", name)) => {
                let _ = write!(out, "{}", view.meter.get(name).copied().unwrap_or_default());
            }
            Some(("rows", name)) => {
                for row in view.rows.get(name).into_iter().flatten() {
                    render_row(row, out);
                }
            }
            _ => out.push_str(match name {
                "state" => view.state,
                "style" => STYLE,
                "script" => SCRIPT,
                _ => "",
            }),
        }
    }

    /// The same for programs: numbers first, and what the page shows beside them.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let Self { seen, banner, process, recent, .. } = self;
        let total = |count: fn(&ListenerSnapshot) -> u64| seen.listeners.iter().map(count).sum::<u64>();
        let page = json!({
            "version": VERSION,
            "revision": REVISION,
            "phase": seen.phase.as_str(),
            "state": banner.state.as_str(),
            "title": banner.title,
            "why": banner.why,
            "uptime_seconds": seen.uptime.as_secs_f64(),
            "shedding": seen.shedding.map(DropReason::as_str),
            "workers": {
                "limit": seen.workers_limit, "busy": seen.workers_busy, "stuck": seen.workers_stuck,
                "busy_seconds_total": seen.worker_busy.as_secs_f64(), "utilization": recent.utilisation,
            },
            "handler_panics_total": seen.handler_panics,
            "queue": { "length": seen.queue_length, "limit": seen.queue_limit },
            "connections": {
                "open": total(ListenerSnapshot::open), "queued": total(|l| l.queued),
                "active": total(|l| l.active), "idle": total(|l| l.idle),
                "lingering": seen.lingering, "limit": seen.connections_limit,
            },
            "rates_per_second": {
                "accepted": recent.accepted_rate, "dropped": recent.dropped_rate, "turns": recent.turn_rate,
            },
            "latency_seconds": {
                "window": recent.seconds,
                "queue_wait": percentiles(&recent.queue_wait),
                "turn": percentiles(&recent.turn_duration),
            },
            "listeners": seen.listeners.iter().map(listener_json).collect::<Vec<_>>(),
            "pending_input_bytes": seen.pending_input_bytes,
            "pending_output_bytes": seen.pending_output_bytes,
            "process": {
                "cpu_seconds_total": process.cpu.as_secs_f64(), "open_fds": process.open_fds,
                "max_fds": process.max_fds, "resident_bytes": process.resident_bytes,
                "threads": process.threads,
            },
            "refusals": self.refusals.iter().map(|r| self.refusal_json(r)).collect::<Vec<_>>(),
            "limits": self.limits.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()))
                .collect::<Map<_, _>>(),
            "view": self.view,
        });
        page.to_string().into_bytes()
    }

    fn refusal_json(&self, refusal: &Refusal) -> Value {
        json!({
            "at_unix_ms": refusal.at_unix_ms, "listener": self.listener_name(refusal.listener),
            "reason": refusal.reason.as_str(), "count": refusal.count,
        })
    }

    fn listener_name(&self, at: usize) -> &str {
        self.seen.listeners.get(at).map_or("", |l| l.listener.as_str())
    }
}

impl Recent {
    fn new(sample: &Sample, history: &History) -> Self {
        let Some(minute_ago) = history.before(sample.at, WINDOW) else {
            return Self::default();
        };
        let ten_ago = history.before(sample.at, Duration::from_secs(10)).unwrap_or(minute_ago);
        let second_ago = history.before(sample.at, Duration::from_secs(1)).unwrap_or(minute_ago);
        Self {
            seconds: (sample.at - minute_ago.at).as_secs_f64(),
            accepted_rate: sample.rate(second_ago, |s| s.accepted),
            dropped_rate: sample.rate(second_ago, Sample::dropped_total),
            turn_rate: sample.rate(second_ago, |s| s.turns),
            utilisation: sample.utilisation(ten_ago),
            dropped: sample.dropped_since(minute_ago),
            queue_wait: between(&minute_ago.queue_wait, &sample.queue_wait),
            turn_duration: between(&minute_ago.turn_duration, &sample.turn_duration),
        }
    }
}

fn lately(sample: &Sample, history: &History) -> Lately {
    let before = |age| history.before(sample.at, age).unwrap_or(sample);
    let banner = before(BANNER_WINDOW);
    Lately {
        dropped: sample.dropped_since(banner),
        seconds: (sample.at - banner.at).as_secs_f64(),
        utilisation: sample.utilisation(before(Duration::from_secs(10))),
        panics: sample.handler_panics - before(WINDOW).handler_panics.min(sample.handler_panics),
    }
}

fn percentiles(seen: &HistogramSnapshot) -> Value {
    json!({
        "count": seen.count(), "p50": quantile(seen, 0.5), "p90": quantile(seen, 0.9),
        "p99": quantile(seen, 0.99), "p999": quantile(seen, 0.999),
    })
}

fn listener_json(l: &ListenerSnapshot) -> Value {
    json!({
        "listener": l.listener, "service": l.service, "datagram": l.datagram,
        "accepted": l.accepted, "queued": l.queued, "active": l.active, "idle": l.idle,
        "dropped": counts(DropReason::ALL.iter().map(|r| r.as_str()), &l.dropped),
        "closed": counts(CloseReason::ALL.iter().map(|r| r.as_str()), &l.closed),
        "accept_errors": counts(AcceptError::ALL.iter().map(|r| r.as_str()), &l.accept_errors),
        "turns": counts(TurnOutcome::ALL.iter().map(|r| r.as_str()), &l.turns),
        "received_bytes": l.received_bytes, "sent_bytes": l.sent_bytes,
        "datagrams_received": l.datagrams_received,
        "datagrams_dropped": counts(DatagramDrop::ALL.iter().map(|r| r.as_str()), &l.datagrams_dropped),
        "backlog": l.backlog.map(|b| json!({
            "connections": b.connections, "limit": b.limit, "drops": b.drops,
        })),
    })
}

fn counts(names: impl Iterator<Item = &'static str>, counts: &[u64]) -> Map<String, Value> {
    names.zip(counts).map(|(name, &count)| (name.to_owned(), count.into())).collect()
}

fn render_row(cells: &[String], out: &mut String) {
    out.push_str("<tr>");
    for (at, cell) in cells.iter().enumerate() {
        let tag = if at == 0 { "th" } else { "td" };
        let zero = if cell == "0" { " class=\"zero\"" } else { "" };
        let _ = write!(out, "<{tag}{zero}>");
        escape(cell, out);
        let _ = write!(out, "</{tag}>");
    }
    out.push_str("</tr>");
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

#[cfg(test)]
mod tests;
