//! WebSockets over real sockets: the handshake, messages, closes and limits, pushers and pings, and that an idle one
//! owns nothing.

mod support;

use std::io::{self, Read};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Client, End, PATIENCE, Site, eventually, finish, hush_panics, throughout};
use tidegate::reason::CloseReason;
use tidegate::websocket::{
    Closed, Event, Opcode, Prepared, PushError, Pusher, WebSocketConfig, WebSockets, frame_head, unmask,
};
use tidegate::{Limits, http, websocket};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

const MIB: usize = 1 << 20;

fn limits() -> Limits {
    Limits::default().workers(1).queue(2000).linger_timeout(Duration::from_millis(50))
}

/// Connects with a client that others wrote.
#[track_caller]
fn connect(site: &Site) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client(format!("ws://{}/x?y", site.address), stream).expect("it connects").0
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A handshake without these lines and with those.
fn handshake(without: &str, with: &str) -> String {
    let lines = [
        "Upgrade: websocket\r\n",
        "Connection: keep-alive, Upgrade\r\n",
        KEY,
        "Sec-WebSocket-Version: 13\r\n",
    ];
    let kept: String =
        lines.iter().filter(|line| without.is_empty() || !line.contains(without)).copied().collect();
    format!("GET / HTTP/1.1\r\nHost: h\r\n{kept}{with}\r\n")
}

const OPENED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A client's frame with these first bits.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut bytes = frame_head(Opcode::Text, payload.len()).as_ref().to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(key);
    let start = bytes.len();
    bytes.extend(payload);
    unmask(&mut bytes[start..], key);
    bytes
}

/// A socket that was opened by hand.
#[track_caller]
fn open(site: &Site) -> Client {
    opened(site.client())
}

#[track_caller]
fn opened(mut client: Client) -> Client {
    client.say(handshake("", "")).hear(format!("{OPENED}\r\n"));
    client
}

/// The close frame that a server sends, and its end.
#[track_caller]
fn hear_close(client: &mut Client, code: u16) {
    let (said, end) = client.rest();
    assert_eq!((said.first(), end), (Some(&0x88), End::Fin), "{said:?}");
    assert_eq!(u16::from_be_bytes([said[2], said[3]]), code, "{}", String::from_utf8_lossy(&said[4..]));
}

#[test]
fn messages_are_echoed_to_a_client_that_others_wrote() {
    let site = Site::serve(limits(), websocket::echo());
    let mut client = connect(&site);
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::text("J\u{f6}rg \u{1f600}".repeat(20_000)),
        Message::binary(vec![]),
        Message::binary(vec![0xff; 200_000]),
    ] {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
    client.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(vec![1, 2, 3].into()));
    client.close(None).unwrap();
    while client.read().is_ok() {}
    site.until_closed(CloseReason::Server, 1);
    let (host, port) = (site.address.ip().to_string(), site.address.port().to_string());
    let mut python = Command::new("target/test-venv/bin/python");
    let output = finish(python.arg("tests/python/websocket_clients.py").arg(host).arg(port));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    site.end();
}

#[test]
fn a_handshake_that_is_not_one_is_answered_over_http() {
    let site = Site::serve(limits(), websocket::echo().origin("https://good.example"));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        (handshake("Upgrade: websocket", ""), 426),
        (handshake("Connection", ""), 426),
        (handshake("Upgrade: websocket", "Upgrade: h2c\r\n"), 426),
        (handshake("Version", ""), 426),
        (handshake("Version", "Sec-WebSocket-Version: 8\r\n"), 426),
        (handshake("Key", ""), 400),
        (handshake("Key", "Sec-WebSocket-Key: short\r\n"), 400),
        (handshake("", KEY), 400),
        (handshake("", "").replace("GET", "POST"), 400),
        (handshake("", "Origin: https://evil.example\r\n"), 403),
        (handshake("", "Origin: https://good.example\r\nOrigin: https://evil.example\r\n"), 403),
        (handshake("", "").replace("HTTP/1.1", "HTTP/1.0"), 426),
    ] {
        let reply = site.client().ask(&request);
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
        assert_eq!(reply.header("sec-websocket-version"), Some("13"));
        assert_eq!(reply.header("upgrade"), Some("websocket"));
    }
    for with in ["", "Origin: HTTPS://good.example\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n"] {
        site.client().say(handshake("", with)).hear(format!("{OPENED}\r\n"));
    }
    site.end();
}

#[test]
fn a_subprotocol_is_taken_that_both_speak() {
    let site = Site::serve(limits(), websocket::echo().protocol("chat.v2").protocol("chat.v1"));
    for (offered, spoken) in [
        ("Sec-WebSocket-Protocol: x, chat.v1, chat.v2\r\n", "Sec-WebSocket-Protocol: chat.v2\r\n"),
        (
            "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: chat.v1\r\n",
            "Sec-WebSocket-Protocol: chat.v1\r\n",
        ),
        ("Sec-WebSocket-Protocol: x\r\n", ""),
    ] {
        site.client().say(handshake("", offered)).hear(format!("{OPENED}{spoken}\r\n"));
    }
    site.end();
}

#[test]
fn frames_may_come_with_the_handshake_and_in_any_pieces() {
    let site = Site::serve(limits(), websocket::echo());
    let frames =
        [frame(0x01, "J\u{f6}".as_bytes().split_at(2).0), frame(0x89, b"p"), frame(0x80, b"\xb6rg")].concat();
    let answer = [&[0x8a, 1, b'p', 0x81, 5][..], "J\u{f6}rg".as_bytes()].concat();
    let mut client = site.client();
    client.say([handshake("", "").as_bytes(), &frames].concat()).hear(format!("{OPENED}\r\n")).hear(&answer);
    for byte in &frames {
        client.say([*byte]);
        std::thread::yield_now();
    }
    client.hear(&answer);
    site.end();
}

#[test]
fn a_client_that_breaks_a_rule_is_told_the_code_for_it() {
    let site = Site::serve(limits(), websocket::echo());
    let cases = [
        (frame(0xc1, b"x"), 1002),
        (vec![0x81, 1, b'x'], 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x88, b"x"), 1002),
        (frame(0x88, &1005u16.to_be_bytes()), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        (frame(0x81, b"\xff"), 1007),
        ([frame(0x01, b"\xc3"), frame(0x80, b"x")].concat(), 1007),
        ([frame(0x01, b"\xc3"), frame(0x89, b"between"), frame(0x80, b"")].concat(), 1007),
        (frame(0x81, b"\xed\xa0\x80"), 1007),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5], 1002),
        (vec![0x89, 0xfe, 0, 126], 1002),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1], 1009),
    ];
    let count = cases.len() as u64;
    for (bytes, code) in cases {
        let mut client = open(&site);
        client.say(&bytes);
        if bytes.contains(&0x89) && code == 1007 {
            client.hear([&[0x8a, 7][..], b"between"].concat());
        }
        hear_close(&mut client, code);
    }
    site.until_closed(CloseReason::Protocol, count);
    site.end();
}

/// A body would stand where frames are expected: who wrote it could put frames into it.
#[test]
fn a_handshake_with_a_body_is_refused_and_its_body_is_not_read_as_frames() {
    struct Streamed(WebSockets);
    impl http::Streaming for Streamed {
        type Exchange = ();
        fn head(
            &self,
            request: &http::Request<'_>,
            response: http::Response<'_, '_>,
        ) -> io::Result<http::Head<()>> {
            response.websocket(request, &self.0).map(http::Head::Answered)
        }
        fn piece(&self, (): &mut (), _piece: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn end(&self, (): (), response: http::Response<'_, '_>) -> io::Result<http::Answer> {
            response.empty()
        }
    }
    let body = frame(0x81, b"hi");
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
    let streamed = http::streaming(Streamed(websocket::echo()));
    for site in [Site::serve(limits(), websocket::echo()), Site::serve(limits(), streamed)] {
        for (with, body) in [(&length, &body), (&chunked, &chunk)] {
            for together in [true, false] {
                let (head, mut client) = (handshake("", with), site.client());
                match together {
                    true => client.say([head.as_bytes(), body].concat()),
                    false => client.say(head).mutter(body),
                };
                let reply = client.reply();
                assert_eq!(
                    (reply.status, &*reply.body),
                    (400, &b"a WebSocket begins with GET, without a body\n"[..])
                );
                client.finish_quietly();
                assert!(client.rest().0.is_empty(), "nothing is echoed");
            }
        }
        site.client().say(handshake("", "Content-Length: 0\r\n")).hear(format!("{OPENED}\r\n"));
        site.end();
    }
}

#[test]
fn requests_may_stand_before_a_handshake_in_one_packet_and_behind_one_that_is_refused() {
    let sockets = websocket::echo();
    let site = Site::serve(
        limits(),
        http(move |request, response| match request.path() {
            "/echo" => response.websocket(request, &sockets),
            path => response.text(path),
        }),
    );
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let upgrade = handshake("", "").replace("GET /", "GET /echo");
    let refused = handshake("Key", "").replace("GET /", "GET /echo");
    let mut client = site.client();
    let requests = [ask("/one"), refused, ask("/two"), upgrade].concat();
    client.say([requests.as_bytes(), &frame(0x81, b"hi"), &frame(0x81, b"ho")].concat());
    assert_eq!((client.reply().text(), client.reply().status), ("/one", 400));
    assert_eq!(client.reply().text(), "/two");
    client.hear(format!("{OPENED}\r\n")).hear(b"\x81\x02hi\x81\x02ho");
    // From here on a request is a frame, and a bad one.
    client.say(ask("/three"));
    hear_close(&mut client, 1002);
    site.end();
}

#[test]
fn a_close_is_answered_with_its_code_and_one_of_the_service_waits_for_its_answer() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let log = ends.clone();
    let service = websocket(move |event, socket| match event {
        Event::Text("bye") => {
            socket.close(4000, "as you like")?;
            assert!(socket.send("too late").is_err());
            assert!(socket.close(1005, "").is_err());
            Ok(())
        }
        Event::Close(closed) => {
            assert!(socket.send("nobody is there").is_err());
            log.lock().unwrap().push(closed.clone());
            Ok(())
        }
        _ => Ok(()),
    });
    let site = Site::serve(limits().linger_timeout(Duration::from_millis(500)), service);
    let end = |what: &str| -> Closed { eventually(what, || ends.lock().unwrap().pop()) };
    // The client ends it, with and without a code.
    let mut client = open(&site);
    client.say(frame(0x88, b"\x0f\xa1why")).hear([0x88, 2, 0x0f, 0xa1]);
    assert_eq!(client.end(), End::Fin);
    let closed = end("a close with a code");
    assert_eq!((closed.code, &*closed.reason, closed.why), (Some(4001), "why", CloseReason::Server));
    let mut client = open(&site);
    client.say(frame(0x88, b"")).hear([0x88, 0]);
    assert_eq!((end("without one").code, client.end()), (None, End::Fin));
    // The service ends it: what is said before the client's answer is not heard.
    let mut client = open(&site);
    client.say(frame(0x81, b"bye")).hear([&[0x88, 13, 0x0f, 0xa0][..], b"as you like"].concat());
    client.say([frame(0x81, b"bye"), frame(0x88, b"\x0f\xa0")].concat());
    assert_eq!((end("an answer").code, client.end()), (Some(4000), End::Fin));
    // And a client that does not answer is not waited for.
    let mut client = open(&site);
    client.say(frame(0x81, b"bye")).hear([&[0x88, 13, 0x0f, 0xa0][..], b"as you like"].concat());
    assert_eq!((client.end(), end("no answer").code), (End::Fin, None));
    // One that leaves without a word.
    open(&site).reset();
    assert_eq!(end("a reset").why, CloseReason::Reset);
    site.end();
}

#[test]
fn a_service_may_refuse_a_socket_and_may_speak_first() {
    let service = websocket(|event, socket| match event {
        Event::Open(request) => match request.query() {
            Some("secret") => socket.send("welcome"),
            Some("late") => socket.send("no").and(Err(io::Error::other("as the test wants"))),
            _ => Err(http::status(401)),
        },
        _ => Ok(()),
    });
    let site = Site::serve(limits(), service);
    let mut client = site.client();
    client
        .say(handshake("", "").replace("GET /", "GET /?secret"))
        .hear(format!("{OPENED}\r\n"))
        .hear(b"\x81\x07welcome");
    // One that is refused may go on with HTTP.
    let mut client = site.client();
    assert_eq!((client.ask(handshake("", "")).status, client.ask(handshake("", "")).status), (401, 401));
    let mut client = site.client();
    client.say(handshake("", "").replace("GET /", "GET /?late"));
    assert_eq!(client.rest().1, End::Reset);
    site.end();
}

/// A service that has noted a socket at its opening learns of its end, however the opening went.
#[test]
fn each_socket_that_was_opened_is_closed_once_and_nothing_is_pushed_to_one_that_was_not() {
    hush_panics();
    let closes = Arc::new(Mutex::new(Vec::new()));
    let pushers: Arc<Mutex<Vec<Pusher>>> = Arc::default();
    let (log, noted) = (closes.clone(), pushers.clone());
    let service = websocket(move |event, socket| {
        let request = match event {
            Event::Open(request) => request,
            Event::Close(closed) => {
                log.lock().unwrap().push(closed.why);
                return Ok(());
            }
            _ => return Ok(()),
        };
        noted.lock().unwrap().push(socket.pusher()?);
        match request.query() {
            Some("panics") => panic!("as the test wants"),
            Some("speaks") => socket.send("hi").map(|()| panic!("as the test wants")),
            Some("fails") => socket.send("hi").and(Err(io::Error::other("as the test wants"))),
            _ => Err(http::status(401)),
        }
    });
    let site = Site::serve(limits(), service);
    for (query, why) in [
        ("panics", Some(CloseReason::Panic)),
        ("speaks", Some(CloseReason::Panic)),
        ("fails", Some(CloseReason::Error)),
        ("refused", None),
    ] {
        let mut client = site.client();
        client.say(handshake("", "").replace("GET /", &format!("GET /?{query}")));
        match why {
            Some(why) => {
                assert_eq!(client.rest().1, End::Reset, "{query}");
                assert_eq!(eventually("it is told", || closes.lock().unwrap().pop()), why, "{query}");
            }
            None => assert_eq!(client.reply().status, 401),
        }
        let pusher = pushers.lock().unwrap().pop().expect("it was opened");
        assert_eq!(pusher.push("anybody?"), Err(PushError::Gone), "{query}");
    }
    assert_eq!(closes.lock().unwrap().len(), 0, "each once, and none for what was no socket");
    site.end();
}

#[test]
fn pages_and_sockets_share_a_listener() {
    let sockets = websocket::echo();
    let site = Site::serve(
        limits(),
        http(move |request, response| match request.path() {
            "/echo" => response.websocket(request, &sockets),
            _ => response.text("a page"),
        }),
    );
    let mut client = site.client();
    assert_eq!(client.get("/").text(), "a page");
    client.say(handshake("", "").replace("GET /", "GET /echo")).hear(format!("{OPENED}\r\n"));
    client.say(frame(0x81, b"hi")).hear(b"\x81\x02hi");
    site.end();
}

/// A room: whoever says something is heard by all.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<(u64, Pusher)>>>);

impl Room {
    fn service(&self) -> WebSockets {
        let room = self.clone();
        websocket(move |event, socket| {
            match event {
                Event::Open(_) => room.0.lock().unwrap().push((socket.id(), socket.pusher()?)),
                Event::Text(text) => room.say(text),
                Event::Close(_) => room.0.lock().unwrap().retain(|(id, _)| *id != socket.id()),
                _ => {}
            }
            Ok(())
        })
    }

    fn say(&self, text: &str) {
        let message = Prepared::from(text);
        for (_, member) in &*self.0.lock().unwrap() {
            let _ = member.push(message.clone());
        }
    }
}

#[test]
fn one_says_and_a_thousand_idle_members_hear_it() {
    let room = Room::default();
    let site = Site::serve(limits(), room.service());
    let mut members: Vec<Client> = (0..1000).map(|_| open(&site)).collect();
    site.until("all are parked", |now| (now.idle, now.active, now.queued) == (1000, 0, 0));
    let stats = site.stats();
    assert_eq!(
        (stats.pending_input_bytes, stats.pending_output_bytes),
        (0, 0),
        "an idle socket owns no buffer"
    );
    members[0].say(frame(0x81, b"hello"));
    for member in &mut members {
        member.hear(b"\x81\x05hello");
    }
    // From a thread of its own, too, in order.
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|n| room.say(&format!("news {n:02}"))));
    });
    for member in &mut members {
        for n in 0..20 {
            member.hear([&[0x81, 7][..], format!("news {n:02}").as_bytes()].concat());
        }
    }
    drop(members);
    eventually("all have left the room", || room.0.lock().unwrap().is_empty().then_some(()));
    assert_eq!(site.stats().pending_output_bytes, 0);
    site.end();
}

#[test]
fn a_pusher_says_when_its_client_does_not_take_and_when_it_is_gone() {
    let room = Room::default();
    let site = Site::serve(limits().output_per_connection(200_000).max_line(1000), room.service());
    let mut slow = Client::narrow(site.address);
    slow.say(handshake("", "")).hear(format!("{OPENED}\r\n"));
    let pusher =
        eventually("it is open", || room.0.lock().unwrap().first().map(|(_, pusher)| pusher.clone()));
    let message = "x".repeat(10_000);
    let pushed =
        eventually("it is full", || (0..10_000).find(|_| pusher.push(&message) == Err(PushError::Full)));
    let pending = site.stats().pending_output_bytes;
    assert!((150_000..400_000).contains(&pending), "{pending} bytes wait");
    assert!(pushed < 2000, "{pushed} messages were taken at once");
    assert_eq!(pusher.push(&"x".repeat(300_000)), Err(PushError::Full), "longer than may ever wait");
    // It goes on where it stopped.
    let mut heard = vec![0; 10_004];
    slow.stream().read_exact(&mut heard).unwrap();
    assert_eq!(heard[..4], [0x81, 126, 0x27, 0x10]);
    slow.reset();
    eventually("it is gone", || (pusher.push("anybody?") == Err(PushError::Gone)).then_some(()));
    assert_eq!(site.stats().pending_output_bytes, 0, "nothing is kept for whoever is gone");
    site.end();
}

#[test]
fn a_pusher_can_end_its_socket_after_what_was_pushed() {
    let room = Room::default();
    let site = Site::serve(limits(), room.service());
    let mut client = open(&site);
    let pusher =
        eventually("it is open", || room.0.lock().unwrap().first().map(|(_, pusher)| pusher.clone()));
    pusher.push("last").unwrap();
    pusher.close(4002);
    assert_eq!(pusher.push("later"), Err(PushError::Gone));
    client.hear(b"\x81\x04last").hear([0x88, 2, 0x0f, 0xa2]).say(frame(0x88, b"\x0f\xa2"));
    assert_eq!(client.end(), End::Fin);
    site.end();
}

#[test]
fn a_silent_client_is_asked_for_a_sign_of_life_and_given_up_without_one() {
    let mut config = WebSocketConfig::default();
    config.ping_every = Duration::from_millis(300);
    let limits = limits().idle_timeout(Duration::from_millis(200));
    let site = Site::serve(limits, websocket::echo().config(config));
    let (mut alive, mut dead) = (open(&site), open(&site));
    let began = Instant::now();
    for _ in 0..4 {
        alive.hear([0x89, 0]).say(frame(0x8a, b""));
    }
    assert!(began.elapsed() >= Duration::from_millis(1000), "a ping each 300 ms: {:?}", began.elapsed());
    dead.hear([0x89, 0]);
    assert_eq!(dead.end(), End::Fin);
    site.until_closed(CloseReason::ReadTimeout, 1);
    assert_eq!(site.counts().open(), 1, "whoever answers stays, idle or not");
    site.end();
}

#[test]
fn a_message_that_drips_has_a_deadline_whatever_comes_between() {
    let site = Site::serve(limits().read_timeout(Duration::from_millis(600)), websocket::echo());
    let mut client = open(&site);
    let began = Instant::now();
    client.say(frame(0x01, b"begun"));
    while site.counts().closed_total() == 0 {
        client.mutter(frame(0x89, b"")).mutter(frame(0x00, b"x"));
        std::thread::sleep(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5), "it is still there");
    }
    site.until_closed(CloseReason::ReadTimeout, 1);
    // A whole one after a long silence is in time.
    let mut client = open(&site);
    throughout(Duration::from_millis(900), "it stays", || site.counts().open() == 1);
    client.say(frame(0x81, b"hi")).hear(b"\x81\x02hi");
    site.end();
}

#[test]
fn a_service_can_be_called_later_without_a_thread() {
    let site = Site::serve(limits(), websocket::time(Duration::from_millis(100)));
    let mut clients: Vec<_> = (0..20).map(|_| connect(&site)).collect();
    let began = Instant::now();
    for _ in 0..5 {
        for client in &mut clients {
            assert_eq!(client.read().unwrap().into_text().unwrap().len(), 24);
        }
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "five times in {took:?}");
    site.end();
}

#[test]
fn a_client_that_sends_much_does_not_hold_the_worker() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let service = websocket(move |event, socket| match event {
        Event::Text(text) => {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            socket.send(text)
        }
        _ => Ok(()),
    });
    let site = Site::serve(limits(), service);
    let (mut greedy, mut other) = (open(&site), open(&site));
    greedy.say(frame(0x81, b"x").repeat(1000));
    eventually("it is being served", || (handled.load(Ordering::SeqCst) > 2).then_some(()));
    other.say(frame(0x81, b"hi")).hear(b"\x81\x02hi");
    assert!(handled.load(Ordering::SeqCst) < 500);
    for _ in 0..1000 {
        greedy.hear(b"\x81\x01x");
    }
    site.end();
}

#[test]
fn a_client_that_pings_without_end_and_does_not_read_is_ended_and_holds_up_nobody() {
    let site = Site::serve(limits().output_per_connection(100_000).turn_bytes(4 * MIB), websocket::echo());
    let (mut flood, mut other) = (Client::narrow(site.address), open(&site));
    flood.say(handshake("", "")).hear(format!("{OPENED}\r\n"));
    let pings = frame(0x89, &[7; 125]).repeat(500);
    let began = Instant::now();
    flood.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut pinged = 0;
    while began.elapsed() < PATIENCE && io::Write::write_all(&mut flood.stream(), &pings).is_ok() {
        pinged += 1;
        other.say(frame(0x81, b"hi")).hear(b"\x81\x02hi");
        assert!(site.stats().pending_output_bytes <= 200_000, "what is kept for it is bounded");
    }
    // It was ended for what it does not read, or its own sends have stopped: nothing is read of it meanwhile.
    assert!(pinged < 1000, "its pings were taken {pinged} times");
    other.say(frame(0x81, b"hi")).hear(b"\x81\x02hi");
    flood.reset_quietly();
    drop(flood);
    site.until("it has left", |now| now.open() == 1);
    site.end();
}

#[test]
fn a_client_that_sends_on_after_the_close_is_ended_as_one_that_is_silent() {
    let service = websocket(|event, socket| match event {
        Event::Text("bye") => socket.close(1000, ""),
        _ => Ok(()),
    });
    let site = Site::serve(limits(), service);
    let mut client = open(&site);
    client.say(frame(0x81, b"bye")).hear([0x88, 2, 0x03, 0xe8]);
    let many = frame(0x81, b"").repeat(20_000);
    let began = Instant::now();
    client.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while site.counts().closed_total() == 0 && began.elapsed() < PATIENCE {
        let _ = io::Write::write_all(&mut client.stream(), &many);
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(3),
        "it was ended after {took:?}, and the time for its answer is 50 ms"
    );
    site.end();
}

/// Messages that a turn did not come to have no room either.
#[test]
fn a_client_for_whose_further_messages_there_is_no_room_is_told_to_come_again() {
    let service = websocket(|event, socket| match event {
        Event::Text(text) => {
            std::thread::sleep(Duration::from_millis(3));
            socket.send(text)
        }
        _ => Ok(()),
    });
    let site = Site::serve(limits().input_total(20_000).max_line(1000), service);
    let mut client = open(&site);
    client.mutter(frame(0x81, b"x").repeat(6000));
    client.finish_quietly();
    let (said, end) = client.rest();
    let echoes = said.chunks(3).take_while(|bytes| *bytes == b"\x81\x01x").count();
    let close = &said[3 * echoes..];
    assert_eq!((echoes > 0, &close[..1], end), (true, &[0x88][..], End::Fin), "{close:?}");
    assert_eq!(u16::from_be_bytes([close[2], close[3]]), 1013, "{}", String::from_utf8_lossy(&close[4..]));
    site.until_closed(CloseReason::InputLimit, 1);
    // What could never have room is too big, whoever else there is.
    let mut big = open(&site);
    big.mutter(&frame(0x82, &vec![7; 30_000])[..100]);
    hear_close(&mut big, 1009);
    site.until_closed(CloseReason::Protocol, 1);
    site.end();
}

#[test]
fn a_client_for_whose_message_there_is_no_room_is_told_to_come_again() {
    let site = Site::serve(limits().input_total(200_000).max_line(1000), websocket::echo());
    let mut first = open(&site);
    first.say(frame(0x02, &vec![7; 100_000]));
    eventually("it is held", || (site.stats().pending_input_bytes >= 100_000).then_some(()));
    let mut second = open(&site);
    second.mutter(frame(0x02, &vec![7; 150_000]));
    hear_close(&mut second, 1013);
    site.until_closed(CloseReason::InputLimit, 1);
    site.end();
}

#[test]
fn half_messages_of_one_source_leave_room_for_those_of_others() {
    let site = Site::serve(limits().input_total(MIB).max_line(1000), websocket::echo());
    let half = |len: usize| {
        let mut message = frame(0x82, &vec![7; len]);
        message.pop();
        message
    };
    let mut greedy: Vec<Client> = Vec::new();
    for _ in 0..40 {
        let mut client = opened(Client::from("127.0.0.2", site.address));
        client.mutter(half(50_000));
        greedy.push(client);
    }
    eventually("they fill the room", || (site.stats().pending_input_bytes > 900_000).then_some(()));
    for n in 1..20usize {
        let mut polite = open(&site);
        let payload = vec![9; 2_000 * n];
        let message = frame(0x82, &payload);
        polite.say(&message[..1_000]);
        site.until("a piece was read", |now| now.active == 0 && now.queued == 0);
        polite.say(&message[1_000..]);
        let mut expected = frame_head(Opcode::Binary, payload.len()).as_ref().to_vec();
        expected.extend(&payload);
        polite.hear(expected);
        assert!(site.stats().pending_input_bytes <= MIB as u64);
    }
    assert!(site.closed(CloseReason::InputLimit) > 0, "the greedy gave way");
    // Those are told to come again; the others can go on.
    let told = greedy.iter_mut().filter_map(|client| {
        client.finish_quietly();
        let (said, _) = client.rest();
        said.starts_with(&[0x88]).then(|| u16::from_be_bytes([said[2], said[3]])).filter(|&code| code == 1013)
    });
    assert!(told.count() > 0);
    site.end();
}

#[test]
fn while_the_server_drains_sockets_are_closed_as_going_away() {
    let site = Site::serve(limits(), websocket::echo());
    let mut clients: Vec<_> = (0..20).map(|_| connect(&site)).collect();
    site.until("all are parked", |now| now.idle == 20);
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                let Message::Close(Some(close)) = client.read().unwrap() else { panic!("no close") };
                assert_eq!(close.code, CloseCode::Away);
                while client.read().is_ok() {}
            });
        }
        let report = site.end();
        assert!(report.is_clean() && report.elapsed < Duration::from_secs(5), "{report}");
    });
}

#[test]
fn a_message_of_a_mebibyte_passes_and_leaves_nothing_behind() {
    let site = Site::serve(limits(), websocket::echo());
    let mut client = connect(&site);
    let message = Message::binary(vec![9; MIB - 100]);
    client.send(message.clone()).unwrap();
    assert_eq!(client.read().unwrap(), message);
    eventually("nothing is kept", || {
        let stats = site.stats();
        (stats.pending_input_bytes + stats.pending_output_bytes == 0).then_some(())
    });
    site.end();
}
