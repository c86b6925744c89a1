//! Sessions that are woken by other threads, and sessions that asked to be called later.

mod support;

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Client, End, Site, eventually, throughout};
use tidegate::{Limits, Peer, Received, Service, Session, Stream, Turn, Waker};

/// How many timers, and where their clients are told to connect to.
const TIMERS: usize = 10_000;
const TIMERS_AT: &str = "TIMERS_AT";

type Script = Arc<dyn Fn(&mut Stream<'_>, usize) -> io::Result<Turn> + Send + Sync>;

/// A service whose sessions do what a script says: it is handed the number of the turn, from 1.
#[derive(Clone)]
struct Scripted {
    script: Script,
    turns: Arc<AtomicUsize>,
    wakers: Arc<Mutex<Vec<Waker>>>,
}

struct Actor(Scripted, usize);

impl Scripted {
    fn new(script: impl Fn(&mut Stream<'_>, usize) -> io::Result<Turn> + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), turns: Arc::default(), wakers: Arc::default() }
    }

    fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    fn waker(&self) -> Waker {
        eventually("a session gives its waker", || self.wakers.lock().unwrap().pop())
    }
}

impl Service for Scripted {
    fn connect(&self, _: &Peer) -> Box<dyn Session> {
        Box::new(Actor(self.clone(), 0))
    }

    fn client_speaks_first(&self) -> bool {
        false
    }
}

impl Session for Actor {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        self.1 += 1;
        if self.1 == 1 {
            self.0.wakers.lock().unwrap().push(stream.waker());
        }
        self.0.turns.fetch_add(1, Ordering::SeqCst);
        (self.0.script)(stream, self.1)
    }
}

/// Sends `turn n` at each turn but the first, and parks.
fn reporter() -> Scripted {
    Scripted::new(|stream, n| {
        while let Received::Data(_) = stream.receive()? {}
        if n > 1 {
            stream.send(format!("turn {n}\n").as_bytes())?;
        }
        Ok(Turn::Park)
    })
}

#[test]
fn a_parked_session_speaks_when_another_thread_wakes_it() {
    let service = reporter();
    let site = Site::serve(Limits::default(), service.clone());
    let mut client = site.client();
    let waker = service.waker();
    site.until("it is parked", |now| now.idle == 1);
    waker.wake();
    client.hear("turn 2\n");
    site.until("it is parked", |now| now.idle == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| waker.clone().wake());
    });
    client.hear("turn 3\n");
    assert_eq!(service.turns(), 3);
}

#[test]
fn many_calls_before_a_turn_are_one_turn_and_one_during_it_is_another() {
    let (go, held) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let (gate, inside) = (go.clone(), held.clone());
    let service = Scripted::new(move |_, n| {
        if n == 2 {
            inside.fetch_add(1, Ordering::SeqCst);
            drop(gate.lock());
        }
        Ok(Turn::Park)
    });
    let site = Site::serve(Limits::default(), service.clone());
    let _client = site.client();
    let waker = service.waker();
    site.until("it is parked", |now| now.idle == 1);
    let guard = go.lock().unwrap();
    waker.wake();
    eventually("the second turn is under way", || (held.load(Ordering::SeqCst) == 1).then_some(()));
    (0..100).for_each(|_| waker.wake());
    drop(guard);
    eventually("a third turn", || (service.turns() == 3).then_some(()));
    throughout(Duration::from_millis(50), "there is no fourth", || service.turns() == 3);
}

#[test]
fn waking_a_session_that_has_ended_or_whose_server_has_ended_does_nothing() {
    let service = reporter();
    let site = Site::serve(Limits::default(), service.clone());
    let client = site.client();
    let first = service.waker();
    client.reset();
    site.until("it has ended", |now| now.closed_total() == 1);
    // The slot is taken by another, which must not be woken in its place.
    let mut other = site.client();
    let second = service.waker();
    site.until("it is parked", |now| now.idle == 1);
    let before = service.turns();
    (0..10).for_each(|_| first.wake());
    throughout(Duration::from_millis(30), "nobody is woken", || service.turns() == before);
    second.wake();
    other.hear("turn 2\n");
    site.end();
    first.wake();
    second.wake();
}

#[test]
fn ten_thousand_wakes_of_a_thousand_sessions_by_four_threads_lose_none() {
    let service = Scripted::new(|stream, n| {
        if n > 1 {
            stream.send(b".")?;
        }
        Ok(Turn::Park)
    });
    support::raise_open_files();
    let site = Site::serve(Limits::default().queue(1000), service.clone());
    let mut clients: Vec<Client> = (0..1000).map(|_| site.client()).collect();
    site.until("all are parked", |now| now.idle == 1000);
    let wakers = std::mem::take(&mut *service.wakers.lock().unwrap());
    for _ in 0..10 {
        std::thread::scope(|scope| {
            for part in wakers.chunks(250) {
                scope.spawn(move || part.iter().for_each(Waker::wake));
            }
        });
        clients.iter_mut().for_each(|client| _ = client.hear("."));
        site.until("all are parked", |now| now.idle == 1000);
    }
}

#[test]
fn a_session_is_called_when_it_asked_to_be_and_not_before() {
    let began = Instant::now();
    let service = Scripted::new(move |stream, n| {
        if n > 1 {
            stream.send(format!("{}\n", began.elapsed().as_millis()).as_bytes())?;
        }
        Ok(if n == 4 { Turn::Close } else { Turn::ParkFor(Duration::from_millis(100)) })
    });
    let site = Site::serve(Limits::default().idle_timeout(Duration::from_millis(20)), service.clone());
    let (said, end) = site.client().rest();
    let times: Vec<u64> =
        String::from_utf8(said).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((times.len(), end), (3, End::Fin), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 99), "{times:?}");
    assert_eq!(service.turns(), 4, "and only then");
}

#[test]
fn what_a_client_sends_does_not_wait_for_the_time_to_be_called() {
    let service = Scripted::new(|stream, _| {
        while let Received::Data(data) = stream.receive()? {
            let data = data.to_vec();
            stream.send(&data)?;
        }
        Ok(Turn::ParkFor(Duration::from_secs(3600)))
    });
    let site = Site::serve(Limits::default(), service.clone());
    let mut client = site.client();
    site.until("it is parked", |now| now.idle == 1);
    client.say("now").hear("now");
    service.waker().wake();
    eventually("a third turn", || (service.turns() == 3).then_some(()));
    // A server that ends tells such a session by a turn, and does not wait for its hour.
    let report = site.end_within(Duration::from_millis(200));
    assert_eq!(report.aborted, 1, "this one does not care: {report}");
    assert_eq!(service.turns(), 4);
}

#[test]
fn a_session_that_keeps_its_own_time_learns_of_the_drain_by_a_turn() {
    let service = Scripted::new(|stream, _| {
        if stream.is_draining() {
            stream.send(b"bye\n")?;
            return Ok(Turn::Close);
        }
        Ok(Turn::ParkFor(Duration::from_secs(3600)))
    });
    let site = Site::serve(Limits::default(), service);
    let mut client = site.client();
    site.until("it is parked", |now| now.idle == 1);
    assert!(site.end().is_clean());
    client.hear("bye\n");
    assert_eq!(client.end(), End::Fin);
}

#[test]
fn ten_thousand_timers_cost_no_thread_and_are_on_time() {
    support::raise_open_files();
    let wait = Duration::from_secs(2);
    let service = Scripted::new(move |stream, n| {
        if n == 2 {
            stream.send(b"!")?;
        }
        Ok(if n == 1 { Turn::ParkFor(wait) } else { Turn::Park })
    });
    let site = Site::serve(Limits::default().queue(TIMERS).max_connections(TIMERS), service.clone());
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_clients_of_the_timers", "--ignored"])
        .env(TIMERS_AT, site.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program can be run again");
    site.until("all are parked", |now| now.idle == TIMERS as u64);
    let (parked, before) = (Instant::now(), threads());
    eventually("all are called", || (service.turns() == 2 * TIMERS).then_some(()));
    assert!(parked.elapsed() < 2 * wait, "the last was called after {:?}", parked.elapsed());
    assert!(threads() <= before, "{before} threads became {}", threads());
    throughout(Duration::from_millis(50), "nobody is called twice", || service.turns() == 2 * TIMERS);
    drop(clients.stdin.take());
    assert!(clients.wait().unwrap().success(), "each client heard of its call");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Both ends of that many connections are more descriptors than one process may have here.
#[test]
#[ignore = "the test of the timers runs it, in a process of its own"]
fn the_clients_of_the_timers() {
    let Ok(address) = std::env::var(TIMERS_AT) else { return };
    support::raise_open_files();
    let address = address.parse().unwrap();
    let mut clients: Vec<Client> = (0..TIMERS).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| _ = client.hear("!"));
    // They stay until they have been counted.
    io::read_to_string(io::stdin()).unwrap();
}
