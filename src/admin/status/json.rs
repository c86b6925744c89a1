//! The status for programs: numbers first, and what the page shows beside them.

use super::super::history::quantile;
use super::report::Report;
use super::view::View;
use super::web;
use crate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use crate::metrics::registry::{REVISION, VERSION};
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot, RefusalEntry};
use crate::reason::{
    AcceptError, BackendFailure, CloseReason, DatagramDrop, DropReason, RequestFailure, TurnOutcome,
    TurnShed, WouldDrop,
};
use serde_json::{Map, Value, json};

pub(super) fn json(report: &Report, view: &View) -> Value {
    let Report { seen, banner, process, recent, .. } = report;
    json!({
        "version": VERSION,
        "revision": REVISION,
        "phase": seen.phase.as_str(),
        "state": banner.state.as_str(),
        "title": banner.title,
        "why": banner.why,
        "advice": banner.advice,
        "uptime_seconds": seen.uptime.as_secs_f64(),
        "shedding": seen.shedding.map(DropReason::as_str),
        "workers": {
            "limit": seen.workers_limit, "busy": seen.workers_busy, "stuck": seen.workers_stuck,
            "busy_seconds_total": seen.worker_busy.as_secs_f64(), "utilization": recent.utilisation,
        },
        "handler_panics_total": seen.handler_panics,
        "queue": {
            "length": seen.queue_length, "limit": seen.queue_limit,
            "newcomers": report.total(|l| l.newcomers), "turns": report.total(|l| l.queued - l.newcomers),
            "standing_seconds": seen.standing.map(|time| time.as_secs_f64()),
            "in_order": seen.in_order,
            "shelf": { "length": seen.shelf_length, "oldest_seconds": seen.shelf_oldest.as_secs_f64() },
        },
        "connections": {
            "open": report.total(ListenerSnapshot::open), "queued": report.total(|l| l.queued),
            "active": report.total(|l| l.active), "idle": report.total(|l| l.idle),
            "lingering": seen.lingering, "limit": seen.connections_limit,
        },
        "rates_per_second": {
            "accepted": recent.accepted_rate, "dropped": recent.dropped_rate, "turns": recent.turn_rate,
        },
        "latency_seconds": {
            "window": recent.latency_seconds,
            "queue_wait": percentiles(&recent.latencies.queue_wait),
            "turn": percentiles(&recent.latencies.turn),
            "gate_wait": percentiles(&recent.latencies.gate_wait),
            "backend_connect": percentiles(&recent.latencies.connect),
            "http_request": percentiles(&recent.latencies.http),
        },
        "listeners": seen.listeners.iter().enumerate()
            .map(|(at, one)| listener(one, report.own_limits(at))).collect::<Vec<_>>(),
        "pending_input_bytes": seen.pending_input_bytes,
        "pending_output_bytes": seen.pending_output_bytes,
        "process": {
            "cpu_seconds_total": process.cpu.as_secs_f64(), "open_fds": process.open_fds,
            "cpu_cores": recent.processors,
            "max_fds": process.max_fds, "resident_bytes": process.resident_bytes,
            "threads": process.threads, "start_time_seconds": process.start_time,
        },
        "refusals": report.refusals.iter().map(|r| refusal(report, r)).collect::<Vec<_>>(),
        "refused_sources": report.refused_sources.iter()
            .map(|source| json!({ "source": source.source, "count": source.count })).collect::<Vec<_>>(),
        "limits": limits(&report.limits),
        "configuration": report.configuration.as_ref().map(|last| json!({
            "read_at_seconds": last.read_at, "failure": last.failure,
        })),
        "view": view,
    })
}

fn refusal(report: &Report, refusal: &RefusalEntry) -> Value {
    json!({
        "at_unix_ms": refusal.at_unix_ms, "listener": report.listener_name(refusal.listener),
        "what": if refusal.requests { "requests" } else { "connections" },
        "reason": refusal.reason.as_str(), "count": refusal.count,
    })
}

fn percentiles(seen: &HistogramSnapshot) -> Value {
    json!({
        "count": seen.count(), "p50": quantile(seen, 0.5), "p90": quantile(seen, 0.9),
        "p99": quantile(seen, 0.99), "p999": quantile(seen, 0.999),
    })
}

/// Limits by their names.
fn limits(limits: &[(&'static str, String)]) -> Value {
    limits
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect::<Map<_, _>>()
        .into()
}

fn listener(l: &ListenerSnapshot, own: &[(&'static str, String)]) -> Value {
    json!({
        "listener": l.listener, "service": l.service, "datagram": l.datagram, "listening": !l.is_closed,
        "accepted": l.accepted, "queued": l.queued, "newcomers": l.newcomers, "active": l.active, "idle": l.idle,
        "dropped": counts(DropReason::ALL.iter().map(|r| r.as_str()), &l.dropped),
        "closed": counts(CloseReason::ALL.iter().map(|r| r.as_str()), &l.closed),
        "accept_errors": counts(AcceptError::ALL.iter().map(|r| r.as_str()), &l.accept_errors),
        "turns": counts(TurnOutcome::ALL.iter().map(|r| r.as_str()), &l.turns),
        "turns_shed": counts(TurnShed::ALL.iter().map(|r| r.as_str()), &l.turns_shed),
        "received_bytes": l.received_bytes, "sent_bytes": l.sent_bytes,
        "datagrams_received": l.datagrams_received,
        "datagrams_dropped": counts(DatagramDrop::ALL.iter().map(|r| r.as_str()), &l.datagrams_dropped),
        "would_drop": counts(WouldDrop::ALL.iter().map(|r| r.as_str()), &l.would_drop),
        "backlog": l.backlog.map(|b| json!({
            "connections": b.connections, "limit": b.limit, "drops": b.drops,
        })),
        "gate": l.backends.as_ref().map(gate),
        "http": l.web.as_ref().map(|web| web::http_json(web, percentiles)),
        "tls": l.handshakes.as_ref().map(|tls| web::tls_json(tls, percentiles)),
        "limits": limits(own),
    })
}

fn gate(gate: &BackendsSnapshot) -> Value {
    json!({
        "ready": gate.ready, "in_use": gate.in_use, "limit": gate.limit,
        "taken": gate.taken, "given_back": gate.given_back,
        "waiting": gate.waiting, "waiting_limit": gate.waiting_limit, "oldest_seconds": gate.oldest.map(|time| time.as_secs_f64()),
        "standing_seconds": gate.stood_for.map(|time| time.as_secs_f64()),
        "refused": gate.refused().iter().map(|&(reason, count)| (reason.to_string(), count.into()))
            .collect::<Map<_, Value>>(),
        "wait": percentiles(&gate.wait),
        "backends": gate.backends.iter().map(backend).collect::<Vec<_>>(),
    })
}

fn backend(one: &BackendSnapshot) -> Value {
    json!({
        "backend": one.address, "up": one.aside_for.is_none(), "leaving": one.leaving,
        "last_failure": one.last_failure.map(BackendFailure::as_str), "last_failure_why": one.last_failure_why,
        "aside_seconds": one.aside_for.map(|time| time.as_secs_f64()),
        "in_use": one.in_use, "limit": one.limit, "taken": one.taken, "given_back": one.given_back,
        "connected": one.connected,
        "failures": counts(BackendFailure::ALL.iter().map(|r| r.as_str()), &one.failures),
        "connect": percentiles(&one.connect),
        "sent_bytes": one.to_backend, "received_bytes": one.to_client,
        "answers": counts(BackendSnapshot::CLASSES.into_iter(), &one.answers),
        "request_failures": counts(RequestFailure::ALL.iter().map(|r| r.as_str()), &one.request_failures),
        "reused": one.reused, "repeated": one.repeated,
    })
}

fn counts(names: impl Iterator<Item = &'static str>, counts: &[u64]) -> Map<String, Value> {
    names.zip(counts).map(|(name, &count)| (name.to_owned(), count.into())).collect()
}
