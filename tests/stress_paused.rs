//! A stress client that was stopped (a busy machine, a frozen container, Ctrl-Z): what the server answered meanwhile is no
//! timeout of the server's, and what the server could not have is told apart.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use certificate::Certificate;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Program, Running, command, eventually, path, raise_open_files};

/// They load the machine, so they run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// Longer than the generator waits for a reply, and for a connection.
const PAUSE: Duration = Duration::from_secs(3);

/// Loads a server, stops the generator after its first second for as long as [`PAUSE`], and lets it go on when `meanwhile` has
/// also been done. What it reports at its end.
fn paused(url: &str, options: &[&str], meanwhile: impl FnOnce()) -> Value {
    paused_once(|| true, url, options, meanwhile)
}

/// The same, not before it is `ready`.
fn paused_once(ready: impl Fn() -> bool, url: &str, options: &[&str], meanwhile: impl FnOnce()) -> Value {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let table = format!("{}/paused-{number}.csv", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&table);
    let always = ["stress", url, "-o", "json", "--warmup", "0s", "--connect-timeout", "2s"];
    let child = command(path())
        .args(always)
        .args(["--csv", &table])
        .args(if options.contains(&"-t") { &[][..] } else { &["-t", "2s"] })
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut generator = Running::of(child);
    eventually("a second was measured", || {
        let text = std::fs::read_to_string(&table).unwrap_or_default();
        (text.lines().filter(|line| line.contains(",measured,")).count() > 0).then_some(())
    });
    eventually("all is ready for the pause", || ready().then_some(()));
    generator.signal(Signal::STOP);
    eventually("it has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", generator.pid())).unwrap();
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
    });
    let began = Instant::now();
    meanwhile();
    eventually("the deadlines have passed", || (began.elapsed() > PAUSE).then_some(()));
    generator.signal(Signal::CONT);
    generator.exit();
    let (said, errors) = (generator.stdout(), generator.stderr());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said} {errors}"))
}

fn count(report: &Value, outcome: &str) -> u64 {
    report["outcomes"][outcome].as_u64().unwrap_or_else(|| panic!("{outcome} in {report:#}"))
}

/// Every request was answered; and the run says that its numbers are not the server's.
#[track_caller]
fn all_were_answered(what: &str, report: &Value) {
    let outcomes = report["outcomes"].as_object().unwrap();
    // What was due while it was stopped is never sent, in an open loop.
    let not_sent = ["ok", "skipped", "unsent_at_end"];
    let blamed: Vec<_> =
        outcomes.iter().filter(|(name, n)| !not_sent.contains(&name.as_str()) && **n != 0).collect();
    assert!(blamed.is_empty(), "{what}: {blamed:?}");
    assert_eq!(report["too_late"], 0, "the pause is nobody's patience: {what}: {report:#}");
    assert!(count(report, "ok") > 100, "{what}: {report:#}");
    assert_eq!(report["verdict"], "generator-limited", "{what}: {report:#}");
    assert!(report["generator"]["pause_max"].as_f64().unwrap() > 2.5, "{what}: {report:#}");
}

#[test]
fn what_was_answered_while_the_generator_was_stopped_is_no_timeout() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    raise_open_files();
    let files = Certificate::new(&["localhost"], 4000).files();
    let server = Program::new()
        .without_echo()
        .arg("--listen", "echo=tcp://127.0.0.1:0")
        .arg("--listen", "hello=http://127.0.0.1:0")
        .arg("--listen", "echo=ws://127.0.0.1:0")
        .arg("--listen", "echo=tls://127.0.0.1:0")
        .arg("--listen", "echo=udp://127.0.0.1:0")
        .arg("--tls-cert", files.certificate.to_str().unwrap())
        .arg("--tls-key", files.key.to_str().unwrap())
        .arg("--datagram-source-rate", "off")
        .arg("--queue", "2000")
        .arg("--queue-order", "fifo")
        .start();
    let url = |listener: &str, scheme: &str| {
        format!("{scheme}://localhost:{}", server.listening(&format!("{listener} on {scheme}")).port())
    };
    let authority = files.certificate.to_str().unwrap();
    // More clients than a look at the sockets finds, so that some of the replies are read after others.
    for (url, options) in [
        (url("echo", "tcp"), &["-c", "1000", "-d", "5s"][..]),
        (url("echo", "tcp"), &["-c", "700", "-d", "5s", "-r", "2000"]),
        (url("echo", "tcp"), &["-c", "100", "-d", "5s", "--reuse", "never"]),
        (url("hello", "http"), &["-c", "600", "-d", "5s", "--threads", "2"]),
        (url("echo", "ws"), &["-c", "100", "-d", "5s", "--reuse", "never"]),
        (url("echo", "tls"), &["-c", "50", "-d", "5s", "--reuse", "never", "--cacert", authority]),
        (url("echo", "udp"), &["-c", "600", "-d", "5s", "--size", "32"]),
    ] {
        let report = paused(&url, options, || {});
        all_were_answered(&format!("{url} {options:?}"), &report);
    }
}

#[test]
fn a_server_that_does_not_answer_is_still_found_out() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    let report = paused(&url, &["-c", "20", "-d", "5s"], || {});
    // Each has the two seconds that it was promised, without the time in which nobody looked: no more and no less.
    let waits = count(&report, "read_timeout");
    assert!((20..=60).contains(&waits), "{report:#}");
    assert_eq!(report["sent"], waits, "{report:#}");
    let longest = report["latency"]["response"]["max"].as_f64().unwrap();
    assert!((4.9..5.6).contains(&longest), "{report:#}");
}

/// More than the buffers of both kernels hold, also of a connection over which much has gone: a request of this size is not
/// whole before the server reads it.
const REQUEST: usize = 64 << 20;

/// A server that reads of its clients the beginning only, until it is told to hang up; and whether each of ten has sent a
/// request that it has no answer to.
fn hangs_up_when_told() -> (SocketAddr, Arc<AtomicBool>, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let all_wait = Arc::new(AtomicBool::new(false));
    let seen = all_wait.clone();
    std::thread::spawn(move || {
        // The first client is answered: a run without a good reply says nothing.
        let mut clients: Vec<_> = (0..10).map(|_| listener.accept().unwrap().0).collect();
        let mut all = vec![0; REQUEST];
        clients[0].read_exact(&mut all).unwrap();
        clients[0].write_all(&all).unwrap();
        // And asks again.
        clients[0].read_exact(&mut all[..1]).unwrap();
        seen.store(true, Ordering::SeqCst);
        let _ = told.recv();
        drop(clients);
        drop(listener);
    });
    (address, all_wait, tell)
}

#[test]
fn a_half_sent_request_that_is_cut_meanwhile_is_the_generators_own() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (address, all_wait, hang_up) = hangs_up_when_told();
    let size = REQUEST.to_string();
    let options = ["-c", "10", "-d", "5s", "--size", &size, "-t", "20s"];
    let ready = || all_wait.load(Ordering::SeqCst);
    let report = paused_once(ready, &format!("tcp://{address}"), &options, || hang_up.send(()).unwrap());
    assert_eq!(count(&report, "generator_late"), 10, "{}", report["outcomes"]);
    assert_eq!((count(&report, "ok"), count(&report, "reset")), (1, 0), "{report:#}");
    assert_eq!(report["verdict"], "generator-limited", "{report:#}");
}
