//! The page as a whole, made of a snapshot that the test chooses.

use super::view::spark_path;
use super::*;
use crate::metrics::snapshot::Phase;

struct Fake(Snapshot);

impl Observe for Fake {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn refusals(&self) -> Vec<Refusal> {
        vec![Refusal { at_unix_ms: unix_ms(), listener: 0, reason: DropReason::QueueFull, count: 1204 }]
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

fn report(history: &History) -> Report {
    Report::new(Instant::now(), &fake(), &ProcessSnapshot::default(), history)
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
    let view = report(&History::default()).view;
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
    let html = String::from_utf8(report(&History::default()).to_html()).unwrap();
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
    let json: Value = serde_json::from_slice(&report(&History::default()).to_json()).unwrap();
    assert_eq!(json["phase"], "serving");
    assert_eq!(json["listeners"][0]["accepted"], 5000);
    assert_eq!(json["listeners"][0]["dropped"]["queue_full"], 0);
    assert_eq!(json["refusals"][0]["reason"], "queue_full");
    assert_eq!(json["view"]["state"], "serving");
    assert_eq!(json["latency_seconds"]["turn"]["p99"], Value::Null);
}
