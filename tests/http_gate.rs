//! The gate for HTTP before a backend that does what the test says, with real sockets.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::{Client, End, PATIENCE, Reply, Site, eventually, throughout};
use tidegate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use tidegate::reason::{BackendFailure, CloseReason, RequestFailure};
use tidegate::service::HttpGateConfig;
use tidegate::{Limits, proxy};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A backend that the test plays.
struct Backend(TcpListener);

impl Backend {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The gate's next connection.
    #[track_caller]
    fn accept(&self) -> Called {
        self.0.set_nonblocking(true).unwrap();
        let stream = eventually("the gate connects", || self.0.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Called(stream)
    }

    /// Whether the gate has connected once more.
    fn is_called(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        self.0.accept().is_ok()
    }
}

/// A connection of the gate's, as the backend sees it.
struct Called(TcpStream);

impl Called {
    /// The next request's head.
    #[track_caller]
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let read = self.0.read_exact(&mut byte);
            read.unwrap_or_else(|error| {
                panic!("no head: {error}, after {:?}", String::from_utf8_lossy(&head))
            });
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    #[track_caller]
    fn hear(&mut self, words: &str) -> &mut Self {
        let mut heard = vec![0; words.len()];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), words);
        self
    }

    #[track_caller]
    fn say(&mut self, words: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(words.as_ref()).unwrap();
        self
    }

    /// Reads the next request and answers it.
    #[track_caller]
    fn serve(&mut self) -> String {
        let head = self.head();
        self.say(OK);
        head
    }

    /// The gate has closed this connection.
    #[track_caller]
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

fn gate(backend: &Backend, places: usize, limits: Limits, config: HttpGateConfig) -> Site {
    let gate = proxy([backend.address().to_string()]).unwrap().connections(places).http(config);
    Site::serve(limits, gate.build().unwrap())
}

fn simple(backend: &Backend, places: usize) -> Site {
    gate(backend, places, Limits::default(), HttpGateConfig::default())
}

fn config(set: impl FnOnce(&mut HttpGateConfig)) -> HttpGateConfig {
    let mut config = HttpGateConfig::default();
    set(&mut config);
    config
}

fn backends(site: &Site) -> BackendsSnapshot {
    site.counts().backends.expect("it is a gate")
}

fn first(site: &Site) -> BackendSnapshot {
    backends(site).backends.remove(0)
}

#[track_caller]
fn until_free(site: &Site) {
    eventually("all places are given back", || (backends(site).in_use == 0).then_some(()));
}

#[test]
fn a_request_and_its_answer_pass_and_the_connection_serves_the_next_client() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let (mut first_client, mut second) = (site.client(), site.client());
    first_client.say("GET /a?b=%2F HTTP/1.1\r\nHost: example:80\r\nConnection: keep-alive\r\nX-A: 1\r\n\r\n");
    let mut called = backend.accept();
    assert_eq!(
        called.serve(),
        "GET /a?b=%2F HTTP/1.1\r\nHost: example:80\r\nX-A: 1\r\nX-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Proto: http\r\nX-Forwarded-Host: example:80\r\n\r\n"
    );
    assert_eq!(first_client.reply().text(), "ok");
    until_free(&site);
    // The first client is still there, and has no place.
    for round in 0..3 {
        second.say(GET);
        called.serve();
        assert_eq!(second.reply().text(), "ok", "{round}");
        first_client.say(GET);
        called.serve();
        assert_eq!(first_client.reply().text(), "ok", "{round}");
    }
    assert!(!backend.is_called(), "one connection is enough");
    let seen = first(&site);
    assert_eq!((seen.connected, seen.reused, seen.answers[2]), (1, 6, 7));
    site.end();
}

#[test]
fn requests_that_are_sent_without_waiting_are_answered_in_order() {
    let backend = Backend::new();
    let site = simple(&backend, 4);
    let mut client = site.client();
    client.say(GET.repeat(20));
    let mut called = backend.accept();
    for number in 0..20 {
        called.head();
        called.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number:02}"));
    }
    for number in 0..20 {
        assert_eq!(client.reply().text(), format!("{number:02}"));
    }
    site.end();
}

#[test]
fn two_thousand_idle_clients_hold_no_place_and_a_new_one_is_served_at_once() {
    support::raise_open_files();
    let backend = Backend::new();
    let address = backend.address();
    std::thread::spawn(move || {
        for stream in backend.0.incoming().flatten() {
            std::thread::spawn(move || {
                let mut called = Called(stream);
                let mut buffer = [0; 4096];
                while let Ok(1..) = called.0.read(&mut buffer) {
                    called.say(OK);
                }
            });
        }
    });
    let service = proxy([address.to_string()]).unwrap().connections(4).http(HttpGateConfig::default());
    let limits = Limits::default().idle_timeout(Duration::from_secs(600));
    let site = Site::serve(limits, service.build().unwrap());
    let mut idle: Vec<Client> = (0..2_000).map(|_| site.client()).collect();
    for client in &mut idle {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    let seen = backends(&site);
    assert_eq!((seen.in_use, seen.waiting), (0, 0));
    assert!(first(&site).connected <= 4);
    // Where another program has the processor at that moment, the next of them is served at once.
    let newcomers = (0..20).map(|_| {
        let began = Instant::now();
        assert_eq!(site.client().ask(GET).text(), "ok");
        began.elapsed()
    });
    let quickest = newcomers.min().unwrap();
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
    // They are still there, too.
    assert_eq!(idle[1234].ask(GET).text(), "ok");
    drop(idle);
    site.end();
}

#[test]
fn a_body_is_collected_before_its_request_has_a_place() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let (mut slow, mut chunks) = (site.client(), site.client());
    slow.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel");
    chunks.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n");
    let mut quick = site.client();
    quick.say(GET);
    let mut called = backend.accept();
    called.serve();
    assert_eq!(quick.reply().text(), "ok", "slow senders hold no place");
    slow.say("lo");
    assert!(called.head().ends_with("Content-Length: 5\r\n\r\n"));
    called.hear("hello").say(OK);
    assert_eq!(slow.reply().text(), "ok");
    // Its length is known by now, and its trailers are dropped.
    chunks.say("2\r\nde\r\n0\r\nT: x\r\n\r\n");
    let head = called.head();
    assert!(head.ends_with("Content-Length: 5\r\n\r\n") && !head.contains("Transfer-Encoding"), "{head}");
    called.hear("abcde").say(OK);
    assert_eq!(chunks.reply().text(), "ok");
    site.end();
}

#[test]
fn a_long_body_streams_with_its_own_framing_and_bounded_memory() {
    const LENGTH: usize = 50_000_000;
    let backend = Backend::new();
    let site = gate(&backend, 1, Limits::default(), config(|config| config.buffer_request = 1000));
    for chunked in [false, true] {
        let at = site.address;
        let sender = std::thread::spawn(move || {
            let mut client = Client::connect(at);
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {LENGTH}")
            };
            client.say(format!("PUT / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
            let piece = vec![b'x'; 100_000];
            for _ in 0..LENGTH / piece.len() {
                if chunked {
                    client.say("186a0\r\n").say(&piece).say("\r\n");
                } else {
                    client.say(&piece);
                }
            }
            if chunked {
                client.say("0\r\n\r\n");
            }
            client.reply()
        });
        let mut called = backend.accept();
        let head = called.head();
        assert_eq!(head.contains("Transfer-Encoding: chunked\r\n"), chunked, "{head}");
        let mut most = 0;
        let mut got = 0;
        let mut buffer = vec![0; 64 * 1024];
        let mut tail = Vec::new();
        while got < LENGTH || chunked && !tail.ends_with(b"0\r\n\r\n") {
            let read = called.0.read(&mut buffer).unwrap();
            got += read;
            tail.extend_from_slice(&buffer[..read]);
            tail.drain(..tail.len().saturating_sub(8));
            most = most.max(site.stats().pending_input_bytes);
        }
        assert!(most < 300_000, "{most} bytes were kept");
        called.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(sender.join().unwrap().text(), "ok");
        called.is_closed();
    }
    site.end();
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    let backend = Backend::new();
    let site = gate(&backend, 1, Limits::default(), config(|config| config.buffer_request = 10));
    let mut client = site.client();
    // A short body is collected.
    client.say("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.hear("HTTP/1.1 100 Continue\r\n\r\n").say("hello");
    let mut called = backend.accept();
    assert!(!called.head().contains("Expect"));
    called.hear("hello").say(OK);
    assert_eq!(client.reply().text(), "ok");
    // A long one is wanted when there is a place, and not before.
    let mut holder = site.client();
    holder.say(GET);
    called.head();
    client.say("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n");
    eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
    called.say(OK);
    assert_eq!(holder.reply().text(), "ok");
    client.hear("HTTP/1.1 100 Continue\r\n\r\n").say("01234567890123456789");
    called.head();
    called.hear("01234567890123456789").say(OK);
    assert_eq!(client.reply().text(), "ok");
    site.end();
}

#[test]
fn an_answer_may_come_before_its_request_is_whole() {
    let backend = Backend::new();
    let site = gate(&backend, 1, Limits::default(), config(|config| config.buffer_request = 10));
    let mut client = site.client();
    client.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").say([b'x'; 1000]);
    let mut called = backend.accept();
    called.head();
    called.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text(), reply.closes()), (413, "big", true));
    // Neither connection can be understood from there on.
    called.is_closed();
    assert_eq!(client.end(), End::Fin);
    until_free(&site);
    site.end();
}

#[test]
fn answers_of_every_framing_reach_every_client() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let mut client = site.client();
    let cases: [(&str, bool, &str); 4] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, "content-length"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
            false,
            "transfer-encoding",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nhello", true, "transfer-encoding"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", true, "content-length"),
    ];
    let mut called = None;
    for (answer, closes, framing) in cases {
        client.say(GET);
        let mut now = called.take().unwrap_or_else(|| backend.accept());
        now.head();
        now.say(answer);
        if closes {
            drop(now);
        } else {
            called = Some(now);
        }
        let reply = client.reply();
        assert_eq!(reply.text(), "hello", "{answer}");
        assert!(reply.header(framing).is_some() && !reply.closes(), "{answer}: {reply:?}");
    }
    // A client of HTTP/1.0 is told the end by the end.
    let mut old = site.client();
    old.say("GET / HTTP/1.0\r\n\r\n");
    let mut now = backend.accept();
    assert!(now.head().starts_with(&format!("GET / HTTP/1.1\r\nHost: {}\r\n", site.address)));
    now.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let (said, end) = old.rest();
    assert_eq!(
        (String::from_utf8(said).unwrap().as_str(), end),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", End::Fin)
    );
    // The answer to HEAD has no body, and what it says of one is passed on.
    client.say("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    now.head();
    now.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let reply = Reply::read(&mut client, true);
    assert_eq!(reply.header("content-length"), Some("5"));
    // Some servers send one all the same, perhaps later: nothing else is asked on that connection.
    now.is_closed();
    client.say(GET);
    let mut now = backend.accept();
    now.head();
    now.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n");
    assert_eq!(client.reply().status, 103);
    assert_eq!(client.reply().status, 304);
    site.end();
}

#[test]
fn a_request_that_meets_a_closed_connection_is_sent_again_where_that_does_no_harm() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let mut client = site.client();
    client.say(GET);
    let mut called = backend.accept();
    called.serve();
    client.reply();
    // It is closed before it is used again: nobody notices.
    drop(called);
    client.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let mut called = backend.accept();
    called.serve();
    assert_eq!(client.reply().text(), "ok");
    // It is closed when it is used again.
    client.say(GET);
    called.head();
    drop(called);
    let mut called = backend.accept();
    called.serve();
    assert_eq!(client.reply().text(), "ok");
    assert_eq!(first(&site).repeated, 1);
    // What may have been done is not done twice.
    client.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    called.head();
    drop(called);
    assert_eq!(client.reply().status, 502);
    assert!(!backend.is_called());
    // And a new connection's failure is a failure.
    client.say(GET);
    let mut called = backend.accept();
    called.head();
    drop(called);
    assert_eq!(client.reply().status, 502);
    assert_eq!(first(&site).request_failures[RequestFailure::Closed as usize], 2);
    site.end();
}

/// The time to reach a backend does not run while one works at the request.
#[test]
fn a_request_that_is_sent_again_after_a_while_has_the_whole_time_to_reach_a_backend() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let path = format!("{}/again-{}.sock", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_file(&path);
    other.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    other.listen(0).unwrap();
    let other = std::os::unix::net::UnixListener::from(other);
    let addresses = [gone.local_addr().unwrap().to_string(), format!("unix:{path}")];
    drop(gone);
    let time = Duration::from_millis(400);
    let service = proxy(addresses).unwrap().connections(1).connect_timeout(time);
    let site = Site::serve(Limits::default(), service.http(HttpGateConfig::default()).build().unwrap());
    let mut client = site.client();
    client.say(GET);
    let mut called = CalledAtUnix(other.accept().unwrap().0);
    called.answer();
    assert_eq!(client.reply().text(), "ok");
    // One that tries the other backend first, which is set aside, and then comes on the kept connection.
    loop {
        client.say(GET);
        called.head();
        if backends(&site).backends[0].failures[BackendFailure::Refused as usize] == 2 {
            break;
        }
        called.say();
        assert_eq!(client.reply().text(), "ok");
    }
    throughout(time + Duration::from_millis(50), "it works", || first(&site).in_use == 0);
    // Nobody can connect until the one in the backlog was accepted.
    let full = std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(called);
    eventually("it is sent again", || (backends(&site).backends[1].repeated == 1).then_some(()));
    drop((other.accept().unwrap(), full));
    CalledAtUnix(other.accept().unwrap().0).answer();
    assert_eq!(client.reply().text(), "ok");
    site.end();
}

/// A connection of the gate's to a Unix socket.
struct CalledAtUnix(std::os::unix::net::UnixStream);

impl CalledAtUnix {
    fn head(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    }

    fn say(&mut self) {
        self.0.write_all(OK.as_bytes()).unwrap();
    }

    fn answer(&mut self) {
        self.head();
        self.say();
    }
}

#[test]
fn a_backend_that_closes_behind_each_answer_without_a_word_costs_nobody_an_answer() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 100;
    let backend = Backend::new();
    let site = simple(&backend, 2);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| site.client()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    client.say(GET);
                    assert_eq!(client.reply().text(), "ok", "{round}");
                }
            });
        }
        for _ in 0..CLIENTS * ROUNDS {
            // Its end comes at about the time at which the gate uses the connection again.
            backend.accept().serve();
        }
    });
    let seen = first(&site);
    assert_eq!((seen.answers[2], seen.request_failures.iter().sum::<u64>()), ((CLIENTS * ROUNDS) as u64, 0));
    site.end();
}

#[test]
fn a_backend_that_sends_more_than_its_answer_costs_the_next_client_nothing() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let (mut client, mut other) = (site.client(), site.client());
    let mut fresh = None;
    for round in 0..50 {
        client.say(GET);
        let mut called = fresh.take().unwrap_or_else(|| backend.accept());
        called.serve();
        // The rest comes after the end of its answer, at about the time at which the next request comes.
        other.say(GET);
        called.say("too much");
        assert_eq!(client.reply().text(), "ok", "{round}");
        let mut next = backend.accept();
        next.serve();
        assert_eq!(other.reply().text(), "ok", "{round}");
        fresh = Some(next);
    }
    assert_eq!(first(&site).request_failures.iter().sum::<u64>(), 0);
    site.end();
}

#[test]
fn bytes_that_nobody_asked_for_are_not_the_next_answer() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let mut client = site.client();
    client.say(GET);
    let mut called = backend.accept();
    called.head();
    called.say(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"));
    assert_eq!(client.reply().text(), "ok");
    called.is_closed();
    client.say(GET);
    let mut called = backend.accept();
    called.serve();
    assert_eq!(client.reply().text(), "ok");
    // Later, while the connection is kept.
    called.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    client.say(GET);
    let mut fresh = backend.accept();
    fresh.serve();
    assert_eq!(client.reply().text(), "ok");
    site.end();
}

#[test]
fn an_answer_that_is_no_answer_is_502_and_one_that_breaks_off_is_cut() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(20_000));
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        endless.as_str(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut client = site.client();
        client.say(GET);
        let mut called = backend.accept();
        called.head();
        let _ = called.0.write_all(answer.as_bytes());
        let reply = client.reply();
        assert_eq!((reply.status, reply.closes()), (502, false), "{}", &answer[..20]);
        called.is_closed();
    }
    for (answer, failure) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            RequestFailure::Unreadable,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", RequestFailure::Cut),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", RequestFailure::Cut),
    ] {
        let before = first(&site).request_failures[failure as usize];
        let mut client = site.client();
        client.say(GET);
        let mut called = backend.accept();
        called.head();
        called.say(answer);
        drop(called);
        let (_, end) = client.rest();
        assert_eq!(end, End::Reset, "{answer}: the client sees that it is not whole");
        assert_eq!(first(&site).request_failures[failure as usize], before + 1);
    }
    until_free(&site);
    site.end();
}

#[test]
fn a_backend_that_is_silent_or_drips_is_504_in_time() {
    let backend = Backend::new();
    let timeout = Duration::from_millis(300);
    let site = gate(&backend, 1, Limits::default(), config(|config| config.backend_timeout = timeout));
    let mut client = site.client();
    client.say(GET);
    let mut called = backend.accept();
    called.head();
    let began = Instant::now();
    let reply = client.reply();
    assert_eq!((reply.status, reply.closes()), (504, false));
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    called.is_closed();
    // A head by drops has no more time.
    client.say(GET);
    let mut called = backend.accept();
    called.head();
    let dripping = std::thread::spawn(move || {
        for byte in
            b"HTTP/1.1 200 OK\r\nX-Header-Without-End: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        {
            std::thread::sleep(Duration::from_millis(20));
            if called.0.write_all(&[*byte]).is_err() {
                return true;
            }
        }
        false
    });
    assert_eq!(client.reply().status, 504);
    assert!(dripping.join().unwrap(), "it was closed while it dripped");
    // A body by drops is fine, and one that stops is cut.
    client.say(GET);
    let mut called = backend.accept();
    called.head();
    called.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.hear("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        called.say("1\r\nx\r\n");
        client.hear("1\r\nx\r\n");
    }
    assert_eq!(client.rest().1, End::Reset);
    assert_eq!(first(&site).request_failures[RequestFailure::Timeout as usize], 3);
    site.end();
}

#[test]
fn clients_for_whom_there_is_no_place_in_time_are_told_when_to_come_again() {
    let backend = Backend::new();
    let site = gate(
        &backend,
        1,
        Limits::default().queue(1).queue_timeout(Duration::from_millis(200)),
        HttpGateConfig::default(),
    );
    let mut holder = site.client();
    holder.say(GET);
    let mut called = backend.accept();
    called.head();
    let (mut waits, mut refused) = (site.client(), site.client());
    waits.say(GET);
    eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
    let began = Instant::now();
    refused.say(GET);
    let reply = refused.reply();
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    assert_eq!((reply.status, reply.header("retry-after"), reply.closes()), (503, Some("1"), false));
    let reply = waits.reply();
    assert_eq!((reply.status, reply.text()), (503, "the request waited too long for the backend\n"));
    called.say(OK);
    assert_eq!(holder.reply().text(), "ok");
    // Both are served on the connections that they have.
    for client in [&mut waits, &mut refused] {
        client.say(GET);
        called.serve();
        assert_eq!(client.reply().text(), "ok");
    }
    let seen = backends(&site);
    assert_eq!((seen.queue_full, seen.queue_timeout), (1, 1));
    assert_eq!(site.counts().requests_refused().iter().sum::<u64>(), 2);
    // Both are summed up within a second, for the log and the status page.
    eventually("the refusals are listed", || {
        let listed = site.handle().observe().refusals();
        let mut reasons: Vec<_> =
            listed.iter().map(|it| (it.reason.as_str(), it.requests, it.count)).collect();
        reasons.sort_unstable();
        (reasons == [("queue_full", true, 1), ("queue_timeout", true, 1)]).then_some(())
    });
    assert!(first(&site).connect.sum > Duration::ZERO, "connecting takes time, however quickly it is done");
    site.end();
}

#[test]
fn a_priority_path_goes_before_all_who_wait_and_has_a_place_in_reserve() {
    let backend = Backend::new();
    let first = config(|config| config.priority_paths = vec!["/healthz".to_owned()]);
    let health = "GET /healthz?full=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    // One place: nothing can be kept, but a priority request is the next.
    let site = gate(&backend, 1, Limits::default().queue(1), first.clone());
    let mut clients: Vec<Client> = (0..4).map(|_| site.client()).collect();
    clients[0].say(GET);
    let mut called = backend.accept();
    called.head();
    clients[1].say(GET);
    eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
    // The place to wait is taken. Priority requests have places of their own; a path that only begins alike does not.
    clients[2].say(health);
    eventually("it waits too", || (backends(&site).waiting == 2).then_some(()));
    assert_eq!(clients[3].ask(GET.replace(" / ", " /healthz2 ")).status, 503);
    called.say(OK);
    assert!(called.serve().starts_with("GET /healthz?full=1 "));
    assert_eq!((clients[0].reply().status, clients[2].reply().status), (200, 200));
    assert!(called.serve().starts_with("GET / "));
    assert_eq!(clients[1].reply().status, 200);
    site.end();
    // Two places: others have one of them, however many wait.
    let site = gate(&backend, 2, Limits::default(), first);
    let mut clients: Vec<Client> = (0..4).map(|_| site.client()).collect();
    clients[0].say(GET);
    let mut busy = backend.accept();
    busy.head();
    clients[1].say(GET);
    eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
    clients[2].say(health);
    let mut kept = backend.accept();
    assert!(kept.serve().starts_with("GET /healthz?full=1 "));
    assert_eq!(clients[2].reply().status, 200);
    throughout(Duration::from_millis(50), "it waits on", || backends(&site).waiting == 1);
    assert!(!backend.is_called());
    busy.say(OK);
    // The connection that was used last is used again.
    assert!(busy.serve().starts_with("GET / "));
    assert_eq!((clients[0].reply().status, clients[1].reply().status), (200, 200));
    site.end();
}

#[test]
fn a_backend_that_cannot_be_reached_is_502_and_its_client_stays() {
    let backend = Backend::new();
    let address = backend.address();
    let site = simple(&backend, 1);
    drop(backend);
    let mut client = site.client();
    for _ in 0..2 {
        client.say(GET);
        let reply = client.reply();
        assert_eq!((reply.status, reply.closes()), (502, false));
    }
    // The first has found out, and the second was told without an attempt.
    assert_eq!((backends(&site).no_backend, first(&site).failures[BackendFailure::Refused as usize]), (2, 1));
    let backend = Backend(TcpListener::bind(address).unwrap());
    let reply = std::thread::scope(|scope| {
        scope.spawn(|| backend.accept().serve());
        eventually("the backend is tried again", || {
            client.say(GET);
            Some(client.reply()).filter(|reply| reply.status == 200)
        })
    });
    assert_eq!(reply.text(), "ok");
    site.end();
}

#[test]
fn a_client_that_leaves_frees_its_place_at_once_wherever_it_is() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    for reset in [false, true] {
        let mut client = site.client();
        client.say(GET);
        let mut called = backend.accept();
        called.head();
        let mut waits = site.client();
        waits.say(GET);
        eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
        if reset {
            waits.reset()
        } else {
            drop(waits)
        }
        eventually("it has left", || (backends(&site).waiting == 0).then_some(()));
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        until_free(&site);
        called.is_closed();
    }
    site.end();
}

#[test]
fn a_hundred_slow_readers_of_a_large_answer_hold_no_worker_and_little_memory() {
    support::raise_open_files();
    let backend = Backend::new();
    let address = backend.address();
    std::thread::spawn(move || {
        for stream in backend.0.incoming().flatten() {
            std::thread::spawn(move || {
                let mut called = Called(stream);
                let large = called.head().starts_with("GET /large");
                if !large {
                    called.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
                    return;
                }
                called.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n");
                let piece = vec![b'x'; 100_000];
                while called.0.write_all(&piece).is_ok() {}
            });
        }
    });
    let service = proxy([address.to_string()]).unwrap().connections(101).http(HttpGateConfig::default());
    let limits = Limits::default().workers(2).write_timeout(Duration::from_secs(60));
    let site = Site::serve(limits, service.build().unwrap());
    let mut slow: Vec<Client> = (0..100).map(|_| Client::narrow(site.address)).collect();
    for client in &mut slow {
        client.say("GET /large HTTP/1.1\r\nHost: h\r\n\r\n").hear("HTTP/1.1 200 OK\r\n");
    }
    eventually("all are held up", || (site.stats().pending_output_bytes > 100 * 50_000).then_some(()));
    let mut client = site.client();
    let began = Instant::now();
    assert_eq!(client.ask(GET).text(), "ok");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    let kept = site.stats().pending_output_bytes;
    assert!(kept < 100 * 300_000, "{kept} bytes for 100 readers");
    drop(slow);
    until_free(&site);
    site.end();
}

#[test]
fn a_hundred_readers_that_stop_leave_room_for_one_that_reads() {
    support::raise_open_files();
    let backend = Backend::new();
    let address = backend.address();
    std::thread::spawn(move || {
        for stream in backend.0.incoming().flatten() {
            std::thread::spawn(move || {
                let mut called = Called(stream);
                called.head();
                called.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000000\r\n\r\n");
                let piece = vec![b'x'; 100_000];
                while called.0.write_all(&piece).is_ok() {}
            });
        }
    });
    let service = proxy([address.to_string()]).unwrap().connections(101).http(HttpGateConfig::default());
    // As much as 32 of them would keep if nothing else held them.
    let limits = Limits::default().workers(2).write_timeout(Duration::from_secs(60)).output_total(4 << 20);
    let site = Site::serve(limits, service.build().unwrap());
    let mut stopped: Vec<Client> = (0..100).map(|_| Client::narrow(site.address)).collect();
    for client in &mut stopped {
        client.say(GET).hear("HTTP/1.1 200 OK\r\n");
    }
    let mut before = 0;
    eventually("all are held up", || {
        std::thread::sleep(Duration::from_millis(100));
        let kept = site.stats().pending_output_bytes;
        (kept > 0 && std::mem::replace(&mut before, kept) == kept).then_some(())
    });
    assert_eq!(backends(&site).in_use, 100, "none of them was given up, with {before} bytes kept");
    let mut reads = Client::narrow(site.address);
    reads.say(GET).hear("HTTP/1.1 200 OK\r\n");
    let mut piece = vec![0; 100_000];
    for _ in 0..30 {
        assert!(reads.heard(&mut piece), "it reads on, and is not given up");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((stopped, reads));
    until_free(&site);
    site.end();
}

#[test]
fn a_websocket_passes_as_a_pair_that_holds_its_place() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let mut client = site.client();
    client.say("GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly");
    let mut called = backend.accept();
    let head = called.head();
    assert!(head.contains("Sec-WebSocket-Key: k\r\n"), "{head}");
    assert!(head.ends_with("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), "{head}");
    called.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\nfirst");
    let reply = client.reply();
    assert_eq!(
        (reply.status, reply.header("sec-websocket-accept"), reply.header("upgrade")),
        (101, Some("a"), Some("websocket"))
    );
    client.hear("first");
    called.hear("early");
    for round in 0..3 {
        client.say(format!("ping {round}"));
        called.hear(&format!("ping {round}")).say(format!("pong {round}"));
        client.hear(format!("pong {round}"));
    }
    assert_eq!(backends(&site).in_use, 1);
    let mut other = site.client();
    other.say(GET);
    eventually("it waits", || (backends(&site).waiting == 1).then_some(()));
    drop(called);
    assert_eq!(client.end(), End::Fin);
    drop(client);
    backend.accept().serve();
    assert_eq!(other.reply().text(), "ok");
    site.end();
}

#[test]
fn a_protocol_that_the_gate_does_not_read_is_not_passed_on() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let mut client = site.client();
    client.say("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    let mut called = backend.accept();
    let head = called.serve();
    assert!(!head.contains("pgrade") && !head.contains("Settings"), "{head}");
    assert_eq!(client.reply().text(), "ok");
    client.say("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.closes()), (501, true));
    site.end();
}

#[test]
fn the_last_answer_says_that_the_server_ends() {
    let backend = Backend::new();
    let site = simple(&backend, 1);
    let (mut client, mut idle) = (site.client(), site.client());
    idle.say(GET);
    let mut called = backend.accept();
    called.serve();
    idle.reply();
    client.say(GET);
    called.head();
    let ending = std::thread::spawn(move || site.end());
    assert_eq!(idle.end(), End::Fin, "it is between two requests");
    called.say(OK);
    let reply = client.reply();
    assert_eq!((reply.text(), reply.closes()), ("ok", true));
    ending.join().unwrap();
}

#[test]
fn a_request_that_is_half_sent_ends_in_time_and_costs_the_backend_nothing() {
    let backend = Backend::new();
    let limits = Limits::default().read_timeout(Duration::from_millis(200));
    let site = gate(&backend, 1, limits, config(|config| config.buffer_request = 10));
    let (mut head, mut body) = (site.client(), site.client());
    head.say("GET / HTTP/1.1\r\nHos");
    body.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx");
    for client in [&mut head, &mut body] {
        let _ = client.rest();
    }
    site.until_closed(CloseReason::ReadTimeout, 2);
    assert!(!backend.is_called());
    // One whose body streams holds its place no longer than that.
    let mut client = site.client();
    client.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n").say([b'x'; 100]);
    let mut called = backend.accept();
    called.head();
    assert_eq!(client.reply().status, 408);
    called.is_closed();
    until_free(&site);
    site.end();
}

#[test]
fn a_check_asks_for_a_path_and_a_backend_that_is_not_well_is_set_aside() {
    let (well, ill) = (Backend::new(), Backend::new());
    let addresses = [well.address().to_string(), ill.address().to_string()];
    let healthy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for (backend, is_ill) in [(well, false), (ill, true)] {
        let healthy = healthy.clone();
        std::thread::spawn(move || {
            for stream in backend.0.incoming().flatten() {
                let mut called = Called(stream);
                called.0.set_read_timeout(Some(PATIENCE)).unwrap();
                let head = called.head();
                let fails = is_ill && !healthy.load(std::sync::atomic::Ordering::SeqCst);
                let status = if fails { "500 Internal Server Error" } else { "200 OK" };
                let name = if is_ill { "ill " } else { "well" };
                assert!(!fails || head.starts_with("GET /healthz"), "no client comes here");
                let _ = called.0.write_all(
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 4\r\n\r\n{name}")
                        .as_bytes(),
                );
            }
        });
    }
    let service = proxy(addresses).unwrap().connections(2).check_every(Duration::from_millis(50));
    let service = service.http(config(|config| config.check_path = Some("/healthz".to_owned())));
    let site = Site::serve(Limits::default(), service.build().unwrap());
    eventually("the check has found it", || backends(&site).backends[1].aside_for.map(drop));
    let mut client = site.client();
    throughout(Duration::from_millis(300), "clients meet the one that is well", || {
        client.ask(GET).text() == "well"
    });
    let ill = backends(&site).backends.remove(1);
    assert_eq!(ill.last_failure_why, "GET /healthz was answered 500, not 200 to 399");
    healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    eventually("it is back", || backends(&site).backends[1].aside_for.is_none().then_some(()));
    eventually("clients meet both", || (client.ask(GET).text() == "ill ").then_some(()));
    site.end();
}

#[test]
fn a_connection_that_nobody_uses_is_closed() {
    let backend = Backend::new();
    let site = gate(
        &backend,
        1,
        Limits::default(),
        config(|config| config.backend_idle = Duration::from_millis(100)),
    );
    let mut client = site.client();
    client.say(GET);
    let mut called = backend.accept();
    called.serve();
    assert_eq!(client.reply().text(), "ok");
    called.is_closed();
    site.end();
}

#[test]
fn half_requests_and_waiting_ones_of_one_source_leave_room_for_those_of_others() {
    const MIB: usize = 1 << 20;
    let backend = Backend::new();
    let limits = Limits::default().workers(2).input_total(MIB).max_head(32 * 1024).queue(100);
    let site = gate(&backend, 1, limits, config(|config| config.buffer_request = 64 * 1024));
    // The only place is taken for as long as the test wants.
    let mut holder = site.client();
    holder.say(GET);
    let mut called = backend.accept();
    called.head();
    let mut greedy: Vec<Client> = Vec::new();
    for n in 0..45 {
        let mut client = Client::from("127.0.0.2", site.address);
        // Half heads, half bodies, and requests that wait for the place.
        match n % 3 {
            0 => client.mutter(format!("GET /{} HTTP/1.1\r\nHost: h", "x".repeat(30_000))),
            1 => client
                .mutter("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
                .mutter(vec![b'x'; 50_000]),
            _ => client
                .mutter("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n")
                .mutter(vec![b'x'; 50_000]),
        };
        greedy.push(client);
    }
    eventually("they fill the room", || (site.stats().pending_input_bytes > 900_000).then_some(()));
    let mut polite: Vec<Client> = (1..15usize)
        .map(|n| {
            let mut polite = site.client();
            polite.say(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 2_000 * n));
            site.until("its head was read", |now| now.active == 0 && now.queued == 0);
            polite.say(vec![b'p'; 1_000]);
            site.until("a piece was read", |now| now.active == 0 && now.queued == 0);
            polite.say(vec![b'p'; 2_000 * n - 1_000]);
            assert!(site.stats().pending_input_bytes <= MIB as u64);
            polite
        })
        .collect();
    eventually("all of them wait for the place", || (backends(&site).waiting >= 14).then_some(()));
    assert!(site.closed(CloseReason::InputLimit) > 0, "the greedy gave way");
    // Those are told.
    let told = greedy.iter_mut().filter_map(|client| {
        client.finish_quietly();
        let (said, _) = client.rest();
        String::from_utf8_lossy(&said).starts_with("HTTP/1.1 503").then_some(())
    });
    assert!(told.count() > 0);
    eventually("the greedy are gone", || (backends(&site).waiting == 14).then_some(()));
    // The backend answers whoever comes.
    called.say(OK);
    let mut answered = 0;
    while answered < polite.len() {
        let head = called.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        called.hear(&"p".repeat(length.parse().unwrap()));
        called.say(OK);
        answered += 1;
    }
    for client in &mut polite {
        assert_eq!(client.reply().status, 200);
    }
    until_free(&site);
}
