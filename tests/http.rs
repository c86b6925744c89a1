//! HTTP over real sockets: what a handler sees and what a client gets, what is refused and how, and that no client
//! holds a worker.

mod support;

use proptest::prelude::*;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, PATIENCE, Site, eventually, hush_panics, throughout};
use tidegate::http::{Answer, Config, Head, Pull, Request, Response, Streaming};
use tidegate::metrics::snapshot::{ListenerSnapshot, Phase};
use tidegate::reason::CloseReason;
use tidegate::{Limits, Waker, http};

const MIB: usize = 1 << 20;
const MIB_U64: u64 = 1 << 20;

fn one_worker() -> Limits {
    // The tests' clients are still there when their server ends. What is refused for want of a processor is another
    // promise, so all clients of a test may wait.
    let limits = Limits::default().workers(1).worker_nice(0).queue(256).queue_timeout(2 * PATIENCE);
    limits.linger_timeout(Duration::from_millis(50))
}

/// Says what it sees of a request.
fn show(request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Answer> {
    let body = String::from_utf8_lossy(request.body());
    let text = format!("{} {} {:?} {body}", request.method(), request.path(), request.query());
    response.text(&text)
}

fn shown() -> Site {
    Site::serve(one_worker(), http(show))
}

#[test]
fn a_handler_sees_a_request_and_its_client_the_answer() {
    let site = Site::serve(
        one_worker(),
        http(|request, response| {
            assert_eq!((request.method(), request.target()), ("POST", "/a%20b/../c?x=1&y=a+b%21&x=2"));
            assert_eq!((request.path(), request.query()), ("/c", Some("x=1&y=a+b%21&x=2")));
            assert_eq!((request.query_value("y").as_deref(), request.query_value("z")), (Some("a b!"), None));
            assert_eq!((request.host(), request.header("X-THING")), (Some("h:80"), Some(&b"a\xff"[..])));
            assert_eq!(
                (request.body(), request.peer().address.ip().unwrap().is_loopback()),
                (&b"body"[..], true)
            );
            response
                .status(201)
                .header("X-Made", "yes")
                .header("Set-Cookie", "a")
                .header("Set-Cookie", "b")
                .text("made")
        }),
    );
    let mut client = site.client();
    client.say(b"POST /a%20b/../c?x=1&y=a+b%21&x=2 HTTP/1.1\r\nHost: h:80\r\nx-thing: a\xff\r\nContent-Length: 4\r\n\r\nbody");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text(), reply.header("x-made")), (201, "made", Some("yes")));
    assert_eq!(reply.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((reply.header("server"), reply.header("connection")), (Some("tidegate"), None));
    let date = reply.header("date").unwrap();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    site.end();
}

#[test]
fn a_body_comes_by_length_or_in_chunks_whole_or_byte_by_byte() {
    let site = shown();
    for (framing, body) in [
        ("Content-Length: 11", "hello world"),
        ("Transfer-Encoding: chunked", "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"),
    ] {
        let request = format!("PUT /x HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}");
        let mut client = site.client();
        assert_eq!(client.ask(&request).text(), "PUT /x None hello world");
        for byte in request.bytes() {
            client.say([byte]);
            std::thread::yield_now();
        }
        assert_eq!(client.reply().text(), "PUT /x None hello world");
        // Its head and its body each on their own.
        let at = request.find("\r\n\r\n").unwrap() + 4;
        client.say(&request[..at]);
        site.until("the head was taken", |now| (now.active, now.idle) == (0, 1));
        assert_eq!(client.ask(&request[at..]).text(), "PUT /x None hello world");
        drop(client);
        site.until("it has left", |now| now.open() == 0);
    }
    site.end();
}

#[test]
fn a_body_is_collected_while_its_connection_is_parked() {
    let site = shown();
    let body = vec![b'x'; MIB];
    let mut slow: Vec<Client> = (0..8).map(|_| site.client()).collect();
    for client in &mut slow {
        client.say(format!("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: {MIB}\r\n\r\n")).say(&body[1..]);
    }
    site.until("they are parked", |now| (now.active, now.queued, now.idle) == (0, 0, 8));
    eventually("their bodies are counted", || {
        (site.stats().pending_input_bytes >= 8 * (MIB_U64 - 1)).then_some(())
    });
    assert_eq!(site.client().get("/y").text(), "GET /y None ");
    for client in &mut slow {
        client.say("y");
        assert_eq!(client.reply().body.len(), "PUT /x None ".len() + MIB);
    }
    eventually("nothing is kept between requests", || (site.stats().pending_input_bytes == 0).then_some(()));
    site.end();
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let site = shown();
    let mut client = site.client();
    client.say(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", MIB + 1));
    let reply = client.reply();
    assert_eq!((reply.status, reply.closes()), (413, true));
    assert_eq!(client.end(), End::Fin);
    // In chunks when it is known.
    let mut client = site.client();
    client
        .say("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n")
        .say(vec![b'x'; MIB]);
    assert_eq!(client.say("\r\n1\r\n").reply().status, 413);
    assert_eq!(client.end(), End::Fin);
    // And it need not be sent at all.
    let mut client = site.client();
    client.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.reply().status, 413);
    site.end();
}

#[test]
fn a_client_that_asks_whether_to_send_its_body_is_told_so() {
    let site = shown();
    let mut client = site.client();
    let head = "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
    client.say(head).hear("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.ask("ab").text(), "PUT /x None ab");
    // Not when the body comes with it, nor to a client that does not know it.
    assert_eq!(client.ask(format!("{head}ab")).text(), "PUT /x None ab");
    assert_eq!(client.ask(head.replace("Length: 2", "Length: 0")).text(), "PUT /x None ");
    client.say(head.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.ask("ab").text(), "PUT /x None ab");
    let mut client = site.client();
    assert_eq!(client.ask(head.replace("100-Continue", "200-maybe")).status, 417);
    site.end();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let site = shown();
    let mut client = site.client();
    let mut all = String::new();
    for n in 0..2000 {
        all += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"),
            1 => format!("PUT /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET "),
            _ => format!(
                "PUT /{n} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n"
            ),
        };
    }
    std::thread::scope(|scope| {
        let stream = client.stream().try_clone().unwrap();
        scope.spawn(move || (&stream).write_all(all.as_bytes()).unwrap());
        for n in 0..2000 {
            let text = if n % 3 == 0 { format!("GET /{n} None ") } else { format!("PUT /{n} None GET ") };
            assert_eq!(client.reply().text(), text);
        }
    });
    site.end();
}

/// It would be taken for a part of the answer.
#[test]
fn a_client_in_the_middle_of_an_answer_is_not_told_that_there_is_no_room() {
    let service = http(|request, response| {
        if request.path() == "/whole" {
            return response.text("whole");
        }
        let mut first = true;
        response.pull(move |piece| {
            if std::mem::take(&mut first) {
                piece.extend_from_slice(b"12345");
                return Ok(Pull::Later(Duration::from_millis(20)));
            }
            Ok(Pull::End)
        })
    });
    let site = Site::serve(one_worker().input_total(20_000).max_line(1000), service);
    let mut client = site.client();
    let more = "GET /whole HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1500);
    client.mutter(format!("GET / HTTP/1.1\r\nHost: h\r\n\r\n{more}"));
    client.finish_quietly();
    let (said, _) = client.rest();
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("\r\n5\r\n12345\r\n") && !text.contains(" 503 "), "{text}");
    site.until_closed(CloseReason::InputLimit, 1);
    site.end();
}

#[test]
fn a_client_that_pipelines_slow_requests_does_not_hold_the_worker() {
    let site = Site::serve(one_worker(), http::work("cpu:2ms".parse().unwrap()));
    let mut greedy = site.client();
    greedy.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(500));
    greedy.reply();
    let began = Instant::now();
    assert_eq!(site.client().get("/").status, 200);
    let answered = site.counts().turns[0];
    assert!(answered < 250, "it waited for {answered} of the other's turns, {:?}", began.elapsed());
    for _ in 1..500 {
        greedy.reply();
    }
    site.end();
}

#[test]
fn a_client_that_pipelines_and_does_not_read_is_not_answered_past_what_it_takes() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let body = vec![b'x'; 100_000];
    let site = Site::serve(
        one_worker(),
        http(move |_, response| {
            count.fetch_add(1, Ordering::SeqCst);
            response.bytes(&body)
        }),
    );
    let mut greedy = Client::narrow(site.address);
    greedy.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000));
    site.until("it is not answered any more", |now| (now.active, now.queued, now.idle) == (0, 0, 1));
    assert!(answered.load(Ordering::SeqCst) < 200, "{answered:?} answers");
    assert!(site.stats().pending_output_bytes <= 200_000);
    for _ in 0..1000 {
        assert_eq!(greedy.reply().body.len(), 100_000);
    }
    site.end();
}

#[test]
fn answers_to_head_and_with_204_and_304_have_no_body() {
    let site = Site::serve(
        one_worker(),
        http(|request, response| match request.path() {
            "/204" => response.status(204).text("never seen"),
            "/304" => response.status(304).header("ETag", "\"x\"").text("never seen"),
            "/pulled" => response.pull(|_| panic!("HEAD asks for no piece")),
            _ => response.text("hello"),
        }),
    );
    let mut client = site.client();
    let reply = client.ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
    for status in [204, 304] {
        let reply = client.get(&format!("/{status}"));
        assert_eq!(
            (reply.status, reply.header("content-length"), reply.header("content-type")),
            (status, None, None)
        );
    }
    let reply = client.ask("HEAD /pulled HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, Some("chunked")));
    assert_eq!(client.get("/").text(), "hello");
    site.end();
}

#[test]
fn a_connection_is_kept_as_its_client_and_its_version_want() {
    let site = shown();
    for (version, headers, keeps) in [
        ("1.1", "", true),
        ("1.1", "Connection: close, TE\r\n", false),
        ("1.1", "Connection: TE\r\nConnection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: TE, Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ] {
        let mut client = site.client();
        let reply = client.ask(format!("GET / HTTP/{version}\r\nHost: h\r\n{headers}\r\n"));
        let said = if keeps { (version == "1.0").then_some("keep-alive") } else { Some("close") };
        assert_eq!(reply.header("connection"), said, "{version} {headers:?}");
        if keeps {
            assert_eq!(client.get("/").status, 200);
        } else {
            assert_eq!(client.end(), End::Fin, "{version} {headers:?}");
        }
    }
    site.end();
}

#[test]
fn what_a_client_has_asked_is_answered_though_it_will_say_no_more() {
    let site = shown();
    let mut client = site.client();
    client.say("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HT").finish();
    assert_eq!(client.reply().text(), "GET /1 None ");
    assert_eq!(client.reply().text(), "GET /2 None ");
    assert_eq!(client.end(), End::Fin);
    site.end();
}

#[test]
fn a_request_that_is_not_one_gets_a_status_and_one_line_and_the_connection_ends() {
    let site = shown();
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let cases: [(&[u8], u16, &str); 11] = [
        (b"GET / HTTP/1.1\nHost: h\n\n", 400, "LF alone"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "no Host"),
        (b"GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "leaves the root"),
        (b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "%-escape"),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "both",
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "chunked"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "hexadecimal"),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "neither"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "not HTTP/2"),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 501, "not a proxy"),
        (tls_hello, 400, "without TLS"),
    ];
    for (bytes, status, words) in cases {
        let text = String::from_utf8_lossy(bytes);
        let mut client = site.client();
        let reply = client.say(bytes).reply();
        assert_eq!((reply.status, reply.closes()), (status, true), "{text}");
        assert!(
            reply.text().contains(words) && reply.text().lines().count() == 1,
            "{text}: {}",
            reply.text()
        );
        assert_eq!(client.end(), End::Fin, "{text}");
    }
    site.until_closed(CloseReason::Protocol, 10);
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert_eq!(site.client().ask(many).status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(20_000));
    assert_eq!(site.client().say(long).reply().status, 431);
    site.end();
}

#[test]
fn a_silent_and_a_half_request_hold_no_worker_and_have_their_deadlines() {
    let limits =
        one_worker().read_timeout(Duration::from_millis(2500)).idle_timeout(Duration::from_millis(5000));
    let site = Site::serve(limits, http(show));
    let mut silent: Vec<Client> = (0..100).map(|_| site.client()).collect();
    site.until("they are parked", |now| now.idle == 100);
    let mut halves: Vec<Client> = (0..100).map(|_| site.client()).collect();
    for (n, client) in halves.iter_mut().enumerate() {
        client.say(if n % 2 == 0 {
            "GET / HT"
        } else {
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"
        });
    }
    // A slow machine may have ended some by now.
    let kept = |now: &ListenerSnapshot| now.idle + now.closed_total();
    site.until("none holds the worker", |now| (kept(now), now.active, now.queued) == (200, 0, 0));
    let began = Instant::now();
    assert_eq!(site.client().get("/").status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for client in halves.iter_mut().chain(&mut silent) {
        assert_eq!(client.end(), End::Fin);
    }
    site.until_closed(CloseReason::ReadTimeout, 100);
    site.until("the silent ones too", |now| now.closed[CloseReason::IdleTimeout as usize] >= 100);
    assert_eq!(site.stats().pending_input_bytes, 0);
    site.end();
}

#[test]
fn a_request_that_drips_has_its_deadline_from_its_first_byte() {
    let site = Site::serve(one_worker().read_timeout(Duration::from_millis(600)), http(show));
    let mut client = site.client();
    let began = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: h\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 1000)) {
        client.mutter([byte]);
        if site.counts().closed_total() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    site.until_closed(CloseReason::ReadTimeout, 1);
    site.end();
}

#[test]
fn a_handler_that_fails_is_answered_500_and_its_client_stays() {
    hush_panics();
    let site = Site::serve(
        one_worker(),
        http(|request, response| match request.path() {
            "/error" => Err(io::Error::other("the database is gone")),
            "/404" => Err(http::status(404)),
            "/teapot" => Err(http::status(418)),
            "/name" => response.header("a\r\nb", "c").text("never seen"),
            "/value" => response.header("Location", "/\r\nSet-Cookie: x").status(302).empty(),
            "/framing" => response.header("content-LENGTH", "7").text("never seen"),
            "/status" => response.status(101).text("never seen"),
            "/panic" => panic!("as the test wants"),
            "/json" => request.json::<u32>().and_then(|number| response.json(&number)),
            _ => response.text("hello"),
        }),
    );
    let mut client = site.client();
    for (path, status) in [
        ("/error", 500),
        ("/404", 404),
        ("/teapot", 418),
        ("/name", 500),
        ("/value", 500),
        ("/framing", 500),
        ("/status", 500),
        ("/json", 400),
        ("/", 200),
    ] {
        let reply = client.get(path);
        assert_eq!((reply.status, reply.closes()), (status, false), "{path}");
        assert!(!reply.text().contains("database"), "what went wrong is not the client's business");
        assert_eq!(reply.header("set-cookie"), None);
    }
    client.say("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.end(), End::Reset);
    site.until_closed(CloseReason::Panic, 1);
    site.end();
}

#[test]
fn json_and_forms_are_read_and_written() {
    let site = Site::serve(
        one_worker(),
        http(|request, response| match request.path() {
            "/sum" => response.json(&request.json::<Vec<i64>>()?.iter().sum::<i64>()),
            _ => response.json(&request.form().collect::<Vec<_>>()),
        }),
    );
    let mut client = site.client();
    let mut post = |path: &str, kind: &str, body: &str| {
        let length = body.len();
        client.ask(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    let reply = post("/sum", "application/json", "[1, 2, 39]");
    assert_eq!((reply.text(), reply.header("content-type")), ("42", Some("application/json")));
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    assert_eq!(post("/form", form, "a=1&b=x+y%26&c").text(), r#"[["a","1"],["b","x y&"],["c",""]]"#);
    assert_eq!(post("/form", "text/plain", "a=1").text(), "[]");
    site.end();
}

/// A body of so many bytes that says where each stands.
fn pattern(at: usize, length: usize) -> Vec<u8> {
    /// After so many bytes it begins again.
    const PERIOD: usize = 7 * 251;
    let period: Vec<u8> = (at..at + PERIOD).map(|at| (at / 7 % 251) as u8).collect();
    let mut pattern = period.repeat(length.div_ceil(PERIOD));
    pattern.truncate(length);
    pattern
}

/// Answers with a large body in pieces, and counts them.
fn large(total: usize, pieces: Arc<AtomicUsize>) -> http::Http {
    http(move |request, response| {
        let (mut at, pieces) = (0, pieces.clone());
        let next = move |piece: &mut Vec<u8>| {
            pieces.fetch_add(1, Ordering::SeqCst);
            let length = (32 << 10).min(total - at);
            piece.extend(pattern(at, length));
            at += length;
            Ok(if at == total { Pull::End } else { Pull::More })
        };
        if request.path() == "/sized" { response.pull_sized(total as u64, next) } else { response.pull(next) }
    })
}

#[test]
fn a_slow_reader_of_a_large_answer_owns_no_worker_and_no_more_than_a_piece() {
    let total = 12 * MIB;
    let pieces = Arc::new(AtomicUsize::new(0));
    let site = Site::serve(one_worker(), large(total, pieces.clone()));
    let mut slow: Vec<Client> = (0..20).map(|_| Client::narrow(site.address)).collect();
    for (n, client) in slow.iter_mut().enumerate() {
        client.say(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", if n % 2 == 0 { "sized" } else { "" }));
    }
    site.until("they are parked", |now| (now.active, now.queued, now.idle) == (0, 0, 20));
    assert!(site.stats().pending_output_bytes <= 20 * (50 << 10), "{}", site.stats().pending_output_bytes);
    let asked = pieces.load(Ordering::SeqCst);
    assert!(asked < 20 * 200, "{asked} pieces were asked for");
    let began = Instant::now();
    let reply = site.client().ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for client in slow.iter_mut().take(2) {
        let reply = client.reply();
        assert!(reply.body == pattern(0, total), "the body is as it was made");
        // And the connection is in step.
        assert_eq!(client.ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
    }
    drop(slow);
    site.until("all have left", |now| now.open() == 0);
    assert_eq!(site.stats().pending_output_bytes, 0);
    site.end();
}

#[test]
fn an_old_client_gets_a_pulled_answer_until_the_connection_ends() {
    let site = Site::serve(one_worker(), large(MIB, Arc::default()));
    let mut client = site.client();
    client.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.header("transfer-encoding"), reply.closes()), (None, true));
    assert!(reply.body == pattern(0, MIB));
    // One whose length is known keeps the connection.
    let mut client = site.client();
    let reply = client.ask("GET /sized HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(reply.header("connection"), Some("keep-alive"));
    assert!(reply.body == pattern(0, MIB));
    assert_eq!(client.ask("HEAD / HTTP/1.0\r\n\r\n").status, 200);
    site.end();
}

#[test]
fn a_pulled_answer_that_fails_is_not_taken_for_a_whole_one() {
    let site = Site::serve(
        one_worker(),
        http(|request, response| match request.path() {
            "/short" => response.reader(10, &b"short"[..]),
            "/long" => response.pull_sized(3, |piece| {
                piece.extend(b"long");
                Ok(Pull::End)
            }),
            "/whole" => response.reader(5, &b"whole and more"[..]),
            _ => response.pull(|piece| {
                piece.extend(b"some");
                Err(io::Error::other("as the test wants"))
            }),
        }),
    );
    assert_eq!(site.client().get("/whole").text(), "whole");
    for path in ["/short", "/long", "/fails"] {
        let mut client = site.client();
        client.say(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let (said, end) = client.rest();
        assert_eq!(end, End::Reset, "{path}");
        assert!(!said.ends_with(b"0\r\n\r\n"), "{path}");
    }
    site.until_closed(CloseReason::Error, 3);
    site.end();
}

#[test]
fn a_pulled_answer_goes_on_while_other_clients_have_their_turns() {
    let endless = http(|request, response| match request.path() {
        "/" => response.pull(|piece| {
            piece.resize(64 << 10, 0);
            Ok(Pull::More)
        }),
        _ => response.text("hello"),
    });
    let site = Site::serve(one_worker(), endless);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = site.client();
                client.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
                let mut buffer = vec![0; MIB];
                while !stop.load(Ordering::SeqCst) {
                    client.stream().read_exact(&mut buffer).unwrap();
                }
            });
        }
        site.until("both are served", |now| now.sent_bytes > 10 * MIB_U64);
        for _ in 0..20 {
            assert_eq!(site.client().get("/other").text(), "hello");
        }
        stop.store(true, Ordering::SeqCst);
    });
    site.end_within(Duration::from_millis(200));
}

#[test]
fn a_client_for_whose_body_there_is_no_room_is_told_so() {
    let limits = one_worker().input_total(200_000);
    let site = Site::serve(limits, http(show));
    let mut first = site.client();
    first.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 150000\r\n\r\n").say(vec![b'x'; 140_000]);
    eventually("it is held", || (site.stats().pending_input_bytes >= 140_000).then_some(()));
    let mut second = site.client();
    second.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 150000\r\n\r\n").mutter(vec![b'x'; 100_000]);
    let reply = second.reply();
    assert_eq!((reply.status, reply.header("retry-after"), reply.closes()), (503, Some("1"), true));
    site.until_closed(CloseReason::InputLimit, 1);
    first.say(vec![b'x'; 10_000]);
    assert_eq!(first.reply().status, 200);
    site.end();
}

#[test]
fn half_requests_of_one_source_leave_room_for_those_of_others() {
    let limits = one_worker().input_total(MIB).max_body(MIB).max_head(32 * 1024);
    let site = Site::serve(limits, http(show));
    let mut greedy: Vec<Client> = Vec::new();
    for n in 0..40 {
        let mut client = Client::from("127.0.0.2", site.address);
        // Half heads, and half bodies.
        match n % 2 {
            0 => client.mutter(format!("GET /{} HTTP/1.1\r\nHost: h", "x".repeat(30_000))),
            _ => client
                .mutter("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")
                .mutter(vec![b'x'; 50_000]),
        };
        greedy.push(client);
    }
    eventually("they fill the room", || (site.stats().pending_input_bytes > 900_000).then_some(()));
    for n in 1..20usize {
        let mut polite = site.client();
        let body = "p".repeat(2_000 * n);
        polite.say(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
        site.until("its head was read", |now| now.active == 0 && now.queued == 0);
        polite.say(&body[..1_000]);
        site.until("a piece was read", |now| now.active == 0 && now.queued == 0);
        polite.say(&body[1_000..]);
        let reply = polite.reply();
        assert_eq!((reply.status, reply.text().ends_with(&body)), (200, true), "{n}");
        assert!(site.stats().pending_input_bytes <= MIB_U64);
    }
    assert!(site.closed(CloseReason::InputLimit) > 0, "the greedy gave way");
    // Those are told: the others of them can go on.
    let told = greedy.iter_mut().filter_map(|client| {
        client.finish_quietly();
        let (said, _) = client.rest();
        String::from_utf8_lossy(&said).starts_with("HTTP/1.1 503").then_some(())
    });
    assert!(told.count() > 0);
    site.end();
}

#[test]
fn a_client_that_is_refused_at_the_door_is_told_503_and_when_to_come_again() {
    let gate = Gate::new();
    let limits = one_worker().queue(1);
    let held = gate.clone();
    let site = Site::serve(
        limits,
        http(move |_, response| {
            held.pass();
            response.text("hello")
        }),
    );
    let mut busy = site.client();
    busy.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until("the worker is busy", |now| now.active == 1);
    let mut waiting = site.client();
    waiting.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until("one waits", |now| now.queued == 1);
    let reply = site.client().reply();
    assert_eq!((reply.status, reply.header("retry-after"), reply.closes()), (503, Some("1"), true));
    gate.open();
    assert_eq!((busy.reply().status, waiting.reply().status), (200, 200));
    site.end();
}

/// News for every reader, sent when there are some.
#[derive(Clone, Default)]
struct News(Arc<Mutex<(Vec<String>, Vec<Waker>)>>);

impl News {
    fn tell(&self, news: &str) {
        let mut guard = self.0.lock().unwrap();
        guard.0.push(news.to_owned());
        guard.1.iter().for_each(Waker::wake);
    }

    fn service(&self) -> http::Http {
        let news = self.clone();
        http(move |_, response| {
            let (news, mut told) = (news.clone(), 0);
            news.0.lock().unwrap().1.push(response.waker());
            response.header("Content-Type", "text/event-stream").pull(move |piece| {
                let all = &news.0.lock().unwrap().0;
                for news in &all[told..] {
                    piece.extend(format!("data: {news}\n\n").bytes());
                }
                told = all.len();
                Ok(if all.last().is_some_and(|last| last == "end") { Pull::End } else { Pull::Later(HOUR) })
            })
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_pulled_answer_can_wait_for_news_and_is_woken_by_another_thread() {
    let news = News::default();
    let site = Site::serve(one_worker().idle_timeout(Duration::from_secs(1)), news.service());
    let mut readers: Vec<Client> = Vec::new();
    for _ in 0..50 {
        readers.push(site.client());
        readers.last_mut().unwrap().say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    eventually("all listen", || (news.0.lock().unwrap().1.len() == 50).then_some(()));
    site.until("and are parked", |now| (now.idle, now.active, now.queued) == (50, 0, 0));
    // Longer than a connection may be idle between requests.
    throughout(Duration::from_millis(1500), "they are still there", || site.counts().open() == 50);
    news.tell("one");
    news.tell("two");
    news.tell("end");
    for client in &mut readers {
        assert_eq!(client.reply().text(), "data: one\n\ndata: two\n\ndata: end\n\n");
    }
    site.until("then they are between requests again", |now| now.idle == 50 || now.closed_total() > 0);
    site.end();
}

#[test]
fn while_the_server_drains_every_answer_is_the_last_of_its_connection() {
    let news = News::default();
    let readers = Site::serve(one_worker(), news.service());
    let mut reader = readers.client();
    reader.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("it listens", || news.0.lock().unwrap().1.pop());
    readers.until("and is parked", |now| now.idle == 1);
    assert!(
        readers.end_within(Duration::from_secs(10)).elapsed < Duration::from_secs(5),
        "a reader does not hold it up"
    );

    let site = shown();
    let (mut begun, mut idle) = (site.client(), site.client());
    begun.say("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo");
    assert_eq!(idle.get("/").header("connection"), None);
    site.until("both are parked", |now| now.idle == 2);
    site.handle().trigger().drain();
    assert_eq!(idle.end(), End::Fin);
    let reply = begun.ask("dy");
    assert_eq!((reply.text(), reply.closes()), ("PUT / None body", true));
    assert_eq!(begun.end(), End::Fin);
    assert!(site.end().is_clean());
}

#[test]
fn while_the_server_drains_errors_and_pipelines_end_their_connections_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = Site::serve(
        one_worker(),
        http(move |request, response| match request.path() {
            "/held" => {
                held.pass();
                response.text("held")
            }
            "/fails" => Err(http::status(404)),
            path => response.text(path),
        }),
    );
    // Each has begun a request when the drain begins, and ends it then.
    let begin = |path: &str| {
        let mut client = site.client();
        client.say(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nb"));
        client
    };
    let (mut fails, mut pipelines) = (begin("/fails"), begin("/first"));
    site.until("both are parked", |now| now.idle == 2);
    let mut busy = site.client();
    busy.say("GET /held HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until("one is being served", |now| now.active == 1);
    site.handle().trigger().drain();
    site.until("it drains", |_| site.stats().phase == Phase::Draining);
    fails.say("y");
    pipelines.say("yGET /second HTTP/1.1\r\nHost: h\r\n\r\n");
    gate.open();
    let reply = busy.reply();
    assert_eq!((reply.text(), busy.end()), ("held", End::Fin));
    for (client, status, text) in [(&mut fails, 404, "404 Not Found\n"), (&mut pipelines, 200, "/first")] {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text(), reply.closes()), (status, text, true));
        // What stands behind the last answer is nobody's: its client asks another server.
        assert!(client.rest().0.is_empty());
    }
    assert!(site.end().is_clean());
}

/// Adds up what is uploaded; some paths are answered early.
struct Uploads;

impl Streaming for Uploads {
    type Exchange = (String, usize, usize);

    fn head(&self, request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Head<Self::Exchange>> {
        assert_eq!(request.body(), b"", "the head comes before the body");
        match request.path() {
            "/early" => response.status(403).text("not here").map(Head::Answered),
            "/fails" => Err(http::status(409)),
            path => Ok(Head::Wanted((path.to_owned(), 0, 0))),
        }
    }

    fn piece(&self, (path, bytes, pieces): &mut Self::Exchange, piece: &[u8]) -> io::Result<()> {
        assert!(!piece.is_empty());
        if path == "/stops" && *bytes > 1000 {
            return Err(http::status(422));
        }
        *bytes += piece.len();
        *pieces += 1;
        Ok(())
    }

    fn end(&self, (path, bytes, _): Self::Exchange, response: Response<'_, '_>) -> io::Result<Answer> {
        response.text(&format!("{path} {bytes}"))
    }
}

fn uploads() -> Site {
    let mut config = Config::default();
    config.max_body = 1 << 40;
    Site::serve(one_worker(), http::streaming(Uploads).config(config).name("uploads"))
}

#[test]
fn a_streaming_service_gets_a_body_as_it_comes_and_keeps_none_of_it() {
    let site = uploads();
    let total = 64 * MIB;
    let mut client = site.client();
    client.say(format!(
        "PUT /big HTTP/1.1\r\nHost: h\r\nContent-Length: {total}\r\nExpect: 100-continue\r\n\r\n"
    ));
    client.hear("HTTP/1.1 100 Continue\r\n\r\n");
    let piece = vec![b'x'; MIB];
    for _ in 0..64 {
        client.say(&piece);
        assert!(site.stats().pending_input_bytes < 200_000);
    }
    assert_eq!(client.reply().text(), format!("/big {total}"));
    let chunked =
        "PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunked).text(), "/c 5");
    assert_eq!(client.get("/none").text(), "/none 0");
    site.end();
}

#[test]
fn a_streaming_service_may_answer_before_the_body() {
    let site = uploads();
    // Nothing is left to read: the connection stays.
    let mut client = site.client();
    assert_eq!((client.get("/early").status, client.get("/early").status), (403, 403));
    let reply = client.ask("PUT /fails HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((reply.status, reply.closes()), (409, false));
    assert_eq!(client.get("/x").text(), "/x 0");
    // The body is not wanted, so the connection ends.
    for (path, status) in [("/early", 403), ("/fails", 409)] {
        let mut client = site.client();
        client.say(format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nabc"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.closes()), (status, true));
        assert_eq!(client.end(), End::Fin);
    }
    let mut client = site.client();
    let before = site.counts().received_bytes;
    client.say("PUT /stops HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n").say(vec![b'x'; 1500]);
    site.until("it is taken", |now| now.received_bytes > before + 1500);
    let reply = client.say("x").reply();
    assert_eq!((reply.status, reply.closes()), (422, true));
    site.end();
}

#[test]
fn the_ready_services_speak_http() {
    let hello = Site::serve(one_worker(), http::hello());
    assert_eq!(hello.client().get("/J%C3%B6rg?x").text(), "hello J\u{f6}rg");
    let reply = hello.client().ask("DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
    hello.end();
    for site in [
        Site::serve(one_worker(), http::echo()),
        Site::serve(one_worker(), http::work("cpu:1us".parse().unwrap())),
    ] {
        let mut client = site.client();
        let put = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nback";
        let reply = client.ask(put);
        assert_eq!((reply.text(), reply.header("content-type")), ("back", Some("a/b")));
        assert_eq!(client.get("/").text(), "");
        site.end();
    }
    let time = Site::serve(one_worker(), http::time());
    assert_eq!(time.client().get("/").body.len(), 25);
    time.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the pieces in which requests come, each is answered with its body.
    #[test]
    fn requests_are_answered_alike_in_whatever_pieces_they_come(
        bodies in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 1..8),
        cuts in prop::collection::vec(0.0..1.0f64, 0..12),
    ) {
        let site = Site::serve(one_worker(), http::echo());
        let mut bytes = Vec::new();
        for (body, chunked) in &bodies {
            if *chunked && !body.is_empty() {
                bytes.extend(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(700) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            } else {
                bytes.extend(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
            }
        }
        let mut places: Vec<usize> = cuts.iter().map(|share| (share * bytes.len() as f64) as usize).collect();
        places.push(bytes.len());
        places.sort_unstable();
        let mut client = site.client();
        let mut start = 0;
        for place in places {
            client.say(&bytes[start..place]);
            start = place;
            std::thread::yield_now();
        }
        for (body, _) in &bodies {
            prop_assert_eq!(&client.reply().body, body);
        }
        site.end();
    }
}
