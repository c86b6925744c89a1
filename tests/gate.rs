//! The gate between real clients and real backends: places, waiting, failures, ends and bytes.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Client, End, PATIENCE, Site, Stop, eventually, throughout};
use tidegate::limits::{Limits, Overload};
use tidegate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use tidegate::reason::{BackendFailure, CloseReason, DropReason};
use tidegate::{ConnectOn, ProxyBuilder, ProxyVersion, Server, proxy};

/// A backend whose connections the test holds in its hands.
struct Backend(TcpListener);

impl Backend {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn name(&self) -> String {
        self.address().to_string()
    }

    fn gate(&self) -> ProxyBuilder {
        proxy([self.name()]).unwrap()
    }

    #[track_caller]
    fn accept(&self) -> Peer {
        let stream = self.0.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer(stream)
    }

    /// Whether nobody has connected.
    fn is_left_alone(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let alone = matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.0.set_nonblocking(false).unwrap();
        alone
    }
}

/// The backend's side of a connection.
struct Peer(TcpStream);

impl Peer {
    #[track_caller]
    fn hear(&mut self, words: &str) {
        let mut heard = vec![0; words.len()];
        self.0.read_exact(&mut heard).expect("the gate passes it on");
        assert_eq!(String::from_utf8_lossy(&heard), words);
    }

    #[track_caller]
    fn say(&mut self, words: &str) {
        self.0.write_all(words.as_bytes()).expect("the gate takes it");
    }

    fn finish(&mut self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn end(&mut self) -> End {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(0) => End::Fin,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            other => panic!("{other:?}: {rest:?}"),
        }
    }

    fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A server in front of backends.
#[track_caller]
fn gate(limits: Limits, service: ProxyBuilder) -> Site {
    Site::serve(limits, service.build().unwrap())
}

fn backends(site: &Site) -> BackendsSnapshot {
    let all = site.counts().backends.expect("a gate has backends");
    assert!(all.conserved(), "{all:?}");
    all
}

fn only(site: &Site) -> BackendSnapshot {
    backends(site).backends.remove(0)
}

#[track_caller]
fn until(site: &Site, what: &str, holds: impl Fn(&BackendsSnapshot) -> bool) {
    eventually(what, || holds(&backends(site)).then_some(()));
}

#[test]
fn words_go_both_ways_and_a_half_close_is_kept() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate());
    let mut client = site.client();
    let mut peer = backend.accept();
    for round in 0..100 {
        client.say(format!("question {round}\n"));
        peer.hear(&format!("question {round}\n"));
        peer.say(&format!("answer {round}\n"));
        client.hear(format!("answer {round}\n"));
    }
    client.say("the last").finish();
    peer.hear("the last");
    assert_eq!(peer.end(), End::Fin);
    peer.say("and its answer, later");
    client.hear("and its answer, later");
    peer.finish();
    assert_eq!(client.end(), End::Fin);
    site.until_closed(CloseReason::Client, 1);
    until(&site, "the place is given back", |all| all.in_use == 0);
    let seen = only(&site);
    assert_eq!((seen.connected, seen.taken, seen.given_back), (1, 1, 1));
    assert_eq!((seen.to_backend, seen.to_client), (1_198, 1_011));
}

#[test]
fn a_server_that_speaks_first_is_heard_and_may_end_first() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate());
    let mut client = site.client();
    let mut peer = backend.accept();
    peer.say("220 ready\r\n");
    client.hear("220 ready\r\n");
    peer.finish();
    assert_eq!(client.end(), End::Fin);
    client.say("thank you").finish();
    peer.hear("thank you");
    assert_eq!(peer.end(), End::Fin);
    site.until_closed(CloseReason::Server, 1);
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate());
    let (client, mut peer) = (site.client(), backend.accept());
    client.reset();
    assert_eq!(peer.end(), End::Reset);
    let mut client = site.client();
    let mut peer = backend.accept();
    client.say("hello");
    peer.hear("hello");
    peer.reset();
    assert_eq!(client.end(), End::Reset);
    site.until_closed(CloseReason::Reset, 2);
    assert_eq!(backends(&site).in_use, 0);
}

#[test]
fn the_backend_never_sees_more_than_its_places_and_clients_wait_for_one() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connections(2));
    // One after the other, so that it is known who talks to whom.
    let (mut clients, mut peers): (Vec<_>, Vec<_>) =
        (0..2).map(|_| (site.client(), backend.accept())).unzip();
    let mut waiting = site.client();
    waiting.say("hello");
    until(&site, "one waits", |all| all.waiting == 1);
    throughout(Duration::from_millis(50), "the backend has two", || backend.is_left_alone());
    clients.remove(0).finish();
    peers.remove(0).finish();
    let mut peer = backend.accept();
    peer.hear("hello");
    peer.say("at last");
    waiting.hear("at last");
    let seen = backends(&site);
    assert_eq!((seen.in_use, seen.waiting, seen.wait.count()), (2, 0, 3));
    assert!(seen.wait.sum >= Duration::from_millis(50), "the two who found a place waited for nothing");
}

#[test]
fn one_that_left_while_it_waited_is_skipped_before_the_backend_hears_of_it() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connections(1));
    let (first, peer) = (site.client(), backend.accept());
    let mut gone = site.client();
    gone.say("never mind");
    let mut here = site.client();
    here.say("hello");
    until(&site, "both wait", |all| all.waiting == 2);
    gone.reset();
    site.until_dropped(DropReason::ClientGone, 1);
    drop((first, peer));
    backend.accept().hear("hello");
    assert!(backend.is_left_alone());
}

#[test]
fn one_that_left_soon_after_it_came_is_skipped_too() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connections(1));
    let (first, peer) = (site.client(), backend.accept());
    let mut gone = site.client();
    gone.say("never mind");
    until(&site, "it waits", |all| all.waiting == 1);
    gone.reset();
    let mut here = site.client();
    here.say("hello");
    // By then the gate looks before it serves, and mostly no event has told it yet.
    let waited = |all: &BackendsSnapshot| all.oldest.is_some_and(|oldest| oldest > Duration::from_millis(6));
    until(&site, "both came", |all| {
        all.waiting == 2 && waited(all) || (all.waiting, all.client_gone) == (1, 1)
    });
    drop((first, peer));
    backend.accept().hear("hello");
    site.until_dropped(DropReason::ClientGone, 1);
    assert!(backend.is_left_alone());
}

#[test]
fn past_the_bound_of_those_who_wait_a_client_is_told_or_reset() {
    let backend = Backend::new();
    let limits = Limits::default().queue(1);
    let site = gate(limits, backend.gate().connections(1).busy_reply(b"busy, come again\n"));
    let (_client, _peer) = (site.client(), backend.accept());
    let _waiting = site.client();
    until(&site, "one waits", |all| all.waiting == 1);
    assert_eq!(site.client().rest(), (b"busy, come again\n".to_vec(), End::Fin));
    site.until_dropped(DropReason::QueueFull, 1);
    assert_eq!(backends(&site).queue_full, 1);
}

#[test]
fn one_that_waited_for_too_long_is_turned_away() {
    let backend = Backend::new();
    let limits = Limits::default().queue_timeout(Duration::from_millis(100));
    let site = gate(limits, backend.gate().connections(1));
    let (_client, _peer) = (site.client(), backend.accept());
    let began = Instant::now();
    assert_eq!(site.client().end(), End::Reset);
    assert!(began.elapsed() >= Duration::from_millis(100));
    site.until_dropped(DropReason::QueueTimeout, 1);
}

#[test]
fn with_drop_oldest_the_one_that_waited_longest_makes_room() {
    let backend = Backend::new();
    let limits = Limits::default().queue(1).overload(Overload::DropOldest);
    let site = gate(limits, backend.gate().connections(1));
    let (first, peer) = (site.client(), backend.accept());
    let mut oldest = site.client();
    until(&site, "one waits", |all| all.waiting == 1);
    let mut newest = site.client();
    newest.say("hello");
    assert_eq!(oldest.end(), End::Reset);
    site.until_dropped(DropReason::QueueFull, 1);
    assert_eq!((backends(&site).queue_full, backends(&site).client_gone), (1, 0));
    drop((first, peer));
    backend.accept().hear("hello");
    assert_eq!(backends(&site).waiting, 0);
}

#[test]
fn a_backend_that_refuses_is_set_aside_and_another_one_serves() {
    let (dead, alive) = (Backend::new(), Backend::new());
    let names = [dead.name(), alive.name()];
    drop(dead);
    let site = gate(Limits::default(), proxy(&names).unwrap());
    for _ in 0..5 {
        let mut client = site.client();
        client.say("hello");
        alive.accept().hear("hello");
    }
    let all = backends(&site).backends;
    assert_eq!(all[0].failures[BackendFailure::Refused as usize], 1, "the others did not try it");
    assert!(all[0].aside_for.is_some() && all[1].aside_for.is_none());
    assert_eq!(all[1].connected, 5);
}

#[test]
fn when_no_backend_can_be_reached_clients_are_told_at_once_and_later_served_again() {
    let backend = Backend::new();
    let address = backend.address();
    let service = backend.gate().busy_reply(b"down\n");
    drop(backend);
    let site = gate(Limits::default(), service);
    for _ in 0..3 {
        assert_eq!(site.client().rest(), (b"down\n".to_vec(), End::Fin));
    }
    site.until_dropped(DropReason::NoBackend, 3);
    assert!(only(&site).aside_for.is_some());
    let backend = Backend(TcpListener::bind(address).unwrap());
    eventually("it is tried again", || {
        let mut client = site.client();
        client.mutter("hello");
        (only(&site).aside_for.is_none()).then(|| backend.accept().hear("hello"))
    });
}

#[test]
fn a_check_brings_a_backend_back_without_a_client() {
    let backend = Backend::new();
    let address = backend.address();
    let service = backend.gate().check_every(Duration::from_millis(50));
    drop(backend);
    let site = gate(Limits::default(), service);
    until(&site, "the check fails", |all| all.backends[0].aside_for.is_some());
    let backend = Backend(TcpListener::bind(address).unwrap());
    until(&site, "the check succeeds", |all| all.backends[0].aside_for.is_none());
    assert_eq!(backend.accept().end(), End::Fin, "a check says nothing and leaves");
}

#[test]
fn a_backend_that_resets_before_a_byte_has_gone_either_way_is_not_the_last() {
    let (bad, good) = (Backend::new(), Backend::new());
    let site = gate(Limits::default(), proxy([bad.name(), good.name()]).unwrap());
    let mut client = site.client();
    bad.accept().reset();
    let mut peer = good.accept();
    client.say("hello");
    peer.hear("hello");
    assert_eq!(backends(&site).backends[0].failures[BackendFailure::Reset as usize], 1);
}

#[test]
fn a_backend_that_does_not_answer_is_given_up_for_another_within_the_deadline() {
    // Its backlog is full.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    deaf.listen(0).unwrap();
    let name = deaf.local_addr().unwrap().as_socket().unwrap();
    let _held = TcpStream::connect(name).unwrap();
    let good = Backend::new();
    let service = proxy([name.to_string(), good.name()]).unwrap();
    let site = gate(Limits::default(), service.connect_timeout(Duration::from_millis(400)));
    let began = Instant::now();
    let mut client = site.client();
    client.say("hello");
    good.accept().hear("hello");
    assert!((150..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(backends(&site).backends[0].failures[BackendFailure::Timeout as usize], 1);
}

#[test]
fn a_client_that_leaves_while_its_backend_is_being_reached_frees_the_place_at_once() {
    // Its backlog is full.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    deaf.listen(0).unwrap();
    let name = deaf.local_addr().unwrap().as_socket().unwrap();
    let _held = TcpStream::connect(name).unwrap();
    let service = proxy([name.to_string()]).unwrap().connections(1).connect_timeout(Duration::from_secs(60));
    let site = gate(Limits::default(), service);
    let client = site.client();
    until(&site, "it is being connected", |all| all.in_use == 1);
    client.reset();
    until(&site, "its place is free", |all| all.in_use == 0);
    site.until_closed(CloseReason::Reset, 1);
}

#[test]
fn with_first_byte_a_silent_client_never_reaches_the_backend() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connect_on(ConnectOn::FirstByte));
    let mut silent = site.client();
    let mut talker = site.client();
    talker.say("hello");
    backend.accept().hear("hello");
    throughout(Duration::from_millis(50), "one has spoken", || backend.is_left_alone());
    silent.finish();
    site.until_dropped(DropReason::ClientGone, 1);
    assert!(backend.is_left_alone());
}

#[test]
fn a_client_that_says_all_and_closes_its_half_is_served() {
    let backend = Backend::new();
    for on in [ConnectOn::Accept, ConnectOn::FirstByte] {
        let site = gate(Limits::default(), backend.gate().connect_on(on));
        let mut client = site.client();
        client.say("GET /").finish();
        let mut peer = backend.accept();
        peer.hear("GET /");
        assert_eq!(peer.end(), End::Fin);
        peer.say("hello");
        drop(peer);
        assert_eq!(client.rest(), (b"hello".to_vec(), End::Fin), "{on}");
    }
}

#[test]
fn the_backend_is_told_who_its_client_is() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().send_proxy(ProxyVersion::V1));
    let mut client = site.client();
    client.say("hello");
    let from = client.stream().local_addr().unwrap();
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello", from.port(), site.address.port());
    backend.accept().hear(&line);
}

#[test]
fn a_silent_pair_is_closed_in_time() {
    let backend = Backend::new();
    let times = (Duration::from_millis(300), Duration::from_millis(100));
    let site = gate(Limits::default(), backend.gate().idle_timeout(times.0).half_close_timeout(times.1));
    let mut client = site.client();
    let mut peer = backend.accept();
    let began = Instant::now();
    assert_eq!((client.end(), peer.end()), (End::Fin, End::Fin));
    assert!(began.elapsed() >= Duration::from_millis(280), "{:?}", began.elapsed());
    let mut client = site.client();
    let mut peer = backend.accept();
    client.finish();
    assert_eq!(peer.end(), End::Fin);
    assert_eq!(client.end(), End::Fin);
    site.until_closed(CloseReason::IdleTimeout, 2);
}

#[test]
fn a_drain_lets_pairs_go_on_to_their_end_and_takes_no_new_ones() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connections(1));
    let mut client = site.client();
    let mut peer = backend.accept();
    let mut waiting = site.client();
    waiting.say("hello");
    until(&site, "one waits", |all| all.waiting == 1);
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| site.end());
        assert_eq!(waiting.end(), End::Reset, "it has no pair and gets none");
        for _ in 0..10 {
            client.say("question");
            peer.hear("question");
            peer.say("answer");
            client.hear("answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        client.finish();
        peer.finish();
        assert!(ending.join().unwrap().is_clean());
    });
}

#[test]
fn at_the_end_of_the_drain_both_sides_are_reset() {
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate());
    let mut client = site.client();
    let mut peer = backend.accept();
    client.say("hello");
    peer.hear("hello");
    let report = site.end_within(Duration::from_millis(100));
    assert!(!report.is_clean());
    assert_eq!((client.end(), peer.end()), (End::Reset, End::Reset));
}

#[test]
fn unix_sockets_are_backends_too() {
    let folder = std::env::temp_dir().join(format!("tidegate-gate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("backend.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let site = gate(Limits::default(), proxy([format!("unix:{}", path.display())]).unwrap());
    let mut client = site.client();
    client.say("hello").finish();
    let (mut peer, _) = listener.accept().unwrap();
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
    peer.write_all(b"goodbye").unwrap();
    drop(peer);
    assert_eq!(client.rest(), (b"goodbye".to_vec(), End::Fin));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn from_a_slow_reader_its_backend_feels_it_and_all_arrives() {
    const BYTES: usize = 32 << 20;
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate());
    let mut client = Client::narrow(site.address);
    let mut peer = backend.accept();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let sender = std::thread::spawn(move || {
        let piece: Vec<u8> = (0..65_536).map(|byte| byte as u8).collect();
        for _ in 0..BYTES / piece.len() {
            peer.0.write_all(&piece).unwrap();
            counter.fetch_add(piece.len(), SeqCst);
        }
    });
    let mut stood = 0;
    eventually("the backend is held up", || {
        let now = sent.load(SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        (now > 0 && std::mem::replace(&mut stood, now) == now).then_some(())
    });
    assert!(sent.load(SeqCst) < BYTES / 2, "{} bytes for nobody", sent.load(SeqCst));
    assert!(site.stats().pending_output_bytes <= 65_536);
    let (all, end) = client.rest();
    assert_eq!((all.len(), end), (BYTES, End::Fin));
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == at as u8), "unchanged");
    sender.join().unwrap();
    client.finish();
}

/// Each of many clients asks a few times; each backend answers a few at once.
#[test]
fn a_crowd_is_served_through_few_places_and_nobody_is_forgotten() {
    let backend = Backend::new();
    let name = backend.name();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
    let limits = Limits::default().queue(500).queue_timeout(Duration::from_secs(60));
    let site = gate(limits, proxy([name]).unwrap().connections(4));
    let serve = {
        let (open, most) = (open.clone(), most.clone());
        move |mut peer: TcpStream| {
            let now = open.fetch_add(1, SeqCst) + 1;
            let mut most = most.lock().unwrap();
            *most = now.max(*most);
            drop(most);
            let mut word = [0; 4];
            while peer.read_exact(&mut word).is_ok() {
                peer.write_all(&word).unwrap();
            }
            open.fetch_sub(1, SeqCst);
        }
    };
    std::thread::spawn(move || {
        for peer in backend.0.incoming() {
            let (serve, peer) = (serve.clone(), peer.unwrap());
            std::thread::spawn(move || serve(peer));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let mut client = site.client();
                for _ in 0..5 {
                    client.say("ping").hear("ping");
                }
                client.finish();
                assert_eq!(client.end(), End::Fin);
            });
        }
    });
    let seen = backends(&site);
    assert_eq!((seen.taken, seen.queue_full + seen.queue_timeout), (200, 0));
    assert!(*most.lock().unwrap() <= 4, "the backend saw {}", most.lock().unwrap());
}

#[test]
fn a_backend_that_has_no_address_is_an_error_that_names_it() {
    let error = proxy(["nowhere.invalid:80"]).unwrap().build().unwrap_err().to_string();
    assert!(error.contains("nowhere.invalid"), "{error}");
    assert!(proxy(["nonsense"]).is_err());
    let none: [&str; 0] = [];
    assert!(proxy(none).unwrap().build().is_err());
    let _ = Server::builder();
}

#[test]
fn a_client_s_wait_begins_when_it_connects_not_when_it_has_a_worker() {
    let slow = tidegate::lines("slow", |_, _| {
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    let backend = Backend::new();
    let builder = Server::builder().limits(Limits::default().workers(1)).listen("127.0.0.1:0", slow).unwrap();
    let site = Site::build(builder, backend.gate().build().unwrap());
    let mut busy = site.client();
    busy.say("x\n");
    site.until("the only worker is busy", |now| now.active == 1);
    let _client = Client::connect(site.handle().addresses()[1].ip().unwrap());
    let _peer = backend.accept();
    let seen = site.stats().listeners[1].backends.clone().unwrap();
    assert_eq!(seen.wait.count(), 1);
    assert!(seen.wait.sum >= Duration::from_millis(150), "{:?} of 300 ms", seen.wait.sum);
}

/// A backend that answers each connection's word after a while and closes.
struct Answering {
    address: SocketAddr,
    ends: Arc<std::sync::atomic::AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Answering {
    fn start(address: &str, takes: Duration) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (ends, answered) =
            (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, count) = (ends.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            for peer in listener.incoming() {
                if end.load(SeqCst) {
                    break;
                }
                let (mut peer, count) = (peer.unwrap(), count.clone());
                std::thread::spawn(move || {
                    let mut word = [0; 4];
                    if peer.read_exact(&mut word).is_ok() {
                        std::thread::sleep(takes);
                        count.fetch_add(1, SeqCst);
                        let _ = peer.write_all(&word);
                    }
                });
            }
        });
        Self { address, ends, answered, thread: Some(thread) }
    }

    fn answered(&self) -> usize {
        self.answered.load(SeqCst)
    }
}

/// It listens no more when this returns.
impl Drop for Answering {
    fn drop(&mut self) {
        self.ends.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Of three backends one is ten times as slow, then another is killed, and comes back.
#[test]
fn a_slow_backend_has_the_smaller_share_and_one_that_was_killed_is_used_again_when_it_is_back() {
    let quick = Duration::from_millis(5);
    let (one, two) = (Answering::start("127.0.0.1:0", quick), Answering::start("127.0.0.1:0", quick));
    let slow = Answering::start("127.0.0.1:0", 20 * quick);
    let names = [&one, &two, &slow].map(|backend| backend.address.to_string());
    let site = gate(Limits::default(), proxy(&names).unwrap().connections(2));
    let (ends, failed) = (std::sync::atomic::AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _ended = Stop(&ends);
        for _ in 0..8 {
            scope.spawn(|| {
                while !ends.load(SeqCst) {
                    let mut client = site.client();
                    client.mutter("ping");
                    let mut answer = [0; 4];
                    if !client.heard(&mut answer) {
                        failed.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        eventually("a few hundred were served", || (one.answered() + two.answered() > 300).then_some(()));
        let all = one.answered() + two.answered() + slow.answered();
        assert!(slow.answered() * 5 < all, "the slow one had {} of {all}", slow.answered());
        assert_eq!(failed.load(SeqCst), 0);
        let address = two.address;
        drop(two);
        let before = one.answered();
        eventually("the others carry on", || (one.answered() > before + 100).then_some(()));
        // Those whose word it had are lost with it, no more than its places; nobody else.
        let lost = failed.load(SeqCst);
        assert!(lost <= 2, "{lost} were lost");
        assert!(backends(&site).backends[1].aside_for.is_some());
        let two = Answering::start(&address.to_string(), quick);
        eventually("it is used again", || (two.answered() > 50).then_some(()));
        assert_eq!(failed.load(SeqCst), lost, "nobody paid for its return");
    });
    until(&site, "all places are given back", |all| all.in_use == 0);
}

#[test]
fn of_many_pairs_a_drain_lets_end_who_can_and_resets_the_others() {
    const PAIRS: usize = 200;
    let backend = Backend::new();
    let site = gate(Limits::default(), backend.gate().connections(PAIRS));
    let mut pairs: Vec<_> = (0..PAIRS).map(|_| (site.client(), backend.accept())).collect();
    let staying = pairs.split_off(PAIRS / 2);
    let report = std::thread::scope(|scope| {
        let ending = scope.spawn(|| site.end_within(Duration::from_secs(2)));
        for (client, peer) in &mut pairs {
            client.say("the last");
            peer.hear("the last");
            client.finish();
            peer.say("answer");
            peer.finish();
            assert_eq!(client.rest(), (b"answer".to_vec(), End::Fin));
        }
        ending.join().unwrap()
    });
    assert!(!report.is_clean());
    for (mut client, mut peer) in staying {
        assert_eq!((client.end(), peer.end()), (End::Reset, End::Reset));
    }
}
