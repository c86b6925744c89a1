//! The catalogue, its document and a live scrape say the same, and every scrape adds up.

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/admin_process.rs"]
mod process;

use certificate::Certificate;
use http::{Reply, get, sample};
use process::Tidegate;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_document_is_the_one_that_is_printed() {
    let document = std::fs::read_to_string("docs/metrics.md").unwrap();
    let printed = printed(&["metrics", "--output", "markdown"]);
    assert!(document == printed, "write it anew: tidegate metrics --output markdown > docs/metrics.md");
}

/// Metric and label names with label values, of samples and of the catalogue alike.
type Shape = BTreeMap<String, (String, String, BTreeMap<String, BTreeSet<String>>)>;

fn shape_of_scrape(scrape: &str) -> Shape {
    let mut shape = Shape::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            shape.entry(name.to_owned()).or_default().1 = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            shape.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                name.strip_suffix(suffix).filter(|base| shape.get(*base).is_some_and(|s| s.0 == "histogram"))
            });
            let entry =
                shape.get_mut(family.unwrap_or(name)).unwrap_or_else(|| panic!("{line} has no # TYPE"));
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.trim_end_matches('"').split_once("=\"").unwrap();
                if label != "le" {
                    entry.2.entry(label.to_owned()).or_default().insert(value.to_owned());
                }
            }
        }
    }
    shape
}

#[test]
fn a_live_scrape_shows_what_the_catalogue_promises_from_the_start() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let server = Tidegate::start(&[
        "--listen",
        "echo=tls://127.0.0.1:0",
        "--tls-cert",
        files.certificate.to_str().unwrap(),
        "--tls-key",
        files.key.to_str().unwrap(),
        "--listen",
        "echo=tcp://127.0.0.1:0",
        "--listen",
        "hello=tcp://127.0.0.1:0",
        "--listen",
        "echo=http://127.0.0.1:0",
        "--listen",
        "echo=udp://127.0.0.1:0",
        // What is promised of a backend is there before a client has come.
        "--listen",
        "proxy:127.0.0.1:1,unix:/nowhere=tcp://127.0.0.1:0",
    ]);
    let scrape = get(server.admin, "/metrics").unwrap();
    assert_eq!(scrape.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let live = shape_of_scrape(&scrape.body);
    let catalogue: Vec<serde_json::Value> =
        serde_json::from_str(&printed(&["metrics", "--output", "json"])).unwrap();
    let mut promised = BTreeSet::new();
    for metric in &catalogue {
        let name = metric["name"].as_str().unwrap();
        promised.insert(name.to_owned());
        let (kind, help, labels) =
            live.get(name).unwrap_or_else(|| panic!("{name} is promised and not there"));
        assert_eq!(
            (metric["type"].as_str(), metric["help"].as_str()),
            (Some(&**kind), Some(&**help)),
            "{name}"
        );
        let named: BTreeSet<_> = metric["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label["name"].as_str().unwrap())
            .collect();
        assert_eq!(named, labels.keys().map(String::as_str).collect(), "the labels of {name}");
        for label in metric["labels"].as_array().unwrap() {
            let values: BTreeSet<_> = label["values"].as_object().unwrap().keys().cloned().collect();
            let seen = &labels[label["name"].as_str().unwrap()];
            assert!(values.is_empty() || values == *seen, "{label} of {name}: {seen:?}");
        }
    }
    assert_eq!(promised, live.into_keys().collect(), "nothing is there that is not in the catalogue");
    promtool_finds_nothing_to_say_of(&scrape);
}

fn promtool_finds_nothing_to_say_of(scrape: &Reply) {
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool is there: tests/setup.sh installs it");
    child.stdin.take().unwrap().write_all(scrape.body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

/// Adds up all samples of a metric that have these labels.
fn sum(scrape: &str, name: &str, label: &str) -> i64 {
    let samples =
        scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as i64).sum()
}

/// Scrapes this listener's connections ten times a second for a while: each scrape adds up. Returns the last one, how many there
/// were, and in how many something was on the shelf.
fn scrapes_add_up(server: &Tidegate, listener: usize, seconds: u64) -> (String, u64, u64) {
    let label = format!("listener=\"{}\"", server.listeners[listener]);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut scrapes, mut shelved, mut last_accepted) = (0, 0, 0);
    let mut scrape = String::new();
    while Instant::now() < end {
        let begun = Instant::now();
        scrape = get(server.admin, "/metrics").unwrap().body;
        let of = |name: &str| sum(&scrape, &format!("tidegate_connections{name}"), &label);
        let accepted = of("_accepted_total");
        let (dropped, closed, open) = (of("_dropped_total"), of("_closed_total"), of(""));
        assert_eq!(accepted, dropped + closed + open, "{dropped} + {closed} + {open}\n{scrape}");
        assert!(accepted >= last_accepted, "{accepted} after {last_accepted}");
        last_accepted = accepted;
        shelved += u64::from(sample(&scrape, "tidegate_shelf_length").unwrap() > 0.0);
        scrapes += 1;
        std::thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
    }
    (scrape, scrapes, shelved)
}

/// Clients that stay want more than can be done, so their requests wait on the shelf and some are shed; beside them newcomers
/// make room for others.
#[test]
fn every_scrape_adds_up_while_requests_of_connections_that_stay_are_shed() {
    for scheme in ["tcp", "http"] {
        let listen = format!("work={scheme}://127.0.0.1:0");
        let listen = ["--listen", &listen, "--work", "sleep:5ms", "--workers", "2"];
        let rest = ["--queue", "8", "--queue-timeout", "100ms", "--refusal-rate", "all"];
        let server = Tidegate::start(&[&listen[..], &rest[..]].concat());
        let staying = server.stress(&["-c", "100", "-d", "10s", "--warmup", "0s", "-t", "80ms"]);
        let coming = server.stress(&["-c", "30", "-d", "10s", "--warmup", "0s", "--reuse", "never"]);
        let (scrape, scrapes, shelved) = scrapes_add_up(&server, 0, 5);
        let shed = |reason: &str| sum(&scrape, "tidegate_turns_shed_total", &format!("reason=\"{reason}\""));
        let displaced = sum(&scrape, "tidegate_connections_dropped_total", "reason=\"queue_full\"");
        let (late, gone) = (shed("queue_timeout"), shed("client_gone"));
        assert!(late + gone > 10 && displaced > 10 && shelved > 10, "{scheme}: {scrape}");
        eprintln!(
            "{scheme}: {scrapes} scrapes, {shelved} with a shelf: {late} shed for their wait, {gone} for their client, \
             {displaced} newcomers turned away"
        );
        staying.end();
        coming.end();
    }
}

/// Ten scrapes a second of an overload, none of which is off. A minute by default is long for every
/// run: `TIDEGATE_TEST_OVERLOAD_SECONDS=60` makes it one.
#[test]
fn every_scrape_adds_up_under_overload() {
    let seconds = std::env::var("TIDEGATE_TEST_OVERLOAD_SECONDS").map_or(10, |s| s.parse().unwrap());
    let listen = ["--listen", "work=tcp://127.0.0.1:0", "--work", "cpu:200us", "--workers", "4"];
    let rest = ["--queue", "8", "--max-connections", "200", "--refusal-rate", "2000"];
    let server = Tidegate::start(&[&listen[..], &rest[..]].concat());
    let duration = format!("{}s", seconds + 5);
    let flood = server.stress(&["-c", "400", "-d", &duration, "--warmup", "0s", "--reuse", "never"]);
    let held = server.stress(&["-c", "50", "-d", &duration, "--warmup", "0s", "--reuse", "7"]);
    let label = format!("listener=\"{}\"", server.listeners[0]);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut scrapes, mut last_accepted, mut slowest) = (0, 0, Duration::ZERO);
    let mut scrape = String::new();
    while Instant::now() < end {
        let begun = Instant::now();
        scrape = get(server.admin, "/metrics").unwrap().body;
        slowest = slowest.max(begun.elapsed());
        let of = |name: &str| sum(&scrape, &format!("tidegate_connections{name}"), &label);
        let accepted = of("_accepted_total");
        let (dropped, closed, open) = (of("_dropped_total"), of("_closed_total"), of(""));
        assert_eq!(accepted, dropped + closed + open, "{dropped} + {closed} + {open}\n{scrape}");
        assert!(accepted >= last_accepted, "{accepted} after {last_accepted}");
        // A reading takes up to a millisecond, and may miss as many ends as there are in that time.
        assert!(open <= 205, "{open} open of 200");
        last_accepted = accepted;
        scrapes += 1;
        std::thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
    }
    let dropped = sum(&scrape, "tidegate_connections_dropped_total", &label);
    assert!(dropped > 100 && last_accepted > dropped, "{dropped} of {last_accepted} dropped: an overload");
    assert!(sample(&scrape, "tidegate_worker_busy_seconds_total").unwrap() > 1.0);
    flood.end();
    held.end();
    eprintln!(
        "{scrapes} scrapes in {seconds} s add up; {last_accepted} accepted, {dropped} dropped; slowest scrape {slowest:?}"
    );
}
