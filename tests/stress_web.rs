//! `tidegate stress` over HTTP and WebSocket: what it sends, how it counts replies by their status, and how it keeps
//! sockets.

mod support;

use serde_json::Value;
use std::process::Output;
use std::sync::{Arc, Mutex};
use support::{Program, Site, run};
use tidegate::websocket::Event;
use tidegate::{Limits, http, websocket};

fn limits() -> Limits {
    Limits::default().workers(2).queue(200).linger_timeout(std::time::Duration::from_millis(50))
}

#[track_caller]
fn stress(url: &str, args: &[&str]) -> (Value, Option<i32>) {
    let Output { stdout, stderr, status } = run(["stress", url, "-o", "json"].iter().chain(args).copied());
    let report = serde_json::from_slice(&stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (report, status.code())
}

#[test]
fn requests_have_the_method_the_headers_and_the_body_that_were_asked_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let site = Site::serve(
        limits(),
        http(move |request, response| {
            let header = |name: &str| request.header(name).map(|it| String::from_utf8_lossy(it).into_owned());
            let said =
                (request.method().to_owned(), request.target().to_owned(), header("host"), header("x-key"));
            log.lock().unwrap().push((said, request.body().to_vec()));
            response.text("fine")
        }),
    );
    let url = format!("http://{}/a?b", site.address);
    let own = ["-n", "3", "-c", "1", "-X", "PATCH", "-H", "Host: other", "-H", "X-Key: v", "--data", "body"];
    let (report, code) = stress(&url, &own);
    assert_eq!((report["done"].as_u64(), code), (Some(3), Some(0)), "{report:#}");
    let expected = ("PATCH".to_owned(), "/a?b".to_owned(), Some("other".to_owned()), Some("v".to_owned()));
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), vec![(expected, b"body".to_vec()); 3]);
    let (report, _) = stress(&url, &["-n", "5", "-c", "1", "-X", "HEAD"]);
    assert_eq!(report["done"], 5, "the answer to HEAD has no body: {report:#}");
    assert_eq!(report["connections"]["opened"], 1, "and the connection is kept");
    site.end();
}

#[test]
fn replies_are_counted_by_the_class_of_their_status() {
    let site = Site::serve(
        limits(),
        http(|request, response| match request.path() {
            "/busy" => response.status(503).header("Retry-After", "7").text("busy"),
            "/ends" => response.close().text("ends"),
            "/moved" => response.status(302).header("Location", "/").empty(),
            _ => Err(http::status(404)),
        }),
    );
    let at = |path: &str, more: &[&str]| {
        let args = [&["-n", "20", "-c", "2"], more].concat();
        stress(&format!("http://{}{path}", site.address), &args)
    };
    let (busy, code) = at("/busy", &["--threshold", "5xx<21", "--threshold", "2xx>0"]);
    assert_eq!(busy["http"]["statuses"]["5xx"], 20, "{busy:#}");
    assert_eq!((&busy["http"]["retry_after"], &busy["http"]["retry_after_max"]), (&20.into(), &7.into()));
    assert_eq!((&busy["outcomes"]["busy"], &busy["connections"]["opened"]), (&20.into(), &2.into()));
    assert_eq!(
        (&busy["thresholds"][0]["passed"], &busy["thresholds"][1]["passed"]),
        (&true.into(), &false.into())
    );
    assert_eq!(code, Some(1), "nothing was answered well");
    let (ends, _) = at("/ends", &[]);
    assert_eq!((&ends["http"]["statuses"]["2xx"], &ends["http"]["closed"]), (&20.into(), &20.into()));
    assert_eq!(ends["connections"]["opened"], 20, "an end that was announced is honoured: {ends:#}");
    assert_eq!(at("/moved", &[]).0["http"]["statuses"]["3xx"], 20);
    let (missing, _) = at("/x", &[]);
    assert_eq!(
        (&missing["http"]["statuses"]["4xx"], &missing["outcomes"]["bad_reply"]),
        (&20.into(), &20.into())
    );
    let text = run(["stress", &format!("http://{}/busy", site.address), "-n", "4", "-c", "1"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("Statuses   5xx 4  4 with Retry-After, 7s at most\n"), "{text}");
    site.end();
}

#[test]
fn messages_are_echoed_over_websockets_in_both_loops() {
    let server = Program::new().without_echo().arg("--listen", "echo=ws://127.0.0.1:0").start();
    let url = format!("ws://{}/any", server.listening("echo on ws"));
    let (report, code) = stress(&url, &["-n", "2000", "-c", "20", "--size", "300"]);
    assert_eq!((report["done"].as_u64(), code), (Some(2000), Some(0)), "{report:#}");
    assert_eq!(report["connections"]["opened"], 20);
    let (report, _) =
        stress(&url, &["--rate", "100", "-d", "1s", "--warmup", "0s", "-c", "10", "--size", "70000"]);
    assert_eq!(report["outcomes"]["ok"], report["sent"], "{report:#}");
    assert!(report["sent"].as_u64() > Some(0), "{report:#}");
    let (report, _) = stress(&url, &["-n", "50", "-c", "5", "--reuse", "never", "--data", "a line\n"]);
    assert_eq!((&report["done"], &report["http"]["statuses"]["1xx"]), (&50.into(), &50.into()), "{report:#}");
}

#[test]
fn a_reply_over_a_websocket_may_be_another_text_and_a_refusal_is_told_apart() {
    let service = websocket(|event, socket| match event {
        Event::Open(request) if request.path() == "/busy" => Err(http::status(503)),
        Event::Open(request) if request.path() == "/none" => Err(http::status(404)),
        Event::Text("bye") => socket.close(1013, "later"),
        Event::Text(text) => socket.send(&format!("hello {text}")),
        _ => Ok(()),
    });
    let site = Site::serve(limits(), service);
    let url = |path: &str| format!("ws://{}{path}", site.address);
    let (report, _) = stress(&url("/"), &["-n", "20", "-c", "2", "--data", "you", "--expect", "hello you"]);
    assert_eq!(report["done"], 20, "{report:#}");
    let (report, _) = stress(&url("/"), &["-n", "20", "-c", "2", "--data", "you"]);
    assert_eq!(report["outcomes"]["bad_reply"], 20, "{report:#}");
    let (report, _) = stress(&url("/"), &["-n", "6", "-c", "2", "--data", "bye"]);
    assert_eq!(report["outcomes"]["busy"], 6, "{report:#}");
    let (report, _) = stress(&url("/busy"), &["-n", "6", "-c", "2", "--reuse", "never"]);
    assert_eq!((&report["outcomes"]["busy"], &report["http"]["statuses"]["5xx"]), (&6.into(), &6.into()));
    let output = run(["stress", &url("/none"), "-n", "50"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not as a WebSocket does"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    site.end();
}

/// An idle socket is asked for a sign of life, and gives it.
#[test]
fn sockets_that_are_held_answer_pings() {
    let server = Program::new()
        .without_echo()
        .arg("--listen", "echo=ws://127.0.0.1:0")
        .arg("--ws-ping", "200ms")
        .start();
    let url = format!("ws://{}", server.listening("echo on ws"));
    let (report, _) = stress(&url, &["--mode", "hold", "-c", "20", "-d", "1500ms"]);
    assert_eq!(report["outcomes"]["ok"], 20, "{report:#}");
    assert_eq!(report["connections"]["opened"], 20, "none was given up and replaced");
    // And between two requests.
    let (report, _) = stress(&url, &["-c", "4", "--think", "900ms", "-d", "2s", "--warmup", "0s"]);
    assert_eq!(
        (&report["connections"]["opened"], &report["connections"]["closed_idle"]),
        (&4.into(), &0.into())
    );
}

#[test]
fn options_that_make_no_request_are_one_clear_line() {
    let wrong: [(&str, &[&str], &str); 5] = [
        ("tcp://127.0.0.1:1", &["-X", "GET"], "http://"),
        ("ws://127.0.0.1:1", &["-X", "PUT"], "GET"),
        ("http://127.0.0.1:1", &["-X", "G T"], "not a method"),
        ("http://127.0.0.1:1", &["-H", "none"], "Name: value"),
        ("http://127.0.0.1:1", &["-H", "Content-Length: 1"], "alone"),
    ];
    for (url, args, words) in wrong {
        let output = run([&["stress", url], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
