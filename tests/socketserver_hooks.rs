//! The hooks that socketserver has, and the deadlines it has not: in the library, with real sockets.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate::metrics::snapshot::Snapshot;
use tidegate::reason::{CloseReason, DropReason};
use tidegate::{Builder, Echo, Handle, Limits, Peer, Server, Service, Session, handler, lines};

const SOON: Duration = Duration::from_secs(10);

fn serve(builder: Builder) -> (Handle, SocketAddr) {
    let handle = builder.bind().unwrap().serve().unwrap();
    let address = handle.addresses()[0].ip().unwrap();
    (handle, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[track_caller]
fn wait_for(handle: &Handle, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + SOON;
    loop {
        let stats = handle.stats();
        assert!(stats.conserved(), "{stats:?}");
        if holds(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{what} does not come: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn wait_closed(handle: &Handle, reason: CloseReason, count: u64) {
    wait_for(handle, reason.as_str(), |stats| stats.listeners[0].closed[reason as usize] == count);
}

#[test]
fn a_peer_that_is_not_verified_is_not_served() {
    struct Picky;
    impl Service for Picky {
        fn verify(&self, peer: &Peer) -> bool {
            peer.address.ip() == Some([127, 0, 0, 5].into())
        }
        fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
            Box::new(Echo)
        }
    }
    let (handle, address) = serve(Server::builder().workers(2).listen("127.0.0.1:0", Picky).unwrap());
    let mut refused = connect(address);
    let _ = refused.write_all(b"x");
    assert!(!matches!(refused.read(&mut [0; 1]), Ok(1)));
    wait_for(&handle, "denied", |s| s.listeners[0].dropped[DropReason::Denied as usize] == 1);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 5], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut welcome = TcpStream::from(socket);
    welcome.write_all(b"x").unwrap();
    welcome.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_tick_comes_while_idle_and_while_busy() {
    let ticks = Arc::new(AtomicUsize::new(0));
    let count = ticks.clone();
    let builder = Server::builder().workers(2).listen("127.0.0.1:0", Echo).unwrap();
    let action = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let (handle, address) = serve(builder.tick(Duration::from_millis(5), action));
    let await_more = |more: usize| {
        let (wanted, deadline) = (ticks.load(Ordering::SeqCst) + more, Instant::now() + SOON);
        while ticks.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < deadline, "no tick");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    await_more(5);
    let mut stream = connect(address);
    for _ in 0..100 {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    await_more(5);
    drop(stream);
    wait_closed(&handle, CloseReason::Client, 1);
    assert!(handle.shutdown(SOON).is_clean());
    let after = ticks.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(ticks.load(Ordering::SeqCst), after, "none after the end");
}

#[test]
fn a_tick_that_does_not_end_or_panics_holds_up_nobody() {
    let running = Arc::new(AtomicUsize::new(0));
    let (begin, begun) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel();
    let (run, released) = (running.clone(), std::sync::Mutex::new(released));
    let action = move || {
        assert_eq!(run.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
        let _ = begin.send(());
        let held = released.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv_timeout(SOON);
        run.fetch_sub(1, Ordering::SeqCst);
        held.expect("it is released");
        panic!("as it may");
    };
    let builder = Server::builder().workers(2).listen("127.0.0.1:0", Echo).unwrap();
    let (handle, address) = serve(builder.tick(Duration::from_millis(1), action));
    for _ in 0..3 {
        begun.recv_timeout(SOON).expect("a tick");
        // It holds one of two workers now.
        let mut stream = connect(address);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0; 1]).expect("the other one answers");
        release.send(()).unwrap();
    }
    wait_for(&handle, "panics", |stats| stats.handler_panics >= 3);
    // Let the last one go.
    drop(release);
}

#[test]
fn a_server_of_one_connection_ends_with_it() {
    let builder = Server::builder().workers(2).listen("127.0.0.1:0", Echo).unwrap();
    let (handle, address) = serve(builder.end_after(1));
    assert_eq!(handle.wait_timeout(Duration::from_millis(50)), None);
    let mut only = connect(address);
    for _ in 0..3 {
        // It is served to its own end, also after a rest.
        only.write_all(b"x").unwrap();
        only.read_exact(&mut [0; 1]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = TcpStream::connect_timeout(&address, SOON);
    assert!(refused.is_err(), "the listener is closed");
    drop(only);
    let report = handle.wait_timeout(SOON).expect("it ends");
    assert!(report.is_clean());
    assert!(handle.stats().conserved());
}

#[test]
fn another_thread_ends_the_server() {
    let (handle, address) = serve(Server::builder().workers(2).listen("127.0.0.1:0", Echo).unwrap());
    let trigger = handle.trigger();
    let idle = connect(address);
    wait_for(&handle, "the connection", |stats| stats.listeners[0].idle == 1);
    std::thread::spawn(move || trigger.drain());
    assert!(handle.wait().is_clean());
    assert_eq!((&idle).read(&mut [0; 1]).unwrap(), 0, "an idle connection ends with FIN");
}

/// A server with short deadlines.
fn hasty(service: impl Service) -> (Handle, SocketAddr) {
    let limits = Limits::default()
        .workers(1)
        .read_timeout(Duration::from_secs(1))
        .write_timeout(Duration::from_millis(200));
    serve(Server::builder().limits(limits).listen("127.0.0.1:0", service).unwrap())
}

#[test]
fn a_client_that_drips_does_not_hold_a_blocking_handler() {
    let (handle, address) = hasty(handler(|stream| {
        let mut line = String::new();
        while stream.read_line(&mut line)? > 0 {
            stream.write_all(line.as_bytes())?;
            line.clear();
        }
        Ok(())
    }));
    let mut dripping = connect(address);
    let began = Instant::now();
    // A byte every 20 ms: each alone is in time, all together are not.
    while began.elapsed() < SOON && dripping.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    wait_closed(&handle, CloseReason::ReadTimeout, 1);
    // Its worker is free, and each request of a client that keeps going has its own time.
    let mut steady = connect(address);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        steady.write_all(b"x\n").unwrap();
        steady.read_exact(&mut [0; 2]).unwrap();
    }
}

#[test]
fn a_client_that_does_not_read_does_not_hold_a_blocking_handler() {
    let (handle, address) = hasty(handler(|stream| {
        loop {
            stream.write_all(&[b'x'; 64 * 1024])?;
        }
    }));
    let _silent = connect(address);
    wait_closed(&handle, CloseReason::WriteTimeout, 1);
}

#[test]
fn a_total_deadline_is_for_everything() {
    let (handle, address) = serve(
        Server::builder()
            .workers(1)
            .listen(
                "127.0.0.1:0",
                handler(|stream| {
                    stream.set_total_deadline(Duration::from_millis(300));
                    let mut line = String::new();
                    while stream.read_line(&mut line)? > 0 {
                        stream.write_all(line.as_bytes())?;
                    }
                    Ok(())
                }),
            )
            .unwrap(),
    );
    let mut stream = connect(address);
    let began = Instant::now();
    while began.elapsed() < SOON && stream.write_all(b"x\n").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(280) && took < Duration::from_secs(5), "{took:?}");
    wait_closed(&handle, CloseReason::ReadTimeout, 1);
}

#[test]
fn a_total_deadline_may_be_as_long_as_can_be_said() {
    let service = handler(|stream| {
        stream.set_total_deadline(Duration::MAX);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        stream.write_all(line.as_bytes())
    });
    let (_handle, address) = serve(Server::builder().workers(1).listen("127.0.0.1:0", service).unwrap());
    let mut stream = connect(address);
    stream.write_all(b"x\n").unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
}

#[test]
fn lines_have_a_maximum_and_a_clear_end() {
    let limits = Limits::default().workers(1).max_line(8);
    let service = lines("shout", |line, reply| {
        reply.send(&line.to_ascii_uppercase())?;
        reply.send(b"\n")
    });
    let (handle, address) = serve(Server::builder().limits(limits).listen("127.0.0.1:0", service).unwrap());
    let mut fitting = connect(address);
    fitting.write_all(b"12345678\n12345678\r\n\nabc").unwrap();
    fitting.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    fitting.read_to_string(&mut said).unwrap();
    assert_eq!(said, "12345678\n12345678\n\nABC\n");
    // Whole or not, in one piece or in many: what came before is answered, then the end.
    for pieces in [vec!["ok\n123456789\nmore\n"], vec!["ok\n1234567890"], vec!["ok\n", "12345", "67890", "1"]]
    {
        let mut stream = connect(address);
        for piece in pieces {
            if stream.write_all(piece.as_bytes()).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an end and no reset");
        assert_eq!(said, "OK\n");
    }
    wait_closed(&handle, CloseReason::Protocol, 3);
}

#[test]
fn a_peer_that_is_denied_is_told_the_busy_reply() {
    struct Nobody;
    impl Service for Nobody {
        fn verify(&self, _peer: &Peer) -> bool {
            false
        }
        fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
            Box::new(Echo)
        }
        fn busy_reply(&self) -> &[u8] {
            b"not you\n"
        }
    }
    let (handle, address) = serve(Server::builder().workers(1).listen("127.0.0.1:0", Nobody).unwrap());
    let mut said = String::new();
    connect(address).read_to_string(&mut said).unwrap();
    assert_eq!(said, "not you\n");
    assert_eq!(handle.stats().listeners[0].dropped[DropReason::Denied as usize], 1);
}

#[test]
fn an_error_is_told_to_the_service() {
    struct Failing(Arc<AtomicUsize>);
    impl Service for Failing {
        fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
            Box::new(FailingSession(self.0.clone()))
        }
        fn turn_failed(&self, _peer: &Peer, error: &io::Error) {
            assert!(error.to_string().contains("panicked") || error.to_string() == "as asked");
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    struct FailingSession(Arc<AtomicUsize>);
    impl Session for FailingSession {
        fn turn(&mut self, stream: &mut tidegate::Stream<'_>) -> io::Result<tidegate::Turn> {
            match stream.receive()? {
                tidegate::Received::Data(b"panic") => panic!("as asked"),
                tidegate::Received::Data(_) => Err(io::Error::other("as asked")),
                _ => Ok(tidegate::Turn::Park),
            }
        }
        fn finish(&mut self, reason: CloseReason) {
            assert!(matches!(reason, CloseReason::Panic | CloseReason::Error));
            self.0.fetch_add(10, Ordering::SeqCst);
        }
    }
    let told = Arc::new(AtomicUsize::new(0));
    let service = Failing(told.clone());
    let (handle, address) = serve(Server::builder().workers(1).listen("127.0.0.1:0", service).unwrap());
    connect(address).write_all(b"panic").unwrap();
    wait_closed(&handle, CloseReason::Panic, 1);
    connect(address).write_all(b"error").unwrap();
    wait_closed(&handle, CloseReason::Error, 1);
    assert_eq!(told.load(Ordering::SeqCst), 22);
}

/// As the documentation of `Service` says it is done.
#[test]
fn a_closure_can_be_given_a_hook() {
    struct Hooked<S>(S, Arc<AtomicUsize>);
    impl<S: Service> Service for Hooked<S> {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn connect(&self, peer: &Peer) -> Box<dyn Session> {
            self.0.connect(peer)
        }
        fn client_speaks_first(&self) -> bool {
            self.0.client_speaks_first()
        }
        fn turn_failed(&self, _peer: &Peer, error: &io::Error) {
            assert_eq!(error.to_string(), "as asked");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let told = Arc::new(AtomicUsize::new(0));
    let failing = handler(|stream| {
        stream.write_all(b"who speaks first\n")?;
        Err(io::Error::other("as asked"))
    });
    let service = Hooked(failing.name("hooked"), told.clone());
    let (handle, address) = serve(Server::builder().workers(1).listen("127.0.0.1:0", service).unwrap());
    // It says nothing and ends: a service whose client speaks first could pass it by.
    let client = connect(address);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    wait_closed(&handle, CloseReason::Error, 1);
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert_eq!(handle.stats().listeners[0].service, "hooked");
}
