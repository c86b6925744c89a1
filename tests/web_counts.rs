//! What is counted of HTTP and of WebSockets, and by which URL a listener is known.

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use std::io;
use std::time::{Duration, Instant};
use support::{End, Site, hush_panics};
use tidegate::http::Pull;
use tidegate::metrics::web::WebSnapshot;
use tidegate::reason::{CloseReason, SocketHandshake};
use tidegate::websocket::{Event, Opcode, frame_head, unmask};
use tidegate::{Limits, http, websocket};

fn limits() -> Limits {
    Limits::default().workers(1).linger_timeout(Duration::from_millis(50))
}

fn web(site: &Site) -> WebSnapshot {
    site.counts().web.expect("HTTP is counted")
}

/// Waits until the last answer is counted, which is when its turn ends.
fn web_after(site: &Site, requests: u64) -> WebSnapshot {
    let seen = site.until("all are counted", |now| {
        now.web.as_ref().is_some_and(|web| web.requests_total() == requests) && now.active == 0
    });
    seen.web.unwrap()
}

#[test]
fn answers_are_counted_by_class_with_their_bodies_and_their_time() {
    let site = Site::serve(
        limits(),
        http(|request, response| match request.path() {
            "/moved" => response.status(302).header("Location", "/").empty(),
            "/missing" => Err(http::status(404)),
            "/broken" => Err(io::Error::other("broken")),
            "/slow" => {
                std::thread::sleep(Duration::from_millis(60));
                response.bytes(b"12345")
            }
            _ => response.bytes(request.body()),
        }),
    );
    let mut client = site.client();
    assert_eq!(web(&site).requests, [0; 5]);
    for (path, status) in [("/moved", 302), ("/missing", 404), ("/broken", 500), ("/slow", 200)] {
        assert_eq!(client.get(path).status, status);
    }
    let seen = web_after(&site, 4);
    assert_eq!(seen.requests, [0, 1, 1, 1, 1]);
    assert_eq!((seen.duration.count(), seen.request_body_bytes), (4, 0));
    assert_eq!(
        seen.response_body_bytes,
        5 + "404 Not Found\n".len() as u64 + "500 Internal Server Error\n".len() as u64
    );
    let slowest = seen.duration.quantile(1.0).unwrap();
    assert!((Duration::from_millis(57)..Duration::from_secs(10)).contains(&slowest), "{slowest:?}");
    // A body in chunks that comes in three packets, then one that is too long.
    client.say(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab");
    client.say(b"c\r\n4\r\ndefg\r\n").say(b"0\r\n\r\n");
    assert_eq!(client.reply().text(), "abcdefg");
    let seen = web_after(&site, 5);
    assert_eq!((seen.request_body_bytes, seen.response_body_bytes), (7, 5 + 14 + 26 + 7));
    client.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(client.reply().status, 413);
    let mut rude = site.client();
    rude.say(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(rude.reply().status, 400);
    let seen = web_after(&site, 7);
    assert_eq!((seen.requests, seen.duration.count()), ([0, 2, 1, 3, 1], 7));
    site.end();
}

#[test]
fn requests_in_one_packet_are_counted_each() {
    let site = Site::serve(limits(), http::echo());
    let mut client = site.client();
    client.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".repeat(50));
    (0..50).for_each(|_| assert_eq!(client.reply().text(), "abc"));
    let seen = web_after(&site, 50);
    assert_eq!((seen.requests, seen.duration.count()), ([0, 50, 0, 0, 0], 50));
    assert_eq!((seen.request_body_bytes, seen.response_body_bytes), (150, 150));
    // None of them has waited for those before it.
    assert!(seen.duration.sum < Duration::from_secs(5), "{:?}", seen.duration.sum);
    site.end();
}

#[test]
fn a_request_that_comes_in_pieces_takes_the_time_since_its_first_byte() {
    let site = Site::serve(limits(), http::echo());
    let mut client = site.client();
    client.say(b"GET / HT");
    site.until("the first piece was read", |now| now.received_bytes == 8 && now.idle == 1);
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(80));
    client.say(b"TP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let most = began.elapsed() + Duration::from_secs(5);
    let took = web_after(&site, 1).duration.sum;
    assert!((Duration::from_millis(80)..most).contains(&took), "{took:?}");
    site.end();
}

#[test]
fn a_pulled_answer_is_timed_when_it_is_whole_and_not_if_it_breaks_off() {
    let site = Site::serve(
        limits(),
        http(|request, response| {
            let (mut left, breaks) = (4, request.path() == "/breaks");
            response.pull(move |piece| {
                left -= 1;
                piece.extend_from_slice(b"0123456789");
                match left {
                    0 => Ok(Pull::End),
                    2 if breaks => Err(io::Error::other("the source is gone")),
                    _ => Ok(Pull::Later(Duration::from_millis(20))),
                }
            })
        }),
    );
    let mut client = site.client();
    assert_eq!(client.get("/").body.len(), 40);
    let seen = web_after(&site, 1);
    assert_eq!((seen.requests[1], seen.duration.count(), seen.response_body_bytes), (1, 1, 40));
    assert!(seen.duration.sum >= Duration::from_millis(60), "{:?}", seen.duration.sum);
    client.say(b"GET /breaks HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.rest().1, End::Reset);
    let seen = web_after(&site, 2);
    assert_eq!((seen.requests[1], seen.duration.count(), seen.response_body_bytes), (2, 1, 50));
    site.end();
}

#[test]
fn a_request_whose_handler_panics_has_no_answer_to_count() {
    hush_panics();
    let site = Site::serve(limits(), http(|_, _| panic!("a test's panic")));
    let mut client = site.client();
    client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until_closed(CloseReason::Panic, 1);
    assert_eq!((web(&site).requests_total(), site.stats().handler_panics), (0, 1));
}

/// A client's frame.
fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut bytes = frame_head(opcode, payload.len()).as_ref().to_vec();
    bytes[1] |= 0x80;
    bytes.extend(key);
    let start = bytes.len();
    bytes.extend(payload);
    unmask(&mut bytes[start..], key);
    bytes
}

fn handshake(version: &str, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: \
         dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: {version}\r\n{more}\r\n"
    )
}

#[test]
fn sockets_are_counted_from_the_handshake_to_the_close_code() {
    let service = websocket(|event, socket| match event {
        Event::Open(request) if request.header("x-deny").is_some() => Err(http::status(403)),
        Event::Text("end") => socket.close(4001, "as you wish"),
        Event::Text(text) => {
            socket.pusher()?.push("pushed").map_err(io::Error::other)?;
            socket.send(text)
        }
        _ => Ok(()),
    })
    .origin("https://example.org");
    let site = Site::serve(limits(), service);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        (handshake("12", ""), 426),
        (handshake("13", "Origin: https://elsewhere.example\r\n"), 403),
        (handshake("13", "X-Deny: yes\r\n"), 403),
    ] {
        assert_eq!(site.client().ask(request).status, status);
    }
    let open = || {
        let mut client = site.client();
        assert_eq!(client.ask(handshake("13", "")).status, 101);
        client
    };
    let mut clients: Vec<_> = (0..4).map(|_| open()).collect();
    let seen = web_after(&site, 8);
    assert_eq!((seen.requests, seen.sockets()), ([4, 0, 0, 4, 0], 4));
    let handshakes = |of| seen.handshakes[of as usize];
    assert_eq!(handshakes(SocketHandshake::Opened), 4);
    for refused in [
        SocketHandshake::NotWebSocket,
        SocketHandshake::Version,
        SocketHandshake::Origin,
        SocketHandshake::Service,
    ] {
        assert_eq!(handshakes(refused), 1, "{refused}");
    }
    // A message with an answer and a push; a close by the server, one by the client, and one that nobody says.
    clients[0].say(frame(Opcode::Text, b"hi"));
    clients[0].hear(b"\x81\x02hi\x81\x06pushed");
    clients[1].say(frame(Opcode::Text, b"end"));
    clients[2].say(frame(Opcode::Close, &1000u16.to_be_bytes()));
    drop(clients.pop());
    let seen = site.until("three have ended", |now| now.web.as_ref().is_some_and(|web| web.sockets() == 1));
    let seen = seen.web.unwrap();
    assert_eq!((seen.messages_received, seen.messages_sent), (2, 2));
    let closes: Vec<_> = seen.closes_by_code().filter(|&(_, count)| count > 0).collect();
    assert_eq!(closes, [("1000", 1), ("4xxx", 1), ("lost", 1)]);
    site.end();
}

#[test]
fn sockets_that_are_open_when_the_server_ends_are_counted_as_going_away() {
    let site = Site::serve(limits(), websocket::echo());
    let mut client = site.client();
    assert_eq!(client.ask(handshake("13", "")).status, 101);
    let observe = site.handle().observe();
    site.end();
    let web = observe.snapshot().listeners.remove(0).web.unwrap();
    let closes: Vec<_> = web.closes_by_code().filter(|&(_, count)| count > 0).collect();
    assert_eq!((closes, web.sockets()), (vec![("1001", 1)], 0));
}

#[test]
fn what_is_no_http_has_no_counts_of_it() {
    let site = Site::serve(limits(), tidegate::Echo);
    assert!(site.counts().web.is_none());
}

/// Each listener is called in metrics what clients call it.
#[cfg(feature = "tls")]
#[test]
fn a_listener_is_known_by_the_scheme_that_its_clients_use() {
    use tidegate::{Echo, Listen, Server, Tls};
    let certificate = certificate::Certificate::new(&["localhost"], 4000);
    let tls = || Tls::pem(&certificate.pem, &certificate.key).unwrap();
    let at = "127.0.0.1:0";
    let builder = Server::builder()
        .listen(at, Echo)
        .unwrap()
        .listen(at, http::echo())
        .unwrap()
        .listen(at, websocket::echo())
        .unwrap()
        .listener(Listen::new(at, Echo).unwrap().tls(tls()))
        .listener(Listen::new(at, http::echo()).unwrap().tls(tls()))
        .listener(Listen::new(at, websocket::echo()).unwrap().tls(tls()))
        .listen_datagrams(at, Echo)
        .unwrap()
        .listen(at, tidegate::proxy(["127.0.0.1:1"]).unwrap().http(Default::default()).build().unwrap())
        .unwrap();
    let bound = builder.bind().unwrap();
    let addresses = bound.addresses();
    let listeners = bound.observe().snapshot().listeners;
    let schemes = ["tcp", "http", "ws", "tls", "https", "wss", "udp", "http"];
    for ((listener, address), scheme) in listeners.iter().zip(addresses).zip(schemes) {
        assert_eq!(listener.listener, format!("{scheme}://{address}"));
    }
}
