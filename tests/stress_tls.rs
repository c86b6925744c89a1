//! The stress client against servers that speak TLS: tidegate's own, and nginx.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/nginx.rs"]
mod nginx;
mod support;

use certificate::{Certificate, Files};
use nginx::Nginx;
use std::process::Output;
use support::{Client, Program, Running, run};

/// A server that speaks TLS in three ways, and its certificate.
fn server() -> (Running, Files) {
    let files = Certificate::new(&["localhost"], 4000).files();
    let server = Program::new()
        .without_echo()
        .admin()
        .arg("--listen", "echo=tls://127.0.0.1:0")
        .arg("--listen", "hello=https://127.0.0.1:0")
        .arg("--listen", "echo=wss://127.0.0.1:0")
        .arg("--tls-cert", files.certificate.to_str().unwrap())
        .arg("--tls-key", files.key.to_str().unwrap())
        .start();
    (server, files)
}

fn stress(url: &str, options: &[&str]) -> Output {
    run([&["stress", url, "-o", "json", "--progress", "off", "-c", "4"], options].concat())
}

fn report(output: &Output) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn urls(server: &Running) -> [String; 3] {
    let of = |scheme: &str, service: &str| {
        let port = server.listening(&format!("{service} on {scheme}")).port();
        format!("{scheme}://localhost:{port}{}", if scheme == "tls" { "" } else { "/joe" })
    };
    [of("tls", "echo"), of("https", "hello"), of("wss", "echo")]
}

#[test]
fn requests_inside_tls_are_answered_and_handshakes_are_timed_apart() {
    let (server, files) = server();
    let authority = files.certificate.to_str().unwrap();
    for url in urls(&server) {
        for reuse in ["forever", "never"] {
            let output = stress(&url, &["-n", "200", "--cacert", authority, "--reuse", reuse]);
            let report = report(&output);
            assert_eq!(
                (&report["done"], &report["sent"]),
                (&200.into(), &200.into()),
                "{url} {}",
                report["outcomes"]
            );
            let (handshake, connect) = (&report["latency"]["handshake"], &report["latency"]["connect"]);
            assert_eq!(handshake["count"], if reuse == "never" { 200 } else { 4 }, "{url}");
            assert!(handshake["p50"].as_f64() <= connect["p50"].as_f64(), "{url}: {handshake} {connect}");
        }
    }
}

#[test]
fn a_threshold_can_be_about_handshakes_and_the_report_says_what_came_of_it() {
    let (server, files) = server();
    let authority = files.certificate.to_str().unwrap();
    let [_, https, _] = urls(&server);
    let run = |conditions: &[&str]| {
        let conditions: Vec<_> = conditions.iter().flat_map(|it| ["--threshold", it]).collect();
        let with = ["-n", "60", "--reuse", "never", "--cacert", authority];
        stress(&https, &[&with[..], &conditions].concat())
    };
    let probed = run(&["handshake.p99<30s", "handshake.min>0s", "tls_failed<1", "probe.handshake.p50<1s"]);
    assert_eq!(probed.status.code(), Some(2), "there is no probe");
    let report = report(&run(&["handshake.p99<30s", "handshake.min>1ns", "tls_failed<1"]));
    let [quick, slow, none] = &report["thresholds"].as_array().unwrap()[..] else { panic!("{report:#}") };
    assert_eq!(quick["expression"], "handshake.p99<30s");
    for threshold in [quick, slow] {
        let value = threshold["value"].as_str().unwrap();
        assert!(threshold["passed"] == true && value.ends_with('s'), "{threshold}");
    }
    assert_eq!((&none["value"], &none["passed"]), (&"0".into(), &true.into()));
    let output = run(&["handshake.p50<1ns"]);
    assert_eq!(output.status.code(), Some(99), "{}", String::from_utf8_lossy(&output.stderr));
    // In the text too.
    let text = support::run([
        "stress",
        &https,
        "-n",
        "20",
        "--cacert",
        authority,
        "--threshold",
        "handshake.max<30s",
    ]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("Thresholds")).unwrap_or_default();
    assert!(line.contains("ok handshake.max<30s ("), "{text}");
    // Where there is no TLS, that is said before anything is sent.
    for options in [
        ["--threshold", "handshake.p99<1s"],
        ["--threshold", "tls_failed<1"],
        ["--find-max", "handshake.p99<1s"],
    ] {
        let output = stress("tcp://127.0.0.1:1", &options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("about handshakes of TLS"), "{said}");
    }
}

#[test]
fn large_requests_and_slow_clients_work_inside_tls() {
    let (server, files) = server();
    let authority = files.certificate.to_str().unwrap();
    let [echo, ..] = urls(&server);
    let large = report(&stress(&echo, &["-n", "40", "--cacert", authority, "--size", "900k"]));
    assert_eq!(large["done"], 40, "{}", large["outcomes"]);
    for mode in ["hold", "slow-send", "slow-read", "connect-flood"] {
        let options = ["-d", "1s", "--cacert", authority, "--mode", mode, "--drip", "10ms", "--probe", "20"];
        let report = report(&stress(&echo, &options));
        assert_eq!(
            report["probe"]["done"], report["probe"]["sent"],
            "{mode}: {}",
            report["probe"]["outcomes"]
        );
        assert_eq!(report["done"], report["sent"], "{mode}: {}", report["outcomes"]);
    }
}

#[test]
fn sessions_are_resumed_where_that_is_asked_for() {
    let (server, files) = server();
    let authority = files.certificate.to_str().unwrap();
    let [echo, ..] = urls(&server);
    for (options, resumed) in [(&[][..], false), (&["--tls-resume"], true)] {
        let all = [&["-n", "50", "--cacert", authority, "--reuse", "never"], options].concat();
        assert_eq!(report(&stress(&echo, &all))["done"], 50);
        let mut scrape = Client::connect(server.admin());
        scrape.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let metrics = String::from_utf8(scrape.rest().0).unwrap();
        let was = metrics.lines().any(|line| {
            line.starts_with("tidegate_tls_handshakes_total")
                && line.contains("kind=\"resumed\"")
                && !line.ends_with(" 0")
        });
        assert_eq!(was, resumed, "{metrics}");
    }
}

#[test]
fn a_certificate_that_is_not_believed_is_said_to_be_that_with_what_to_do() {
    let (server, files) = server();
    let authority = files.certificate.to_str().unwrap();
    let [echo, ..] = urls(&server);
    let other = Certificate::new(&["localhost"], 4000).files();
    let other = other.certificate.to_str().unwrap();
    for (options, says) in [
        (&["--cacert", other][..], "no trusted authority has signed its certificate"),
        (&["--cacert", authority, "--tls-name", "example.com"], "for another name"),
        (&["--cacert", "/nowhere"], "cannot read /nowhere"),
    ] {
        let output = stress(&echo, &[&["-n", "50"], options].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says) && said.trim_end().lines().count() == 1, "{said}");
    }
    let by_address = echo.replace("localhost", "127.0.0.1");
    for options in [&["-k"][..], &["--cacert", authority, "--tls-name", "localhost"]] {
        assert_eq!(report(&stress(&by_address, &[&["-n", "50"], options].concat()))["done"], 50);
    }
    let plain = stress("tcp://127.0.0.1:1", &["-k"]);
    assert_eq!(plain.status.code(), Some(2), "{}", String::from_utf8_lossy(&plain.stderr));
}

#[test]
fn a_server_that_does_not_speak_tls_is_named_as_that() {
    let server = Program::new().without_echo().arg("--listen", "hello=http://127.0.0.1:0").start();
    let url = format!("https://{}", server.listening("hello on http"));
    let output = stress(&url, &["-n", "50", "-k"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("does not speak TLS"), "{said}");
}

#[test]
fn nginx_is_loaded_over_https() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let block = "location / { return 200 hi; }";
    let nginx = Nginx::inside_tls(&files, block);
    let url = format!("https://localhost:{}/", nginx.port);
    let authority = files.certificate.to_str().unwrap();
    let output = stress(&url, &["-n", "500", "--cacert", authority, "--expect", "hi", "--reuse", "10"]);
    let report = report(&output);
    assert_eq!(report["done"], 500, "{}", report["outcomes"]);
}
