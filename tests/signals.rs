//! Signals: the program is a good child of whatever started it.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Client, Program, Running, command, eventually, path, throughout};

/// A server with one request in work for this long.
fn with_a_request_in_work(cost: &str) -> (Running, Client) {
    let server = Program::new().service("work").arg("--work", cost).start();
    let mut client = server.client();
    client.say("ask\n");
    // The request is with a worker well before it is answered.
    runs_for(Duration::from_millis(200), &server);
    (server, client)
}

fn runs_for(time: Duration, server: &Running) {
    throughout(time, "the server runs", || server.status("Threads") > 0);
}

/// A supervisor that follows SIGTERM with SIGHUP, a process group that gets what its leader passes on.
#[test]
fn one_order_that_arrives_as_two_signals_drains() {
    let pairs = [
        (Signal::TERM, Signal::TERM),
        (Signal::TERM, Signal::HUP),
        (Signal::INT, Signal::TERM),
        (Signal::INT, Signal::INT),
        (Signal::HUP, Signal::TERM),
    ];
    for pause in [0, 10, 400] {
        for (first, second) in pairs {
            let (server, mut client) = with_a_request_in_work("sleep:800ms");
            server.signal(first);
            std::thread::sleep(Duration::from_millis(pause));
            server.signal(second);
            client.hear("ask\n");
            drop(client);
            assert_eq!(server.ended().0, Some(0), "{first:?}, after {pause} ms {second:?}");
        }
    }
}

#[test]
fn a_second_order_after_a_second_ends_at_once() {
    let (server, _client) = with_a_request_in_work("sleep:20s");
    server.signal(Signal::TERM);
    runs_for(Duration::from_millis(1200), &server);
    let ordered = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.ended().0, Some(3));
    assert!(ordered.elapsed() < Duration::from_secs(3), "{:?}", ordered.elapsed());
}

/// `nohup` has SIGHUP ignored, and a shell has SIGINT ignored for `cmd &` in a script.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT), ("TERM", Signal::TERM)] {
        let server = Program::new().prelude(&format!("trap '' {name}")).start();
        server.signal(signal);
        let mut client = server.client();
        throughout(Duration::from_millis(300), "it serves on", || {
            client.say("x").hear("x");
            true
        });
        drop(client);
        let other = if signal == Signal::TERM { Signal::INT } else { Signal::TERM };
        server.signal(other);
        assert_eq!(server.ended().0, Some(0), "{name}");
    }
}

/// A server outlives its terminal: SIGHUP has it read its configuration again, and here there is none.
#[test]
fn sighup_does_no_harm() {
    let server = Program::new().start();
    let mut client = server.client();
    for _ in 0..3 {
        server.signal(Signal::HUP);
        client.say("x").hear("x");
    }
    drop(client);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

/// The stress client too: `nohup tidegate stress` runs to its end, and a terminal that closes ends it otherwise.
#[cfg(target_os = "linux")]
#[test]
fn a_stress_run_under_nohup_outlives_its_terminal() {
    let server = Program::new().start();
    for (prelude, code) in [("trap '' HUP", 0), ("true", 105)] {
        let line = format!(
            "{prelude}; \"$0\" stress tcp://{} -c 1 -r 20 -d 1500ms --warmup 0s >/dev/null 2>&1 & \
             sleep 0.7; kill -HUP $!; wait $!",
            server.address()
        );
        let output = support::finish(support::command("/bin/sh").args(["-c", &line, support::path()]));
        assert_eq!(output.status.code(), Some(code), "{prelude}");
    }
}

/// Whoever presses Ctrl-C in vain finds the reason in the log.
#[test]
fn a_signal_that_does_nothing_is_named_with_the_reason() {
    for (prelude, names) in [("trap '' INT", &["SIGINT"][..]), ("trap '' INT TERM", &["SIGINT", "SIGTERM"])] {
        let server = Program::new().prelude(prelude).start();
        for name in names {
            let line = format!("{name} is ignored, since it was when this program was started");
            eventually("the log says so", || server.stderr().contains(&line).then_some(()));
        }
        assert_eq!(server.stderr().matches(" is ignored").count(), names.len(), "{prelude}");
    }
}

/// In a container it is often process 1, for which the kernel has no default signals. What it is told it does, and it does not
/// replace itself, since the container would end with it.
#[test]
fn as_process_one_of_a_container_it_hears_each_order() {
    let mut container = command("unshare");
    container.args(["--pid", "--fork", path(), "--listen", "echo=tcp://127.0.0.1:0", "--admin", "off"]);
    let spawned = container.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let server = Running::of(spawned.expect("tests/setup.sh installs unshare"));
    eventually("it serves", || server.stdout().contains("limits:").then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let inside: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let signal = |signal| kill_process(Pid::from_raw(inside).unwrap(), signal).unwrap();
    let mut client = server.client();
    for (order, answer) in [
        (Signal::USR2, "this program goes on: this is process 1 of a container"),
        (Signal::HUP, "the configuration was read again"),
    ] {
        signal(order);
        eventually(answer, || server.stderr().contains(answer).then_some(()));
        client.say("x").hear("x");
    }
    signal(Signal::TERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("drained 1 connection in"), "{said}");
}
