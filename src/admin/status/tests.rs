//! The page as a whole, made of a snapshot that the test chooses.

use super::view::spark_path;
use super::*;
use crate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use crate::metrics::handshakes::HandshakesSnapshot;
use crate::metrics::snapshot::{ListenerSnapshot, Phase, RefusalEntry, RefusedSource, Snapshot};
use crate::metrics::web::WebSnapshot;
use crate::reason::{BackendFailure, DropReason, HandshakeFailure, SocketHandshake, TurnShed, WouldDrop};
use serde_json::Value;
use std::time::Duration;

struct Fake(Snapshot);

impl Observe for Fake {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn refusals(&self) -> Vec<RefusalEntry> {
        vec![RefusalEntry {
            at_unix_ms: 0,
            listener: 0,
            reason: DropReason::QueueFull,
            requests: false,
            count: 1204,
        }]
    }

    fn refused_sources(&self) -> Vec<RefusedSource> {
        vec![RefusedSource { source: "10.0.0.7".to_owned(), count: 1204 }]
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        vec![("workers", "32".to_owned()), ("busy_reply", "<b>\"busy\"</b>".to_owned())]
    }
}

fn fake() -> Fake {
    let listener = ListenerSnapshot {
        listener: "tcp://127.0.0.1:5000".to_owned(),
        service: "echo".to_owned(),
        accepted: 5000,
        ..ListenerSnapshot::default()
    };
    Fake(Snapshot {
        phase: Phase::Serving,
        workers_limit: 32,
        queue_limit: 128,
        listeners: vec![listener],
        ..Snapshot::default()
    })
}

fn page(history: &History) -> StatusPage {
    StatusPage::new(Instant::now(), &fake(), &ProcessSnapshot::default(), history)
}

/// The names that follow `marker` in the template.
fn names(marker: &str) -> Vec<&'static str> {
    let mut found: Vec<_> =
        TEMPLATE.split(marker).skip(1).map(|rest| rest.split(['"', '}']).next().unwrap()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn every_place_of_the_page_is_filled_and_every_value_has_a_place() {
    let view = page(&History::default()).view;
    for (bound, rendered, have) in [
        ("data-t=\"", "{{text:", view.text.keys().copied().collect::<Vec<_>>()),
        ("data-d=\"", "{{path:", view.path.keys().copied().collect()),
        ("data-w=\"", "{{meter:", view.meter.keys().copied().collect()),
        ("data-r=\"", "{{rows:", view.rows.keys().copied().collect()),
    ] {
        assert_eq!(names(bound), have, "{bound}");
        assert_eq!(names(rendered), have, "{rendered}");
    }
}

#[test]
fn the_page_is_whole_and_escaped() {
    let html = String::from_utf8(page(&History::default()).to_html()).unwrap();
    assert!(!html.contains("{{") && !html.contains("<b>\"busy\""), "{html}");
    assert!(html.contains("&lt;b&gt;&quot;busy&quot;&lt;/b&gt;"));
    assert!(html.contains("<td>5,000</td>") && html.contains("<td>1,204</td>"));
    for elsewhere in ["http://", "https://", "//cdn", "src="] {
        let own = html.replace("http://www.w3.org/2000/svg", "").replace("tcp://127", "");
        assert!(!own.contains(elsewhere), "the page names {elsewhere}");
    }
}

#[test]
fn the_policy_allows_the_page_s_own_style_and_script_and_nothing_else() {
    use base64::Engine;
    use sha2::Digest;
    for (what, text) in [("style-src", STYLE), ("script-src", SCRIPT)] {
        let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(text));
        let allowed = format!("{what} 'sha256-{hash}'");
        assert!(CSP.contains(&allowed), "write {allowed} into CSP");
    }
    assert!(CSP.starts_with("default-src 'none'; ") && !CSP.contains("unsafe"));
}

#[test]
fn sparklines_stay_in_their_box_and_end_at_the_right() {
    assert_eq!(spark_path(&[], 1.0), "");
    assert_eq!(spark_path(&[0.0, 1.0, 0.5], 1.0), "M297 40V40l1 -38l1 19V40z");
    let values: Vec<f64> = (0..299).map(|n| f64::from(n % 7)).collect();
    let path = spark_path(&values, 6.0);
    assert!(path.starts_with("M1 40V40") && path.ends_with("V40z") && path.len() < 2500, "{path}");
}

#[test]
fn json_has_the_numbers() {
    let json: Value = serde_json::from_slice(&page(&History::default()).to_json()).unwrap();
    assert_eq!(json["phase"], "serving");
    assert_eq!(json["listeners"][0]["accepted"], 5000);
    assert_eq!(json["listeners"][0]["dropped"]["queue_full"], 0);
    assert_eq!(json["refusals"][0]["reason"], "queue_full");
    assert_eq!(json["refused_sources"][0]["source"], "10.0.0.7");
    assert_eq!(json["view"]["state"], "serving");
    assert_eq!(json["latency_seconds"]["turn"]["p99"], Value::Null);
}

#[test]
fn what_a_dry_run_lets_through_stands_beside_what_is_turned_away() {
    let mut seen = fake().0;
    let row = |seen: &Snapshot| {
        let fake = Fake(seen.clone());
        let page = StatusPage::new(Instant::now(), &fake, &ProcessSnapshot::default(), &History::default());
        let json: Value = serde_json::from_slice(&page.to_json()).unwrap();
        (page.view.rows["drops"].clone(), json["listeners"][0]["would_drop"]["rate"].clone())
    };
    assert_eq!(row(&seen), (Vec::new(), 0.into()));
    seen.listeners[0].would_drop[WouldDrop::Rate as usize] = 7;
    let expected = ["dry run, let through: rate", "0", "7"].map(str::to_owned).to_vec();
    assert_eq!(row(&seen), (vec![expected], 7.into()));
}

#[test]
fn everything_that_is_said_of_now_is_of_one_instant() {
    let mut history = History::default();
    let start = Instant::now();
    let seen = |queue: u64, busy: u64| {
        let mut seen = fake().0;
        (seen.queue_length, seen.workers_busy, seen.shedding) = (queue, busy, Some(DropReason::QueueFull));
        (seen.listeners[0].queued, seen.listeners[0].newcomers, seen.listeners[0].idle) =
            (queue, queue / 2, 7);
        seen
    };
    // The queue was full a moment ago, and is nearly empty now.
    history.push(start, &seen(128, 32), Duration::ZERO);
    for (now, words) in [
        (
            seen(3, 4),
            "Bursts overflow the queue: 1 of 128 places are taken at this moment, 4 of 32 workers are busy.",
        ),
        (
            seen(300, 32),
            "The queue is full: 150 newcomers wait (limit 128), beside 150 requests of open connections; 32 of 32",
        ),
    ] {
        let (queue, busy) = (now.queue_length, now.workers_busy);
        let page = StatusPage::new(start, &Fake(now), &ProcessSnapshot::default(), &history);
        let text = |name: &str| page.view.text[name].as_str();
        assert!(text("why").starts_with(words), "{}", text("why"));
        assert_eq!((text("queue"), text("waiting-now")), (&*queue.to_string(), &*queue.to_string()));
        assert_eq!(text("workers"), busy.to_string());
        assert_eq!(page.view.rows["listeners"][0][2], queue.to_string());
        assert_eq!(
            text("queue-note"),
            format!("{} new, {} of open connections", queue / 2, queue - queue / 2)
        );
        assert_eq!(
            (text("connections"), text("open-now")),
            (&*(queue + 7).to_string(), &*(queue + 7).to_string())
        );
    }
}

/// A gate with one backend that is up and one that is set aside.
fn fake_gate() -> BackendsSnapshot {
    let backend = |address: &str| BackendSnapshot {
        address: address.to_owned(),
        limit: 20,
        ..BackendSnapshot::default()
    };
    let mut all = BackendsSnapshot { in_use: 7, limit: 40, waiting: 3, ..BackendsSnapshot::default() };
    all.oldest = Some(Duration::from_millis(42));
    (all.queue_full, all.taken, all.given_back) = (9, 1207, 1200);
    let mut up = BackendSnapshot { in_use: 7, connected: 1200, to_client: 2048, ..backend("10.0.0.1:80") };
    (up.answers[2], up.answers[5], up.request_failures[0]) = (1190, 3, 2);
    let mut aside = backend("unix:/run/<app>.sock");
    aside.aside_for = Some(Duration::from_secs(83));
    aside.failures[BackendFailure::Refused as usize] = 4;
    aside.failures[BackendFailure::Timeout as usize] = 1;
    aside.last_failure_why = "GET /up was answered 404, not 200 to 399".to_owned();
    all.backends = vec![up, aside];
    all
}

#[test]
fn requests_that_a_gate_refuses_are_told_wherever_refusals_are() {
    let mut history = History::default();
    let start = Instant::now();
    let mut seen = fake().0;
    (seen.listeners[0].backends, seen.listeners[0].web) = (Some(fake_gate()), Some(WebSnapshot::default()));
    history.push(start, &seen, Duration::ZERO);
    let gate = seen.listeners[0].backends.as_mut().unwrap();
    (gate.queue_full, gate.queue_timeout, gate.client_gone) = (2409, 2, 1);
    seen.listeners[0].turns_shed[TurnShed::QueueTimeout as usize] = 5;
    let now = start + Duration::from_secs(1);
    let page = StatusPage::new(now, &Fake(seen), &ProcessSnapshot::default(), &history);
    assert_eq!(page.view.state, "shedding");
    assert!(
        page.view.text["why"].contains("2,400 requests refused in the last 1 s."),
        "{:?}",
        page.view.text
    );
    assert_eq!(page.view.text["dropped-now"], "2,408/s");
    let drops = &page.view.rows["drops"];
    for row in [
        ["request: queue_full", "2,400", "2,409"],
        ["request: queue_timeout", "7", "7"],
        ["request: client_gone", "1", "1"],
    ] {
        assert!(drops.iter().any(|one| *one == row), "{drops:?} lacks {row:?}");
    }
    let rest = &page.view.text["drops-rest"];
    assert!(rest.contains("request: no_backend") && !rest.contains("request: queue_full"), "{rest}");
    assert_eq!(page.view.rows["listeners"][0][6], "2,417");
    // At a gate for connections they are counted among those: not twice.
    let mut seen = fake().0;
    seen.listeners[0].backends = Some(fake_gate());
    seen.listeners[0].dropped[DropReason::QueueFull as usize] = 9;
    assert_eq!(
        (seen.listeners[0].turned_away(), seen.listeners[0].requests_refused()),
        (9, [0; DropReason::COUNT])
    );
}

#[test]
fn a_terminal_is_told_what_the_page_shows() {
    let mut seen = fake().0;
    seen.listeners[0].backends = Some(fake_gate());
    let history = History::default();
    let page = StatusPage::new(Instant::now(), &Fake(seen), &ProcessSnapshot::default(), &history);
    let text = String::from_utf8(page.to_text()).unwrap();
    let view = &page.view;
    for words in [
        &*format!("\n{}: {}\n{}\n", view.text["title"], view.text["why"], view.text["advice"]),
        "\n  Waiting for a worker  0  limit 128 for newcomers  0 new, 0 of open connections\n",
        "\nLatency last 1 s\n  What                  p50  p90  p99  p99.9  count\n  wait for a worker     -",
        "\nGates\n  Listener              places in use  waiting  longest wait  the wait stands for  turned away\n",
        "\n  unix:/run/<app>.sock  tcp://127.0.0.1:5000  set aside 1 m 23 s ago: GET /up",
        "\nLimits in force\n  workers     32\n  busy_reply  <b>\"busy\"</b>\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains("{{") && !text.contains("</td") && !text.contains("WebSockets"), "{text}");
}

#[test]
fn a_wait_that_nobody_is_in_does_not_stand() {
    let mut seen = fake().0;
    let mut gate = BackendsSnapshot { waiting: 1, stood_for: Some(Duration::from_secs(112)), ..fake_gate() };
    for (waiting, said) in [(1, "1 m 52 s"), (0, "-")] {
        gate.waiting = waiting;
        seen.listeners[0].backends = Some(gate.clone());
        let page = StatusPage::new(
            Instant::now(),
            &Fake(seen.clone()),
            &ProcessSnapshot::default(),
            &History::default(),
        );
        assert_eq!(page.view.rows["gates"][0][4], said);
    }
}

#[test]
fn a_gate_has_its_tables_and_a_server_without_one_does_not_show_them() {
    let mut seen = fake().0;
    seen.listeners[0].backends = Some(fake_gate());
    let history = History::default();
    let page = StatusPage::new(Instant::now(), &Fake(seen), &ProcessSnapshot::default(), &history);
    let rows = &page.view.rows;
    assert_eq!(rows["gates"], [["tcp://127.0.0.1:5000", "7 of 40", "3", "42 ms", "-", "9"]]);
    let up = [
        "10.0.0.1:80",
        "tcp://127.0.0.1:5000",
        "up",
        "7 of 20",
        "1,200",
        "-",
        "0",
        "0 B",
        "2.0 KiB",
        "1,190 2xx, 3 5xx, 2 failed",
    ];
    assert_eq!(rows["backends"][0], up);
    let aside = &rows["backends"][1];
    let state = "set aside 1 m 23 s ago: GET /up was answered 404, not 200 to 399";
    assert_eq!(aside[2..4], [state, "0 of 20"]);
    assert_eq!(aside[6], "4 refused, 1 timeout");
    assert_eq!(rows["latency"].len(), 4);
    let html = String::from_utf8(page.to_html()).unwrap();
    assert!(html.contains("<th>unix:/run/&lt;app&gt;.sock</th>"), "{html}");
    let json: Value = serde_json::from_slice(&page.to_json()).unwrap();
    let gate = &json["listeners"][0]["gate"];
    assert_eq!((&gate["in_use"], &gate["limit"], &gate["waiting"]), (&7.into(), &40.into(), &3.into()));
    assert_eq!(gate["refused"]["queue_full"], 9);
    assert_eq!(gate["backends"][1]["failures"]["refused"], 4);
    assert_eq!((&gate["backends"][0]["up"], &gate["backends"][1]["up"]), (&true.into(), &false.into()));
    assert_eq!(json["view"]["state"], "warning");

    let page = self::page(&history);
    let html = String::from_utf8(page.to_html()).unwrap();
    assert!(page.view.rows["gates"].is_empty() && page.view.rows["latency"].len() == 2);
    // An empty table hides its section.
    assert!(html.contains("<tbody data-r=\"backends\"></tbody>") && STYLE.contains(".gate:has(tbody:empty)"));
    let json: Value = serde_json::from_slice(&page.to_json()).unwrap();
    assert_eq!(json["listeners"][0]["gate"], Value::Null);
}

#[test]
fn http_sockets_and_tls_have_their_tables_and_a_server_without_them_does_not_show_them() {
    let mut seen = fake().0;
    let mut web =
        WebSnapshot { requests: [2, 1190, 0, 0, 3], response_body_bytes: 2048, ..Default::default() };
    web.handshakes[SocketHandshake::Opened as usize] = 2;
    web.handshakes[SocketHandshake::Origin as usize] = 1;
    (web.messages_received, web.messages_sent, web.closes[0]) = (5, 1200, 1);
    let mut tls = HandshakesSnapshot { opened: [0, 1, 20, 3], ..Default::default() };
    tls.failed[HandshakeFailure::Alert as usize] = 4;
    tls.certificate_expires_at = 86_400;
    (seen.listeners[0].web, seen.listeners[0].handshakes) = (Some(web), Some(tls));
    let history = History::default();
    let page = StatusPage::new(Instant::now(), &Fake(seen), &ProcessSnapshot::default(), &history);
    let (rows, name) = (&page.view.rows, "tcp://127.0.0.1:5000");
    assert_eq!(rows["http"], [[name, "2 1xx, 1,190 2xx, 3 5xx", "-", "-", "0 B", "2.0 KiB"]]);
    assert_eq!(rows["websockets"], [[name, "1", "2", "1 origin", "5", "1,200", "1 1000"]]);
    assert_eq!(rows["tls"][0][..4], [name, "20 full, 4 resumed", "4 alert", "-"]);
    assert!(rows["tls"][0][4].starts_with("expired "), "{:?}", rows["tls"]);
    assert_eq!(rows["latency"].len(), 3);
    let json: Value = serde_json::from_slice(&page.to_json()).unwrap();
    let (http, tls) = (&json["listeners"][0]["http"], &json["listeners"][0]["tls"]);
    assert_eq!((&http["requests"]["2xx"], &http["websockets"]["open"]), (&1190.into(), &1.into()));
    assert_eq!((&tls["resumed"], &tls["certificate_expires_at_unix"]), (&4.into(), &86_400.into()));

    let html = String::from_utf8(self::page(&history).to_html()).unwrap();
    assert!(html.contains("<tbody data-r=\"tls\"></tbody>") && STYLE.contains(".web:has(tbody:empty)"));
}
