//! `tidegate client` over HTTP, over WebSockets and inside TLS: against tidegate, against nginx, and against servers that
//! do what they should not.
#![cfg(feature = "tls")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/nginx.rs"]
mod nginx;
mod support;

use certificate::{Certificate, Files};
use nginx::Nginx;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Program, Running};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// Runs the client with this text as its standard input.
fn client(args: &[&str], input: &str) -> Output {
    let mut command = support::command(support::path());
    command.arg("client").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without reading its input.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it printed, where all went well.
#[track_caller]
fn printed(args: &[&str], input: &str) -> String {
    let output = client(args, input);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A failure: its code, and nothing but one line on stderr, which is returned.
#[track_caller]
fn failure(args: &[&str], input: &str, code: i32) -> String {
    let output = client(args, input);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.starts_with("tidegate: ") && said.trim_end().lines().count() == 1, "{args:?}: {said}");
    said
}

/// A server of these listeners.
fn server(listeners: &[&str]) -> (Running, Files) {
    let files = Certificate::new(&["localhost"], 4000).files();
    let mut program = Program::new()
        .without_echo()
        .arg("--tls-cert", files.certificate.to_str().unwrap())
        .arg("--tls-key", files.key.to_str().unwrap())
        .arg("--push-every", "20ms");
    for listener in listeners {
        program = program.arg("--listen", format!("{listener}://127.0.0.1:0"));
    }
    (program.start(), files)
}

fn url(server: &Running, service: &str, scheme: &str, path: &str) -> String {
    let port = server.listening(&format!("{service} on {scheme}")).port();
    format!("{scheme}://localhost:{port}{path}")
}

#[test]
fn a_message_over_http_is_a_request_and_none_is_a_get() {
    let (server, files) = server(&["hello=http", "echo=http", "hello=https", "echo=https"]);
    let trust = ["--cacert", files.certificate.to_str().unwrap()];
    for (scheme, trust) in [("http", &[][..]), ("https", &trust)] {
        let hello = url(&server, "hello", scheme, "/joe");
        let get = [&[&hello[..], "-q"], trust].concat();
        // As it is: a body that goes into a file is that file.
        let greeting = printed(&get, "");
        assert_eq!(greeting.trim_end(), "hello joe", "{scheme}");
        assert_eq!(printed(&[&get[..], &["--data", ""]].concat(), "not read"), greeting);
        let echo = url(&server, "echo", scheme, "/");
        let post = [&[&echo[..]], trust].concat();
        assert_eq!(printed(&[&post[..], &["--data", "a\\nb"]].concat(), ""), "a\nb");
        let output = client(&post, "one\n\ntwo\r\nthree");
        assert_eq!(text(&output.stdout), "one\ntwo\nthree\n", "{}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("3 messages sent, 3 replies, "), "{}", text(&output.stderr));
        // More than any buffer holds, in both directions.
        let large = "x".repeat(900_000);
        assert_eq!(printed(&post, &large), large);
        assert_eq!(printed(&[&get[..], &["-X", "HEAD"]].concat(), ""), "");
    }
}

#[test]
fn a_message_of_a_websocket_is_answered_by_one_and_what_is_pushed_is_printed() {
    let (server, files) = server(&["echo=ws", "time=ws", "hello=wss"]);
    let authority = files.certificate.to_str().unwrap();
    let output = client(&[&url(&server, "echo", "ws", "/")], "one\n\u{e9}\n");
    assert_eq!(text(&output.stdout), "one\n\u{e9}\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("2 messages sent, 2 replies, "), "{}", text(&output.stderr));
    let hello = url(&server, "hello", "wss", "/x");
    let greeting = printed(&[&hello, "--cacert", authority, "--data", "joe"], "");
    assert_eq!(greeting.trim_end(), "hello joe");
    let large = "x".repeat(900_000);
    let echoed = printed(&[&url(&server, "echo", "ws", "/")], &large);
    assert_eq!(echoed.trim_end(), large);
    // It listens as long as its input lasts.
    let mut command = support::command(support::path());
    command.args(["client", &url(&server, "time", "ws", "/")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut listening = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = std::io::BufReader::new(listening.stdout.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert!(line.trim_end().len() >= 24, "{line}");
    }
    drop(listening.stdin.take());
    let output = listening.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn bytes_inside_tls_are_what_they_are_without_it() {
    let (server, files) = server(&["echo=tls", "hello=tls", "time=tls"]);
    let authority = files.certificate.to_str().unwrap();
    let echo = url(&server, "echo", "tls", "");
    assert_eq!(printed(&[&echo, "--cacert", authority], "a\nb\n"), "a\nb\n");
    assert_eq!(printed(&[&echo, "--cacert", authority, "--data", "no newline"], ""), "no newline");
    // More than one record, and more than the kernel takes at once: what is decrypted is printed without a new event.
    let line = "x".repeat(900_000);
    let one = "x".repeat(60_000);
    assert_eq!(printed(&[&echo, "-k"], &one), format!("{one}\n"));
    assert_eq!(printed(&[&echo, "-k", "--no-newline", "--quiet", "1s"], &line).len(), line.len());
    assert_eq!(printed(&[&url(&server, "hello", "tls", ""), "-k"], "joe\n"), "hello joe\n");
    assert!(printed(&[&url(&server, "time", "tls", ""), "-k"], "").len() >= 24);
}

#[test]
fn a_certificate_that_is_not_believed_is_said_in_one_line_with_what_to_do() {
    let (server, files) = server(&["echo=tls", "hello=https", "echo=wss"]);
    let authority = files.certificate.to_str().unwrap();
    let other = Certificate::new(&["localhost"], 4000).files();
    let other = other.certificate.to_str().unwrap();
    for (service, scheme) in [("echo", "tls"), ("hello", "https"), ("echo", "wss")] {
        let url = url(&server, service, scheme, "");
        let said = failure(&[&url, "--data", "x", "--cacert", other], "", 1);
        assert!(said.contains("no trusted authority has signed its certificate"), "{said}");
        assert!(said.contains(&format!("cannot connect to {url}")), "{said}");
        let said = failure(&[&url, "--cacert", authority, "--tls-name", "example.com"], "", 1);
        assert!(said.contains("for another name"), "{said}");
        let by_address = url.replace("localhost", "127.0.0.1");
        for trust in [&["-k"][..], &["--cacert", authority, "--tls-name", "localhost"]] {
            printed(&[&[&by_address[..], "--data", ""], trust].concat(), "");
        }
    }
    let url = url(&server, "echo", "tls", "");
    for (args, code, says) in [
        (&[&url[..], "--cacert", "/nowhere"][..], 1, "cannot read /nowhere"),
        (&[&url, "-k", "--cacert", authority], 2, "cannot be used with"),
        (&["tcp://127.0.0.1:1", "-k"], 2, "are about TLS"),
        (&["http://127.0.0.1:1", "--tls-name", "x"], 2, "are about TLS"),
        (&["tcp://127.0.0.1:1", "-H", "A: b"], 2, "are about http://"),
        (&["ws://127.0.0.1:1", "-X", "PUT"], 2, "a WebSocket begins with GET"),
        (&["http://127.0.0.1:1", "-H", "nothing"], 2, "is not a header"),
        (&["http://127.0.0.1:1", "--quiet", "1s"], 2, "about replies that are bytes"),
        (&["http://127.0.0.1:0"], 2, "port 0"),
    ] {
        let said = failure(args, "", code);
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

#[test]
fn a_server_that_speaks_another_protocol_is_named_as_that() {
    let (server, _files) = server(&["hello=http", "echo=tls", "echo=tcp"]);
    let port = |listener: &str| server.listening(listener).port();
    let (http, tls, tcp) = (port("hello on http"), port("echo on tls"), port("echo on tcp"));
    for (url, says) in [
        (format!("https://localhost:{http}"), "it does not speak TLS"),
        (format!("wss://localhost:{http}"), "it does not speak TLS"),
        (format!("ws://localhost:{http}/joe"), "it opens no WebSocket: it answered with status 200"),
        (format!("http://localhost:{tcp}"), "answered message 1 with something that is no HTTP"),
        (format!("ws://localhost:{tcp}"), "it answers, and not as a WebSocket does"),
        (format!("http://localhost:{tls}"), "answered message 1 with status 400"),
        (format!("https://localhost:{tls}"), "with something that is no HTTP"),
    ] {
        let said = failure(&[&url, "-q", "--timeout", "5s"], "", 1);
        assert!(said.contains(says) || url.starts_with("https") && said.contains("trusted"), "{url}: {said}");
        assert!(said.contains(&url), "{url}: {said}");
    }
}

#[test]
fn nginx_answers_it_over_http_and_https_also_when_it_ends_connections() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let folder = files.certificate.parent().unwrap().to_owned();
    // Every second answer ends its connection, and an idle one is ended soon.
    let block = "keepalive_requests 2; keepalive_timeout 200ms; client_max_body_size 1k; location / { return 200 hi; } \
                 location /where { return 302 /; } location /body { root /; }";
    for scheme in ["http", "https"] {
        let nginx = match scheme {
            "http" => Nginx::plain(&folder, block),
            _ => Nginx::inside_tls(&files, block),
        };
        let trust: &[&str] =
            if scheme == "https" { &["--cacert", files.certificate.to_str().unwrap()] } else { &[] };
        let url = format!("{scheme}://localhost:{}", nginx.port);
        let with = |more: &[&'static str]| [&[&url[..]], trust, more].concat();
        assert_eq!(printed(&with(&[]), ""), "hi", "{scheme}");
        assert_eq!(printed(&with(&["-X", "GET"]), "1\n2\n3\n4\n5\n"), "hi\nhi\nhi\nhi\nhi\n", "{scheme}");
        // It comes back after the connection was ended in the pause.
        assert_eq!(printed(&with(&["--think", "400ms"]), "1\n2\n"), "hi\nhi\n", "{scheme}");
        let moved = format!("{url}/where");
        let said = failure(&[&[&moved[..]], trust].concat(), "", 1);
        assert!(said.contains("the server answered message 1 with status 302"), "{said}");
        // It answers before it has the whole request, and ends the connection.
        let said = failure(&with(&[]), &"x".repeat(900_000), 1);
        assert!(said.contains("with status 413"), "{scheme}: {said}");
    }
}

/// A server of one connection after another, which answers each with `serve`.
fn fake(serve: impl Fn(TcpStream) + Send + 'static, times: usize) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, std::thread::spawn(move || (0..times).for_each(|_| serve(listener.accept().unwrap().0))))
}

/// Answers one request with these bytes, and ends.
fn answering(bytes: &'static str, times: usize) -> (String, JoinHandle<()>) {
    let serve = move |mut socket: TcpStream| {
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        socket.write_all(bytes.as_bytes()).unwrap();
        // What is unread would make the end a reset.
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    };
    let (port, server) = fake(serve, times);
    (format!("http://127.0.0.1:{port}/"), server)
}

#[test]
fn a_reply_over_http_that_is_not_good_is_told_by_its_status_or_by_what_is_missing() {
    for (bytes, prints, says) in [
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nbusy\n",
            "busy\n",
            "with status 503: it may be asked again in 7 s",
        ),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "", "answered message 1 with status 404"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
            "hi",
            "closed the connection within its reply to message 1",
        ),
        ("", "", "closed the connection before it answered message 1"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "", "with something that is no HTTP"),
        ("HTTP/1.1 101 x\r\n\r\n", "", "with status 101"),
    ] {
        let (url, server) = answering(bytes, 1);
        let output = client(&[&url], "");
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{bytes:?}: {said}");
        assert_eq!(text(&output.stdout), prints, "{bytes:?}");
        server.join().unwrap();
    }
    // Without a length the end of the connection ends the reply, and the next request has a new connection.
    let (url, server) = answering("HTTP/1.1 200 OK\r\n\r\nhi", 2);
    assert_eq!(printed(&[&url, "-X", "GET"], "1\n2\n"), "hi\nhi\n");
    server.join().unwrap();
    let (url, server) =
        answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", 1);
    assert_eq!(printed(&[&url], ""), "hi");
    server.join().unwrap();
}

#[test]
fn a_server_that_stops_in_a_handshake_is_given_up_in_time() {
    for scheme in ["https", "ws", "tls"] {
        let (port, server) = fake(|mut socket| drop(socket.read_to_end(&mut Vec::new())), 1);
        let url = format!("{scheme}://127.0.0.1:{port}");
        let began = Instant::now();
        let said = failure(&[&url, "-q", "--timeout", "300ms"], "", 1);
        assert!(said.contains("handshake was not complete within 300ms"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(10));
        server.join().unwrap();
        // Its first bytes are read, so that the end is no reset.
        let (port, server) = fake(|mut socket| drop(socket.read(&mut [0; 4096])), 1);
        let said = failure(&[&format!("{scheme}://127.0.0.1:{port}"), "--timeout", "10s"], "", 1);
        assert!(said.contains("it closed the connection in the"), "{said}");
        server.join().unwrap();
    }
}

/// A WebSocket server that others wrote, for one connection.
fn socket_server(serve: impl Fn(WebSocket<TcpStream>) + Send + 'static) -> (String, JoinHandle<()>) {
    let (port, server) = fake(move |socket| serve(tungstenite::accept(socket).unwrap()), 1);
    (format!("ws://127.0.0.1:{port}/"), server)
}

#[test]
fn a_websocket_server_hears_what_the_rfc_wants_it_to_hear() {
    let (url, server) = socket_server(|mut socket| {
        socket.send(Message::Ping("are you there".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Text("one".into()));
        // In parts, with a ping between them, which the library does not make by itself.
        socket.get_mut().write_all(b"\x01\x02re\x89\x01p\x80\x02: ").unwrap();
        loop {
            match socket.read() {
                Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Normal),
                Ok(Message::Pong(said)) => assert!(said == "are you there" || said == "p"),
                Ok(other) => panic!("{other:?}"),
                Err(tungstenite::Error::ConnectionClosed) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(printed(&[&url, "--data", "one"], ""), "re: \n");
    server.join().unwrap();
}

#[test]
fn a_websocket_that_is_closed_early_or_wrongly_is_told_with_the_code() {
    let close = |code: CloseCode| {
        move |mut socket: WebSocket<TcpStream>| {
            let _ = socket.read();
            let _ = socket.close(Some(CloseFrame { code, reason: "".into() }));
            while socket.read().is_ok() {}
        }
    };
    for (code, says) in [
        (
            CloseCode::Again,
            "before it answered message 1 (close code 1013: it is busy, and may be asked again later)",
        ),
        (CloseCode::Normal, "closed the connection before it answered message 1"),
    ] {
        let (url, server) = socket_server(close(code));
        let said = failure(&[&url, "--data", "x"], "", 1);
        assert!(said.contains(says), "{said}");
        server.join().unwrap();
    }
    // After the reply, while lines are left.
    let (url, server) = socket_server(|mut socket| {
        let _ = socket.read();
        socket.send(Message::Text("re".into())).unwrap();
        let _ = socket.close(Some(CloseFrame { code: CloseCode::Restart, reason: "".into() }));
        while socket.read().is_ok() {}
    });
    let said = failure(&[&url, "--think", "300ms"], "1\n2\n", 1);
    assert!(
        said.contains("after message 1, before the input ended (close code 1012: it restarts)"),
        "{said}"
    );
    server.join().unwrap();
    // A frame that a server may not send.
    let (url, server) = socket_server(|mut socket| {
        let _ = socket.read();
        socket.get_mut().write_all(b"\x81\x80\0\0\0\0").unwrap();
        while socket.read().is_ok() {}
    });
    let said = failure(&[&url, "--data", "x"], "", 1);
    assert!(said.contains("the server broke the protocol of WebSockets"), "{said}");
    server.join().unwrap();
}

#[test]
fn an_end_that_tls_has_not_announced_is_no_good_end() {
    let files = Certificate::new(&["localhost"], 4000).files();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // It ends when its input does, and says so; killed, it says nothing.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
    openssl.arg(&files.certificate).arg("-key").arg(&files.key);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut openssl = support::Ending(openssl.spawn().unwrap());
    support::eventually("openssl listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("tls://localhost:{port}");
    let mut command = support::command(support::path());
    command.args(["client", &url, "-k", "--data", "hello\\n", "--timeout", "15s"]);
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has read the message, so nothing unread turns its end into a reset.
    let mut line = [0; 6];
    openssl.0.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello\n");
    openssl.0.kill().unwrap();
    let output = client.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("without saying so in TLS"), "{said}");
}
