//! The admin endpoint answers, refuses within limits, and bears being attacked.

#[path = "support/admin_fake.rs"]
mod fake;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/stop.rs"]
mod stop;

use fake::Fake;
use http::{ask, eventually, get, read_reply};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::Stop;
use tidegate::admin::{Admin, AdminHandle, AdminLimits};
use tidegate::metrics::snapshot::Phase;

fn start() -> (AdminHandle, Arc<Fake>) {
    start_with(AdminLimits::default())
}

fn limits(change: impl FnOnce(&mut AdminLimits)) -> AdminLimits {
    let mut limits = AdminLimits::default();
    change(&mut limits);
    limits
}

fn start_with(limits: AdminLimits) -> (AdminHandle, Arc<Fake>) {
    let fake = Arc::new(Fake::serving());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::builder(any, fake.clone()).limits(limits).bind().unwrap();
    (admin.serve().unwrap(), fake)
}

#[test]
fn each_path_answers() {
    let (admin, fake) = start();
    let metrics = get(admin.address(), "/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(metrics.header("Connection"), Some("close"));
    assert_eq!(metrics.header("Content-Length").unwrap(), metrics.body.len().to_string());
    assert!(metrics.body.contains("\ntidegate_workers_limit 32\n"));
    assert_eq!(get(admin.address(), "/metrics?format=text").unwrap().status, 200);
    assert_eq!(get(admin.address(), "/livez").unwrap().body, "ok\n");
    let text = get(admin.address(), "/status").unwrap();
    assert_eq!((text.status, text.header("Content-Type")), (200, Some("text/plain; charset=utf-8")));
    assert!(text.body.starts_with("tidegate ") && !text.body.contains('<'), "{}", text.body);
    assert_eq!(text.header("Vary"), Some("Accept"));
    let browser = "GET /status HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*;q=0.8\r\n\r\n";
    let page = ask(admin.address(), browser).unwrap();
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.body.ends_with("</html>\n"));
    let json = get(admin.address(), "/status.json").unwrap();
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(json["phase"], "serving");
    let home = get(admin.address(), "/").unwrap();
    assert_eq!((home.status, home.header("Location")), (302, Some("/status")));
    for (phase, status, body) in [
        (Phase::Starting, 503, "not ready: starting\n"),
        (Phase::Serving, 200, "ready\n"),
        (Phase::Leaving, 503, "not ready: leaving\n"),
        (Phase::Draining, 503, "not ready: draining\n"),
        (Phase::Stopped, 503, "not ready: stopped\n"),
    ] {
        fake.change().phase = phase;
        let ready = get(admin.address(), "/readyz").unwrap();
        assert_eq!((ready.status, ready.body.as_str()), (status, body));
        assert_eq!(get(admin.address(), "/livez").unwrap().status, 200, "it lives while {phase:?}");
    }
    admin.shutdown();
}

#[test]
fn what_is_not_a_small_get_is_refused() {
    let (admin, _fake) = start();
    let to = admin.address();
    for path in ["/nowhere", "/metrics/", "/status.jsonx", "//", "/../metrics", "/%6detrics"] {
        assert_eq!(get(to, path).unwrap().status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let reply = ask(to, &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")).unwrap();
        assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let body = "x".repeat(10_000);
    let posted = ask(to, &format!("POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n{body}")).unwrap();
    assert_eq!(posted.status, 405, "the body that follows does not destroy the answer");
    let head = ask(to, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.header("Content-Length").unwrap().parse::<usize>().unwrap() > 1000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(9000)), 431),
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("\x16\x03\x01\x00\x05\n\n".to_owned(), 400),
        ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET HTTP://LocalHost/livez HTTP/1.1\r\nHost: anything\r\n\r\n".to_owned(), 200),
        (
            "GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTE: chunked\r\n\r\n5\r\nhello".to_owned(),
            200,
        ),
        ("GET /livez HTTP/1.1\r\nExpect: the-impossible\r\nConnection: upgrade\r\n\r\n".to_owned(), 200),
    ] {
        let reply = ask(to, &request).unwrap();
        assert_eq!(reply.status, status, "{:?}", request.get(..40).unwrap_or(&request));
        assert_eq!(reply.header("Connection"), Some("close"));
    }
    assert_eq!(get(to, "/livez").unwrap().status, 200);
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let (admin, _fake) = start();
    for (request, status) in [("GET /metrics HTTP/1.1\r\n\r\n", 200), ("nonsense\r\n\r\n", 400)] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(admin.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read_reply(&mut stream).unwrap().status, status);
        }
    }
}

#[test]
fn a_slow_request_is_told_so_and_a_silent_one_is_cut() {
    let limits = limits(|limits| limits.head_time = Duration::from_millis(300));
    let (admin, _fake) = start_with(limits);
    let begun = Instant::now();
    let mut slow = TcpStream::connect(admin.address()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    slow.write_all(b"GET /metrics HT").unwrap();
    let mut silent = TcpStream::connect(admin.address()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(read_reply(&mut slow).unwrap().status, 408);
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)), "nothing is said to who said nothing");
    let took = begun.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(2)).contains(&took), "{took:?}");
}

#[test]
fn a_reader_that_stops_is_cut_at_the_total_deadline() {
    let limits = limits(|limits| limits.total_time = Duration::from_millis(1500));
    let (admin, fake) = start_with(limits);
    let mut many = Vec::new();
    for n in 0..2000 {
        let mut listener = fake.change().listeners[0].clone();
        listener.listener = format!("tcp://127.0.0.1:{n}");
        many.push(listener);
    }
    fake.change().listeners = many;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&admin.address().into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let cut = || stream.take_error().unwrap().is_some();
    eventually("it is cut, and hears of it without reading", Duration::from_secs(10), cut);
    let mut taken = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let end = stream.read_to_end(&mut taken);
    let whole = get(admin.address(), "/metrics").unwrap();
    assert!(whole.body.len() > 4_000_000, "an answer of {} bytes comes whole", whole.body.len());
    assert!(taken.len() < whole.body.len(), "cut after {} bytes: {end:?}", taken.len());
}

#[test]
fn requests_come_in_any_pieces_and_at_the_same_time() {
    let (admin, _fake) = start();
    let to = admin.address();
    std::thread::scope(|scope| {
        for client in 0..16 {
            scope.spawn(move || {
                for round in 0..10 {
                    let mut stream = TcpStream::connect(to).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    let request = b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
                    for piece in request.chunks(1 + (client + round) % 9) {
                        stream.write_all(piece).unwrap();
                    }
                    let reply = read_reply(&mut stream).unwrap();
                    assert_eq!(reply.status, 200);
                    serde_json::from_str::<serde_json::Value>(&reply.body).unwrap();
                }
            });
        }
    });
}

#[test]
fn the_oldest_without_a_request_makes_room() {
    let limits = limits(|limits| limits.connections = 4);
    let (admin, _fake) = start_with(limits);
    let connect = || {
        let stream = TcpStream::connect(admin.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    let mut held: Vec<_> = (0..5).map(|_| connect()).collect();
    // The first was cut by the fifth; the second still has its place, and then loses it.
    assert!(matches!(held[0].read(&mut [0]), Ok(0) | Err(_)));
    held[1].write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut held[1]).unwrap().status, 200);
    let mut newest = connect();
    newest.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut newest).unwrap().status, 200);
}

#[test]
fn shutdown_frees_the_port_whatever_clients_do() {
    let (admin, _fake) = start();
    let to = admin.address();
    let _idle = TcpStream::connect(to).unwrap();
    get(to, "/metrics").unwrap();
    let begun = Instant::now();
    admin.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(TcpStream::connect(to).is_err(), "the port is closed");
}

#[test]
fn a_name_that_is_not_its_own_is_not_answered() {
    let fake = Arc::new(Fake::serving());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::builder(any, fake).host("gate.example").bind().unwrap().serve().unwrap();
    let to = admin.address();
    let host = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (request, status) in [
        (host(&to.to_string()), 200),
        (host("localhost"), 200),
        (host("[::1]:80"), 200),
        (host("Gate.Example:9464"), 200),
        ("GET /metrics HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET HTTP://gate.example/metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 200),
        (host("evil.example"), 421),
        (host("evil.example:9464"), 421),
        (host("gate.example.evil.example"), 421),
        ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 421),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n".to_owned(), 400),
    ] {
        let reply = ask(to, &request).unwrap();
        assert_eq!(reply.status, status, "{request:?}");
        assert_eq!(status == 421, reply.body.contains("--admin-host"), "{}", reply.body);
    }
}

/// Clients that come again and again, as many as there are places: each of them, and each scrape beside them, is
/// answered. Nobody who is being served is ended to make room.
#[test]
fn sixty_four_busy_clients_cost_no_scrape() {
    let (admin, fake) = start();
    let listener = fake.change().listeners[0].clone();
    fake.change().listeners = vec![listener; 20];
    let to = admin.address();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let lost = std::sync::Mutex::new(Vec::new());
    let served = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _stopped = Stop(&stop);
        for _ in 0..64 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match get(to, "/metrics") {
                        Ok(reply) if reply.status == 200 && reply.body.ends_with('\n') => {
                            served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        other => lost.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            });
        }
        for _ in 0..50 {
            let begun = Instant::now();
            match get(to, "/metrics") {
                Ok(reply) if reply.status == 200 => {}
                other => lost.lock().unwrap().push(format!("a scrape: {other:?}")),
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "a scrape took {:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let lost = lost.into_inner().unwrap();
    assert!(lost.is_empty(), "{} lost, {served:?} served: {:?}", lost.len(), lost.first());
}

#[test]
fn a_panic_in_what_is_observed_costs_one_answer_and_not_the_endpoint() {
    let (admin, fake) = start();
    let to = admin.address();
    for _ in 0..3 {
        fake.panic(true);
        let reply = get(to, "/status.json").unwrap();
        assert_eq!(reply.status, 500, "{}", reply.body);
        assert!(reply.body.contains("panicked"), "{}", reply.body);
        assert_eq!(get(to, "/livez").unwrap().status, 200);
        fake.panic(false);
        assert_eq!(get(to, "/status.json").unwrap().status, 200);
    }
}

#[test]
fn any_ipv6_address_takes_ipv4_too_and_stands_beside_any_ipv4_address() {
    let fake: Arc<Fake> = Arc::new(Fake::serving());
    let both = Admin::bind("[::]:0".parse().unwrap(), fake.clone()).unwrap().serve().unwrap();
    let port = both.address().port();
    for to in [SocketAddr::from(([127, 0, 0, 1], port)), format!("[::1]:{port}").parse().unwrap()] {
        assert_eq!(get(to, "/livez").unwrap().status, 200, "{to}");
    }
    let ipv4 = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = ipv4.local_addr().unwrap().port();
    let beside = Admin::bind(format!("[::]:{port}").parse().unwrap(), fake).unwrap().serve().unwrap();
    assert_eq!(get(format!("[::1]:{port}").parse().unwrap(), "/livez").unwrap().status, 200);
    assert_eq!(beside.address().port(), port);
}
