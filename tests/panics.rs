//! A panic in a service closes that connection, is counted, and the thread that met it goes on.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use support::{Client, End, Gate, Held, Site, eventually, figure, hush_panics};
use tidegate::reason::{CloseReason, DropReason};
use tidegate::{Limits, Peer, QueueOrder, Received, Service, Session, Stream, Turn};

/// Where the service panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum At {
    Nowhere,
    Verify,
    Connect,
    Turn,
    TurnAndTurnFailed,
    Finish,
    Drop,
    FinishAndDrop,
    ClientSpeaksFirst,
}

#[derive(Clone)]
struct Fragile(Arc<AtomicU8>);

impl Fragile {
    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(At::Nowhere as u8)))
    }

    fn set(&self, at: At) {
        self.0.store(at as u8, Ordering::SeqCst);
    }

    fn panic_at(&self, places: &[At]) {
        let now = self.0.load(Ordering::SeqCst);
        if places.iter().any(|&place| place as u8 == now) {
            panic!("as the test wants it");
        }
    }
}

impl Service for Fragile {
    fn verify(&self, _peer: &Peer) -> bool {
        self.panic_at(&[At::Verify]);
        true
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        self.panic_at(&[At::Connect]);
        Box::new(FragileSession(self.clone()))
    }

    fn client_speaks_first(&self) -> bool {
        self.panic_at(&[At::ClientSpeaksFirst]);
        true
    }

    fn turn_failed(&self, _peer: &Peer, _error: &io::Error) {
        self.panic_at(&[At::TurnAndTurnFailed]);
    }
}

struct FragileSession(Fragile);

impl Session for FragileSession {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let (input, output) = stream.split();
        loop {
            match input.receive()? {
                Received::Data(data) => {
                    output.send(data)?;
                    self.0.panic_at(&[At::Turn, At::TurnAndTurnFailed]);
                }
                Received::Nothing => return Ok(Turn::Park),
                Received::End => return Ok(Turn::Close),
            }
        }
    }

    fn finish(&mut self, _reason: CloseReason) {
        self.0.panic_at(&[At::Finish, At::FinishAndDrop]);
    }
}

impl Drop for FragileSession {
    fn drop(&mut self) {
        self.0.panic_at(&[At::Drop, At::FinishAndDrop]);
    }
}

/// More than there are workers, so that each of them meets some.
const MANY: u64 = 9;

fn two_workers() -> Limits {
    Limits::default().workers(2)
}

#[track_caller]
fn panic_many(at: At, panics_each: u64, reason: CloseReason) {
    hush_panics();
    let service = Fragile::new();
    let site = Site::serve(two_workers(), service.clone());
    service.set(at);
    for n in 1..=MANY {
        let mut client = site.client();
        client.mutter("x");
        client.finish_quietly();
        let _ = client.rest();
        site.until_closed(reason, n);
    }
    eventually("each is counted", || (site.stats().handler_panics == MANY * panics_each).then_some(()));
    service.set(At::Nowhere);
    // Both workers still work: as many at once are served as there are.
    let mut clients: Vec<Client> = (0..4).map(|_| site.client()).collect();
    for client in &mut clients {
        client.say("alive").hear("alive");
    }
    assert_eq!(site.counts().closed_total(), MANY);
    let report = site.end();
    figure(format!("{} panics with two workers, then 4 of 4 served; {report}", MANY * panics_each));
}

#[test]
fn in_verify() {
    panic_many(At::Verify, 1, CloseReason::Panic);
}

#[test]
fn in_connect() {
    panic_many(At::Connect, 1, CloseReason::Panic);
}

#[test]
fn in_a_turn() {
    panic_many(At::Turn, 1, CloseReason::Panic);
}

#[test]
fn in_a_turn_and_when_told_of_it() {
    panic_many(At::TurnAndTurnFailed, 2, CloseReason::Panic);
}

#[test]
fn in_finish() {
    panic_many(At::Finish, 1, CloseReason::Client);
}

#[test]
fn in_drop() {
    panic_many(At::Drop, 1, CloseReason::Client);
}

#[test]
fn in_finish_and_then_in_drop() {
    panic_many(At::FinishAndDrop, 2, CloseReason::Client);
}

#[test]
fn in_what_is_asked_before_the_first_turn() {
    hush_panics();
    let service = Fragile::new();
    let limits = Limits::default().workers(1);
    let gate = Gate::new();
    let held = Held(gate.clone());
    let bound = tidegate::Server::builder()
        .limits(limits)
        .listen("127.0.0.1:0", held)
        .and_then(|builder| builder.listen("127.0.0.1:0", service.clone()))
        .and_then(tidegate::Builder::bind)
        .unwrap();
    let addresses = bound.addresses();
    let handle = bound.serve().unwrap();
    service.set(At::ClientSpeaksFirst);
    let mut holder = Client::connect(addresses[0].ip().unwrap());
    holder.say("hold");
    eventually("the worker is held", || (handle.stats().listeners[0].active == 1).then_some(()));
    let left: Vec<Client> = (0..3).map(|_| Client::connect(addresses[1].ip().unwrap())).collect();
    eventually("three wait", || (handle.stats().listeners[1].queued == 3).then_some(()));
    drop(left);
    let since = std::time::Instant::now();
    eventually("old enough to be looked at", || (since.elapsed() > Duration::from_millis(20)).then_some(()));
    gate.open();
    holder.hear("hold");
    eventually("all are closed", || {
        let now = handle.stats();
        (now.listeners[1].closed[CloseReason::Panic as usize] == 3 && now.handler_panics == 3).then_some(())
    });
    service.set(At::Nowhere);
    Client::connect(addresses[1].ip().unwrap()).say("alive").hear("alive");
    assert!(handle.stats().conserved());
}

/// Panics when the acceptor asks for its words.
struct Speechless(Held);

impl Service for Speechless {
    fn connect(&self, peer: &Peer) -> Box<dyn Session> {
        self.0.connect(peer)
    }

    fn busy_reply(&self) -> &[u8] {
        panic!("as the test wants it")
    }
}

#[test]
fn in_the_busy_reply_which_is_asked_for_when_the_server_is_bound() {
    hush_panics();
    let gate = Gate::new();
    let limits = Limits::default().workers(1).queue(1).queue_order(QueueOrder::Fifo);
    let site = Site::serve(limits, Speechless(Held(gate.clone())));
    let mut first = site.client();
    first.say("x");
    site.until("the worker is held", |now| now.active == 1);
    let mut second = site.client();
    second.say("y");
    site.until("one waits", |now| now.queued == 1);
    for n in 1..=3 {
        assert_eq!(site.client().end(), End::Reset);
        site.until_dropped(DropReason::QueueFull, n);
    }
    assert_eq!(site.stats().handler_panics, 0, "nobody asks again");
    gate.open();
    first.hear("x");
    second.hear("y");
    site.client().say("alive").hear("alive");
    site.end();
}

#[test]
fn in_finish_and_drop_when_idle_connections_expire() {
    hush_panics();
    let service = Fragile::new();
    let limits = two_workers().idle_timeout(Duration::from_millis(300));
    let site = Site::serve(limits, service.clone());
    let mut idle: Vec<Client> = (0..MANY).map(|_| site.client()).collect();
    for client in &mut idle {
        client.say("x").hear("x");
    }
    service.set(At::FinishAndDrop);
    site.until_closed(CloseReason::IdleTimeout, MANY);
    eventually("each is counted", || (site.stats().handler_panics == 2 * MANY).then_some(()));
    service.set(At::Nowhere);
    let mut next = site.client();
    next.say("alive").hear("alive");
    assert_eq!(next.end(), End::Fin);
    site.until_closed(CloseReason::IdleTimeout, MANY + 1);
    site.end();
}
