//! `tidegate stress` as a program: wrong input, exit codes, thresholds, files, kept reports, signals.

#[path = "support/stress_server.rs"]
mod support;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Behaviour, Full, Server, command, count, report, spawn, stress, wait_within};

/// A port of this machine on which nothing listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn temporary(name: &str) -> String {
    let path = format!("{}/cli-{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    path
}

/// Runs the program: its code, one clear line that says this, and no panic.
#[track_caller]
fn assert_refused(args: &[&str], code: i32, says: &str) {
    let began = Instant::now();
    let run = stress(args);
    assert_eq!(run.code, code, "{args:?}: {run:?}");
    assert!(run.stderr.contains(says), "{args:?}: {run:?}");
    let lines = run.stderr.lines().filter(|line| !line.is_empty()).count();
    // Usage errors end with a hint at --help; all else is one line.
    assert!(code == 2 || lines == 1, "{args:?}: {run:?}");
    assert!(!run.stderr.contains("panicked"), "{args:?}: {run:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "{args:?} took {:?}", began.elapsed());
}

#[test]
fn a_target_that_is_none_gets_one_clear_line_and_the_right_code() {
    let refused = format!("tcp://127.0.0.1:{}", closed_port());
    let refused_http = refused.replace("tcp", "http");
    let refused_udp = refused.replace("tcp", "udp");
    for (args, code, says) in [
        (&[&refused[..]][..], 1, "nothing listens at 127.0.0.1"),
        (&[&refused, "-n", "3"], 1, "nothing listens at 127.0.0.1"),
        (&[&refused, "-n", "1", "-c", "1"], 1, "nothing listens at 127.0.0.1"),
        (&[&refused, "-n", "2", "-c", "1", "--reuse", "never"], 1, "nothing listens at 127.0.0.1"),
        (&[&refused, "-r", "1000"], 1, "nothing listens at 127.0.0.1"),
        (&[&refused_http], 1, "nothing listens at 127.0.0.1"),
        (&[&refused_udp, "-d", "1s"], 1, "nothing listens at 127.0.0.1"),
        (&["tcp://no-such-host.invalid:5000"], 1, "no-such-host.invalid"),
        (&["127.0.0.1:5000"], 2, "tcp://127.0.0.1:5000"),
        (&["ftp://127.0.0.1:5000"], 2, "tcp://, udp:// or http://"),
        (&["tcp://127.0.0.1"], 2, "no port"),
        (&["tcp://127.0.0.1:0"], 2, "port 0"),
        (&[], 2, "required"),
    ] {
        assert_refused(args, code, says);
    }
}

#[test]
fn an_option_that_is_wrong_gets_one_clear_line_and_the_right_code() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    for (args, code, says) in [
        (&[&url, "-r", "0"][..], 2, "--rate: it must be more than 0"),
        (&[&url, "-r", "fast"], 2, "not a rate"),
        (&[&url, "-r", "1e12"], 2, "--rate: at most"),
        (&[&url, "-d", "10"], 2, "not a time"),
        (&[&url, "-d", "0s"], 2, "--duration"),
        (&[&url, "-d", "18446744073709551615s"], 2, "a year"),
        (&[&url, "--warmup", "1000y"], 2, "a year"),
        (&[&url, "--think", "1000y"], 2, "a year"),
        (&[&url, "--stages", "360d:1,360d:1"], 2, "a year"),
        (&[&url, "--stages", "1s:5", "--think", "5ms"], 2, "cannot be used with"),
        (&[&url, "-c", "0"], 2, "at least 1"),
        (&[&url, "-c", "many"], 2, "not a count"),
        (&[&url, "-t", "0s"], 2, "--timeout"),
        (&[&url, "--size", "64XB"], 2, "not a size"),
        (&[&url, "--size", "1GiB"], 2, "--size: at most"),
        (&[&url, "--reuse", "sometimes"], 2, "forever, never"),
        (&[&url, "--data", "\\q"], 2, "escape"),
        (&[&url, "--stages", "10s"], 2, "list of stages"),
        (&[&url, "--stages", "1s:0"], 2, "nothing would ever be sent"),
        (&[&url, "--think", "5ms", "-r", "10"], 2, "cannot be used with"),
        (&[&url, "--threshold", "p99=5ms"], 2, "not a threshold"),
        (&[&url, "--threshold", "probe.p99<5ms"], 2, "no --probe"),
        (&[&url, "--source-ip", "127.0.0.1/99"], 2, "127.0.1.0/24"),
        (&[&url, "--source-ip", "::1"], 2, "IPv4 or IPv6"),
        (&[&url, "--source-ip", "192.0.2.1"], 1, "--source-ip"),
        (&[&url, "--mode", "hold", "-n", "5"], 2, "-d, not -n"),
        (&[&url, "--mode", "hold", "--warmup", "1s"], 2, "--warmup"),
        (&["udp://127.0.0.1:9", "--mode", "hold"], 2, "udp has none"),
        (&["udp://127.0.0.1:9", "--size", "70000"], 2, "a datagram has at most"),
        (&[&url, "--noise", "a lot"], 2, "not a share"),
        (&[&url, "--threads", "100"], 2, "--threads: at most"),
        (&[&url, "-c", "1M"], 1, "descriptors"),
    ] {
        assert_refused(args, code, says);
    }
}

#[test]
fn a_file_that_is_wrong_gets_one_clear_line_and_the_right_code() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    for (args, code, says) in [
        (&[&url, "--data-file", "/no/such/file"][..], 1, "/no/such/file"),
        (&[&url, "--lines", "/dev/null"], 1, "/dev/null"),
        (&[&url, "--hlog", "/no/such/dir/x"], 1, "/no/such/dir/x"),
        (&[&url, "--html", "/no/such/dir/x"], 1, "/no/such/dir/x"),
        (&[&url, "--baseline", "/no/such/file"], 1, "/no/such/file"),
        (&["report", "/no/such/file"], 1, "/no/such/file"),
        (&["report", "Cargo.toml"], 1, "no whole report"),
        (&["compare", "/no/such/file"], 2, "2"),
        (&["merge"], 2, "required"),
    ] {
        assert_refused(args, code, says);
    }
}

#[test]
fn a_host_that_does_not_answer_is_said_soon() {
    let full = Full::start();
    let began = Instant::now();
    let run = stress(&[&full.url(), "-c", "10k", "--connect-timeout", "200ms"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("does not answer within 200ms"), "{run:?}");
    // 10,000 clients, 256 at a time, would take eight seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_name_is_taken_for_its_addresses_that_the_sources_reach() {
    use std::net::ToSocketAddrs;
    let server = Server::start(Behaviour::Echo);
    let url = format!("tcp://localhost:{}", server.address.port());
    let run = stress(&[&url, "-n", "4", "-c", "2", "--source-ip", "127.0.0.2"]);
    assert_eq!(run.code, 0, "{run:?}");
    let run = stress(&[&url, "-n", "4", "-c", "2", "--source-ip", "::1"]);
    let says = match ("localhost", 1).to_socket_addrs().unwrap().any(|address| address.is_ipv6()) {
        true => "nothing listens",
        false => "localhost has no address of the kind of --source-ip",
    };
    assert!(run.code == 1 && run.stderr.contains(says), "{run:?}");
}

#[test]
fn descriptors_and_ports_that_would_not_do_are_said_before_the_run() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    let run = stress(&[&url, "-c", "25k"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("descriptors") && run.stderr.contains("ask for at most"), "{run:?}");
    assert_eq!(server.accepted(), 0);
    // A limit of 300 descriptors stands for a smaller machine.
    let shell = format!("ulimit -n 300; exec {} stress {url} -c 500 -n 500", env!("CARGO_BIN_EXE_tidegate"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("500 connections need") && stderr.contains("300"), "{stderr}");
}

/// Runs a script where the kernel gives only ten ports to outgoing connections: a network namespace of its own.
fn with_ten_ports(script: &str) -> std::process::Output {
    let script = format!(
        "ip link set lo up && echo '40000 40009' > /proc/sys/net/ipv4/ip_local_port_range && {script}"
    );
    std::process::Command::new("unshare")
        .args(["-rn", "sh", "-c", &script])
        .output()
        .unwrap_or_else(|error| panic!("tests/setup.sh installs unshare: {error}"))
}

#[test]
fn ports_that_end_are_said() {
    let tidegate = env!("CARGO_BIN_EXE_tidegate");
    let output = with_ten_ports(&format!("exec {tidegate} stress tcp://127.0.0.1:9 -c 20 -n 20"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr.contains("10 ports") && stderr.contains("--source-ip"), "{stderr}");
    // Connections closed by this side keep their ports for a while: of 100 some find none.
    let output = with_ten_ports(&beside_a_server("-c 5 -n 100 --reuse never --close fin"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout.contains("address_unavailable") && stdout.contains("generator-limited"), "{stdout}");
    assert!(stdout.contains("found no free port: use --reuse, --close rst or --source-ip"), "{stdout}");
}

/// A script that puts this load on a server of its own.
fn beside_a_server(load: &str) -> String {
    let tidegate = env!("CARGO_BIN_EXE_tidegate");
    format!(
        "{tidegate} --listen echo=tcp://127.0.0.1:5000 --admin off >/dev/null 2>&1 & server=$!; \
         until {tidegate} stress tcp://127.0.0.1:5000 -c 1 -n 1 --close rst >/dev/null 2>&1; do sleep 0.05; done; \
         {tidegate} stress tcp://127.0.0.1:5000 {load}; code=$?; kill $server; exit $code"
    )
}

/// Of the server nothing is known beyond the rate at which the generator had no port left.
#[test]
fn a_search_that_meets_the_limit_of_the_generator_says_so() {
    let search = "--find-max 'p50<2s' -r 4 -d 500ms --warmup 0s -c 5 --reuse never --close fin --strict";
    let output = with_ten_ports(&beside_a_server(search));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().find(|line| line.starts_with("Maximum"));
    let line = line.unwrap_or_else(|| panic!("no rate was searched: {output:?}"));
    assert!(line.contains("at least ") && line.contains("generator was the limit, not the server"), "{line}");
    assert_eq!(output.status.code(), Some(3), "{stdout}");
}

#[test]
fn thresholds_decide_the_exit_code() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    for (threshold, code) in [
        ("p99<5s", 0),
        ("p99<1ns", 99),
        ("error_rate<0.1%", 0),
        ("rate>1M", 99),
        ("reset<1", 0),
        ("service.p50>=1ns", 0),
        ("connect.max<1h", 0),
        ("lag_p99<1s", 99),
    ] {
        let run = stress(&[&url, "-n", "50", "-c", "2", "--threshold", threshold]);
        // A closed loop has no lag: what was not measured does not pass.
        assert_eq!(run.code, code, "{threshold}: {run:?}");
        let verdict = if code == 0 { "ok" } else { "FAILED" };
        assert!(run.stdout.contains(&format!("{verdict} {threshold}")), "{run:?}");
    }
}

#[test]
fn the_text_is_one_screen_with_the_plan_beside_what_happened() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    let run = stress(&[&url, "-d", "500ms", "--warmup", "100ms", "-r", "200", "-c", "5"]);
    assert_eq!(run.code, 0, "{run:?}");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert!(lines.len() <= 24 && lines.iter().all(|l| l.len() <= 110), "{run:?}");
    let headline = format!("stress: {url}  open 200/s uniform, 5 connections, 500ms (+100ms warmup)");
    assert_eq!(lines[0], headline);
    assert!(lines[1].starts_with("Offered 100 (") && lines[1].contains("/s)  Sent "), "{}", lines[1]);
    for word in ["response", "service", "connect", "Outcomes   ok ", "Generator  cpu"] {
        assert!(run.stdout.contains(word), "{word}: {run:?}");
    }
    assert_eq!(run.stderr, "", "a short run off a terminal is silent");
}

#[test]
fn stages_go_up_and_down() {
    let server = Server::start(Behaviour::Echo);
    let (code, report) = report(&[&server.url(), "--stages", "500ms:400,500ms:400,500ms:0", "-c", "5"]);
    // 100 while it rises, 200 on top, 100 while it falls.
    assert_eq!((code, &report["offered"]), (0, &400.into()), "{report:#}");
    let points = report["timeline"].as_array().unwrap();
    let offered: u64 = points.iter().map(|p| p["offered"].as_u64().unwrap()).sum();
    assert_eq!(offered, 400);
}

#[test]
fn the_highest_rate_is_searched() {
    let server = Server::start(Behaviour::Echo);
    let args = [
        &server.url(),
        "--find-max",
        "p50<2s",
        "-d",
        "100ms",
        "--warmup",
        "0s",
        "-r",
        "50",
        "-c",
        "4",
        "-t",
        "1s",
    ];
    let run = stress(&[&args[..], &["-o", "json"]].concat());
    let report = run.json();
    let search = &report["find_max"];
    let trials = search["trials"].as_array().unwrap();
    assert!(trials.len() >= 3, "{search:#}");
    let passed = trials.iter().filter(|t| t["passed"] == true);
    let best = passed.map(|t| t["rate"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!((run.code, search["rate"].as_f64()), (0, Some(best)), "{search:#}");
    assert!(trials.iter().any(|t| t["passed"] == false), "{search:#}");

    let silent = Server::start(Behaviour::Garbage);
    let run = stress(&[&silent.url(), "--find-max", "p50<2s", "-d", "50ms", "--warmup", "0s", "-r", "4"]);
    assert_eq!(run.code, 1, "{run:?}");
}

#[test]
fn a_search_survives_its_server() {
    let server = Server::start(Behaviour::Echo);
    let (url, table, log) = (server.url(), temporary("search.csv"), temporary("search.hlog"));
    let args = ["--find-max", "p50<2s", "-d", "300ms", "--warmup", "0s", "-r", "50", "-c", "4", "-o", "json"];
    let child = spawn(&[&[&url[..], "--csv", &table, "--hlog", &log], &args[..]].concat());
    // The table has a row as soon as the first trial was made.
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&table).unwrap_or_default().lines().count() < 2 {
        assert!(Instant::now() < end, "no trial was made");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(server);
    let run = wait_within(child, Duration::from_secs(60));
    let report = run.json();
    support::check_sums(&report);
    let trials = report["find_max"]["trials"].as_array().unwrap();
    // On a busy machine even the first trial may not be valid.
    let code = if report["find_max"]["rate"].is_null() { 99 } else { 0 };
    assert_eq!(run.code, code, "{run:?}");
    assert!(trials.iter().any(|trial| trial["verdict"] == "nothing-done"), "{report:#}");
    assert!(count(&report, "ok") > 0, "the report is that of the best trial: {report:#}");
}

#[test]
fn the_trials_of_a_search_follow_each_other_in_time() {
    let server = Server::start(Behaviour::Echo);
    let (table, log) = (temporary("trials.csv"), temporary("trials.hlog"));
    let args = ["--find-max", "p50<1ns", "-d", "200ms", "--warmup", "0s", "-r", "60", "-c", "4"];
    let run = stress(&[&[&server.url()[..], "--csv", &table, "--hlog", &log], &args[..]].concat());
    assert_eq!(run.code, 99, "{run:?}");
    for (path, comment) in [(&table, "at_seconds"), (&log, "#")] {
        let text = std::fs::read_to_string(path).unwrap();
        let lines =
            text.lines().filter(|l| ![comment, "\"", "Tag="].iter().any(|begin| l.starts_with(begin)));
        let times: Vec<(f64, f64)> = lines
            .map(|line| {
                let mut columns = line.split(',').map(|column| column.parse().unwrap());
                (columns.next().unwrap(), columns.next().unwrap())
            })
            .collect();
        assert!(times.len() >= 3, "{text}");
        // Times are rounded to milliseconds.
        let follow = |pair: &[(f64, f64)]| pair[0].0 + pair[0].1 <= pair[1].0 + 0.002;
        assert!(times.windows(2).all(follow), "{text}");
    }
}

#[test]
fn files_hold_what_the_report_says() {
    let server = Server::start(Behaviour::Echo);
    let (hlog, csv, html) = (temporary("a.hlog"), temporary("a.csv"), temporary("a.html"));
    let (code, report) = report(&[
        &server.url(),
        "-r",
        "300",
        "-d",
        "2s",
        "--warmup",
        "0s",
        "--hlog",
        &hlog,
        "--csv",
        &csv,
        "--html",
        &html,
        "--threshold",
        "p99<5s",
    ]);
    assert_eq!(code, 0, "{report:#}");

    let table = std::fs::read_to_string(&csv).unwrap();
    let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() >= 2 && rows.iter().all(|row| row.len() == header.len()), "{table}");
    let sum = |name| rows.iter().map(|row| row[column(name)].parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!((sum("offered"), &sum("ok").into()), (600, &report["done"]), "{table}");

    let log = std::fs::read_to_string(&hlog).unwrap();
    assert!(log.contains("#[Histogram log format version 1.3]\n"), "{log}");
    assert!(log.lines().filter(|line| line.starts_with("Tag=service,")).count() >= 2, "{log}");

    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(page.matches("<svg").count(), 3);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    // Self-contained: nothing in it is loaded from anywhere, and no plot has a number that is none.
    for word in ["src=", "href=", "@import", "url(", "<script", "NaN", "inf "] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn the_histogram_log_is_read_alike_by_another_language() {
    let python = match std::env::var("TIDEGATE_TEST_PYTHON") {
        Ok(python) => python,
        Err(_) => concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python").to_owned(),
    };
    let server = Server::start(Behaviour::Echo);
    let hlog = temporary("python.hlog");
    let (code, report) = report(&[&server.url(), "-r", "400", "-d", "2s", "--warmup", "0s", "--hlog", &hlog]);
    assert_eq!(code, 0, "{report:#}");
    let script = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
total = HdrHistogram(1, 3600000000000, 3)
reader = HistogramLogReader(sys.argv[1], total)
while True:
    one = reader.get_next_interval_histogram()
    if one is None:
        break
    if not one.get_tag():
        total.add(one)
print(total.get_total_count(), *[total.get_value_at_percentile(p) for p in (50, 90, 95, 99, 100)])
";
    let output = std::process::Command::new(&python).args(["-c", script, &hlog]).output();
    let output =
        output.unwrap_or_else(|error| panic!("tests/setup.sh installs what this needs: {python}: {error}"));
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let numbers: Vec<u64> = said.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 6, "{said}{errors}");
    let response = &report["latency"]["response"];
    assert_eq!(numbers[0], response["count"], "{said}");
    for (n, name) in ["p50", "p90", "p95", "p99", "max"].iter().enumerate() {
        let ours = response[name].as_f64().unwrap() * 1e9;
        let theirs = numbers[n + 1] as f64;
        // Both keep three digits.
        assert!((ours - theirs).abs() <= ours * 0.001 + 1.0, "{name}: {ours} and {theirs}");
    }
}

#[test]
fn reports_are_kept_compared_and_merged() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    let keep = |name: &str, args: &[&str]| {
        let path = temporary(name);
        let run = stress(&[&[&url, "-o", "json"], args].concat());
        assert_eq!(run.code, 0, "{run:?}");
        std::fs::write(&path, &run.stdout).unwrap();
        (path, run)
    };
    let (one, first) = keep("one.json", &["-n", "300", "-c", "3"]);
    let (two, second) = keep("two.json", &["-n", "200", "-c", "2", "--think", "5ms"]);

    let shown = stress(&["report", &one]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.stdout.starts_with(&format!("stress: {url}  closed loop")), "{shown:?}");
    let again = stress(&["report", &one, "-o", "json"]);
    assert_eq!(again.stdout, first.stdout, "a report survives its reading");
    assert_eq!(stress(&["report", &one, "--threshold", "p50<1ns"]).code, 99);

    let merged = stress(&["merge", &one, &two, "-o", "json"]).json();
    support::check_sums(&merged);
    assert_eq!((&merged["done"], &merged["plan"]["connections"]), (&500.into(), &5.into()), "{merged:#}");
    let max = |report: &serde_json::Value| report["latency"]["response"]["max"].as_f64().unwrap();
    let both = max(&first.json()).max(max(&second.json()));
    assert_eq!((max(&merged), &merged["latency"]["response"]["count"]), (both, &500.into()));

    // Of the verdicts the worse counts, in whichever order.
    assert_eq!(
        (&first.json()["verdict"], &second.json()["verdict"]),
        (&"server-limited".into(), &"kept-up".into())
    );
    for files in [[&one, &two], [&two, &one]] {
        let merged = stress(&["merge", files[0], files[1], "-o", "json"]).json();
        assert_eq!(merged["verdict"], "server-limited", "{merged:#}");
    }

    let same = stress(&["compare", &one, &one]);
    assert!(!same.stdout.contains("differ:"), "{same:?}");
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.contains("same") && !same.stdout.contains("WORSE"), "{same:?}");
    // With a pause between requests the rate is far lower.
    let worse = stress(&["compare", &one, &two, "--noise", "5%"]);
    assert_eq!(worse.code, 99, "{worse:?}");
    assert!(worse.stdout.lines().any(|l| l.starts_with("rate") && l.ends_with("WORSE")), "{worse:?}");

    assert!(worse.stdout.contains("The plans differ: connections was 3 and is 2\n"), "{worse:?}");
    let interrupted = temporary("interrupted.json");
    let text = first.stdout.replace("\"valid\": true", "\"valid\": false");
    std::fs::write(&interrupted, text.replace("server-limited", "generator-limited")).unwrap();
    let doubtful = stress(&["compare", &interrupted, &one, "-o", "json"]);
    assert_eq!(doubtful.stderr, "The run before was not valid: generator-limited\n", "{doubtful:?}");
    assert!(doubtful.json().is_array(), "{doubtful:?}");

    let base = stress(&[&url, "-n", "100", "-c", "2", "--think", "20ms", "--baseline", &one]);
    assert_eq!(base.code, 99, "{base:?}");
    let wide = stress(&[&url, "-n", "300", "-c", "3", "--baseline", &one, "--noise", "1000"]);
    assert_eq!(wide.code, 0, "{wide:?}");
}

#[test]
fn an_interrupted_run_reports_what_it_did() {
    let server = Server::start(Behaviour::Echo);
    let table = temporary("interrupted.csv");
    let mut child =
        command(&[&server.url(), "-r", "200", "-d", "60s", "--warmup", "0s", "-o", "json", "--csv", &table])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    // The table has a row as soon as a second was measured.
    let end = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&table).unwrap_or_default().contains(",measured,") {
        assert!(Instant::now() < end, "no second was measured");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(105), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    support::check_sums(&report);
    assert!(report["interrupted"] == true && count(&report, "ok") > 50, "{report:#}");
    assert_eq!((&report["verdict"], &report["valid"]), (&"interrupted".into(), &false.into()), "{report:#}");
    assert!(report["elapsed"].as_f64().unwrap() < 30.0, "{report:#}");
}

#[test]
fn a_run_interrupted_before_it_connected_reports_too() {
    let full = Full::start();
    let table = temporary("unconnected.csv");
    let args = ["--mode", "hold", "-c", "20", "-d", "60s", "--connect-timeout", "30s", "-o", "json", "--csv"];
    let child = spawn(&[&[&full.url()[..]], &args[..], &[&table]].concat());
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&table).unwrap_or_default().lines().count() < 2 {
        assert!(Instant::now() < end, "no second was measured");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run = wait_within(child, Duration::from_secs(10));
    let report = run.json();
    support::check_sums(&report);
    assert_eq!((run.code, count(&report, "unanswered_at_end")), (105, 20), "{run:?}");
}

#[test]
fn a_report_that_nobody_reads_is_no_failure_and_one_that_cannot_be_written_is() {
    let server = Server::start(Behaviour::Echo);
    for (threshold, code) in [("p99<5s", 0), ("p99<1ns", 99)] {
        let mut child = command(&[&server.url(), "-n", "2000", "-c", "2", "--threshold", threshold])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(code), 0), "{output:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&[&server.url(), "-n", "20", "-c", "2"]).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.starts_with("tidegate: cannot write the report"),
        "{said}"
    );
}

#[test]
fn a_run_of_which_the_generator_was_the_limit_is_not_valid_with_strict() {
    let server = Server::start(Behaviour::Echo);
    // A rate that no single thread makes.
    let run = stress(&[&server.url(), "-r", "5M", "-d", "1s", "--warmup", "0s", "--strict", "-o", "json"]);
    let report = run.json();
    support::check_sums(&report);
    assert_eq!((run.code, &report["valid"]), (3, &false.into()), "{report:#}");
    assert_eq!(report["verdict"], "generator-limited", "{report:#}");
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    use rustix::process::{Pid, Signal, kill_process};
    let server = Server::start(Behaviour::Echo);
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT), ("TERM", Signal::TERM)] {
        let table = temporary(&format!("ignored-{name}.csv"));
        let mut shell = std::process::Command::new("/bin/sh");
        let script = format!("trap '' {name}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate"), "stress", &server.url()]);
        shell.args(["-c", "2", "-r", "50", "-d", "2s", "--warmup", "0s", "-o", "json", "--csv", &table]);
        let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&table).unwrap_or_default().contains(",measured,") {
            assert!(Instant::now() < end, "no second was measured");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let run = wait_within(child, Duration::from_secs(20));
        assert_eq!((run.code, &run.json()["interrupted"]), (0, &false.into()), "{name}: {run:?}");
    }
}
