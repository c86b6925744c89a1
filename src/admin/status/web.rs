//! The tables of HTTP, of WebSockets and of TLS, and their numbers.

use super::super::history::quantile;
use super::super::show;
use crate::metrics::handshakes::HandshakesSnapshot;
use crate::metrics::snapshot::{HistogramSnapshot, ListenerSnapshot};
use crate::metrics::web::{CLASSES, WebSnapshot};
use crate::reason::{HandshakeFailure, SocketHandshake};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A row for each listener that speaks HTTP.
pub(super) fn http_rows(listeners: &[ListenerSnapshot]) -> Vec<Vec<String>> {
    let of_http = listeners.iter().filter_map(|l| Some((l, l.web.as_ref()?)));
    let row = |(l, web): (&ListenerSnapshot, &WebSnapshot)| {
        let latency = |q| show::latency(quantile(&web.duration, q));
        let own = l.backends.is_none();
        let body = |bytes| if own { show::size(bytes) } else { "-".to_owned() };
        let answers = those_that_are(CLASSES.into_iter().zip(web.requests));
        let (received, sent) = (body(web.request_body_bytes), body(web.response_body_bytes));
        vec![l.listener.clone(), answers, latency(0.5), latency(0.99), received, sent]
    };
    of_http.map(row).collect()
}

/// A row for each listener that was asked for a WebSocket.
pub(super) fn socket_rows(listeners: &[ListenerSnapshot]) -> Vec<Vec<String>> {
    let of_http = listeners.iter().filter_map(|l| Some((l, l.web.as_ref()?)));
    let asked = of_http.filter(|(_, web)| web.handshakes.iter().any(|&count| count > 0));
    let row = |(l, web): (&ListenerSnapshot, &WebSnapshot)| {
        let n = show::number;
        let opened = web.handshakes[SocketHandshake::Opened as usize];
        let others = SocketHandshake::ALL.iter().filter(|&&it| it != SocketHandshake::Opened);
        vec![
            l.listener.clone(),
            n(web.sockets()),
            n(opened),
            those_that_are(others.map(|it| (it.as_str(), web.handshakes[*it as usize]))),
            n(web.messages_received),
            n(web.messages_sent),
            those_that_are(web.closes_by_code()),
        ]
    };
    asked.map(row).collect()
}

/// A row for each listener that speaks TLS; `now` is in milliseconds since the Unix epoch.
pub(super) fn tls_rows(listeners: &[ListenerSnapshot], now: u64) -> Vec<Vec<String>> {
    let of_tls = listeners.iter().filter_map(|l| Some((l, l.handshakes.as_ref()?)));
    let row = |(l, tls): (&ListenerSnapshot, &HandshakesSnapshot)| {
        let [full_old, resumed_old, full, resumed] = tls.opened;
        let opened = [("full", full_old + full), ("resumed", resumed_old + resumed)];
        let failed = HandshakeFailure::ALL.iter().map(|it| (it.as_str(), tls.failed[*it as usize]));
        vec![
            l.listener.clone(),
            those_that_are(opened.into_iter()),
            those_that_are(failed),
            show::latency(quantile(&tls.duration, 0.99)),
            expiry(tls.certificate_expires_at, now / 1000),
        ]
    };
    of_tls.map(row).collect()
}

/// How long a certificate is good for.
fn expiry(at: u64, now: u64) -> String {
    match at.checked_sub(now) {
        Some(left) if left > 0 => format!("in {}", show::age(Duration::from_secs(left))),
        _ => format!("expired {} ago", show::age(Duration::from_secs(now.saturating_sub(at)))),
    }
}

/// The counts that are not 0, each with its name.
fn those_that_are<'n>(counts: impl Iterator<Item = (&'n str, u64)>) -> String {
    let said = counts.filter(|&(_, count)| count > 0);
    let said: Vec<_> = said.map(|(name, count)| format!("{} {name}", show::number(count))).collect();
    if said.is_empty() { "0".to_owned() } else { said.join(", ") }
}

/// The numbers of a listener that speaks HTTP.
pub(super) fn http_json(web: &WebSnapshot, percentiles: impl Fn(&HistogramSnapshot) -> Value) -> Value {
    let handshakes = SocketHandshake::ALL.iter().map(|it| (it.as_str(), web.handshakes[*it as usize]));
    json!({
        "requests": counts(CLASSES.into_iter().zip(web.requests)),
        "duration": percentiles(&web.duration),
        "request_body_bytes": web.request_body_bytes, "response_body_bytes": web.response_body_bytes,
        "websockets": {
            "open": web.sockets(), "handshakes": counts(handshakes),
            "messages_received": web.messages_received, "messages_sent": web.messages_sent,
            "closes": counts(web.closes_by_code()),
        },
    })
}

/// The numbers of a listener that speaks TLS.
pub(super) fn tls_json(tls: &HandshakesSnapshot, percentiles: impl Fn(&HistogramSnapshot) -> Value) -> Value {
    let [full_old, resumed_old, full, resumed] = tls.opened;
    let failed = HandshakeFailure::ALL.iter().map(|it| (it.as_str(), tls.failed[*it as usize]));
    json!({
        "full": full_old + full, "resumed": resumed_old + resumed, "failed": counts(failed),
        "duration": percentiles(&tls.duration), "busy_seconds": tls.busy.as_secs_f64(),
        "certificate_expires_at_unix": tls.certificate_expires_at,
    })
}

fn counts<'n>(counts: impl Iterator<Item = (&'n str, u64)>) -> Map<String, Value> {
    counts.map(|(name, count)| (name.to_owned(), count.into())).collect()
}
