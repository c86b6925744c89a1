//! Limits that change while the server serves: each one that is marked as live takes effect, the others are refused by name,
//! and no client is lost by a change.

mod support;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, Held, PATIENCE, Site, eventually, throughout};
use tidegate::metrics::snapshot::Phase;
use tidegate::reason::{CloseReason, DatagramDrop, DropReason, WouldDrop};
use tidegate::{
    DryRun, Echo, Fair, Limits, Listen, Overload, Peer, QueueOrder, Received, RefusalRate, Server, Service,
    Session, SetLimitsError, Stream, Turn, http, lines, websocket,
};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(20);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn base() -> Limits {
    Limits::default().workers(1).queue(64).linger_timeout(MOMENT)
}

/// Changes one limit, and only that.
#[track_caller]
fn change(site: &Site, name: &str, new: impl FnOnce(Limits) -> Limits) {
    let changes = site.handle().set_limits(new(site.handle().limits())).unwrap();
    let names: Vec<_> = changes.iter().map(|change| change.name).collect();
    assert_eq!(names, [name]);
}

/// A client that has the only worker, of a [`Held`] service.
#[track_caller]
fn occupy(site: &Site) -> Client {
    let mut client = site.client();
    client.say("first");
    site.until("the worker is held", |now| now.active == 1);
    client
}

/// Every limit that can change, and what shows that it took effect. Each proof begins with what is true before.
const PROOFS: &[(&str, fn())] = &[
    ("backlog", backlog),
    ("busy-poll", busy_poll),
    ("datagram-source-rate", datagram_source_rate),
    ("drain-delay", drain_delay),
    ("drain-timeout", drain_timeout),
    ("dry-run", dry_run),
    ("idle-timeout", idle_timeout),
    ("input-total", input_total),
    ("linger-bytes", linger_bytes),
    ("linger-timeout", linger_timeout),
    ("lingering", lingering_places),
    ("max-body", max_body),
    ("max-connections", max_connections),
    ("max-head", max_head),
    ("max-headers", max_headers),
    ("max-line", max_line),
    ("max-message", max_message),
    ("max-per-source", max_per_source),
    ("output-per-connection", output_per_connection),
    ("output-total", output_total),
    ("overload", overload),
    ("queue", queue),
    ("queue-target", queue_target),
    ("queue-timeout", queue_timeout),
    ("read-timeout", read_timeout),
    ("refusal-rate", refusal_rate),
    ("source-prefix", source_prefix),
    ("source-rate", source_rate),
    ("stuck-threshold", stuck_threshold),
    ("turn-bytes", turn_bytes),
    ("workers", workers),
    ("write-timeout", write_timeout),
    ("ws-ping", ws_ping),
];

/// Gives a limit another value.
type Other = fn(Limits) -> Limits;

/// Every limit that cannot change, and another value of it.
const FIXED: &[(&str, Other)] = &[
    ("connections-ceiling", |limits| limits.connections_ceiling(20_000)),
    ("fair", |limits| limits.fair(Fair::Off)),
    ("fd-reserve", |limits| limits.fd_reserve(7)),
    ("listeners-ceiling", |limits| limits.listeners_ceiling(7)),
    ("max-datagram", |limits| limits.max_datagram(7)),
    ("queue-order", |limits| limits.queue_order(QueueOrder::Fifo)),
    ("worker-nice", |limits| limits.worker_nice(7)),
    ("workers-ceiling", |limits| limits.workers_ceiling(70)),
];

fn names(live: bool) -> Vec<&'static str> {
    let rows = Limits::default().table().into_iter().filter(|row| row.live == live);
    let mut names: Vec<_> = rows.map(|row| row.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_limit_that_is_marked_as_live_takes_effect() {
    let proven: Vec<_> = PROOFS.iter().map(|(name, _)| *name).collect();
    assert_eq!(proven, names(true), "the marks in the table, and the proofs");
    for (name, prove) in PROOFS {
        let began = Instant::now();
        prove();
        println!("{name}: {:?}", began.elapsed());
    }
}

#[test]
fn every_other_limit_is_refused_by_name_and_nothing_else_is_changed_with_it() {
    let fixed: Vec<_> = FIXED.iter().map(|(name, _)| *name).collect();
    assert_eq!(fixed, names(false), "the marks in the table, and the fixed limits");
    let site = Site::serve(base(), Echo);
    for (name, other) in FIXED {
        let error = site.handle().set_limits(other(base()).idle_timeout(MOMENT)).unwrap_err();
        assert_eq!(error.to_string(), format!("`{name}` takes effect at a restart"));
        assert_eq!(error, SetLimitsError::Fixed(vec![*name]));
    }
    let all = FIXED.iter().fold(base(), |limits, (_, other)| other(limits));
    let error = site.handle().set_limits(all).unwrap_err();
    assert!(matches!(&error, SetLimitsError::Fixed(names) if names.len() == FIXED.len()), "{error}");
    assert_eq!(site.handle().limits(), base());
    site.client().say("x").hear("x");
    site.end();
}

#[test]
fn limits_that_do_not_go_together_change_nothing() {
    let site = Site::serve(base(), Echo);
    let error = site.handle().set_limits(base().idle_timeout(MOMENT).max_line(2 * MIB)).unwrap_err();
    assert!(error.to_string().starts_with("max-line is 2MiB and output-per-connection is 1MiB"), "{error}");
    let error = site.handle().set_limits(base().queue_timeout(Duration::ZERO)).unwrap_err();
    assert_eq!(error.to_string(), "queue-timeout is 0s: it must be from 1ms to 30d");
    assert_eq!(site.handle().limits(), base());
    assert_eq!(site.handle().set_limits(base()), Ok(Vec::new()), "the same again is no change");
}

#[test]
fn nothing_is_raised_above_what_the_server_was_made_for() {
    let many = Limits::default().max_connections(100).queue(10);
    let site = Site::serve(many.clone(), Echo);
    let error = site.handle().set_limits(many.clone().idle_timeout(MOMENT).max_connections(101)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "max-connections is 101: until a restart it can be 100 at most, because memory and file descriptors are set aside for that many (connections-ceiling)"
    );
    assert_eq!(site.handle().limits(), many);
    change(&site, "max-connections", |limits| limits.max_connections(50));
    change(&site, "max-connections", |limits| limits.max_connections(100));
    let listen = Listen::datagrams("127.0.0.1:0", Echo).unwrap();
    let site = Site::build(Server::builder().limits(many.clone()).listener(listen), Echo);
    let error = site.handle().set_limits(many.queue(11)).unwrap_err();
    assert!(error.to_string().starts_with("queue is 11: until a restart it can be 10 at most"), "{error}");
    change(&site, "queue", |limits| limits.queue(3));
    change(&site, "queue", |limits| limits.queue(10));
}

/// From 4 to 64 workers and back while clients ask without pause.
#[test]
fn no_client_is_lost_while_workers_come_and_go() {
    let limits = Limits::default().workers(4).workers_ceiling(64).queue(500);
    let site = Site::serve(
        limits,
        lines("upper", |line, reply| {
            std::thread::sleep(Duration::from_micros(200));
            reply.send(&line.to_ascii_uppercase())?;
            reply.send(b"\n")
        }),
    );
    let (address, over, asked) = (site.address, AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| ask_without_pause(address, &over, &asked));
        }
        for workers in [64, 4, 1, 64, 2, 33, 1, 5, 64, 1, 2, 3, 4, 64] {
            change(&site, "workers", |limits| limits.workers(workers));
            for _ in 0..10 {
                let before = asked.load(Ordering::Relaxed);
                eventually("clients are answered", || {
                    (asked.load(Ordering::Relaxed) >= before + 20).then_some(())
                });
                assert_eq!(site.stats().workers_limit, workers as u64);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let counts = site.counts();
    assert_eq!(
        (counts.dropped_total(), counts.closed[CloseReason::Client as usize]),
        (0, counts.closed_total())
    );
    site.end();
}

#[test]
fn a_server_with_workers_that_stay_out_ends_at_once() {
    let site = Site::serve(base().workers(8), Echo);
    site.client().say("x").hear("x");
    change(&site, "workers", |limits| limits.workers(1));
    site.client().say("x").hear("x");
    let began = Instant::now();
    assert!(site.end().is_clean());
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
}

#[test]
fn a_listener_keeps_what_it_has_of_its_own() {
    let patient = Listen::new("127.0.0.1:0", Echo).unwrap().limits(|limits| limits.idle_timeout(HOUR));
    let site = Site::build(Server::builder().limits(base()).listener(patient), Echo);
    let addresses = site.handle().addresses();
    let mut patient = Client::connect(addresses[0].ip().unwrap());
    let mut other = Client::connect(addresses[1].ip().unwrap());
    patient.say("x").hear("x");
    other.say("x").hear("x");
    change(&site, "idle-timeout", |limits| limits.idle_timeout(MOMENT));
    assert_eq!(other.end(), End::Fin);
    throughout(4 * MOMENT, "the patient one stays", || site.stats().listeners[0].idle == 1);
    patient.say("x").hear("x");
}

/// Clients ask without pause while limits go up and down: each is answered, and every reading is conserved.
#[test]
fn no_client_is_lost_while_limits_change() {
    const CLIENTS: usize = 8;
    let site = Site::serve(
        base().workers(2),
        lines("upper", |line, reply| {
            reply.send(&line.to_ascii_uppercase())?;
            reply.send(b"\n")
        }),
    );
    let (address, over, asked) = (site.address, AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ask_without_pause(address, &over, &asked));
        }
        let until = Instant::now() + Duration::from_secs(2);
        let mut round = 0;
        while Instant::now() < until {
            round += 1;
            let (short, long) = (Duration::from_secs(30), HOUR);
            let time = if round % 2 == 0 { short } else { long };
            let limits = site.handle().limits().idle_timeout(time).read_timeout(time).write_timeout(time);
            let limits =
                limits.queue_timeout(time).max_line((1 + round % 64) * KIB).turn_bytes(round % 7 + 1);
            let limits = limits.busy_poll(Duration::from_micros(round as u64 % 60)).backlog(64 + round % 9);
            let limits = limits.max_connections(500 + round % 90).queue(100 + round % 50);
            let limits =
                limits.max_per_source(round % 3 / 2 * 100).source_rate((round % 5 / 4 * 1_000_000) as f64);
            site.handle().set_limits(limits).unwrap();
            site.stats();
        }
        over.store(true, Ordering::Relaxed);
        assert!(round > 100, "{round} changes");
    });
    let (counts, asked) = (site.counts(), asked.load(Ordering::Relaxed));
    assert!(asked > 1_000, "{asked} answers");
    assert_eq!(
        (counts.dropped_total(), counts.closed[CloseReason::Client as usize]),
        (0, counts.closed_total())
    );
    site.end();
}

fn ask_without_pause(address: SocketAddr, over: &AtomicBool, asked: &AtomicUsize) {
    let mut client = Client::connect(address);
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // Newcomers too.
        if round % 50 == 49 {
            client = Client::connect(address);
        }
        client.say("hello\n").hear("HELLO\n");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

fn max_line() {
    let site = Site::serve(
        base(),
        lines("same", |line, reply| {
            reply.send(line)?;
            reply.send(b"\n")
        }),
    );
    let mut client = site.client();
    client.say("123456789\n").hear("123456789\n");
    change(&site, "max-line", |limits| limits.max_line(8));
    client.say("12345678\n").hear("12345678\n").say("123456789\n");
    assert!(client.rest().0.is_empty());
    site.until_closed(CloseReason::Protocol, 1);
}

fn web() -> Site {
    Site::serve(base(), http::echo())
}

fn max_head() {
    let (site, request) = (web(), format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(300)));
    let mut client = site.client();
    assert_eq!(client.ask(&request).status, 200);
    change(&site, "max-head", |limits| limits.max_head(256));
    assert_eq!(client.ask(&request).status, 431);
}

fn max_headers() {
    let (site, request) = (web(), "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nY: 2\r\n\r\n");
    let mut client = site.client();
    assert_eq!(client.ask(request).status, 200);
    change(&site, "max-headers", |limits| limits.max_headers(2));
    assert_eq!(client.ask(request).status, 431);
}

fn max_body() {
    let (site, request) = (web(), "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    let mut client = site.client();
    assert_eq!(client.ask(request).status, 200);
    change(&site, "max-body", |limits| limits.max_body(4));
    assert_eq!(client.ask(request).status, 413);
}

/// The frames of a WebSocket's client, whose key is 0.
const TEXT_HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

fn open_socket(site: &Site) -> Client {
    let mut client = site.client();
    let reply = client.ask(
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(reply.status, 101);
    client
}

fn max_message() {
    let site = Site::serve(base(), websocket::echo());
    let mut before = open_socket(&site);
    before.say(TEXT_HELLO).hear(b"\x81\x05hello");
    change(&site, "max-message", |limits| limits.max_message(4));
    open_socket(&site).say(TEXT_HELLO).hear(b"\x88");
    before.say(TEXT_HELLO).hear(b"\x81\x05hello");
}

fn ws_ping() {
    let site = Site::serve(base().ws_ping(HOUR), websocket::echo());
    let mut before = open_socket(&site);
    before.say(TEXT_HELLO).hear(b"\x81\x05hello");
    change(&site, "ws-ping", |limits| limits.ws_ping(MOMENT));
    open_socket(&site).hear(b"\x89");
    before.say(TEXT_HELLO).hear(b"\x81\x05hello");
}

fn input_total() {
    let site = Site::serve(
        base(),
        lines("length", |line, reply| reply.send(format!("{}\n", line.len()).as_bytes())),
    );
    let half = "x".repeat(60_000);
    let mut clients = [site.client(), site.client()];
    for client in &mut clients {
        client.say(&half);
    }
    eventually("both are held", || (site.stats().pending_input_bytes >= 120_000).then_some(()));
    for client in &mut clients {
        client.say("\n").hear("60000\n");
    }
    change(&site, "input-total", |limits| limits.input_total(66 * KIB));
    for client in &mut clients {
        client.mutter(&half);
    }
    site.until("all has come", |now| now.received_bytes >= 240_002 && now.active + now.queued == 0);
    for client in &mut clients {
        client.mutter("\n");
    }
    site.until("one had to give way", |now| now.closed[CloseReason::InputLimit as usize] > 0);
}

/// Answers each request with this many bytes.
struct Generous(usize);

impl Service for Generous {
    fn connect(&self, _: &Peer) -> Box<dyn Session> {
        Box::new(Generous(self.0))
    }
}

impl Session for Generous {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        loop {
            match stream.receive()? {
                Received::Data(_) => stream.send(&vec![b'x'; self.0])?,
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

/// A client that asks, and does not read.
fn lazy(site: &Site) -> Client {
    let mut client = Client::narrow(site.address);
    client.say("?");
    client
}

fn output_per_connection() {
    let site = Site::serve(base().output_per_connection(16 * MIB), Generous(12 * MIB));
    let _before = lazy(&site);
    eventually("it is kept", || (site.stats().pending_output_bytes > MIB as u64).then_some(()));
    change(&site, "output-per-connection", |limits| limits.output_per_connection(MIB));
    let _after = lazy(&site);
    site.until_closed(CloseReason::OutputLimit, 1);
    assert_eq!(site.counts().idle, 1, "what was kept before stays");
}

fn output_total() {
    let site = Site::serve(base().output_per_connection(16 * MIB), Generous(12 * MIB));
    let _clients = [lazy(&site), lazy(&site), lazy(&site)];
    eventually("all is kept", || (site.stats().pending_output_bytes > 18 * MIB as u64).then_some(()));
    change(&site, "output-total", |limits| limits.output_total(16 * MIB));
    let _after = lazy(&site);
    site.until("one is ended", |now| now.closed[CloseReason::OutputLimit as usize] > 0);
}

/// Reads all that comes, and notes the most that came in one turn.
struct Reader(Arc<AtomicUsize>);

impl Service for Reader {
    fn connect(&self, _: &Peer) -> Box<dyn Session> {
        Box::new(Reader(self.0.clone()))
    }
}

impl Session for Reader {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let mut read = 0;
        loop {
            match stream.receive()? {
                Received::Data(data) => read += data.len(),
                Received::Nothing => {
                    self.0.fetch_max(read, Ordering::Relaxed);
                    return Ok(Turn::Park);
                }
                Received::End => return Ok(Turn::Close),
            }
        }
    }
}

fn turn_bytes() {
    let most = Arc::new(AtomicUsize::new(0));
    let site = Site::serve(base(), Reader(most.clone()));
    let (mut client, data) = (site.client(), vec![b'x'; 200 * KIB]);
    let mut said = 0;
    eventually("much is read in one turn", || {
        client.say(&data);
        said += data.len() as u64;
        (most.load(Ordering::Relaxed) > 64 * KIB).then_some(())
    });
    site.until("all of it is read", |now| now.received_bytes == said && now.active == 0);
    change(&site, "turn-bytes", |limits| limits.turn_bytes(KIB));
    most.store(0, Ordering::Relaxed);
    client.say(&data);
    said += data.len() as u64;
    site.until("all of it is read", |now| now.received_bytes == said);
    let most = most.load(Ordering::Relaxed);
    // No more than one read gives.
    assert!((1..=64 * KIB).contains(&most), "{most} in one turn");
}

/// Says one word and ends, whatever the client still says.
fn curt() -> impl Service {
    struct Curt;
    impl Session for Curt {
        fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
            match stream.receive()? {
                Received::Nothing => return Ok(Turn::Park),
                _ => stream.send(b"bye")?,
            }
            Ok(Turn::Close)
        }
    }
    struct Curtly;
    impl Service for Curtly {
        fn connect(&self, _: &Peer) -> Box<dyn Session> {
            Box::new(Curt)
        }
    }
    Curtly
}

/// A client whose connection the server closes politely: it may still say something.
fn lingering(site: &Site) -> Client {
    let mut client = site.client();
    client.say("x").hear("bye");
    assert_eq!(client.end(), End::Fin);
    client
}

fn linger_bytes() {
    let site = Site::serve(base().linger_timeout(HOUR), curt());
    let mut patient = lingering(&site);
    patient.say([0; 1000]);
    eventually("it lingers", || (site.stats().lingering == 1).then_some(()));
    throughout(4 * MOMENT, "it lingers", || site.stats().lingering == 1);
    change(&site, "linger-bytes", |limits| limits.linger_bytes(10));
    let mut short = lingering(&site);
    short.mutter([0; 1000]);
    throughout(4 * MOMENT, "the first lingers", || site.stats().lingering >= 1);
    eventually("the second is ended", || (site.stats().lingering == 1).then_some(()));
    let _ = short.rest();
    drop(patient);
}

fn lingering_places() {
    let site = Site::serve(base().linger_timeout(HOUR).lingering(1), curt());
    let mut clients = vec![lingering(&site)];
    eventually("it lingers", || (site.stats().lingering == 1).then_some(()));
    clients.push(lingering(&site));
    throughout(4 * MOMENT, "the second has no place", || site.stats().lingering == 1);
    change(&site, "lingering", |limits| limits.lingering(2));
    clients.push(lingering(&site));
    eventually("the third has", || (site.stats().lingering == 2).then_some(()));
}

fn linger_timeout() {
    let site = Site::serve(base().linger_timeout(HOUR), curt());
    let patient = lingering(&site);
    eventually("it lingers", || (site.stats().lingering == 1).then_some(()));
    throughout(4 * MOMENT, "it lingers", || site.stats().lingering == 1);
    change(&site, "linger-timeout", |limits| limits.linger_timeout(MOMENT));
    let short = lingering(&site);
    throughout(4 * MOMENT, "the first lingers", || site.stats().lingering >= 1);
    eventually("the second is ended, and the first is not", || (site.stats().lingering == 1).then_some(()));
    drop((patient, short));
}

/// That it takes effect shows where nothing else has the processor: a unit test of src/server/turn/station.rs sees to that.
fn busy_poll() {
    let site = Site::serve(base(), Echo);
    change(&site, "busy-poll", |limits| limits.busy_poll(Duration::ZERO));
    site.client().say("x").hear("x");
}

fn backlog() {
    let site = Site::serve(base(), Echo);
    let limit = || site.counts().backlog.map(|backlog| backlog.limit);
    assert_ne!(limit(), Some(7));
    change(&site, "backlog", |limits| limits.backlog(7));
    eventually("the kernel has it", || (limit() == Some(7)).then_some(()));
}

fn queue() {
    let gate = Gate::new();
    let limits = base().queue(1).queue_timeout(HOUR).queue_target(HOUR).refusal_rate(RefusalRate::All);
    let site = Site::serve(limits, Held(gate.clone()));
    let mut first = occupy(&site);
    let waits = |count: u64| {
        let mut client = site.client();
        client.say("waits");
        site.until("it waits", |now| now.queued == count);
        client
    };
    let mut waiting = vec![waits(1)];
    assert_eq!(site.client().end(), End::Reset);
    change(&site, "queue", |limits| limits.queue(3));
    waiting.extend([waits(2), waits(3)]);
    change(&site, "queue", |limits| limits.queue(2));
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::QueueFull, 2);
    gate.open();
    first.hear("first");
    for client in &mut waiting {
        client.hear("waits");
    }
}

fn max_connections() {
    let site = Site::serve(base().queue(2).max_connections(3).connections_ceiling(6), Echo);
    let served = |site: &Site| {
        let mut client = site.client();
        client.say("x").hear("x");
        client
    };
    let mut open: Vec<_> = (0..3).map(|_| served(&site)).collect();
    assert_eq!(site.client().end(), End::Reset);
    change(&site, "max-connections", |limits| limits.max_connections(6));
    open.extend((0..3).map(|_| served(&site)));
    change(&site, "max-connections", |limits| limits.max_connections(2));
    assert_eq!(site.client().end(), End::Reset);
    for client in &mut open {
        client.say("y").hear("y");
    }
    open.truncate(1);
    site.until("all but one have left", |now| now.open() == 1);
    open.push(served(&site));
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::MaxConnections, 3);
}

fn workers() {
    let gate = Gate::new();
    let site = Site::serve(base().workers_ceiling(8), Held(gate.clone()));
    let mut clients: Vec<_> = (0..6).map(|_| site.client()).collect();
    for client in &mut clients {
        client.say("x");
    }
    let in_turns = |count| site.until("they are in turns", |now| now.active == count);
    in_turns(1);
    throughout(4 * MOMENT, "the others wait", || site.counts().active == 1);
    change(&site, "workers", |limits| limits.workers(4));
    in_turns(4);
    throughout(4 * MOMENT, "the others wait", || site.counts().active == 4);
    change(&site, "workers", |limits| limits.workers(2));
    gate.open();
    for client in &mut clients {
        client.hear("x");
    }
    gate.shut();
    for client in &mut clients {
        client.say("y");
    }
    in_turns(2);
    throughout(4 * MOMENT, "no more than two have turns", || site.counts().active == 2);
    change(&site, "workers", |limits| limits.workers(8));
    in_turns(6);
    gate.open();
    for client in &mut clients {
        client.hear("y");
    }
    let error = site.handle().set_limits(site.handle().limits().workers(9)).unwrap_err();
    assert!(error.to_string().starts_with("workers is 9 and workers-ceiling is 8"), "{error}");
}

fn max_per_source() {
    let site = Site::serve(base().refusal_rate(RefusalRate::All), Echo);
    let (mut first, mut second) = (site.client(), site.client());
    first.say("x").hear("x");
    second.say("x").hear("x");
    change(&site, "max-per-source", |limits| limits.max_per_source(1));
    let mut counted = site.client();
    counted.say("x").hear("x");
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::PerSource, 1);
    change(&site, "max-per-source", |limits| limits.max_per_source(0));
    site.client().say("x").hear("x");
    second.say("x").hear("x");
}

fn dry_run() {
    let site = Site::serve(base().max_per_source(1).refusal_rate(RefusalRate::All), Echo);
    let mut first = site.client();
    first.say("x").hear("x");
    assert_eq!(site.client().end(), End::Reset);
    change(&site, "dry-run", |limits| limits.dry_run("max-per-source".parse().unwrap()));
    let mut beside = site.client();
    beside.say("x").hear("x");
    assert_eq!(site.counts().would_drop[WouldDrop::PerSource as usize], 1);
    change(&site, "dry-run", |limits| limits.dry_run(DryRun::OFF));
    assert_eq!(site.client().end(), End::Reset);
    beside.say("x").hear("x");
    site.until_dropped(DropReason::PerSource, 2);
}

fn source_rate() {
    let site = Site::serve(base().refusal_rate(RefusalRate::All), Echo);
    site.client().say("x").hear("x");
    site.client().say("x").hear("x");
    change(&site, "source-rate", |limits| limits.source_rate(0.001));
    site.client().say("x").hear("x");
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::Rate, 1);
}

fn source_prefix() {
    let site = Site::serve(base().max_per_source(1).refusal_rate(RefusalRate::All), Echo);
    let from = |source: &str| Client::from(source, site.address);
    let mut held: Vec<_> = ["127.0.0.2", "127.0.0.3"].map(from).into();
    for client in &mut held {
        client.say("x").hear("x");
    }
    change(&site, "source-prefix", |limits| limits.source_prefix((24, 64)));
    held.push(from("127.0.0.4"));
    held[2].say("x").hear("x");
    assert_eq!(from("127.0.0.5").end(), End::Reset);
    site.until_dropped(DropReason::PerSource, 1);
}

fn datagram_source_rate() {
    let listen = Listen::datagrams("127.0.0.1:0", Echo).unwrap();
    let site = Site::build(Server::builder().limits(base().datagram_source_rate(0.0)).listener(listen), Echo);
    let address = site.handle().addresses()[0].ip().unwrap();
    let ask = |count: u64| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..count {
            socket.send_to(b"x", address).unwrap();
        }
    };
    let dropped = || site.stats().listeners[0].datagrams_dropped[DatagramDrop::SourceRate as usize];
    let received = |count| {
        eventually("they are received", || {
            (site.stats().listeners[0].datagrams_received == count).then_some(())
        });
    };
    ask(20);
    received(20);
    assert_eq!(dropped(), 0);
    change(&site, "datagram-source-rate", |limits| limits.datagram_source_rate(0.001));
    ask(20);
    eventually("but for the first eight they are dropped", || (dropped() == 12).then_some(()));
}

fn overload() {
    let gate = Gate::new();
    let site = Site::serve(base().queue(1).overload(Overload::Wait(HOUR)), Held(gate.clone()));
    let (mut first, mut waiting) = (occupy(&site), site.client());
    waiting.say("waits");
    site.until("it waits", |now| now.queued == 1);
    let mut newest = site.client();
    newest.say("newest");
    throughout(4 * MOMENT, "the newest waits in the kernel", || site.counts().accepted == 2);
    change(&site, "overload", |limits| limits.overload(Overload::DropOldest));
    site.until_dropped(DropReason::QueueFull, 1);
    assert_eq!(waiting.end(), End::Reset);
    gate.open();
    first.hear("first");
    newest.hear("newest");
}

fn queue_timeout() {
    let gate = Gate::new();
    let site = Site::serve(base().queue_timeout(HOUR), Held(gate.clone()));
    let (mut first, mut waiting) = (occupy(&site), site.client());
    waiting.say("waits");
    throughout(10 * MOMENT, "it waits", || site.dropped(DropReason::QueueTimeout) == 0);
    change(&site, "queue-timeout", |limits| limits.queue_timeout(MOMENT));
    site.until_dropped(DropReason::QueueTimeout, 1);
    gate.open();
    first.hear("first");
}

fn queue_target() {
    let gate = Gate::new();
    let site = Site::serve(base().queue_timeout(HOUR).queue_target(HOUR), Held(gate.clone()));
    let (mut first, mut waiting) = (occupy(&site), site.client());
    waiting.say("waits");
    throughout(15 * MOMENT, "the queue does not stand", || site.stats().standing.is_none());
    change(&site, "queue-target", |limits| limits.queue_target(MOMENT));
    eventually("the queue stands", || site.stats().standing);
    gate.open();
    first.hear("first");
    waiting.hear("waits");
}

fn refusal_rate() {
    let gate = Gate::new();
    let limits = base().queue(0).refusal_rate(RefusalRate::All);
    let site = Site::serve(limits, Held(gate.clone()));
    let mut first = occupy(&site);
    assert_eq!(site.client().end(), End::Reset);
    change(&site, "refusal-rate", |limits| limits.refusal_rate(RefusalRate::PerSecond(0.0)));
    let mut untold = site.client();
    throughout(10 * MOMENT, "it is not told", || site.dropped(DropReason::QueueFull) == 1);
    change(&site, "refusal-rate", |limits| limits.refusal_rate(RefusalRate::All));
    site.until_dropped(DropReason::QueueFull, 2);
    assert_eq!(untold.end(), End::Reset);
    gate.open();
    first.hear("first");
}

fn idle_timeout() {
    let site = Site::serve(base().idle_timeout(HOUR), Echo);
    let mut client = site.client();
    client.say("x").hear("x");
    throughout(4 * MOMENT, "it is idle", || site.closed(CloseReason::IdleTimeout) == 0);
    change(&site, "idle-timeout", |limits| limits.idle_timeout(MOMENT));
    assert_eq!(client.end(), End::Fin);
    site.until_closed(CloseReason::IdleTimeout, 1);
    change(&site, "idle-timeout", |limits| limits.idle_timeout(HOUR));
    let mut client = site.client();
    client.say("x").hear("x");
    throughout(10 * MOMENT, "one that comes later has an hour", || {
        site.closed(CloseReason::IdleTimeout) == 1
    });
    client.say("x").hear("x");
}

fn read_timeout() {
    let site = Site::serve(base().read_timeout(HOUR), lines("same", |line, reply| reply.send(line)));
    let mut client = site.client();
    client.say("half");
    throughout(4 * MOMENT, "it has time", || site.closed(CloseReason::ReadTimeout) == 0);
    change(&site, "read-timeout", |limits| limits.read_timeout(MOMENT));
    let _ = client.rest();
    site.until_closed(CloseReason::ReadTimeout, 1);
}

fn write_timeout() {
    let site = Site::serve(base().write_timeout(HOUR).output_per_connection(16 * MIB), Generous(12 * MIB));
    let _client = lazy(&site);
    eventually("it is kept", || (site.stats().pending_output_bytes > MIB as u64).then_some(()));
    throughout(4 * MOMENT, "it has time", || site.closed(CloseReason::WriteTimeout) == 0);
    change(&site, "write-timeout", |limits| limits.write_timeout(MOMENT));
    site.until_closed(CloseReason::WriteTimeout, 1);
}

fn stuck_threshold() {
    let gate = Gate::new();
    let site = Site::serve(base().stuck_threshold(HOUR), Held(gate.clone()));
    let mut first = occupy(&site);
    throughout(4 * MOMENT, "it is not stuck yet", || site.stats().workers_stuck == 0);
    change(&site, "stuck-threshold", |limits| limits.stuck_threshold(MOMENT));
    eventually("it is stuck", || (site.stats().workers_stuck == 1).then_some(()));
    gate.open();
    first.hear("first");
}

fn drain_delay() {
    let site = Site::serve(base().drain_delay(HOUR), Echo);
    site.handle().trigger().drain();
    eventually("it leaves", || (site.stats().phase == Phase::Leaving).then_some(()));
    throughout(4 * MOMENT, "it serves on", || {
        site.client().say("x").hear("x");
        site.stats().phase == Phase::Leaving
    });
    change(&site, "drain-delay", |limits| limits.drain_delay(Duration::ZERO));
    assert!(site.handle().wait_timeout(PATIENCE).is_some_and(|report| report.is_clean()));
}

fn drain_timeout() {
    let site = Site::serve(
        base().drain_timeout(HOUR).read_timeout(HOUR),
        lines("same", |line, reply| reply.send(line)),
    );
    let mut client = site.client();
    client.say("half");
    site.until("half a request is held", |now| now.idle == 1 && now.received_bytes == 4);
    change(&site, "drain-timeout", |limits| limits.drain_timeout(MOMENT));
    site.handle().trigger().drain();
    let report = site.handle().wait_timeout(PATIENCE).expect("it ends");
    assert!(!report.is_clean(), "{report}");
    let _ = client.rest();
}
