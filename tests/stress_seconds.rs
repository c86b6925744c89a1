//! The seconds of a run: each has its row, the worst is named, and two groups of clients are measured apart.

#[path = "support/stress_server.rs"]
mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Behaviour, Server, count, report, stress};

fn temporary(name: &str) -> String {
    let path = format!("{}/seconds-{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    path
}

/// The rows of a table, by the names of its columns.
fn rows(path: &str) -> Vec<BTreeMap<String, String>> {
    let table = std::fs::read_to_string(path).unwrap();
    let mut lines = table.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').map(str::to_owned).collect();
    lines.map(|line| names.iter().cloned().zip(line.split(',').map(str::to_owned)).collect()).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} in {row:?}"))
}

#[test]
fn there_is_a_row_for_each_second_whatever_the_server_does() {
    // Thousands of waits end in the same instants.
    for (behaviour, args) in [
        (Behaviour::Silent, &["-c", "2000", "-r", "3000", "-t", "700ms"][..]),
        (Behaviour::Silent, &["-c", "2000", "-t", "700ms", "--threads", "3"]),
        (
            Behaviour::Stall(Duration::from_millis(2500), Duration::from_millis(1600)),
            &["-c", "500", "-r", "1000"],
        ),
        (Behaviour::ResetAtOnce, &["-c", "200", "-r", "500"]),
        (Behaviour::Echo, &["-c", "4", "-r", "1"]),
        (Behaviour::Echo, &["-c", "4", "-r", "20", "--threads", "4"]),
    ] {
        let server = Server::start(behaviour);
        let table = temporary("rows.csv");
        let url = server.url();
        let run = [&["-d", "2s", "--warmup", "1s", "--csv", &table, "-o", "json"][..], args].concat();
        let run = stress(&[&[&url[..]], &run[..]].concat());
        let report = run.json();
        support::check_sums(&report);
        let rows = rows(&table);
        let of = |phase: &str| rows.iter().filter(|row| row["phase"] == phase).collect::<Vec<_>>();
        for (phase, first, seconds) in [("warmup", 0.0, 1), ("measured", 1.0, 2)] {
            let rows = of(phase);
            assert_eq!(rows.len(), seconds, "{behaviour:?} {args:?}: {rows:#?}");
            for (n, row) in rows.iter().enumerate() {
                assert_eq!(number(row, "length_seconds"), 1.0, "{behaviour:?} {args:?}: {row:?}");
                assert_eq!(number(row, "at_seconds"), first + n as f64, "{behaviour:?} {args:?}: {row:?}");
            }
        }
        assert!(rows.iter().all(|row| number(row, "length_seconds") <= 1.0), "{rows:#?}");
        // Nothing is lost on the way, and nothing counted twice.
        for outcome in ["ok", "read_timeout", "reset", "unsent_at_end", "skipped"] {
            let sum: f64 = rows.iter().map(|row| number(row, outcome)).sum();
            let warm = report["warmup"]["outcomes"][outcome].as_u64().unwrap();
            assert_eq!(sum as u64, count(&report, outcome) + warm, "{behaviour:?} {args:?}: {outcome}");
        }
        let points: Vec<&Value> = report["timeline"].as_array().unwrap().iter().collect();
        let measured: Vec<_> = points.iter().filter(|point| point["phase"] == "measured").collect();
        assert_eq!(measured.len(), 2, "{report:#}");
    }
}

#[test]
fn a_surge_is_shown_second_by_second_and_the_worst_can_be_judged() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    // Gently for two seconds, which are not measured; then the surge.
    let surge = ["-c", "50", "-r", "20", "--stages", "2s:20,0s:200,3s:200", "--warmup", "2s"];
    let args = [&[&url[..]], &surge[..]].concat();
    let (code, shown) = report(
        &[&args[..], &["--threshold", "worst_second.rate>150", "--threshold", "silent_seconds<1"]].concat(),
    );
    assert_eq!(code, 0, "{shown:#}");
    assert_eq!((&shown["plan"]["warmup"], &shown["plan"]["duration"]), (&2.0.into(), &3.0.into()));
    assert_eq!(shown["offered"], 600, "{shown:#}");
    let worst = &shown["worst_second"];
    assert!((150.0..=201.0).contains(&worst["rate"].as_f64().unwrap()), "{shown:#}");
    assert!([2.0, 3.0, 4.0].contains(&worst["at"].as_f64().unwrap()), "{shown:#}");
    assert_eq!(shown["connections"]["opened"], 50, "the connections of the gentle part: {shown:#}");
    let run = stress(&[&args[..], &["--threshold", "worst_second.rate>=900"]].concat());
    assert_eq!(run.code, 99, "{run:?}");
    assert!(run.stdout.contains("FAILED worst_second.rate>=900"), "{run:?}");
    let cells = |name: &str| {
        let line =
            run.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{run:?}"));
        line.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(cells("Seconds"), ["2s", "3s", "4s"], "each has its time above it: {run:?}");
    let rates: Vec<f64> = cells("useful/s").iter().map(|rate| rate.parse().unwrap()).collect();
    assert!(rates.len() == 3 && rates.iter().all(|rate| (100.0..=250.0).contains(rate)), "{run:?}");
    assert!(!run.stdout.contains("\nUseful "), "all of them came in time: {run:?}");
    assert!(run.stdout.contains("\nWorst "), "{run:?}");
    let run = stress(&[&url, "--stages", "1s:10", "--warmup", "1s"]);
    assert!(run.code == 2 && run.stderr.contains("nothing would be measured"), "{run:?}");
}

#[test]
fn a_second_without_a_reply_is_no_keeping_up() {
    // Most of what is asked is answered, but for two seconds nobody is.
    let server = Server::start(Behaviour::Stall(Duration::from_secs(100), Duration::from_millis(3300)));
    let url = server.url();
    let (code, shown) = report(&[&url, "-c", "500", "-r", "100", "-d", "6s", "--warmup", "0s", "-t", "20s"]);
    assert_eq!(code, 0, "{shown:#}");
    let silent = shown["silent_seconds"].as_u64().unwrap();
    assert!((2..=3).contains(&silent), "{shown:#}");
    assert_eq!(shown["worst_second"]["rate"], 0.0, "{shown:#}");
    assert!(shown["worst_second"]["offered"].as_u64().unwrap() >= 90, "{shown:#}");
    assert_eq!((&shown["verdict"], &shown["valid"]), (&"server-limited".into(), &true.into()), "{shown:#}");
    assert!(shown["verdict_reason"].as_str().unwrap().contains("no useful reply in"), "{shown:#}");
    // A run that is shorter than a second has no whole one to judge.
    let server = Server::start(Behaviour::Echo);
    let run = stress(&[&server.url(), "-n", "20", "-c", "2", "--threshold", "worst_second.rate>0"]);
    assert!(run.code == 99 && run.stdout.contains("not measured"), "{run:?}");
}

/// Serves a hundred requests a second.
const SLOW: Behaviour = Behaviour::Slow(Duration::from_millis(10));

#[test]
fn a_reply_that_comes_after_the_clients_patience_is_ok_and_not_useful() {
    // Asked thrice of what it can do, on so few connections that each reply comes well within the timeout once its request
    // was sent. Until then it waits in line, longer and longer.
    let server = Server::start(SLOW);
    let url = server.url();
    let load = [&url[..], "-c", "20", "-r", "300", "-d", "4s", "--warmup", "1s", "-t", "1s"];
    let table = temporary("useful.csv");
    let judged =
        ["--threshold", "worst_second.rate>50", "--threshold", "rate>30", "--threshold", "too_late<50%"];
    let (code, shown) =
        report(&[&load[..], &judged, &["--threshold", "useful_rate>50", "--csv", &table]].concat());
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{shown:#}"));
    let (done, useful, late) = (number(&shown["done"]), number(&shown["useful"]), number(&shown["too_late"]));
    assert_eq!(count(&shown, "read_timeout"), 0, "the timeout counts from sending: {shown:#}");
    assert!(done > 100.0 && useful + late == done && late > done / 2.0, "{shown:#}");
    assert!(number(&shown["useful_rate"]) < number(&shown["rate"]) / 2.0, "{shown:#}");
    assert_eq!((&shown["worst_second"]["rate"], code), (&0.0.into(), 99), "{shown:#}");
    assert!(number(&shown["silent_seconds"]) >= 2.0, "{shown:#}");
    assert_eq!((&shown["verdict"], &shown["valid"]), (&"server-limited".into(), &true.into()), "{shown:#}");
    assert!(shown["verdict_reason"].as_str().unwrap().contains("no useful reply in"), "{shown:#}");
    let passed: Vec<_> = shown["thresholds"].as_array().unwrap().iter().map(|t| &t["passed"]).collect();
    assert_eq!(passed, [false, true, false, false], "{shown:#}");
    // Each second says how many of its replies were of no use, and nothing is lost on the way.
    let points = shown["timeline"].as_array().unwrap();
    for point in points {
        let (ok, late) = (number(&point["outcomes"]["ok"]), number(&point["too_late"]));
        let rate = number(&point["rate"]) * number(&point["seconds"]);
        assert!((rate - (ok - late)).abs() < 0.001, "{point:#}");
    }
    let in_time: f64 = points.iter().map(|p| number(&p["rate"]) * number(&p["seconds"])).sum();
    let column: f64 = rows(&table).iter().map(|row| row["useful"].parse::<f64>().unwrap()).sum();
    assert!((in_time - column).abs() < 0.01 && column >= useful, "{in_time} {column}");
}

#[test]
fn the_screen_says_how_many_replies_came_too_late_to_be_of_use() {
    let server = Server::start(SLOW);
    let url = server.url();
    let run = stress(&[&url, "-c", "20", "-r", "300", "-d", "3s", "--warmup", "0s", "-t", "500ms"]);
    assert_eq!(run.code, 0, "{run:?}");
    let line =
        run.stdout.lines().find(|line| line.starts_with("Useful ")).unwrap_or_else(|| panic!("{run:?}"));
    let says = "came over 500ms (-t) after they were due: they waited for a connection (";
    assert!(line.contains(says) && line.ends_with(" would do)"), "{run:?}");
    let kept = temporary("late.json");
    let page = temporary("late.html");
    let json =
        stress(&[&url, "-c", "20", "-r", "300", "-d", "3s", "--warmup", "0s", "-t", "500ms", "-o", "json"]);
    std::fs::write(&kept, &json.stdout).unwrap();
    let shown = stress(&["report", &kept, "--html", &page, "--threshold", "too_late<1"]);
    assert!(shown.code == 99 && shown.stdout.contains("\nUseful "), "{shown:?}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("ok, too late"));
    // Two such generators beside each other: counts and rates are added.
    let merged = stress(&["merge", &kept, &kept, "-o", "json"]).json();
    let json = json.json();
    for name in ["useful", "too_late", "useful_rate"] {
        assert_eq!(merged[name].as_f64().unwrap(), 2.0 * json[name].as_f64().unwrap(), "{name}: {merged:#}");
    }
    let compared = stress(&["compare", &kept, &kept]);
    assert!(compared.code == 0 && compared.stdout.contains("\nuseful_rate "), "{compared:?}");
}

#[test]
fn a_client_that_asks_as_soon_as_it_can_has_only_useful_replies() {
    // The same server and the same clients in a closed loop: patience counts from sending.
    let server = Server::start(SLOW);
    let (code, shown) = report(&[&server.url(), "-c", "20", "-d", "2s", "--warmup", "0s", "-t", "1s"]);
    assert_eq!((code, &shown["too_late"]), (0, &0.into()), "{shown:#}");
    assert_eq!((&shown["useful"], &shown["useful_rate"]), (&shown["done"], &shown["rate"]), "{shown:#}");
    assert!(shown["worst_second"]["rate"].as_f64().unwrap() > 30.0, "{shown:#}");
    // And an open loop that has a connection for every request never has a line.
    let (code, shown) =
        report(&[&server.url(), "-c", "200", "-r", "50", "-d", "2s", "--warmup", "0s", "-t", "1s"]);
    assert_eq!((code, &shown["too_late"], &shown["useful"]), (0, &0.into(), &shown["done"]), "{shown:#}");
    // Where a client does not wait for a reply, none is useful.
    let (_, shown) = report(&[&server.url(), "--mode", "hold", "-c", "2", "-d", "1s"]);
    assert_eq!((&shown["useful"], &shown["useful_rate"]), (&Value::Null, &Value::Null), "{shown:#}");
}

#[test]
fn a_report_from_before_replies_were_told_apart_is_read_as_it_was() {
    let server = Server::start(SLOW);
    let load = ["-c", "20", "-r", "300", "-d", "2s", "--warmup", "0s", "-t", "500ms"];
    let (_, new) = report(&[&[&server.url()[..]], &load[..]].concat());
    let mut old = new.clone();
    for name in ["useful", "too_late", "useful_rate"] {
        assert!(old.as_object_mut().unwrap().remove(name).is_some(), "{new:#}");
    }
    for point in old["timeline"].as_array_mut().unwrap() {
        assert!(point.as_object_mut().unwrap().remove("too_late").is_some(), "{new:#}");
    }
    let (before, after) = (temporary("before.json"), temporary("after.json"));
    std::fs::write(&before, old.to_string()).unwrap();
    std::fs::write(&after, new.to_string()).unwrap();
    let shown = stress(&["report", &before, "--threshold", "useful_rate>0"]);
    assert!(shown.code == 99 && shown.stdout.contains("FAILED useful_rate>0 (not measured)"), "{shown:?}");
    assert!(!shown.stdout.contains("\nUseful "), "what was not told apart is not claimed: {shown:?}");
    let compared = stress(&["compare", &before, &after]);
    assert!(compared.stdout.contains("does not tell which replies came too late"), "{compared:?}");
    let merged = stress(&["merge", &before, &after, "-o", "json"]).json();
    assert_eq!((&merged["useful"], &merged["too_late"]), (&Value::Null, &Value::Null), "{merged:#}");
}

/// A server that answers every client but those from one address; it says from where it was connected to.
fn partial(unanswered: Ipv4Addr) -> (String, Arc<Mutex<Vec<Ipv4Addr>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let IpAddr::V4(peer) = stream.peer_addr().unwrap().ip() else { continue };
            list.lock().unwrap().push(peer);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if peer != unanswered && stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, seen)
}

#[test]
fn two_groups_of_clients_from_different_sources_are_measured_apart() {
    let noisy = Ipv4Addr::new(127, 0, 0, 9);
    let (url, seen) = partial(noisy);
    let group = ["--probe", "40", "--probe-connections", "20", "--probe-source-ip", "127.0.1.0/27"];
    let load =
        ["-c", "30", "-r", "100", "-d", "3s", "--warmup", "0s", "-t", "500ms", "--source-ip", "127.0.0.9"];
    let conditions = ["--threshold", "probe.p99<250ms", "--threshold", "probe.worst_second.rate>20"];
    let run = stress(&[&[&url[..], "-o", "json"], &load[..], &group, &conditions].concat());
    // Of the load nothing was answered, and the report is there all the same.
    let report = run.json();
    assert_eq!((run.code, count(&report, "ok")), (1, 0), "{report:#}");
    let probe = &report["probe"];
    assert_eq!((&probe["offered"], &probe["done"]), (&120.into(), &120.into()), "{report:#}");
    assert_eq!(probe["connections"]["opened"], 20, "{report:#}");
    assert!(probe["latency"]["response"]["p99"].as_f64().unwrap() < 0.25, "{report:#}");
    assert!(report["thresholds"].as_array().unwrap().iter().all(|t| t["passed"] == true), "{report:#}");
    assert_eq!(probe["timeline"].as_array().unwrap().iter().filter(|p| p["phase"] == "measured").count(), 3);
    let plan = &report["plan"]["probe"];
    assert_eq!((&plan["standing"], &plan["source_ip"]), (&true.into(), &"127.0.1.0/27".into()), "{report:#}");
    // Each standing connection of the probe is a source of its own.
    let mut sources = seen.lock().unwrap().clone();
    sources.retain(|source| *source != noisy);
    sources.sort_unstable();
    let expected: Vec<_> = (0..20).map(|n| Ipv4Addr::new(127, 0, 1, n)).collect();
    assert_eq!(sources, expected);
}

#[test]
fn a_probe_says_how_it_asks() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    let load = [&url[..], "-c", "4", "-r", "50", "-d", "2s", "--warmup", "0s"];
    for (probe, says) in [
        (&["--probe", "20"][..], "Probe: 20/s beside the load, each request on a new connection\n"),
        (
            &["--probe", "20", "--probe-connections", "1"],
            "Probe: 20/s beside the load, on 1 standing connection\n",
        ),
        (
            &["--probe", "20", "--probe-connections", "3", "--probe-source-ip", "127.0.2.1"],
            "Probe: 20/s beside the load, on 3 standing connections from 127.0.2.1/32\n",
        ),
    ] {
        let run = stress(&[&load[..], probe].concat());
        assert!(run.code == 0 && run.stdout.contains(says), "{run:?}");
    }
    for (args, says) in [
        (&["--probe-connections", "3"][..], "--probe"),
        (&["--probe", "5", "--probe-connections", "1M"], "--probe-connections: 1 to 10000"),
        (&["--probe", "5", "--probe-source-ip", "::1"], "IPv4 or IPv6"),
        (&["--probe", "20k"], "--probe: more than 0 and at most 10000"),
    ] {
        let run = stress(&[&load[..], args].concat());
        assert!(run.code == 2 && run.stderr.contains(says), "{args:?}: {run:?}");
    }
}
