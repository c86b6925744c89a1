//! Every scheme with every service, as a listener, with `tidegate client` and with `tidegate stress`; and what does not go together
//! is one clear line.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use certificate::{Certificate, Files};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::{Program, Running, run};
use tidegate::url::Scheme;

/// What goes over a listener, with or without TLS, by TCP or by a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bytes,
    Datagrams,
    Http,
    Socket,
}

fn kind(scheme: Scheme) -> Kind {
    match scheme {
        Scheme::Tcp | Scheme::Tls | Scheme::Unix => Kind::Bytes,
        Scheme::Udp => Kind::Datagrams,
        Scheme::Http | Scheme::Https | Scheme::HttpUnix => Kind::Http,
        Scheme::Ws | Scheme::Wss | Scheme::WsUnix => Kind::Socket,
        other => panic!("say here what {other:?} carries"),
    }
}

/// What a service does over one kind.
struct Row {
    kind: Kind,
    service: &'static str,
    /// Behind the authority of the URL.
    path: &'static str,
    /// What the client is given, and what it prints; `TIME` is the time of day.
    client: (&'static [&'static str], &'static str),
    prints: &'static str,
    /// What the stress client is given so that it knows a good reply.
    stress: &'static [&'static str],
}

const TIME: &str = "the time of day";

const fn row(
    kind: Kind,
    service: &'static str,
    client: (&'static [&'static str], &'static str),
    prints: &'static str,
    stress: &'static [&'static str],
) -> Row {
    let path = match (kind, service.as_bytes()) {
        (Kind::Http, b"hello") => "/joe",
        (Kind::Http | Kind::Socket, _) => "/",
        _ => "",
    };
    Row { kind, service, path, client, prints, stress }
}

const GREETED: &[&str] = &["--expect", "hello joe"];
const GREETED_LINE: &[&str] = &["--data", "joe\\n", "--expect", "hello joe"];
const GREETED_MESSAGE: &[&str] = &["--data", "joe", "--expect", "hello joe"];
const TOLD: &[&str] = &["--expect", ":"];
const TOLD_AT_ONCE: &[&str] = &["--data", "", "--reuse", "never", "--expect", ":"];
const TOLD_WHEN_ASKED: &[&str] = &["--data", "x", "--expect", ":"];
/// Of datagrams a port may repeat only some before one is not answered, so each is another: the lines of this file.
const GREETED_DATAGRAM: &[&str] = &["--lines", NAMES, "--expect", "hello joe"];
const TOLD_DATAGRAM: &[&str] = &["--lines", NAMES, "--expect", ":"];
const NAMES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/combinations-names");
const SENT_BACK: &[&str] = &["--data", "joe", "--expect", "joe"];

const TABLE: &[Row] = &[
    row(Kind::Bytes, "echo", (&[], "joe\n"), "joe\n", &[]),
    row(Kind::Bytes, "hello", (&[], "joe\n"), "hello joe\n", GREETED_LINE),
    row(Kind::Bytes, "time", (&[], ""), TIME, TOLD_AT_ONCE),
    row(Kind::Bytes, "work", (&[], "joe\n"), "joe\n", &[]),
    row(Kind::Datagrams, "echo", (&[], "joe\n"), "joe\n", &[]),
    row(Kind::Datagrams, "hello", (&[], "joe\n"), "hello joe\n", GREETED_DATAGRAM),
    row(Kind::Datagrams, "time", (&["--data", ""], ""), TIME, TOLD_DATAGRAM),
    row(Kind::Datagrams, "work", (&[], "joe\n"), "joe\n", &[]),
    row(Kind::Http, "echo", (&[], "joe\n"), "joe", SENT_BACK),
    row(Kind::Http, "hello", (&[], ""), "hello joe", GREETED),
    row(Kind::Http, "time", (&[], ""), TIME, TOLD),
    row(Kind::Http, "work", (&[], "joe\n"), "joe", SENT_BACK),
    row(Kind::Socket, "echo", (&[], "joe\n"), "joe\n", &[]),
    row(Kind::Socket, "hello", (&[], "joe\n"), "hello joe\n", GREETED_MESSAGE),
    row(Kind::Socket, "time", (&["--data", "x"], ""), TIME, TOLD_WHEN_ASKED),
    row(Kind::Socket, "work", (&[], "joe\n"), "joe\n", &[]),
];

const SERVICES: [&str; 4] = ["echo", "hello", "time", "work"];

/// A folder for sockets, beside the certificate.
fn folder(files: &Files) -> PathBuf {
    files.certificate.parent().unwrap().to_owned()
}

fn socket(folder: &Path, service: &str, scheme: Scheme) -> PathBuf {
    folder.join(format!("{service}-{}", scheme.as_str().replace('+', "-")))
}

/// The URL of a listener as its option has it.
fn listener(folder: &Path, service: &str, scheme: Scheme) -> String {
    match scheme.is_unix() {
        true => format!("{}://{}", scheme.as_str(), socket(folder, service, scheme).display()),
        false => format!("{}://127.0.0.1:0", scheme.as_str()),
    }
}

fn server(files: &Files, schemes: &[Scheme]) -> Running {
    let mut program = Program::new()
        .without_echo()
        .arg("--tls-cert", files.certificate.to_str().unwrap())
        .arg("--tls-key", files.key.to_str().unwrap())
        .arg("--work", "cpu:50us")
        .arg("--push-every", "20ms")
        // All requests are of one source.
        .arg("--datagram-source-rate", "100k");
    for scheme in schemes {
        for service in SERVICES {
            program =
                program.arg("--listen", format!("{service}={}", listener(&folder(files), service, *scheme)));
        }
    }
    program.start()
}

/// Where a client finds a listener.
fn url(server: &Running, files: &Files, row: &Row, scheme: Scheme) -> String {
    let (name, path) = (scheme.as_str(), row.path);
    if scheme.is_unix() {
        let socket = socket(&folder(files), row.service, scheme);
        let path = if path.is_empty() { String::new() } else { format!(":{path}") };
        return format!("{name}://{}{path}", socket.display());
    }
    let port = server.listening(&format!("{} on {name}", row.service)).port();
    let host = if scheme.inside_tls().is_some() { "localhost" } else { "127.0.0.1" };
    format!("{name}://{host}:{port}{path}")
}

fn client(args: &[&str], input: &str) -> Output {
    let mut command = support::command(support::path());
    command.arg("client").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Like `Wed Nov 25 22:52:52 2026`.
fn is_time(line: &str) -> bool {
    line.len() == 24 && line.as_bytes()[13] == b':' && line[20..].bytes().all(|byte| byte.is_ascii_digit())
}

#[track_caller]
fn check_client(row: &Row, url: &str, trust: &[&str]) {
    let (args, input) = row.client;
    let output = client(&[&[url, "--timeout", "20s"], trust, args].concat(), input);
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "client {url}: {error}");
    match row.prints {
        TIME => assert!(said.lines().next().is_some_and(is_time), "client {url}: {said:?}"),
        // An answer of HTTP may end with a newline of its own.
        prints => assert_eq!(said.trim_end(), prints.trim_end(), "client {url}"),
    }
}

#[track_caller]
fn check_stress(row: &Row, url: &str, trust: &[&str]) {
    let common = ["stress", url, "-n", "10", "-c", "2", "-t", "20s", "-o", "json", "--progress", "off"];
    let output = run([&common[..], trust, row.stress].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "stress {url}: {error}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["done"], 10, "stress {url}: {}", report["outcomes"]);
}

#[test]
fn every_service_is_served_over_every_scheme_to_both_clients() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let server = server(&files, Scheme::ALL);
    std::fs::write(NAMES, (0..10).map(|n| format!("joe {n}\n")).collect::<String>()).unwrap();
    for &scheme in Scheme::ALL {
        for service in SERVICES {
            let row = TABLE.iter().find(|row| (row.kind, row.service) == (kind(scheme), service));
            let row = row.unwrap_or_else(|| panic!("say in the table what {service} does over {scheme:?}"));
            let url = url(&server, &files, row, scheme);
            let authority = files.certificate.to_str().unwrap();
            let trust: &[&str] = if scheme.inside_tls().is_some() { &["--cacert", authority] } else { &[] };
            check_client(row, &url, trust);
            check_stress(row, &url, trust);
        }
    }
}

#[test]
fn what_does_not_go_together_is_one_clear_line() {
    let listen = |listener: &str| vec!["check".to_owned(), "--listen".to_owned(), listener.to_owned()];
    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for (args, says) in [
        (listen("time=tls+udp://127.0.0.1:0"), "it must begin with tcp://"),
        (listen("echo=udp+tls://127.0.0.1:0"), "it must begin with tcp://"),
        (listen("echo=smtp://127.0.0.1:0"), "it must begin with tcp://"),
        (listen("echo=127.0.0.1:5000"), "write it like tcp://"),
        (listen("hello=http://127.0.0.1:0/page"), "a listener has no path"),
        (listen("hello=tcp://127.0.0.1:0/page"), "it has a path"),
        (listen("page=http://127.0.0.1:0"), "`page` is not a service"),
        (listen("echo=https://127.0.0.1:0"), "--tls-cert"),
        (listen("echo=wss://127.0.0.1:0"), "--tls-cert"),
        (listen("proxy:127.0.0.1:1=udp://127.0.0.1:0"), "the gate listens on"),
        (listen("proxy:http://127.0.0.1:1=tcp://127.0.0.1:0"), "need a listener of http://"),
        (words("stress tls+udp://127.0.0.1:1"), "it must begin with tcp://"),
        (words("stress tcp://127.0.0.1:1 --cacert x"), "are about TLS"),
        (words("stress udp://127.0.0.1:1 -X GET"), "are about http://"),
        (words("stress unix:///x --source-ip 127.0.0.1/32"), "a Unix socket has no addresses"),
        (words("client tls+udp://127.0.0.1:1"), "it must begin with tcp://"),
        (words("client udp://127.0.0.1:1 -k"), "are about TLS"),
        (words("client unix:///x -H a:b"), "are about http://"),
        (words("client wss://127.0.0.1:1 --no-newline"), "about replies that are bytes"),
    ] {
        let output = run(&args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
    }
}
