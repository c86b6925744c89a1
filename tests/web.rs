//! The program's listeners at `http://` and `ws://`: each service over each, their limits, and what a listener has of
//! its own.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{Client, PATIENCE, Program, Running, run};
use tungstenite::http::Uri;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{ClientRequestBuilder, Message, WebSocket};

fn at(scheme: &str) -> Program {
    ["hello", "echo", "time", "work"]
        .iter()
        .fold(Program::new().without_echo(), |program, name| {
            program.arg("--listen", format!("{name}={scheme}://127.0.0.1:0"))
        })
        .arg("--work", "sleep:20ms")
}

/// Connects with a client that others wrote; the status of the answer where there is no socket.
fn connect(address: SocketAddr, origin: Option<&str>) -> Result<WebSocket<TcpStream>, u16> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let uri: Uri = format!("ws://{address}/x").parse().unwrap();
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(origin) = origin {
        request = request.with_header("Origin", origin);
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(answer.status().as_u16())
        }
        Err(other) => panic!("neither a socket nor an answer: {other}"),
    }
}

#[track_caller]
fn asks(socket: &mut WebSocket<TcpStream>, words: &str) -> Message {
    socket.send(Message::text(words)).unwrap();
    socket.read().unwrap()
}

#[test]
fn each_service_answers_over_http() {
    let server = at("http").start();
    let mut client = Client::connect(server.listening("hello on http"));
    assert_eq!(client.get("/J%C3%B6rg").text(), "hello J\u{f6}rg");
    assert_eq!(client.ask("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").status, 405);
    for (service, least) in [("echo", Duration::ZERO), ("work", Duration::from_millis(20))] {
        let mut client = Client::connect(server.listening(&format!("{service} on http")));
        let began = Instant::now();
        let reply = client.ask("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!((reply.status, reply.text()), (200, "body"));
        assert!(began.elapsed() >= least);
    }
    let reply = Client::connect(server.listening("time on http")).get("/");
    assert_eq!((reply.status, reply.body.len()), (200, 25));
    ends_clean(server);
}

#[test]
fn each_service_speaks_over_websockets() {
    let server = at("ws").arg("--push-every", "50ms").start();
    let socket = |service: &str| connect(server.listening(&format!("{service} on ws")), None).unwrap();
    assert_eq!(asks(&mut socket("hello"), "you"), Message::text("hello you"));
    assert_eq!(asks(&mut socket("echo"), "you"), Message::text("you"));
    let began = Instant::now();
    assert_eq!(asks(&mut socket("work"), "you"), Message::text("you"));
    assert!(began.elapsed() >= Duration::from_millis(20));
    let mut time = socket("time");
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(time.read().unwrap().into_text().unwrap().len(), 24, "it speaks unasked");
    }
    assert!(began.elapsed() >= Duration::from_millis(100), "and not faster than it was told to");
    ends_clean(server);
}

#[track_caller]
fn ends_clean(server: Running) {
    server.signal(rustix::process::Signal::TERM);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn only_pages_of_the_origins_that_are_named_may_open_a_socket() {
    let open = "echo=ws://127.0.0.1:0";
    let server = Program::new().without_echo().arg("--listen", open).start();
    assert!(connect(server.listening("echo on ws"), Some("https://anywhere.example")).is_ok());
    let server = Program::new()
        .without_echo()
        .arg("--listen", open)
        .arg("--ws-origin", "https://Good.example:443,http://127.0.0.1:8080")
        .start();
    let address = server.listening("echo on ws");
    for (origin, expected) in [
        (None, Ok(())),
        (Some("https://good.example"), Ok(())),
        (Some("http://127.0.0.1:8080"), Ok(())),
        (Some("http://good.example"), Err(403)),
        (Some("https://good.example.evil.example"), Err(403)),
        (Some("null"), Err(403)),
    ] {
        assert_eq!(connect(address, origin).map(drop), expected, "{origin:?}");
    }
}

#[test]
fn the_limits_of_requests_and_messages_are_options() {
    let server = Program::new()
        .without_echo()
        .arg("--listen", "echo=http://127.0.0.1:0")
        .arg("--listen", "echo=ws://127.0.0.1:0")
        .arg("--max-head", "1KiB")
        .arg("--max-headers", 5)
        .arg("--max-body", "100B")
        .arg("--max-message", "200B")
        .arg("--ws-ping", "100ms")
        .start();
    let http = |request: String| Client::connect(server.listening("echo on http")).ask(request).status;
    let body = |length: usize| {
        format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    assert_eq!((http(body(100)), http(body(101))), (200, 413));
    let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!((http(headers(4)), http(headers(5))), (200, 431));
    assert_eq!(http(format!("GET / HTTP/1.1\r\nHost: h\r\na: {}\r\n\r\n", "x".repeat(1024))), 431);
    let mut socket = connect(server.listening("echo on ws"), None).unwrap();
    assert_eq!(asks(&mut socket, &"x".repeat(200)), Message::text("x".repeat(200)));
    assert_eq!(socket.read().unwrap(), Message::Ping(vec![].into()), "it is asked for a sign of life");
    let Message::Close(Some(close)) = asks(&mut socket, &"x".repeat(201)) else { panic!("no close") };
    assert_eq!(close.code, CloseCode::Size);
}

#[test]
fn a_listener_of_the_file_has_origins_and_a_pace_of_its_own() {
    let path = std::env::temp_dir().join(format!("tidegate-web-{}.toml", std::process::id()));
    let file = "ws-origin = ['https://a.example']\npush-every = '1h'\n\n\
        [[listener]]\nlisten = 'echo=ws://127.0.0.1:0'\n\n\
        [[listener]]\nlisten = 'time=ws://127.0.0.1:0'\nws-origin = ['https://b.example']\npush-every = '10ms'\n";
    std::fs::write(&path, file).unwrap();
    let server = Program::new().without_echo().arg("--config", path.display()).start();
    let tried = |listener: &str, origin: &str| connect(server.listening(listener), Some(origin)).map(drop);
    assert_eq!(tried("echo on ws", "https://a.example"), Ok(()));
    assert_eq!(tried("echo on ws", "https://b.example"), Err(403));
    assert_eq!(tried("time on ws", "https://a.example"), Err(403));
    let mut time = connect(server.listening("time on ws"), Some("https://b.example")).unwrap();
    (0..3).for_each(|_| assert!(time.read().unwrap().is_text()));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_protocol_of_a_listener_is_in_what_the_program_says_of_it() {
    let output =
        run(["check", "--listen", "echo=ws://127.0.0.1:1,echo=http://127.0.0.1:2", "--admin", "off"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("ws://127.0.0.1:1") && said.contains("http://127.0.0.1:2"), "{said}");
}
