//! The stress client against servers with known faults: every request ends as what it was.

#[path = "support/stress_server.rs"]
mod support;

use std::time::{Duration, Instant};
use support::{Behaviour, Datagrams, Fate, Full, Server, count, report, spawn, stress, wait_within};

#[test]
fn a_closed_loop_makes_exactly_its_requests() {
    let server = Server::start(Behaviour::Echo);
    let (code, report) = report(&[&server.url(), "-c", "7", "-n", "1000"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["done"], 1000);
    assert_eq!(report["connections"]["opened"], 7);
    assert_eq!(server.accepted(), 7);
    assert_eq!(report["connections"]["bytes_sent"], 64_000);
    assert_eq!(report["connections"]["bytes_received"], 64_000);
    for latency in ["response", "service", "connect"] {
        let latency = &report["latency"][latency];
        let value = |name: &str| latency[name].as_f64().unwrap();
        let names = ["min", "p50", "p90", "p95", "p99", "p999", "p9999", "max"];
        assert!(value("min") > 0.0, "{report:#}");
        assert!(names.windows(2).all(|two| value(two[0]) <= value(two[1])), "{latency:#}");
    }
}

#[test]
fn connections_are_used_as_often_as_asked() {
    let server = Server::start(Behaviour::Echo);
    for (reuse, close, threads, opened) in [
        ("never", "fin", "1", 100),
        ("never", "rst", "2", 100),
        ("never", "half", "1", 100),
        ("10", "fin", "1", 10),
        ("forever", "fin", "2", 4),
    ] {
        let before = server.accepted();
        let (code, report) = report(&[
            &server.url(),
            "-c",
            "4",
            "-n",
            "100",
            "--reuse",
            reuse,
            "--close",
            close,
            "--threads",
            threads,
        ]);
        assert_eq!((code, &report["done"]), (0, &100.into()), "{report:#}");
        let made = report["connections"]["opened"].as_u64().unwrap();
        // Each client may end with a connection that is not used up.
        assert!((opened..=opened + 4).contains(&made), "{reuse}: {made}");
        assert_eq!(server.accepted() - before, made, "{reuse}");
    }
}

#[test]
fn an_open_loop_offers_its_rate() {
    let server = Server::start(Behaviour::Echo);
    for arrival in ["uniform", "poisson"] {
        let (code, report) = report(&[
            &server.url(),
            "-r",
            "500",
            "-d",
            "1s",
            "--warmup",
            "200ms",
            "--arrival",
            arrival,
            "--seed",
            "7",
            "--threads",
            "2",
        ]);
        assert_eq!(code, 0, "{report:#}");
        let offered = report["offered"].as_u64().unwrap();
        match arrival {
            "uniform" => assert_eq!((offered, &report["warmup"]["offered"]), (500, &100.into())),
            // The standard deviation is 22.
            _ => assert!((390..610).contains(&offered), "{offered}"),
        }
        assert_eq!(report["plan"]["loop"], "open");
        assert!(report["generator"]["lag_p99"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn each_failure_has_its_name() {
    for (behaviour, outcome) in [
        (Behaviour::Busy("busy, come back later\n"), "busy"),
        (Behaviour::Garbage, "bad_reply"),
        (Behaviour::CloseEarly, "eof_early"),
        (Behaviour::Reset, "reset"),
        (Behaviour::Silent, "read_timeout"),
    ] {
        let server = Server::start(behaviour);
        let run =
            stress(&[&server.url(), "-c", "4", "-n", "20", "--busy", "busy", "-t", "200ms", "-o", "json"]);
        let report = run.json();
        support::check_sums(&report);
        assert_eq!(count(&report, outcome), 20, "{report:#}");
        // Nothing was done, so it is no success.
        assert_eq!(run.code, 1, "{report:#}");
        assert_eq!(report["verdict"], "nothing-done");
        assert!(run.stderr.contains("nothing was done"), "{}", run.stderr);
    }
}

#[test]
fn a_reset_that_sending_meets_first_is_a_reset() {
    let server = Server::start(Behaviour::Reset);
    // More than the kernel takes at once, so that the reset comes while there is something to send.
    let run = stress(&[&server.url(), "-c", "2", "-n", "10", "--size", "16MiB", "-o", "json"]);
    let report = run.json();
    support::check_sums(&report);
    assert_eq!(count(&report, "reset"), 10, "{report:#}");
}

/// A run that sleeps while its connections are established, and wakes up when the server has done with each.
fn asleep_while_connected(behaviour: Behaviour, clients: u64, args: &[&str]) -> support::Run {
    use rustix::process::{Pid, Signal, kill_process};
    let full = Full::start();
    let table = temporary(&format!("asleep-{clients}.csv"), "");
    let clients_text = clients.to_string();
    let always =
        [&full.url(), "-c", &clients_text, "--connect-timeout", "20s", "--csv", &table, "-o", "json"];
    let child = spawn(&[&always[..], args].concat());
    // The table has a row as soon as a second was measured.
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&table).unwrap().lines().count() < 2 {
        assert!(Instant::now() < end, "no second was measured");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    let server = full.open(behaviour);
    // One more filled the backlog.
    while server.accepted() <= clients {
        assert!(Instant::now() < end, "{} of {clients} connected", server.accepted());
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(pid, Signal::CONT).unwrap();
    let run = wait_within(child, Duration::from_secs(20));
    support::check_sums(&run.json());
    run
}

#[test]
fn a_target_that_resets_at_once_is_there() {
    let run = asleep_while_connected(Behaviour::ResetAtOnce, 20, &["-n", "200"]);
    assert_eq!((run.code, run.json()["sent"].as_u64()), (1, Some(200)), "{run:?}");
    assert_eq!(count(&run.json(), "reset"), 200, "{run:?}");
}

#[test]
fn what_was_given_up_is_counted_as_at_least_that_long() {
    let server = Server::start(Behaviour::Silent);
    let run = stress(&[&server.url(), "-c", "4", "-n", "8", "-t", "200ms", "-o", "json"]);
    let response = &run.json()["latency"]["response"];
    assert_eq!((&response["count"], &response["censored"]), (&8.into(), &8.into()));
    assert!(response["min"].as_f64().unwrap() >= 0.199, "{response:#}");
}

#[test]
fn a_server_that_closes_between_requests_is_no_failure() {
    let server = Server::start(Behaviour::EchoThenClose(1));
    let (code, report) = report(&[&server.url(), "-c", "2", "-n", "10", "--think", "200ms"]);
    assert_eq!((code, &report["done"]), (0, &10.into()), "{report:#}");
    assert!(report["connections"]["closed_idle"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn replies_are_what_is_expected() {
    let server = Server::start(Behaviour::Hello);
    let url = server.url();
    for (args, ok) in [
        (&["--data", "bob\\n", "--expect", "hello bob"][..], true),
        (&["--data", "bob\\n"], true),
        (&["--data", "bob\\n", "--expect", "goodbye"], false),
    ] {
        let run = stress(&[&[&url, "-n", "20", "-c", "2", "-o", "json"], args].concat());
        assert_eq!(run.code == 0, ok, "{args:?}: {run:?}");
        assert_eq!(count(&run.json(), if ok { "ok" } else { "bad_reply" }), 20);
    }
    let file = temporary("lines.txt", "ann\n\nbob\ncarl");
    let (code, _) = report(&[&url, "-n", "30", "-c", "2", "--lines", &file, "--expect", "hello "]);
    assert_eq!(code, 0);
    let echo = Server::start(Behaviour::Echo);
    for args in [
        &["--data-file", &file][..],
        &["--data", "\\x00\\xff"],
        &["--size", "1MiB"],
        &["--size", "1"],
        &["--data", "ping", "--expect", "pin"],
    ] {
        let run = stress(&[&[&echo.url()[..], "-n", "10", "-c", "2"], args].concat());
        // The last one expects less than comes, and more bytes than expected are wrong.
        assert_eq!(run.code, i32::from(args.contains(&"pin")), "{args:?}: {run:?}");
    }
}

#[test]
fn http_responses_are_told_apart() {
    for (response, outcome) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", "ok"),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "busy"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "bad_reply"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "bad_reply"),
    ] {
        let server = Server::start(Behaviour::Http(response));
        let url = format!("http://{}/path?q=1", server.address);
        let run = stress(&[&url, "-n", "50", "-c", "3", "-o", "json"]);
        let report = run.json();
        support::check_sums(&report);
        assert_eq!(count(&report, outcome), 50, "{response:?}: {report:#}");
        assert_eq!(run.code, i32::from(outcome != "ok"), "{response:?}");
    }
}

#[test]
fn datagrams_are_counted_exactly() {
    const LATE: Duration = Duration::from_millis(350);
    let server = Datagrams::start(|n| match n % 10 {
        3 => Fate::Drop,
        5 => Fate::Twice,
        7 => Fate::Delay(LATE),
        _ => Fate::Answer,
    });
    let (code, report) = report(&[&server.url(), "-c", "20", "-n", "500", "-t", "150ms", "-r", "400"]);
    let counts = server.counts();
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(counts.values().sum::<u64>(), 500);
    assert_eq!(count(&report, "ok"), counts["answered"] + counts["twice"], "{report:#}");
    assert_eq!(count(&report, "lost"), counts["dropped"], "{report:#}");
    assert_eq!(count(&report, "late"), counts["delayed"], "{report:#}");
    assert_eq!(count(&report, "duplicate"), counts["twice"], "{report:#}");
}

#[test]
fn a_reply_to_an_older_datagram_is_none_to_the_newest() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    let child = spawn(&[&url, "-c", "1", "-n", "2", "-t", "300ms", "--busy", "busy", "-o", "json"]);
    let (mut first, mut second) = ([0; 64], [0; 64]);
    let (_, from) = socket.recv_from(&mut first).unwrap();
    socket.send_to(b"busy", from).unwrap();
    socket.recv_from(&mut second).unwrap();
    assert_ne!(first, second);
    socket.send_to(&first, from).unwrap();
    let report = wait_within(child, Duration::from_secs(20)).json();
    support::check_sums(&report);
    let counts = ["busy", "lost", "ok"].map(|outcome| count(&report, outcome));
    assert_eq!(counts, [1, 1, 0], "{report:#}");
}

#[test]
fn source_addresses_are_walked() {
    let server = Server::start(Behaviour::Echo);
    let (code, report) =
        report(&[&server.url(), "-c", "8", "-n", "80", "--reuse", "never", "--source-ip", "127.0.9.0/29"]);
    assert_eq!((code, &report["connections"]["opened"]), (0, &80.into()), "{report:#}");
}

#[test]
fn modes_do_what_they_say() {
    let echo = Server::start(Behaviour::Echo);
    let (code, flood) =
        report(&[&echo.url(), "--mode", "connect-flood", "-n", "300", "-c", "10", "--close", "rst"]);
    assert_eq!((code, &flood["done"]), (0, &300.into()), "{flood:#}");
    // The server may still be taking what the kernel had welcomed.
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while echo.accepted() < 300 {
        assert!(std::time::Instant::now() < end, "{} of 300 were accepted", echo.accepted());
        std::thread::yield_now();
    }
    assert_eq!(echo.accepted(), 300);

    let (code, hold) = report(&[&echo.url(), "--mode", "hold", "-c", "50", "-d", "500ms"]);
    assert_eq!((code, &hold["done"], &hold["sent"]), (0, &50.into(), &50.into()), "{hold:#}");
    assert_eq!((&hold["verdict"], &hold["valid"]), (&"kept-up".into(), &true.into()), "{hold:#}");
    assert!((50.0..=100.5).contains(&hold["rate"].as_f64().unwrap()), "{hold:#}");

    let evicting = Server::start(Behaviour::Evict(Duration::from_millis(200)));
    let (_, hold) = report(&[&evicting.url(), "--mode", "hold", "-c", "5", "-d", "1s"]);
    assert!(count(&hold, "eof_early") + count(&hold, "reset") >= 5, "{hold:#}");
    assert_eq!(hold["verdict"], "server-limited", "{hold:#}");

    let before = echo.bytes.load(std::sync::atomic::Ordering::SeqCst);
    let (code, slow) = report(&[
        &echo.url(),
        "--mode",
        "slow-send",
        "-c",
        "3",
        "-d",
        "1s",
        "--drip",
        "20ms",
        "--size",
        "10",
    ]);
    // Each is answered, and its connection used again as slowly.
    assert!(code == 0 && count(&slow, "ok") >= 6, "{slow:#}");
    assert_eq!((&slow["sent"], &slow["connections"]["opened"]), (&slow["done"], &3.into()), "{slow:#}");
    let sent = echo.bytes.load(std::sync::atomic::Ordering::SeqCst) - before;
    // At most a byte each 20 ms on each of three connections.
    assert!((30..=3 * 55).contains(&sent), "{sent}");

    let (code, slow) = report(&[
        &echo.url(),
        "--mode",
        "slow-read",
        "-c",
        "2",
        "-d",
        "700ms",
        "--drip",
        "100ms",
        "--size",
        "64KiB",
    ]);
    let received = slow["connections"]["bytes_received"].as_u64().unwrap();
    assert!(code == 0 && (2..=16).contains(&received), "{slow:#}");
    assert!(slow["connections"]["bytes_sent"].as_u64().unwrap() > 100_000, "{slow:#}");

    // Small requests fill a server as large ones do.
    let silent = Server::start(Behaviour::Silent);
    let args = ["--mode", "slow-read", "-c", "1", "-d", "300ms", "--drip", "50ms", "--size", "7"];
    let (code, slow) = report(&[&[&silent.url()[..]], &args[..]].concat());
    assert!(code == 0 && slow["connections"]["bytes_sent"].as_u64().unwrap() > 1_000_000, "{slow:#}");
}

#[test]
fn a_refusal_while_a_request_drips_is_heard() {
    for (scheme, said, outcome) in [
        ("tcp", "busy, come back later\n", "busy"),
        ("http", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "busy"),
        ("http", "HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n", "bad_reply"),
    ] {
        let server = Server::start(Behaviour::Busy(said));
        let url = format!("{scheme}://{}", server.address);
        let args = [
            "--mode",
            "slow-send",
            "-c",
            "2",
            "-d",
            "300ms",
            "--drip",
            "50ms",
            "--busy",
            "busy",
            "--think",
            "20ms",
        ];
        let run = stress(&[&[&url[..], "-o", "json"], &args[..]].concat());
        let report = run.json();
        support::check_sums(&report);
        // Those that had just connected at the end were still on their way.
        assert!(count(&report, outcome) >= 4, "{report:#}");
        assert!(count(&report, outcome) + 2 >= report["sent"].as_u64().unwrap(), "{report:#}");
    }
}

#[test]
fn a_busy_word_that_comes_with_the_connection_is_heard() {
    let args = ["--mode", "hold", "-d", "3s", "--busy", "busy", "--think", "100ms"];
    let run = asleep_while_connected(Behaviour::BusyAtOnce("busy\n"), 5, &args);
    let (busy, ok) = (count(&run.json(), "busy"), count(&run.json(), "ok"));
    assert!(busy >= 5 && busy + ok == run.json()["sent"], "{run:?}");
}

#[test]
fn connections_that_stand_only_after_the_end_are_let_go() {
    let full = Full::start();
    let url = full.url();
    let spawn = |mode| {
        let args = ["-c", "4", "-d", "100ms", "--connect-timeout", "20s", "-o", "json", "--mode", mode];
        spawn(&[&[&url[..]], &args[..]].concat())
    };
    let children = ["hold", "slow-send", "slow-read"].map(spawn);
    // Their time ends in between; the kernel asks again after a second.
    std::thread::sleep(Duration::from_millis(600));
    let _server = full.open(Behaviour::Silent);
    for child in children {
        let run = wait_within(child, Duration::from_secs(30));
        support::check_sums(&run.json());
        assert_eq!((run.code, count(&run.json(), "ok")), (0, 4), "{run:?}");
    }
}

#[test]
fn a_probe_begins_with_its_load() {
    let full = Full::start();
    let args = ["-c", "4", "-d", "500ms", "--warmup", "0s", "--connect-timeout", "20s", "--probe", "40"];
    let child = spawn(&[&[&full.url()[..], "-o", "json"], &args[..]].concat());
    // The load opens its connections first, which takes it until the kernel asks again.
    std::thread::sleep(Duration::from_millis(300));
    let _server = full.open(Behaviour::Echo);
    let run = wait_within(child, Duration::from_secs(30));
    let report = run.json();
    support::check_sums(&report);
    let probe = &report["probe"];
    assert_eq!((run.code, &probe["offered"], &probe["done"]), (0, &20.into(), &20.into()), "{report:#}");
    // None of its requests met the full backlog.
    assert!(probe["latency"]["response"]["max"].as_f64().unwrap() < 0.5, "{report:#}");
}

#[test]
fn a_probe_is_measured_apart() {
    let server = Server::start(Behaviour::Echo);
    let args = [
        &server.url(),
        "--mode",
        "hold",
        "-c",
        "20",
        "-d",
        "1s",
        "--probe",
        "50",
        "--threshold",
        "probe.done>=40",
    ];
    let (code, report) = report(&args);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["done"], &report["probe"]["offered"]), (&20.into(), &50.into()), "{report:#}");
    assert!(report["probe"]["latency"]["response"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(report["thresholds"][0]["passed"], true);
}

/// A file that is removed by the next run of the same test.
fn temporary(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).unwrap();
    path
}
