//! Datagrams, with real sockets: answered, bounded, counted by reason, drained.

#[path = "support/stop.rs"]
mod stop;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use stop::Stop;
use tidegate::metrics::snapshot::{ListenerSnapshot, Snapshot};
use tidegate::reason::{DatagramDrop, TurnOutcome};
use tidegate::{Builder, Echo, Handle, Limits, Overload, Peer, Reply, Server, Time, datagrams};

/// How long anything may take that should come at once.
const SOON: Duration = Duration::from_secs(10);

fn server() -> Builder {
    Server::builder().workers(4).queue(16)
}

fn serve(builder: Builder) -> (Handle, SocketAddr) {
    let handle = builder.bind().unwrap().serve().unwrap();
    let address = handle.addresses()[0].ip().unwrap();
    (handle, address)
}

/// A client that talks to one address only, so that a reply from another is not heard.
fn client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    client_at(any, server)
}

fn client_at(local: &str, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    socket.send(request).unwrap();
    hear(socket)
}

#[track_caller]
fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 65_535];
    let n = socket.recv(&mut buffer).expect("a reply");
    buffer[..n].to_vec()
}

/// Waits until the counters say what they should.
#[track_caller]
fn wait_for(handle: &Handle, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + SOON;
    loop {
        let stats = handle.stats();
        if holds(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{what} does not come: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn dropped(listener: &ListenerSnapshot, reason: DatagramDrop) -> u64 {
    listener.datagrams_dropped[reason as usize]
}

/// Everything taken from the kernel was answered (or answering it failed), or was dropped by us.
fn accounted(listener: &ListenerSnapshot) -> bool {
    let turns = listener.turns.iter().sum::<u64>();
    let ours = listener.datagrams_dropped.iter().sum::<u64>()
        - dropped(listener, DatagramDrop::KernelBuffer)
        - dropped(listener, DatagramDrop::Unsent);
    listener.datagrams_received == turns + ours
}

/// A door that handlers wait at until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.open.lock().unwrap();
        let (_guard, waited) = self.changed.wait_timeout_while(guard, SOON, |open| !*open).unwrap();
        assert!(!waited.timed_out(), "the gate was never opened");
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    #[track_caller]
    fn await_waiting(&self, count: usize) {
        let deadline = Instant::now() + SOON;
        while self.waiting.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "{} of {count} wait", self.waiting.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An echo whose handlers wait at a gate.
fn gated() -> (Arc<Gate>, impl tidegate::DatagramService) {
    let gate = Arc::new(Gate::default());
    let at = gate.clone();
    let service = datagrams(move |request, reply| {
        at.pass();
        reply.send(request)
    });
    (gate, service)
}

#[test]
fn a_datagram_is_answered_over_both_families() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (handle, address) = serve(server().listen_datagrams(local, Echo).unwrap());
        let socket = client(address);
        for request in [&b"one"[..], b"", &[b'x'; 2048]] {
            assert_eq!(ask(&socket, request), request);
        }
        let stats = wait_for(&handle, "three turns", |s| s.listeners[0].sent_bytes == 2051);
        let listener = &stats.listeners[0];
        assert!(listener.datagram && accounted(listener), "{listener:?}");
        assert_eq!((listener.datagrams_received, listener.received_bytes), (3, 2051));
        assert_eq!(listener.listener, format!("udp://{address}"));
        assert!(handle.shutdown(SOON).is_clean());
    }
}

#[test]
fn the_time_is_said_to_any_datagram() {
    let (_handle, address) = serve(server().listen_datagrams("127.0.0.1:0", Time).unwrap());
    let socket = client(address);
    for request in [&b""[..], b"anything"] {
        let said = String::from_utf8(ask(&socket, request)).unwrap();
        assert_eq!((said.len(), said.ends_with('\n')), (24, false), "{said:?}");
    }
}

#[test]
fn listeners_keep_their_order_whatever_they_take() {
    let builder = server()
        .listen_datagrams("127.0.0.1:0", Echo)
        .unwrap()
        .listen("127.0.0.1:0", Echo)
        .unwrap()
        .listen_datagrams("127.0.0.1:0", Time)
        .unwrap()
        .listen("127.0.0.1:0", Time)
        .unwrap();
    let bound = builder.bind().unwrap();
    let addresses = bound.addresses();
    let handle = bound.serve().unwrap();
    assert_eq!(handle.addresses(), addresses);
    let stats = handle.stats();
    let seen: Vec<_> = stats.listeners.iter().map(|l| (l.listener.as_str(), l.service.as_str())).collect();
    let url = |scheme: &str, at: usize| format!("{scheme}://{}", addresses[at]);
    let urls = [url("udp", 0), url("tcp", 1), url("udp", 2), url("tcp", 3)];
    let services = ["echo", "echo", "time", "time"];
    assert_eq!(seen, urls.iter().map(String::as_str).zip(services).collect::<Vec<_>>());
    // Each answers at its own address.
    assert_eq!(ask(&client(addresses[0].ip().unwrap()), b"x"), b"x");
    assert_eq!(ask(&client(addresses[2].ip().unwrap()), b"x").len(), 24);
}

#[test]
#[cfg(target_os = "linux")]
fn a_reply_leaves_from_the_address_it_was_sent_to() {
    let (_handle, address) = serve(server().listen_datagrams("0.0.0.0:0", Echo).unwrap());
    for last in [1, 9, 77] {
        let to = SocketAddr::from(([127, 0, 0, last], address.port()));
        assert_eq!(ask(&client(to), b"who"), b"who");
    }
    let (_handle, address) = serve(server().listen_datagrams("[::]:0", Echo).unwrap());
    assert_eq!(ask(&client(format!("[::1]:{}", address.port()).parse().unwrap()), b"six"), b"six");
}

#[test]
fn an_oversize_datagram_is_counted_and_not_answered_in_part() {
    let (handle, address) = serve(server().listen_datagrams("127.0.0.1:0", Echo).unwrap());
    let socket = client(address);
    socket.send(&[b'x'; 2049]).unwrap();
    assert_eq!(ask(&socket, b"next"), b"next", "the first reply is to the second datagram");
    let stats = wait_for(&handle, "a count", |s| dropped(&s.listeners[0], DatagramDrop::Oversize) == 1);
    assert!(accounted(&stats.listeners[0]), "{stats:?}");
}

#[test]
fn a_source_with_the_servers_own_port_is_not_answered() {
    let builder = server().listen_datagrams("127.0.0.1:0", Echo).unwrap();
    let (handle, address) = serve(builder.listen_datagrams("127.0.0.1:0", Echo).unwrap());
    let other = handle.addresses()[1].ip().unwrap();
    // Both of its ports: each could be made to answer the other, too.
    for port in [address.port(), other.port()] {
        client_at(&format!("127.0.0.2:{port}"), address).send(b"loop").unwrap();
    }
    let stats = wait_for(&handle, "a count", |s| dropped(&s.listeners[0], DatagramDrop::RefusedSource) == 2);
    assert_eq!(stats.listeners[0].sent_bytes, 0);
    assert_eq!(ask(&client(address), b"x"), b"x");
}

#[test]
fn a_service_can_refuse_a_peer() {
    struct Picky;
    impl tidegate::DatagramService for Picky {
        fn verify(&self, peer: &Peer) -> bool {
            assert!(peer.listener().starts_with("udp://127.0.0.1:"), "{}", peer.listener());
            peer.address.ip() == Some([127, 0, 0, 3].into())
        }
        fn datagram(&self, request: &[u8], reply: &mut Reply<'_>) -> io::Result<()> {
            reply.send(request)
        }
    }
    let (handle, address) = serve(server().listen_datagrams("127.0.0.1:0", Picky).unwrap());
    client(address).send(b"x").unwrap();
    wait_for(&handle, "a refusal", |s| dropped(&s.listeners[0], DatagramDrop::RefusedSource) == 1);
    assert_eq!(ask(&client_at("127.0.0.3:0", address), b"x"), b"x");
}

#[test]
fn a_reply_longer_than_documented_is_an_error_and_not_sent() {
    let service = datagrams(|request, reply| {
        reply.send(&[b'y'; 8])?;
        if request == b"more" { reply.send(b"z") } else { Ok(()) }
    });
    let (handle, address) = serve(server().listen_datagrams("127.0.0.1:0", service.reply_max(8)).unwrap());
    let socket = client(address);
    socket.send(b"more").unwrap();
    assert_eq!(ask(&socket, b"ok"), b"yyyyyyyy");
    let stats = wait_for(&handle, "an error", |s| s.listeners[0].turns[TurnOutcome::Error as usize] == 1);
    assert!(accounted(&stats.listeners[0]), "{stats:?}");
    wait_for(&handle, "one reply", |s| s.listeners[0].sent_bytes == 8);
}

#[test]
fn a_reply_has_the_same_limit_whether_its_request_waited_or_not() {
    let gate = Arc::new(Gate::default());
    let at = gate.clone();
    let service = datagrams(move |request, reply| {
        if request == b"hold" {
            at.pass();
            return Ok(());
        }
        // One more than the longest request and 64.
        reply.send(&[b'y'; 64 + 64 + 1])
    });
    let limits = tidegate::Limits::default().workers(1).max_datagram(64);
    let builder = Server::builder().limits(limits);
    let (handle, address) =
        serve(builder.listen_datagrams("127.0.0.1:0", service.reply_max(65_507)).unwrap());
    let socket = client(address);
    let failed = |s: &Snapshot, count| s.listeners[0].turns[TurnOutcome::Error as usize] == count;
    socket.send(b"at once").unwrap();
    wait_for(&handle, "an error", |s| failed(s, 1));
    socket.send(b"hold").unwrap();
    gate.await_waiting(1);
    socket.send(b"waits").unwrap();
    wait_for(&handle, "the one that waits", |s| s.listeners[0].datagrams_received == 3);
    gate.open();
    let stats = wait_for(&handle, "another error", |s| failed(s, 2));
    assert_eq!(stats.listeners[0].sent_bytes, 0);
}

#[test]
fn a_panic_costs_one_reply() {
    let service = datagrams(|request, reply| {
        assert_ne!(request, b"panic", "as asked");
        reply.send(request)
    });
    let (handle, address) = serve(server().listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    for _ in 0..8 {
        socket.send(b"panic").unwrap();
        assert_eq!(ask(&socket, b"fine"), b"fine");
    }
    let stats = wait_for(&handle, "the last turn", |s| accounted(&s.listeners[0]));
    assert_eq!(stats.handler_panics, 8);
}

#[test]
fn what_slow_services_are_asked_runs_on_all_workers() {
    let (gate, service) = gated();
    let (_handle, address) = serve(server().workers(8).listen_datagrams("127.0.0.1:0", service).unwrap());
    let sockets: Vec<_> = (0..8).map(|_| client(address)).collect();
    for socket in &sockets {
        socket.send(b"x").unwrap();
    }
    gate.await_waiting(8);
    gate.open();
    for socket in &sockets {
        assert_eq!(hear(socket), b"x");
    }
}

/// One worker that is busy and a queue of two: of 20 datagrams 3 are answered.
fn overfill(overload: Overload) -> Vec<Vec<u8>> {
    let (gate, service) = gated();
    let builder = server().workers(1).queue(2).overload(overload);
    let (handle, address) = serve(builder.listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    socket.send(b"0").unwrap();
    gate.await_waiting(1);
    for number in 1..20 {
        socket.send(number.to_string().as_bytes()).unwrap();
    }
    let full = |s: &Snapshot| dropped(&s.listeners[0], DatagramDrop::QueueFull) == 17;
    let stats = wait_for(&handle, "17 dropped", full);
    assert_eq!(stats.listeners[0].datagrams_received, 20);
    gate.open();
    let mut heard: Vec<_> = (0..3).map(|_| hear(&socket)).collect();
    heard.sort();
    let stats = wait_for(&handle, "three turns", |s| accounted(&s.listeners[0]));
    assert_eq!(dropped(&stats.listeners[0], DatagramDrop::KernelBuffer), 0);
    assert!(handle.shutdown(SOON).is_clean());
    heard
}

#[test]
fn a_full_queue_drops_the_newest() {
    assert_eq!(overfill(Overload::Reject), [b"0", b"1", b"2"]);
}

#[test]
fn a_full_queue_drops_the_oldest_if_told_so() {
    assert_eq!(overfill(Overload::DropOldest), [&b"0"[..], b"18", b"19"]);
}

#[test]
fn what_waited_too_long_is_dropped() {
    let (gate, service) = gated();
    let limits = tidegate::Limits::default().workers(1).queue_timeout(Duration::from_millis(50));
    let (handle, address) =
        serve(Server::builder().limits(limits).listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    socket.send(b"first").unwrap();
    gate.await_waiting(1);
    socket.send(b"second").unwrap();
    wait_for(&handle, "the second", |s| s.listeners[0].datagrams_received == 2);
    std::thread::sleep(Duration::from_millis(100));
    gate.open();
    assert_eq!(hear(&socket), b"first");
    let late = |s: &Snapshot| dropped(&s.listeners[0], DatagramDrop::QueueTimeout) == 1;
    wait_for(&handle, "the second dropped", late);
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_kernel_drops_is_counted() {
    let bound = server().listen_datagrams("127.0.0.1:0", Echo).unwrap().bind().unwrap();
    let socket = client(bound.addresses()[0].ip().unwrap());
    // Nobody receives yet.
    let sent = 20_000;
    for _ in 0..sent {
        socket.send(&[0; 64]).unwrap();
    }
    let handle = bound.serve().unwrap();
    let all = |s: &Snapshot| {
        let listener = &s.listeners[0];
        listener.datagrams_received + dropped(listener, DatagramDrop::KernelBuffer) == sent
    };
    let stats = wait_for(&handle, "every datagram", all);
    assert!(dropped(&stats.listeners[0], DatagramDrop::KernelBuffer) > 0, "{stats:?}");
    let observed = handle.observe();
    let before = dropped(&stats.listeners[0], DatagramDrop::KernelBuffer);
    assert!(handle.shutdown(SOON).is_clean());
    let after = dropped(&observed.snapshot().listeners[0], DatagramDrop::KernelBuffer);
    assert_eq!(before, after, "the count outlives the socket");
}

#[test]
fn a_drain_answers_what_was_received_and_closes_the_socket() {
    let (gate, service) = gated();
    let (handle, address) = serve(server().workers(1).listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    socket.send(b"first").unwrap();
    gate.await_waiting(1);
    for _ in 0..3 {
        socket.send(b"waiting").unwrap();
    }
    wait_for(&handle, "four datagrams", |s| s.listeners[0].datagrams_received == 4);
    handle.trigger().drain();
    wait_for(&handle, "the drain", |s| s.phase >= tidegate::metrics::snapshot::Phase::Draining);
    gate.open();
    assert_eq!(hear(&socket), b"first");
    for _ in 0..3 {
        assert_eq!(hear(&socket), b"waiting");
    }
    assert!(handle.wait().is_clean());
    UdpSocket::bind(address).expect("the address is free again");
}

#[test]
fn a_drain_answers_what_had_come_and_not_what_goes_on_coming() {
    let slow = datagrams(|request, reply| {
        std::thread::sleep(Duration::from_millis(10));
        reply.send(request)
    });
    let (handle, address) =
        serve(server().workers(8).queue(32).listen_datagrams("127.0.0.1:0", slow).unwrap());
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let _over = Stop(&over);
        scope.spawn(|| {
            let socket = client(address);
            while !over.load(Ordering::Relaxed) {
                // Two thousand a second; what cannot be delivered any more is an error.
                (0..10).for_each(|_| _ = socket.send(b"more"));
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        wait_for(&handle, "they are answered", |s| s.listeners[0].sent_bytes > 400);
        handle.shutdown(Duration::from_secs(20))
    });
    // What its buffers hold takes eight workers less than a second or two.
    assert!(report.elapsed < Duration::from_secs(4), "{report}");
    assert_eq!((report.datagrams_dropped, report.workers_left), (0, 0), "{report}");
}

#[test]
fn what_the_kernel_still_holds_at_the_deadline_is_counted() {
    let (gate, service) = gated();
    let limits = Limits::default().datagram_source_rate(0.0).workers(1).queue(1);
    let (handle, address) =
        serve(Server::builder().limits(limits).listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    socket.send(b"held").unwrap();
    gate.await_waiting(1);
    (0..50).for_each(|_| _ = socket.send(b"more").unwrap());
    let observe = handle.observe();
    let report = handle.shutdown(Duration::from_millis(100));
    assert!(report.datagrams_dropped > 0 && report.workers_left == 1, "{report}");
    let now = observe.snapshot().listeners.remove(0);
    let unread = report.datagrams_dropped - dropped(&now, DatagramDrop::Draining);
    assert_eq!(now.datagrams_received + unread, 51, "{report}: {now:?}");
    gate.open();
}

#[test]
fn a_stuck_handler_does_not_hold_up_the_end() {
    let (gate, service) = gated();
    let (handle, address) = serve(server().workers(1).listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    for _ in 0..3 {
        socket.send(b"x").unwrap();
    }
    gate.await_waiting(1);
    let observed = handle.observe();
    let began = Instant::now();
    let report = handle.shutdown(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5), "{report:?}");
    assert_eq!(report.workers_left, 1);
    let listener = &observed.snapshot().listeners[0];
    assert_eq!(dropped(listener, DatagramDrop::Draining), listener.datagrams_received - 1);
    assert_eq!(report.datagrams_dropped, listener.datagrams_received - 1);
    gate.open();
}

/// The one in a turn when the time is over, and those that wait: the report tells of them all.
#[test]
fn datagrams_that_get_no_answer_make_the_end_unclean() {
    let (gate, service) = gated();
    let (handle, address) = serve(server().workers(1).listen_datagrams("127.0.0.1:0", service).unwrap());
    let socket = client(address);
    for _ in 0..3 {
        socket.send(b"x").unwrap();
    }
    gate.await_waiting(1);
    wait_for(&handle, "three datagrams", |s| s.listeners[0].datagrams_received == 3);
    let report = std::thread::scope(|scope| {
        let end = scope.spawn(|| handle.shutdown(Duration::ZERO));
        let deadline = Instant::now() + SOON;
        // Once the socket is closed, the reply of the turn in progress has nowhere to go.
        while UdpSocket::bind(address).is_err() {
            assert!(Instant::now() < deadline, "it does not close its socket");
            std::thread::yield_now();
        }
        gate.open();
        end.join().unwrap()
    });
    assert_eq!((report.aborted, report.workers_left, report.datagrams_dropped), (0, 0, 3), "{report}");
    assert!(!report.is_clean());
    assert!(report.to_string().ends_with(", dropped 3 datagrams"), "{report}");
}

#[test]
fn a_thousand_clients_are_answered() {
    let (handle, address) = serve(server().queue(1000).listen_datagrams("127.0.0.1:0", Echo).unwrap());
    // A burst that finds every worker preempted has room in the queue.
    let sockets: Vec<_> = (0..1000).map(|_| client(address)).collect();
    for round in 0..3 {
        for (number, socket) in sockets.iter().enumerate() {
            socket.send(format!("{round} {number}").as_bytes()).unwrap();
        }
        for (number, socket) in sockets.iter().enumerate() {
            assert_eq!(hear(socket), format!("{round} {number}").as_bytes());
        }
    }
    let stats = wait_for(&handle, "the last turn", |s| accounted(&s.listeners[0]));
    assert_eq!(stats.listeners[0].datagrams_received, 3000);
}

#[test]
fn connections_and_datagrams_share_the_workers() {
    use std::io::{Read, Write};
    let builder = server().workers(1).listen("127.0.0.1:0", Echo).unwrap();
    let (handle, tcp) = serve(builder.listen_datagrams("127.0.0.1:0", Echo).unwrap());
    let udp = client(handle.addresses()[1].ip().unwrap());
    let mut stream = std::net::TcpStream::connect(tcp).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    for n in 0..200 {
        stream.write_all(b"stream").unwrap();
        let request = format!("{n} datagram");
        assert_eq!(ask(&udp, request.as_bytes()), request.as_bytes());
        let mut buffer = [0; 6];
        stream.read_exact(&mut buffer).unwrap();
    }
    drop(stream);
    let stats = wait_for(&handle, "the close", |s| s.listeners[0].open() == 0);
    assert!(stats.conserved(), "{stats:?}");
}
