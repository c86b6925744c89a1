//! An overload as clients of HTTP and WebSocket see it who keep their connections: they are told, at once and when to come
//! again, and stay.

mod support;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, PATIENCE, Site, eventually};
use tidegate::reason::{DropReason, TurnOutcome, TurnShed};
use tidegate::websocket::Event;
use tidegate::{Limits, QueueOrder, http, websocket};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

/// What each request costs the one worker.
const COST: Duration = Duration::from_millis(20);
const CLIENTS: usize = 40;
/// A request that has waited this long is refused; all clients together ask for much more than can be done in it.
const TIMEOUT: Duration = Duration::from_millis(250);

fn limits() -> Limits {
    let limits = Limits::default().workers(1).queue(100).queue_timeout(TIMEOUT);
    limits.linger_timeout(Duration::from_millis(50))
}

/// Runs a client in each of many threads.
fn together<C: Send>(clients: Vec<C>, run: impl Fn(C) + Sync) {
    std::thread::scope(|scope| {
        for client in clients {
            let run = &run;
            scope.spawn(move || run(client));
        }
    });
}

#[test]
fn a_request_that_waited_too_long_is_answered_503_with_an_estimate_and_its_connection_stays() {
    let site = Site::serve(
        limits(),
        http(|request, response| {
            std::thread::sleep(COST);
            response.text(request.path())
        }),
    );
    let (served, refused, served_after) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // One after the other, so that each is an established connection when the load begins.
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = site.client();
            assert_eq!(client.get("/first").status, 200);
            client
        })
        .collect();
    let began = Instant::now();
    together(clients, |mut client| {
        let mut was_refused = false;
        // As many requests as show both, on one connection.
        while began.elapsed() < Duration::from_secs(3) {
            let reply = client.ask("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
            assert!(!reply.closes(), "the connection stays: {reply:?}");
            match reply.status {
                200 => {
                    served.fetch_add(1, Ordering::SeqCst);
                    served_after.fetch_or(was_refused, Ordering::SeqCst);
                }
                503 => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    was_refused = true;
                    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
                    assert!((1..=120).contains(&seconds) && reply.text().contains("overloaded"), "{reply:?}");
                }
                other => panic!("{other}"),
            }
        }
    });
    let counts = (served.into_inner(), refused.into_inner());
    // One worker can do 150 in three seconds.
    assert!(counts.0 > 60 && counts.1 > 20, "{counts:?} were served and refused");
    assert!(served_after.into_inner(), "a client that was refused is served later, on the same connection");
    let now = site.counts();
    assert_eq!(now.accepted, CLIENTS as u64, "nobody had to come back");
    // How quickly they were refused does not look like how quickly requests are answered.
    let web = now.web.unwrap();
    assert_eq!(web.requests, [0, counts.0 + CLIENTS as u64, 0, 0, counts.1]);
    assert_eq!(web.duration.count(), counts.0 + CLIENTS as u64);
    assert!(web.duration.quantile(0.5).unwrap() >= COST, "the wait for the worker is part of it");
    site.end();
}

#[test]
fn a_client_that_comes_again_when_it_was_told_to_is_served() {
    const WAITING: usize = 30;
    const SLOW: Duration = Duration::from_millis(100);
    let site = Site::serve(
        // In order of arrival a full queue refuses whoever comes next.
        limits().queue(WAITING).queue_timeout(PATIENCE).queue_order(QueueOrder::Fifo),
        http(|_, response| {
            std::thread::sleep(SLOW);
            response.text("served")
        }),
    );
    let ask = || {
        let mut client = site.client();
        client.mutter("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client
    };
    let mut waiting: Vec<Client> = (0..WAITING + 12).map(|_| ask()).collect();
    // Some are refused from the start; the estimate is made of what was seen for a while.
    site.until("ten are served", |now| now.turns[TurnOutcome::Ok as usize] >= 10);
    let looked = Instant::now();
    let (began, mut refused) = loop {
        assert!(looked.elapsed() < PATIENCE, "nobody is refused");
        let (before, began) = (site.dropped(DropReason::QueueFull), Instant::now());
        waiting.push(ask());
        let asked = waiting.len() as u64;
        site.until("it was taken in or refused", |now| now.accepted == asked);
        if site.dropped(DropReason::QueueFull) > before {
            break (began, waiting.pop().unwrap());
        }
    };
    let reply = refused.reply();
    let told: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(reply.status, 503);
    site.until("what waited was worked off", |now| now.queued == 0);
    let took = began.elapsed().as_secs_f64();
    assert!((took - 1.0..took + 2.5).contains(&(told as f64)), "told {told} s, and it took {took:.1} s");
    std::thread::sleep(Duration::from_secs(told).saturating_sub(began.elapsed()));
    assert_eq!(ask().reply().status, 200);
    site.end();
}

/// Ends the load also when the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_requests_of_a_pipeline_that_waited_too_long_are_refused_in_order() {
    let site = Site::serve(
        limits(),
        http(|request, response| {
            std::thread::sleep(COST);
            response.text(request.path())
        }),
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let mut client = site.client();
        assert_eq!(client.get("/first").status, 200);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = site.client();
                // A newcomer has rules of its own, and may be turned away.
                while !stop.load(Ordering::SeqCst) {
                    client.mutter("GET /load HTTP/1.1\r\nHost: h\r\n\r\n");
                    if !client.heard(&mut [0; 100]) {
                        return;
                    }
                }
            });
        }
        let began = Instant::now();
        loop {
            client.say("GET /y HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3));
            let statuses: Vec<u16> = (0..3).map(|_| client.reply().status).collect();
            assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
            if statuses == [503; 3] {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it was never refused");
        }
    });
    site.end();
}

#[test]
fn a_request_with_half_a_body_that_waited_too_long_is_answered_503_and_its_connection_ends() {
    let gate = Gate::new();
    let held = gate.clone();
    let site = Site::serve(
        // Longer than this client needs, so that what it says afterwards meets a polite close and no reset.
        limits().linger_timeout(PATIENCE),
        http(move |request, response| {
            if request.path() == "/busy" {
                held.pass();
            }
            response.text("served")
        }),
    );
    let (mut half, mut busy) = (site.client(), site.client());
    assert_eq!((half.get("/").status, busy.get("/").status), (200, 200));
    // An answer may be here before its turn has ended.
    site.until("both are parked", |now| now.idle == 2);
    busy.say("GET /busy HTTP/1.1\r\nHost: h\r\n\r\n");
    site.until("the worker is busy", |now| now.active == 1);
    half.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf");
    eventually("it waited too long", || {
        (site.counts().turns_shed[TurnShed::QueueTimeout as usize] == 1).then_some(())
    });
    gate.open();
    let reply = half.reply();
    assert_eq!((reply.status, reply.closes()), (503, true), "{reply:?}");
    assert!(reply.header("retry-after").is_some() && reply.text().contains("overloaded"), "{reply:?}");
    // What comes of its body is not read as another request.
    half.mutter("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let (said, end) = half.rest();
    assert!(said.is_empty() && end == End::Fin, "{end:?}: {}", String::from_utf8_lossy(&said));
    drop(half);
    assert_eq!(busy.reply().status, 200);
    drop(busy);
    eventually("nothing is kept of it", || (site.stats().pending_input_bytes == 0).then_some(()));
    site.end();
}

#[test]
fn a_message_that_waited_too_long_closes_its_websocket_with_try_again_later() {
    let site = Site::serve(
        limits(),
        websocket(|event, socket| match event {
            Event::Text(text) => {
                std::thread::sleep(COST);
                socket.send(text)
            }
            _ => Ok(()),
        }),
    );
    let (echoed, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    let sockets: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stream = TcpStream::connect(site.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            tungstenite::client(format!("ws://{}/", site.address), stream).expect("it connects").0
        })
        .collect();
    let began = Instant::now();
    together(sockets, |mut socket| {
        while began.elapsed() < Duration::from_secs(3) {
            socket.send(Message::text("x")).unwrap();
            match socket.read().unwrap() {
                Message::Text(_) => drop(echoed.fetch_add(1, Ordering::SeqCst)),
                Message::Close(Some(close)) => {
                    assert_eq!(close.code, CloseCode::Again);
                    assert!(close.reason.contains("come again in"), "{close:?}");
                    closed.fetch_add(1, Ordering::SeqCst);
                    return while socket.read().is_ok() {};
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let counts = (echoed.into_inner(), closed.into_inner());
    assert!(counts.0 > 60 && counts.1 > 5, "{counts:?} were echoed and closed");
    site.end();
}
