//! What the stress client says of time, of its own limits, and of its size. These tests measure, so they run one
//! after the other.

#[path = "support/stress_server.rs"]
mod support;

use std::process::Stdio;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use support::{Behaviour, Server, command, report};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_stalling_server_shows_in_the_response_time() {
    let _alone = alone();
    let server = Server::start(Behaviour::Stall(Duration::from_secs(4), Duration::from_secs(1)));
    let (_, report) = report(&[&server.url(), "-r", "200", "-c", "8", "-d", "8s", "--warmup", "0s"]);
    let p95 = |latency: &str| report["latency"][latency]["p95"].as_f64().unwrap();
    // A quarter of the requests meet a stall and wait evenly between 0 and 1 s: a twentieth of all wait over 0.8 s.
    assert!((0.72..=0.88).contains(&p95("response")), "{report:#}");
    // Only the eight requests that were on their way when a stall began show it when counted from sending.
    assert!(p95("service") < 0.1, "{report:#}");
    assert_eq!(report["offered"], 1600);
    assert_eq!(report["done"].as_u64().unwrap() + report["unsent"].as_u64().unwrap(), 1600, "{report:#}");
}

#[test]
fn a_starved_generator_is_called_the_limit() {
    let _alone = alone();
    let server = Server::start(Behaviour::Echo);
    let child = command(&[&server.url(), "-r", "500", "-d", "3s", "--warmup", "0s", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // Stopped for 150 ms of every 200 ms, as on a machine with too much to do.
    let starving = std::thread::spawn(move || {
        use rustix::process::{Signal, kill_process};
        for _ in 0..18 {
            std::thread::sleep(Duration::from_millis(50));
            if kill_process(pid, Signal::STOP).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(150));
            let _ = kill_process(pid, Signal::CONT);
        }
    });
    let output = child.wait_with_output();
    starving.join().unwrap();
    let output = output.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    support::check_sums(&report);
    assert_eq!(
        (&report["verdict"], &report["valid"]),
        (&"generator-limited".into(), &false.into()),
        "{report:#}"
    );
    assert!(report["generator"]["lag_p99"].as_f64().unwrap() > 0.05, "{report:#}");
    // It does not catch up: what it noticed too late is counted, and not sent in a burst.
    assert!(report["outcomes"]["skipped"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_server_that_has_no_room_is_called_the_limit() {
    let _alone = alone();
    let server = Server::start(Behaviour::Stall(Duration::from_millis(500), Duration::from_millis(499)));
    let (_, report) =
        report(&[&server.url(), "-r", "2000", "-c", "4", "-d", "3s", "--warmup", "0s", "-t", "2s"]);
    assert_eq!(
        (&report["verdict"], &report["valid"]),
        (&"server-limited".into(), &true.into()),
        "{report:#}"
    );
    assert!(report["unsent"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn fifteen_thousand_connections_are_held_in_64_mib() {
    let _alone = alone();
    let server = Server::start(Behaviour::Echo);
    let server_url = server.url();
    // Time enough for the kernel to ask again where this machine is too busy to accept at once: it does so after 1, 3, and
    // 7 seconds.
    let args = ["--mode", "hold", "-c", "15k", "-d", "11s", "--connect-timeout", "10s", "-o", "json"];
    let child = command(&[&[&server_url[..]], &args[..]].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let (output, peak) = peak(child);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["done"], 15_000, "{report:#}");
    assert_eq!(server.accepted(), 15_000);
    assert!((1..64 << 10).contains(&peak), "{peak} KiB");
}

/// Waits for a program's end: its output, and the most memory it had, in KiB.
fn peak(child: std::process::Child) -> (std::process::Output, u64) {
    let status = format!("/proc/{}/status", child.id());
    let peak = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(&status) {
            let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) else {
                break;
            };
            peak = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    (output, peak.join().unwrap())
}

#[test]
fn sixteen_threads_leave_room_for_connections() {
    let _alone = alone();
    let server = Server::start(Behaviour::Echo);
    let peak_of = |threads: &str| {
        let args =
            ["-r", "2000", "-c", "64", "-d", "3s", "--reuse", "20", "--probe", "10", "--threads", threads];
        let child =
            command(&[&[&server.url()[..]], &args[..]].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let (output, peak) = peak(child);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        peak
    };
    let (one, sixteen) = (peak_of("1"), peak_of("16"));
    // Of 64 MiB; 15,000 connections take less than the rest. The program itself is larger without optimizations.
    let most = if cfg!(debug_assertions) { 56 << 10 } else { 48 << 10 };
    assert!((1..most).contains(&sixteen), "{sixteen} KiB");
    let each = sixteen.saturating_sub(one) / 15;
    assert!((1..3 << 10).contains(&each), "{each} KiB for each thread");
}

#[test]
fn replies_without_an_end_take_no_memory() {
    let _alone = alone();
    let server = Server::start(Behaviour::Garbage);
    // A line of 60 KiB is answered with as many bytes and no line end.
    let file = format!("{}/long-line.txt", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, "x".repeat(60 << 10) + "\n").unwrap();
    let args = ["-c", "1000", "-n", "1000", "-t", "5s", "-o", "json", "--data-file", &file];
    let child = command(&[&[&server.url()[..]], &args[..]].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let (output, peak) = peak(child);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(support::count(&report, "read_timeout"), 1000, "{report:#}");
    assert_eq!(report["connections"]["bytes_received"], 1000 * ((60 << 10) + 1), "{report:#}");
    assert!((1..40 << 10).contains(&peak), "{peak} KiB");
}

#[test]
fn ten_thousand_clients_are_answered() {
    let _alone = alone();
    let server = Server::start(Behaviour::Echo);
    let (code, report) = report(&[&server.url(), "-c", "10k", "-n", "40k"]);
    assert_eq!((code, &report["done"]), (0, &40_000.into()), "{report:#}");
    assert_eq!(report["connections"]["opened"], 10_000);
}

/// One nginx for each run of the test, on a port of its own.
struct Nginx {
    child: std::process::Child,
    url: String,
    folder: String,
}

impl Nginx {
    fn start() -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let folder = format!("{}/nginx-{port}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
             events {{ worker_connections 4096; multi_accept on; }}
             http {{ access_log off; keepalive_requests 1000000000;
                     client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
                     uwsgi_temp_path {folder}; scgi_temp_path {folder};
                     server {{ listen 127.0.0.1:{port}; location / {{ if ($request_uri ~ \"^/(a+)+$\") {{ return 404; }} return 200 'hello from nginx'; }} }} }}"
        );
        let file = format!("{folder}/nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child = std::process::Command::new("taskset")
            .args(["-c", "0", "nginx"])
            .args(["-e", &format!("{folder}/error.log"), "-c", &file])
            .spawn()
            .unwrap_or_else(|error| panic!("tests/setup.sh installs nginx: {error}"));
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < end, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The pattern above tries every way to split the letters: work for the server, so that it is the limit.
        let url = format!("http://127.0.0.1:{port}/{}b", "a".repeat(11));
        Self { child, url, folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked in order.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a load generator on one processor, so that it does not take from the server's.
fn generator(program: &str, args: &[&str]) -> std::process::Child {
    std::process::Command::new("taskset")
        .args(["-c", "1", program])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("tests/setup.sh installs {program}: {error}"))
}

/// The requests a second that a generator says when it ends.
fn rate_of(generator: std::process::Child, rate: impl Fn(&str) -> Option<f64>) -> f64 {
    let output = generator.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    rate(&said).unwrap_or_else(|| panic!("a generator said {said}, {output:?}"))
}

#[test]
fn rates_agree_with_other_generators() {
    let _alone = alone();
    let nginx = Nginx::start();
    let url = nginx.url.as_str();
    let mut rounds = Vec::new();
    // All three load one server at the same time with as many clients each, so each gets a third of it, and what
    // else this machine does meets all alike.
    for _ in 0..3 {
        let ours = ["stress", url, "-c", "32", "-d", "3s", "--warmup", "0s", "-o", "json"];
        let ours = generator(env!("CARGO_BIN_EXE_tidegate"), &ours);
        let wrk = generator("wrk", &["-t", "1", "-c", "32", "-d", "3s", url]);
        let h2load = generator("h2load", &["--h1", "-t", "1", "-c", "32", "-D", "3", url]);
        let ours =
            rate_of(ours, |said| serde_json::from_str::<serde_json::Value>(said).ok()?["rate"].as_f64());
        let wrk =
            rate_of(wrk, |said| said.split("Requests/sec:").nth(1)?.split_whitespace().next()?.parse().ok());
        let h2load = rate_of(h2load, |said| said.split(" req/s").next()?.rsplit(' ').next()?.parse().ok());
        rounds.push((ours, wrk, h2load));
        let near = |other: f64| (0.9..=1.1).contains(&(ours / other));
        if near(wrk) && near(h2load) {
            return;
        }
    }
    panic!("a second, ours, wrk's and h2load's: {rounds:.0?}");
}
