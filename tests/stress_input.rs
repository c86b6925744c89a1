//! What `tidegate stress` makes of what others wrote: URLs, HTTP responses, files, kept reports.

#[path = "support/stress_server.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::{Behaviour, Server, command, count, report, stress};

fn temporary(name: &str) -> String {
    let path = format!("{}/input-{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    path
}

/// Serves each connection on a thread of its own, for as long as the test runs.
fn serve(each: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// Reads requests, and hears of the head of each; answers with `hi`.
fn heads() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
            if seen.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
        }
    });
    (address, heads)
}

#[test]
fn a_url_becomes_a_request_that_servers_understand() {
    let (address, heads) = heads();
    let port = address.port();
    for (url, line) in [
        (format!("http://127.0.0.1:{port}/a#frag"), "GET /a HTTP/1.1"),
        (format!("http://127.0.0.1:{port}/#/route"), "GET / HTTP/1.1"),
        (format!("http://127.0.0.1:{port}?q=1"), "GET /?q=1 HTTP/1.1"),
        (format!("http://127.0.0.1:{port}#x"), "GET / HTTP/1.1"),
        (format!("HTTP://127.0.0.1:{port}/"), "GET / HTTP/1.1"),
        (format!("http://127.0.0.1:{port}/a b"), "GET /a%20b HTTP/1.1"),
        (format!("http://127.0.0.1:{port}/é?ü=ß"), "GET /%C3%A9?%C3%BC=%C3%9F HTTP/1.1"),
        (format!("http://127.0.0.1:{port}/%20"), "GET /%20 HTTP/1.1"),
        (format!("http://127.0.0.1:0{port}/"), "GET / HTTP/1.1"),
    ] {
        let run = stress(&[&url, "-n", "1", "-c", "1"]);
        assert_eq!(run.code, 0, "{url}: {run:?}");
        let head = heads.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(head.lines().next(), Some(line), "{url}");
        assert!(head.contains(&format!("\r\nHost: 127.0.0.1:{port}\r\n")), "{head}");
    }
    for (url, says) in [
        (format!("http://127.0.0.1:{port}/a\r\nX-Evil: 1"), "control character"),
        (format!("http://127.0.0.1:{port}/a\nb"), "control character"),
        (format!("http://user:pw@127.0.0.1:{port}/"), "user name or password"),
        (format!("http://127.0.0.1:{port}:80/"), "IPv6 address in brackets"),
        (format!(" http://127.0.0.1:{port}/"), "must begin with"),
    ] {
        let run = stress(&[&url, "-n", "1"]);
        assert!(run.code == 2 && run.stderr.contains(says), "{url:?}: {run:?}");
    }
    assert!(heads.try_recv().is_err(), "nothing was sent for a URL that was refused");
}

#[test]
fn http_responses_end_where_the_standard_says() {
    const BODY: &str = "Content-Length: 2\r\n\r\nhi";
    // What each server answers, what becomes of ten requests of one client, and on how many connections.
    for (name, response, outcome, opened) in [
        ("304 with chunks", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "ok", 1),
        ("204 with chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "ok", 1),
        ("304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", "ok", 1),
        ("close in a list", &format!("HTTP/1.1 200 OK\r\nConnection: close, TE\r\n{BODY}"), "ok", 10),
        (
            "close, then keep-alive",
            &format!("HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: Keep-Alive\r\n{BODY}"),
            "ok",
            10,
        ),
        ("keep-alive of 1.0", &format!("HTTP/1.0 200 OK\r\nConnection: Keep-Alive, X\r\n{BODY}"), "ok", 1),
        (
            "zeros before a size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000002\r\nhi\r\n0000000000000000\r\n\r\n",
            "ok",
            1,
        ),
        ("space before the colon", &format!("HTTP/1.1 200 OK\r\nServer : x\r\n{BODY}"), "ok", 1),
        ("folded header", &format!("HTTP/1.1 200 OK\r\nX-A: b\r\n  c\r\n{BODY}"), "ok", 1),
        ("lengths that differ", &format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{BODY}"), "bad_reply", 10),
        ("the same length twice", &format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{BODY}"), "ok", 1),
    ] {
        // The server keeps every connection open, so that the client is who decides.
        let response: &'static str = response.to_owned().leak();
        let address = serve(move |mut stream| {
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|n| n > 0) {
                if stream.write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let url = format!("http://{address}/");
        let (_, report) = report(&[&url, "-n", "10", "-c", "1", "-t", "2s"]);
        assert_eq!(count(&report, outcome), 10, "{name}: {report:#}");
        assert_eq!(report["connections"]["opened"], opened, "{name}");
    }
}

/// Runs the program with at most this much address space, in KiB.
fn confined(kib: u64, args: &[&str]) -> support::Run {
    let mut shell = std::process::Command::new("/bin/sh");
    let script = format!("ulimit -v {kib} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate"), "stress"]).args(args);
    shell.stdin(Stdio::null());
    support::Run::of(shell.output().unwrap())
}

#[test]
fn no_more_is_read_of_a_file_without_end_than_its_bound() {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    for args in [
        &[&url[..], "--data-file", "/dev/zero", "-n", "1"][..],
        &[&url, "--lines", "/dev/zero", "-n", "1"],
        &[&url, "--baseline", "/dev/zero", "-n", "1"],
        &["report", "/dev/zero"],
        &["compare", "/dev/zero", "/dev/zero"],
        &["merge", "/dev/zero"],
    ] {
        let began = Instant::now();
        let run = confined(1_000_000, args);
        assert!(run.code == 1 && run.stderr.contains("it has more than 64MiB"), "{args:?}: {run:?}");
        assert!(run.stderr.contains("/dev/zero") && run.stderr.lines().count() == 1, "{args:?}: {run:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{args:?}");
    }
    assert_eq!(server.accepted(), 0, "nothing was begun");
}

#[test]
fn a_payload_can_come_through_a_pipe() {
    let server = Server::start(Behaviour::Hello);
    let url = server.url();
    for (args, input) in [
        (&["--lines", "-", "--expect", "hello p"][..], "p1\np2\n"),
        (&["--lines", "/dev/stdin", "--expect", "hello p"], "p1\np2\n"),
        (&["--data-file", "-", "--expect", "hello p3"], "p3\n"),
    ] {
        let mut child = command(&[&[&url[..], "-n", "4", "-c", "1"], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let run = support::Run::of(child.wait_with_output().unwrap());
        assert!(run.code == 0 && run.stdout.contains("ok 4"), "{args:?}: {run:?}");
    }
}

#[test]
fn blank_lines_are_no_requests_whatever_ends_them() {
    let path = temporary("lines");
    for text in ["one\r\n\r\ntwo\r\n", "one\n\n\ntwo", "\r\none\n\n", "one\r\n\r\r\n"] {
        std::fs::write(&path, text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            use std::io::{BufRead, BufReader};
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = line.trim_ascii();
                assert!(text == b"one" || text == b"two", "{:?}", String::from_utf8_lossy(&line));
                (&stream).write_all(&line).unwrap();
                line.clear();
            }
        });
        let run = stress(&[&url, "--lines", &path, "-n", "6", "-c", "1"]);
        assert!(run.code == 0 && run.stdout.contains("ok 6"), "{text:?}: {run:?}");
        server.join().unwrap();
    }
}

/// The JSON report of a small run with everything that a report can have.
fn kept_report() -> serde_json::Value {
    let server = Server::start(Behaviour::Echo);
    let url = server.url();
    let (code, report) = report(&[
        &url,
        "-r",
        "100",
        "-c",
        "2",
        "-d",
        "1s",
        "--warmup",
        "0s",
        "--probe",
        "20",
        "--threshold",
        "p99<5s",
    ]);
    assert_eq!(code, 0, "{report:#}");
    report
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let path = temporary("head.json");
    std::fs::write(&path, kept_report().to_string()).unwrap();
    for (args, code) in [
        (&["report", &path[..]][..], 0),
        (&["report", &path, "-o", "json"], 0),
        (&["report", &path, "--threshold", "p99<1ns"], 99),
        (&["compare", &path, &path], 0),
        (&["merge", &path], 0),
    ] {
        // The reader is gone before the first byte is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_report_is_read_from_a_pipe_and_as_editors_save_it() {
    let report = format!("{:#}", kept_report());
    let path = temporary("bom.json");
    for text in [format!("\u{feff}{report}"), report.replace('\n', "\r\n"), format!("{report}\n\n")] {
        std::fs::write(&path, text).unwrap();
        let run = stress(&["report", &path]);
        assert!(run.code == 0 && run.stdout.starts_with("stress: tcp://"), "{run:?}");
    }
    let mut child = command(&["report", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(report.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().stdout.starts_with(b"stress: tcp://"));
}

/// Puts a text in the place of every text of a report.
fn poison(value: &mut serde_json::Value, key: &str, with: &str) {
    match value {
        // Without its histograms it would be no report.
        serde_json::Value::String(text) if key != "histogram" => *text = with.to_owned(),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| poison(item, key, with)),
        serde_json::Value::Object(fields) => {
            if key == "outcomes" {
                fields.insert(with.to_owned(), 7.into());
            }
            fields.iter_mut().for_each(|(key, value)| poison(value, key, with));
        }
        _ => {}
    }
}

#[test]
fn a_hostile_report_is_shown_and_not_obeyed() {
    let mut hostile = kept_report();
    let search = serde_json::json!({ "condition": "x", "rate": 1.0, "trials": [
        { "rate": 1.0, "done_rate": 1.0, "value": "x", "passed": true, "verdict": "x" }] });
    hostile["find_max"] = search;
    for text in ["rate", "arrival", "think"] {
        hostile["plan"][text] = "x".into();
    }
    poison(&mut hostile, "", "<script>alert('1')</script>&\"\u{1b}[2J\u{9b}31m\u{202e}\r");
    let (path, page) = (temporary("hostile.json"), temporary("hostile.html"));
    std::fs::write(&path, hostile.to_string()).unwrap();
    let run = stress(&["report", &path, "--html", &page]);
    assert_eq!(run.code, 0, "{run:?}");
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;\\x1b[2J"));
    for shown in [&page, &run.stdout] {
        let bad = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{shown}");
    }
    // Nothing but what the page itself is made of.
    assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
    let other = temporary("other.json");
    std::fs::write(&other, kept_report().to_string()).unwrap();
    let compared = stress(&["compare", &path, &other]);
    assert!(compared.code == 0 || compared.code == 99, "{compared:?}");
    let merged = stress(&["merge", &path, &other]);
    assert!(merged.code == 1 && merged.stderr.contains("different targets"), "{merged:?}");
    for said in [&compared.stdout, &compared.stderr, &merged.stderr] {
        assert!(!said.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r']), "{said:?}");
    }
}

#[test]
fn a_report_with_absurd_numbers_is_shown_or_refused_and_never_a_crash() {
    let path = temporary("absurd.json");
    let sound = kept_report();
    let huge = serde_json::json!(u64::MAX);
    for (pointer, value) in [
        ("/offered", huge.clone()),
        ("/sent", huge.clone()),
        ("/outcomes/ok", huge.clone()),
        ("/elapsed", serde_json::json!(1e308)),
        ("/elapsed", serde_json::json!(-1.0)),
        ("/rate", serde_json::json!(-1e308)),
        ("/timeline/0/seconds", serde_json::json!(1e-308)),
        ("/timeline/0/at", serde_json::json!(1e308)),
        ("/timeline/0/p99", serde_json::json!(-5.0)),
        ("/timeline/0/outcomes/ok", huge.clone()),
        ("/connections/bytes_sent", huge),
        ("/latency/response/p50", serde_json::json!(1e300)),
        ("/latency/response/histogram", serde_json::json!("AAAA")),
        (
            "/latency/response/histogram",
            serde_json::json!("HISTFAAAABx4nJNpmSzMwMDAxAABzFCaEUoz2X+AsQA/awKA"),
        ),
        ("/generator/lag_p99", serde_json::json!(-1e9)),
    ] {
        let mut report = sound.clone();
        *report.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} in {sound:#}")) = value;
        std::fs::write(&path, report.to_string()).unwrap();
        let page = temporary("absurd.html");
        for args in [
            &["report", &path[..], "--html", &page, "--threshold", "p99<1s"][..],
            &["merge", &path, &path, "-o", "json"],
            &["compare", &path, &path],
        ] {
            let run = stress(args);
            assert!([0, 1, 99].contains(&run.code), "{pointer} {args:?}: {run:?}");
            assert!(!run.stderr.contains("panicked"), "{pointer} {args:?}: {run:?}");
        }
    }
}

#[test]
fn a_server_at_a_unix_socket_is_loaded_like_one_at_a_port() {
    let path = temporary("echo.sock");
    let url = format!("unix://{path}");
    let run = stress(&[&url, "-n", "4"]);
    assert!(run.code == 1 && run.stderr.contains(&format!("nothing listens at {path}")), "{run:?}");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    for args in [
        &["-n", "1000", "-c", "8"][..],
        &["-n", "500", "-c", "8", "--reuse", "never"],
        &["-n", "500", "-c", "300", "--reuse", "2", "--close", "half"],
        &["-r", "500", "-d", "1s", "--warmup", "0s", "-c", "8", "--probe", "50"],
        &["--size", "100k", "-n", "50", "-c", "4"],
        &["--mode", "hold", "-c", "50", "-d", "500ms"],
        &["--mode", "connect-flood", "-n", "200", "-c", "4"],
        &["--mode", "slow-send", "--drip", "1ms", "-c", "4", "-d", "300ms"],
    ] {
        let (code, report) = report(&[&[&url[..]], args].concat());
        assert_eq!(code, 0, "{args:?}: {report:#}");
        assert_eq!(report["done"], report["offered"], "{args:?}: {report:#}");
        assert_eq!(report["plan"]["url"], url, "{args:?}");
    }
    let run = stress(&[&url, "-n", "1", "--source-ip", "127.0.0.2"]);
    assert!(run.code == 2 && run.stderr.contains("a Unix socket has no addresses"), "{run:?}");
}

#[test]
fn http_is_spoken_over_a_unix_socket() {
    let path = temporary("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (seen, heads) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
            seen.send(String::from_utf8_lossy(&request[..n]).into_owned()).unwrap();
        }
    });
    let encoded = path.replace('/', "%2F");
    for (url, target) in [
        (format!("http+unix://{path}"), "/"),
        (format!("http+unix://{path}:/status?a=b"), "/status?a=b"),
        (format!("http+unix://{encoded}/status?a=b"), "/status?a=b"),
    ] {
        let run = stress(&[&url, "-n", "1", "-c", "1"]);
        assert_eq!(run.code, 0, "{url}: {run:?}");
        let head = heads.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n")), "{url}: {head}");
    }
}

#[test]
fn a_unix_socket_whose_backlog_is_full_is_tried_until_the_connect_timeout() {
    let path = temporary("full.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(1).unwrap();
    let url = format!("unix://{path}");
    // Two connections have room in the backlog, and nobody accepts.
    let (_, report) =
        report(&[&url, "--mode", "connect-flood", "-n", "12", "-c", "4", "--connect-timeout", "300ms"]);
    assert_eq!((count(&report, "ok"), count(&report, "connect_timeout")), (2, 10), "{report:#}");
    assert_eq!(report["valid"], true, "the server was the limit: {report:#}");
    // Clients that wait get in as soon as there is room.
    let waiting = support::spawn(&[&url, "-n", "8", "-c", "4", "--connect-timeout", "20s", "-o", "json"]);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = (&stream).read(&mut buffer) {
                    (&stream).write_all(&buffer[..n]).unwrap();
                }
            });
        }
    });
    let run = support::wait_within(waiting, Duration::from_secs(20));
    assert!(run.code == 0 && run.json()["done"] == 8, "{run:?}");
}
