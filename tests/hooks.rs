//! Code of a service that never returns costs its own workers, and nothing else: newcomers are accepted and refused,
//! deadlines pass, scrapes are answered, and the end comes in its time.

mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, Held, Site, eventually};
use tidegate::admin::Admin;
use tidegate::reason::{CloseReason, DropReason};
use tidegate::{Echo, Handle, Limits, Peer, QueueOrder, Server, Service, Session, Stream, Turn};

/// Which code of the service waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    Verify,
    Connect,
    Turn,
    TurnFailed,
    Finish,
    Drop,
}

/// An echo that gets stuck, and how often it did.
#[derive(Clone)]
struct Sticky {
    at: Stuck,
    stuck: Arc<AtomicUsize>,
}

impl Sticky {
    fn new(at: Stuck) -> Self {
        Self { at, stuck: Arc::default() }
    }

    fn wait_at(&self, at: Stuck) {
        if self.at == at {
            self.stuck.fetch_add(1, Ordering::SeqCst);
            // Its thread is left behind when the test ends.
            loop {
                std::thread::park();
            }
        }
    }

    #[track_caller]
    fn until_stuck(&self, workers: usize) {
        eventually("all workers are stuck", || (self.stuck.load(Ordering::SeqCst) >= workers).then_some(()));
    }
}

impl Service for Sticky {
    fn verify(&self, _: &Peer) -> bool {
        self.wait_at(Stuck::Verify);
        true
    }

    fn connect(&self, _: &Peer) -> Box<dyn Session> {
        self.wait_at(Stuck::Connect);
        Box::new(StickySession(self.clone()))
    }

    fn turn_failed(&self, _: &Peer, _: &io::Error) {
        self.wait_at(Stuck::TurnFailed);
    }
}

struct StickySession(Sticky);

impl Session for StickySession {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        self.0.wait_at(Stuck::Turn);
        if self.0.at == Stuck::TurnFailed {
            return Err(io::Error::other("as the test wants it"));
        }
        Echo.turn(stream)
    }

    fn finish(&mut self, _: CloseReason) {
        self.0.wait_at(Stuck::Finish);
    }
}

impl Drop for StickySession {
    fn drop(&mut self) {
        self.0.wait_at(Stuck::Drop);
    }
}

const WORKERS: usize = 2;

fn limits() -> Limits {
    Limits::default()
        .workers(WORKERS)
        .queue(2)
        .queue_timeout(Duration::from_millis(500))
        .idle_timeout(Duration::from_millis(1_500))
}

/// A server whose workers may stay stuck: a `Site` would want every connection to be counted as ended.
#[track_caller]
fn serve(service: &Sticky) -> Handle {
    let builder = Server::builder().limits(limits()).listen("127.0.0.1:0", service.clone()).unwrap();
    builder.bind().unwrap().serve().unwrap()
}

/// An end, which must not take much longer than its grace of less than a second.
#[track_caller]
fn in_time<T>(end: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let report = end();
    assert!(began.elapsed() < Duration::from_secs(4), "the end took {:?}", began.elapsed());
    report
}

/// With all workers stuck: newcomers wait, are refused when the queue is full, and are shed when they have waited too long.
#[track_caller]
fn others_are_accepted_and_refused(site: &Site) {
    let before = site.counts();
    let mut waiting: Vec<Client> = (0..2).map(|_| site.client()).collect();
    for client in &mut waiting {
        client.mutter("x");
    }
    for client in &mut waiting {
        assert_eq!(client.end(), End::Reset, "it waited too long: {:#?}", site.counts());
    }
    let mut crowd: Vec<Client> = (0..8).map(|_| site.client()).collect();
    for client in &mut crowd {
        let end = client.rest();
        assert_eq!(end, (Vec::new(), End::Reset), "{:#?}", site.counts());
    }
    let now = site.counts();
    let dropped = |reason: DropReason| now.dropped[reason as usize] - before.dropped[reason as usize];
    assert!(dropped(DropReason::QueueTimeout) >= 2, "{now:?}");
    assert_eq!(dropped(DropReason::QueueTimeout) + dropped(DropReason::QueueFull), 10, "{now:?}");
}

#[test]
fn all_workers_stuck_in_any_hook_hold_up_neither_newcomers_nor_the_end() {
    for at in [Stuck::Verify, Stuck::Connect, Stuck::Turn, Stuck::TurnFailed, Stuck::Finish, Stuck::Drop] {
        let service = Sticky::new(at);
        let handle = serve(&service);
        let address = handle.addresses()[0].ip().unwrap();
        let mut clients = Vec::new();
        for _ in 0..WORKERS {
            clients.push(Client::connect(address));
            clients.last_mut().unwrap().mutter("x");
        }
        if matches!(at, Stuck::Finish | Stuck::Drop) {
            for client in &mut clients {
                client.hear("x");
            }
        }
        service.until_stuck(WORKERS);
        let report = in_time(|| handle.shutdown(Duration::from_millis(300)));
        assert_eq!(report.workers_left, WORKERS, "{at:?}: {report}");
        assert!(!report.is_clean());
        support::figure(format!("stuck in {at:?}: {report}"));
    }
}

#[test]
fn sessions_that_never_let_go_when_they_idle_out_hold_up_nobodys_deadline() {
    for at in [Stuck::Finish, Stuck::Drop] {
        let service = Sticky::new(at);
        let site = Site::serve(limits(), service.clone());
        let mut idle: Vec<Client> = Vec::new();
        for _ in 0..2 * WORKERS + 3 {
            let mut client = site.client();
            client.say("x").hear("x");
            idle.push(client);
        }
        // More sessions than there are workers; each client sees its end nevertheless.
        for client in &mut idle {
            assert_eq!(client.end(), End::Fin);
        }
        service.until_stuck(WORKERS);
        site.until_closed(CloseReason::IdleTimeout, 2 * WORKERS as u64 + 3);
        others_are_accepted_and_refused(&site);
        let report = in_time(|| site.end_within(Duration::from_millis(300)));
        let said = report.to_string();
        assert!(report.workers_left == WORKERS && report.sessions_left > 0, "{at:?}: {said}");
        assert!(said.contains("sessions that were not told"), "{said}");
    }
}

#[test]
fn a_server_that_is_cut_tells_the_sessions_that_do_return() {
    /// Sleeps in its turn until the server is stopped; its `finish` is counted.
    struct Counted(Arc<AtomicUsize>);
    impl Service for Counted {
        fn connect(&self, _: &Peer) -> Box<dyn Session> {
            Box::new(Counted(self.0.clone()))
        }
    }
    impl Session for Counted {
        fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
            Echo.turn(stream)
        }
        fn finish(&mut self, _: CloseReason) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let told = Arc::new(AtomicUsize::new(0));
    let site = Site::serve(Limits::default().workers(WORKERS), Counted(told.clone()));
    let mut clients: Vec<Client> = (0..50).map(|_| site.client()).collect();
    for client in &mut clients {
        client.say("x").hear("x");
    }
    drop(site);
    assert_eq!(told.load(Ordering::SeqCst), 50);
}

#[test]
fn scrapes_are_answered_while_all_workers_are_stuck() {
    let service = Sticky::new(Stuck::Finish);
    let handle = serve(&service);
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), handle.observe()).unwrap().serve().unwrap();
    for _ in 0..WORKERS {
        let mut client = Client::connect(handle.addresses()[0].ip().unwrap());
        client.say("x").hear("x");
    }
    service.until_stuck(WORKERS);
    for path in ["/livez", "/metrics", "/status.json"] {
        let mut scrape = TcpStream::connect(admin.address()).unwrap();
        scrape.set_read_timeout(Some(support::PATIENCE)).unwrap();
        scrape.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        scrape.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{path}: {answer}");
    }
    support::figure(format!("3 of 3 pages with {WORKERS} of {WORKERS} workers stuck"));
    in_time(|| drop(handle));
}

/// Has words for refused clients once, and then never returns from being asked for them.
struct Speechless {
    asked: AtomicUsize,
    gate: Arc<Gate>,
}

impl Service for Speechless {
    fn connect(&self, peer: &Peer) -> Box<dyn Session> {
        Held(self.gate.clone()).connect(peer)
    }

    fn busy_reply(&self) -> &[u8] {
        if self.asked.fetch_add(1, Ordering::SeqCst) > 0 {
            loop {
                std::thread::park();
            }
        }
        b"busy\n"
    }
}

#[test]
fn a_service_is_asked_for_its_words_once_and_never_by_the_thread_that_refuses() {
    let gate = Gate::new();
    let service = Speechless { asked: AtomicUsize::new(0), gate: gate.clone() };
    let limits = Limits::default().workers(1).queue(1).queue_order(QueueOrder::Fifo);
    let site = Site::serve(limits, service);
    let mut served: Vec<Client> = Vec::new();
    for n in 0..2 {
        served.push(site.client());
        served[n].say("x");
        site.until("one is served, the next waits", |now| (now.active, now.queued) == (1, n as u64));
    }
    for _ in 0..5 {
        assert_eq!(site.client().rest(), (b"busy\n".to_vec(), End::Fin));
    }
    gate.open();
    for client in &mut served {
        client.hear("x");
    }
    drop(served);
    assert!(site.end().is_clean());
}

/// Turns of a service that are quick in the mean, and a few that hold their worker.
#[test]
fn quick_turns_go_on_at_full_speed_beside_workers_that_are_held() {
    let gate = Gate::new();
    let passed = gate.clone();
    let service = tidegate::lines("holds", move |line, reply| {
        if line == b"hold" {
            passed.pass();
        }
        reply.send(line)?;
        reply.send(b"\n")
    });
    let site = Site::serve(Limits::default().workers(8), service);
    let ask = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = site.client();
                    (0..200).for_each(|_| {
                        client.say("x\n").hear("x\n");
                    });
                });
            }
        });
        began.elapsed()
    };
    // The quickest of some: other programs may have the processors for a while.
    let quickest = || (0..5).map(|_| ask()).min();
    let free = quickest();
    let mut held: Vec<_> = (0..5).map(|_| site.client()).collect();
    held.iter_mut().for_each(|client| {
        client.say("hold\n");
    });
    site.until("they are held", |now| now.active == 5);
    let beside = quickest();
    eprintln!("3,200 requests: {free:?}, beside held workers {beside:?}");
    assert!(beside < free.map(|free| free * 3), "{beside:?} where it was {free:?}");
    gate.open();
    held.iter_mut().for_each(|client| {
        client.hear("hold\n");
    });
}
