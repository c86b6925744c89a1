//! The peers serve, the load client counts, and the report is what the results say.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn bench(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-bench")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Runs a quick comparison; the outcome of each server by its name.
fn quick(args: &[&str]) -> Vec<(String, Value)> {
    let args = [&["quick"], args, &["--repeat", "1", "--duration", "500ms", "--json"]].concat();
    let (ok, out, err) = bench(&args);
    assert!(ok, "{err}");
    let comparison: Value = serde_json::from_str(&out).unwrap();
    let servers =
        comparison["servers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    servers.enumerate().map(|(at, name)| (name, comparison["samples"][at][0]["outcome"].clone())).collect()
}

fn assert_all_replied(outcomes: &[(String, Value)], servers: usize) {
    assert_eq!(outcomes.len(), servers);
    for (name, outcome) in outcomes {
        assert!(outcome["replies"].as_u64().unwrap() > 0, "{name}: {outcome}");
        let errors = outcome["errors"].as_object().unwrap();
        assert!(errors.values().all(|count| count == 0), "{name}: {outcome}");
        assert!(outcome["p50"].as_f64().unwrap() > 0.0 && outcome["p99"].as_f64() >= outcome["p50"].as_f64());
    }
}

#[test]
fn every_peer_echoes_what_comes_in_small_and_large() {
    for size in ["64", "65536"] {
        let servers = "epoll,tokio,tokio-4k,thread,pool,python,asyncio";
        assert_all_replied(&quick(&["echo", "-c", "4", "--size", size, "--servers", servers]), 7);
    }
}

#[test]
fn every_peer_serves_connections_that_come_and_go() {
    let servers = "epoll,tokio,thread,pool,python";
    assert_all_replied(&quick(&["churn", "-c", "4", "--servers", servers]), 5);
}

#[test]
fn datagrams_come_back_and_the_time_is_told() {
    for mode in ["echo", "time"] {
        assert_all_replied(&quick(&["udp", "-c", "2", "--mode", mode, "--servers", "udp,python"]), 2);
        let crowd = ["udp", "-c", "1", "--in-flight", "32", "--mode", mode, "--servers", "udp,python"];
        assert_all_replied(&quick(&crowd), 2);
    }
}

/// A peer that runs until it is dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_peer_that_speaks_http_answers_on_connections_that_stay() {
    assert_all_replied(&quick(&["http", "-c", "4", "--servers", "http,hyper"]), 2);
}

#[test]
fn the_http_peer_answers_every_request_of_a_pipeline() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"));
    let mut peer = Peer(command.args(["peer", "http"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(peer.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let mut stream = TcpStream::connect(said.trim().rsplit_once('/').unwrap().1).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r").unwrap();
    stream.write_all(b"\nGET / HTTP/1.1").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n";
    assert_eq!(replies.matches(one).count(), 3, "{replies}");
    assert_eq!(replies.len() % 3, 0, "{replies}");
}

#[test]
fn the_peer_for_lines_answers_whole_lines_and_says_how_it_ended() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-bench"));
    command.args(["peer", "lines", "--mode", "work-cpu:1ms"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut peer = Peer(command.spawn().unwrap());
    let mut out = BufReader::new(peer.0.stdout.take().unwrap());
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    let mut stream = TcpStream::connect(said.trim().rsplit_once('/').unwrap().1).unwrap();
    stream.write_all(b"one\ntwo\n").unwrap();
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"one\ntwo\n");
    peer.0.stdin.as_mut().unwrap().write_all(b"end 500\n").unwrap();
    said.clear();
    out.read_line(&mut said).unwrap();
    assert!(said.starts_with("ended: drained 1 connection"), "{said}");
    assert!(peer.0.wait().unwrap().success());
}

#[test]
fn a_scene_counts_every_second_and_says_which_server_was_not_measured() {
    let args = ["scene", "crowd", "--servers", "epoll,asyncio,nowhere"];
    let (ok, out, err) = bench(&[&args[..], &["--json"]].concat());
    assert!(ok, "{err}");
    let played: Value = serde_json::from_str(&out).unwrap();
    for server in 0..2 {
        let crowd = &played["servers"][server]["runs"][0]["groups"][0];
        assert_eq!(crowd["stages"][0]["asked"], 1_000, "{crowd}");
        assert_eq!(crowd["stages"][0]["useful"], 1_000, "{crowd}");
        assert_eq!(crowd["seconds"].as_array().unwrap().len(), 4, "{crowd}");
    }
    let missing = &played["servers"][2];
    assert!(missing["missing"].as_str().unwrap().contains("nowhere"), "{missing}");
    assert_eq!(missing["runs"].as_array().unwrap().len(), 0);
}

#[test]
fn what_stands_in_front_of_a_service_is_measured_or_reported_with_its_reason() {
    let run = ["--servers", "relay,tokio-relay,nowhere", "--repeat", "1", "--duration", "500ms"];
    let (ok, out, err) = bench(&[&["gate", "echo-32"], &run[..], &["--json"]].concat());
    assert!(ok, "{err}");
    let comparison: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(comparison["servers"], serde_json::json!(["relay", "tokio-relay"]));
    for samples in comparison["samples"].as_array().unwrap() {
        assert!(samples[0]["outcome"]["replies"].as_u64().unwrap() > 0, "{samples}");
        assert_eq!(samples[0]["outcome"]["errors"]["reset"], 0, "{samples}");
    }
    let (ok, out, err) = bench(&[&["gate", "churn"], &run[..]].concat());
    assert!(ok, "{err}");
    assert!(out.contains("nowhere: not measured: nowhere did not start"), "{out}");
    assert!(
        out.contains("goal: through the gate: connect, 64 bytes, close; 32 at once: CPU a request"),
        "{out}"
    );
}

#[test]
fn the_reset_peer_refuses_everybody() {
    assert_all_replied(&quick(&["refuse", "-c", "4", "--servers", "reset"]), 1);
}

/// Twenty-five in 500 ms are asked for: all are answered, each after its 5 ms of work and none before it was due.
#[test]
fn the_open_loop_keeps_its_rate_and_counts_from_the_intended_instant() {
    let work = ["open", "-r", "50", "--mode", "work-sleep:5ms", "--servers", "thread,tokio"];
    let outcomes = quick(&work);
    assert_all_replied(&outcomes, 2);
    for (name, outcome) in outcomes {
        // One at either end may fall on the other side of it.
        let requests = outcome["requests"].as_u64().unwrap();
        assert!((24..=26).contains(&requests) && outcome["replies"] == requests, "{name}: {outcome}");
        assert!(outcome["p50"].as_f64().unwrap() >= 0.005, "{name}: {outcome}");
    }
}

/// A server that takes longer than a client waits has done nothing useful.
#[test]
fn a_reply_after_the_clients_patience_is_of_no_use() {
    let work = ["open", "-r", "20", "--mode", "work-sleep:1200ms", "--servers", "thread"];
    let outcomes = quick(&work);
    assert_eq!(outcomes[0].1["replies"], 0);
    assert_eq!(outcomes[0].1["errors"]["timeout"], outcomes[0].1["requests"]);
}

#[test]
fn errors_say_what_to_do() {
    let (ok, _, err) = bench(&["quick", "echo", "--tidegate", "/nowhere/tidegate"]);
    assert!(!ok && err.contains("/nowhere/tidegate is not there: build it"), "{err}");
    let (ok, _, err) = bench(&["render", "--out", "/nowhere"]);
    assert!(!ok && err.contains("/nowhere/benchmarks.json: measure first"), "{err}");
    let (ok, _, err) = bench(&["quick", "echo", "--duration", "2"]);
    assert!(!ok && err.contains("write it like 2s or 500ms"), "{err}");
}

/// What is in the repository is what `render` makes of the results in it.
#[test]
fn the_report_is_what_the_results_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::copy(docs.join("benchmarks.json"), out.join("benchmarks.json")).unwrap();
    let (ok, _, err) = bench(&["render", "--out", out.to_str().unwrap()]);
    assert!(ok, "{err}");
    for file in ["benchmarks.md", "img/survival.svg", "img/echo.svg", "img/memory.svg"] {
        let (kept, made) =
            (std::fs::read_to_string(docs.join(file)), std::fs::read_to_string(out.join(file)));
        assert_eq!(kept.unwrap(), made.unwrap(), "{file} is stale: run `tidegate-bench render`");
    }
}

/// What could not be measured is in the report, with the reason.
#[test]
fn without_wrk_the_report_says_so() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-wrk");
    std::fs::create_dir_all(&out).unwrap();
    let kept = std::fs::read_to_string(docs.join("benchmarks.json")).unwrap();
    let mut results: Value = serde_json::from_str(&kept).unwrap();
    results["wrk"] = false.into();
    results["clients_http"] = serde_json::json!({});
    results["clients_churn"] = serde_json::json!({ "stress": [90.0], "other": [100.0] });
    std::fs::write(out.join("benchmarks.json"), results.to_string()).unwrap();
    let (ok, _, err) = bench(&["render", "--out", out.to_str().unwrap()]);
    assert!(ok, "{err}");
    let page = std::fs::read_to_string(out.join("benchmarks.md")).unwrap();
    let lines = |start: &str| page.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    let goals = lines("| `tidegate stress` over http");
    assert_eq!(goals.len(), 3, "{page}");
    assert!(goals.iter().all(|line| line.contains("| not measured: wrk is not installed |")), "{goals:?}");
    assert!(lines("| http | not measured: wrk is not installed |").len() == 1, "{page}");
    let churn = lines("| `tidegate stress --reuse never`");
    assert!(churn.len() == 1 && churn[0].contains("at least 0.90 | 0.90, met"), "{churn:?}");
}
