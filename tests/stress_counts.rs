//! Two witnesses of one run: the stress client's counts and the server's own metrics are the same.

#[path = "support/stress_server.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A tidegate server on ports of its own; it ends when it is dropped.
struct Tidegate {
    child: Child,
    url: String,
    admin: String,
}

impl Tidegate {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["--listen", "echo=tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut url, mut admin) = (None, None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while url.is_none() || admin.is_none() {
            let line = lines.next().expect("the server ended before it said where it listens").unwrap();
            let words = |begin: &str| line.split(begin).nth(1).map(str::to_owned);
            url = url.or_else(|| words("echo on "));
            admin = admin.or_else(|| words("http://").and_then(|w| w.split('/').next().map(str::to_owned)));
        }
        // The server may go on to say things: they are read, so that it does not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.unwrap(), admin: admin.unwrap() }
    }

    /// The sum of a metric over all series whose labels contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let series = page.lines().filter(|line| {
            line.strip_prefix("tidegate_")
                .and_then(|l| l.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        let values: Vec<f64> = series.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name} with {label} in {page}");
        values.iter().sum()
    }

    /// Waits until every connection that was accepted has ended.
    fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.metric("connections", "state=") > 0.0 {
            assert!(Instant::now() < end, "connections stay open");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn counts_equal_the_servers_own() {
    let server = Tidegate::start(&[]);
    let (mut opened, mut bytes) = (0, 0);
    for args in [
        &["-c", "16", "-n", "5000"][..],
        &["-c", "16", "-n", "2000", "--reuse", "10", "--threads", "2"],
        &["-c", "8", "-n", "500", "--reuse", "never"],
        &["-c", "200", "-n", "5000", "--size", "1000"],
    ] {
        let (code, report) = support::report(&[&[&server.url[..]], args].concat());
        assert_eq!((code, &report["done"]), (0, &report["offered"]), "{args:?}: {report:#}");
        opened += report["connections"]["opened"].as_u64().unwrap();
        bytes += report["connections"]["bytes_sent"].as_u64().unwrap();
        assert_eq!(report["connections"]["bytes_sent"], report["connections"]["bytes_received"]);
    }
    assert_eq!(bytes, (5000 + 2000 + 500) * 64 + 5000 * 1000);
    server.settle();
    assert_eq!(server.metric("connections_accepted_total", ""), opened as f64);
    assert_eq!(server.metric("connections_closed_total", ""), opened as f64);
    assert_eq!(server.metric("connections_dropped_total", ""), 0.0);
    assert_eq!(server.metric("received_bytes_total", "echo"), bytes as f64);
    assert_eq!(server.metric("sent_bytes_total", "echo"), bytes as f64);
}

#[test]
fn refusals_are_counted_alike_on_both_sides() {
    let server = Tidegate::start(&[
        "--workers",
        "1",
        "--queue",
        "1",
        "--max-connections",
        "4",
        "--busy-reply",
        "busy\\n",
    ]);
    // Four hold all places, so each further one hears that it is busy.
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(server.url.trim_start_matches("tcp://")).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let args = [&server.url[..], "-c", "5", "-n", "40", "--busy", "busy", "--reuse", "never", "-o", "json"];
    let run = support::stress(&args);
    let report = run.json();
    support::check_sums(&report);
    let refused = support::count(&report, "busy")
        + support::count(&report, "reset")
        + support::count(&report, "eof_early");
    assert_eq!((run.code, refused), (1, 40), "{report:#}");
    assert_eq!(server.metric("connections_dropped_total", ""), 40.0);
    drop(held);
}
