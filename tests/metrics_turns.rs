//! What is counted of turns is what an operator needs: requests are told from visits that brought nothing, and times are
//! what they were.

mod support;

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::{Client, Site};
use tidegate::admin::Admin;
use tidegate::reason::{DropReason, TurnOutcome};
use tidegate::{Echo, Limits, Peer, Received, Server, Service, Session, Stream, Turn, lines};

#[test]
fn a_turn_that_only_sees_its_client_leave_is_no_request() {
    let site = Site::serve(Limits::default().workers(2), Echo);
    for _ in 0..20 {
        let mut client = site.client();
        client.say("hello").hear("hello");
        drop(client);
    }
    let done =
        |turns: &[u64]| turns[TurnOutcome::Ok as usize] >= 20 && turns[TurnOutcome::End as usize] >= 20;
    let seen = site.until("all turns are counted", |now| done(&now.turns));
    assert_eq!(seen.turns[TurnOutcome::Ok as usize], 20, "a request each: {seen:?}");
    assert_eq!(seen.turns[TurnOutcome::End as usize], 20, "an end each: {seen:?}");
    assert_eq!(seen.turn_duration.count(), 20, "the time of what brought nothing is not counted: {seen:?}");
}

#[test]
fn a_turn_that_finds_nothing_is_no_request() {
    let site = Site::serve(Limits::default().workers(2), Echo);
    let mut client = site.client();
    site.until("the silent newcomer has been looked at", |now| now.turns[TurnOutcome::Empty as usize] == 1);
    client.say("hello").hear("hello");
    let seen = site.until("its request is counted", |now| now.turns[TurnOutcome::Ok as usize] == 1);
    assert_eq!((seen.turn_duration.count(), seen.idle), (1, 1), "{seen:?}");
}

/// Sleeps for each line, and says how long it really took: on a busy machine that is longer.
fn sleepy(times: &'static Mutex<Vec<Duration>>, sleep: Duration) -> impl Service {
    lines("sleepy", move |line, reply| {
        let began = Instant::now();
        std::thread::sleep(sleep);
        times.lock().unwrap().push(began.elapsed());
        reply.send(line)?;
        reply.send(b"\n")
    })
}

#[test]
fn a_percentile_is_within_five_per_cent_of_the_time_that_was_spent() {
    static TIMES: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
    let site = Site::serve(Limits::default().workers(4), sleepy(&TIMES, Duration::from_millis(50)));
    let clients: Vec<_> = (0..4).map(|_| site.client()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..10 {
                    client.say("x\n").hear("x\n");
                }
            });
        }
    });
    let seen = site.until("every turn is counted", |now| now.turn_duration.count() == 40);
    let mut times = TIMES.lock().unwrap().clone();
    times.sort_unstable();
    for (q, rank) in [(0.5, 20), (0.9, 36)] {
        let (told, was) = (seen.turn_duration.quantile(q).unwrap(), times[rank - 1]);
        // A turn is a little longer than what its service does.
        let (least, most) = (was.mul_f64(0.95), was.mul_f64(1.05) + Duration::from_millis(2));
        assert!((least..most).contains(&told), "p{q} is told as {told:?} and was {was:?}");
    }
}

/// A service whose name cannot be asked twice.
struct Nameless(Mutex<bool>);

impl Service for Nameless {
    fn name(&self) -> &str {
        let mut asked = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        assert!(!std::mem::replace(&mut *asked, true), "asked again");
        "once"
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Mute)
    }
}

/// A service that has no name at all.
struct Unnamed;

impl Service for Unnamed {
    fn name(&self) -> &str {
        panic!("as the test wants it");
    }

    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Mute)
    }
}

struct Mute;

impl Session for Mute {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        match stream.split().0.receive()? {
            Received::End => Ok(Turn::Close),
            _ => Ok(Turn::Park),
        }
    }
}

#[test]
fn a_panic_in_a_service_s_name_costs_no_scrape() {
    let builder = Server::builder().listen("127.0.0.1:0", Nameless(Mutex::new(false))).unwrap();
    let server = builder.listen("127.0.0.1:0", Unnamed).unwrap().bind().unwrap().serve().unwrap();
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), server.observe()).unwrap().serve().unwrap();
    let ask = || {
        let mut client = Client::connect(admin.address());
        client.mutter("GET /metrics HTTP/1.1\r\n\r\n");
        String::from_utf8(client.rest().0).unwrap()
    };
    for scrape in 0..3 {
        let text = ask();
        for name in ["once", "unnamed"] {
            let sample = format!("tidegate_turns_total{{service=\"{name}\",outcome=\"ok\"}} 0");
            assert!(text.contains(&sample), "scrape {scrape} lacks {sample}: {text}");
        }
    }
}

#[test]
fn the_sources_that_are_refused_most_are_named() {
    let site = Site::serve(Limits::default().max_per_source(1), Echo);
    let mut first = site.client();
    first.say("hello").hear("hello");
    let refused: Vec<_> = (0..3).map(|_| site.client()).collect();
    site.until_dropped(DropReason::PerSource, 3);
    let sources = site.handle().observe().refused_sources();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert_eq!((sources[0].source.as_str(), sources[0].count), ("127.0.0.1", 3));
    drop(refused);
}

#[test]
fn newcomers_are_told_from_the_turns_of_open_connections() {
    let gate = support::Gate::new();
    let site = Site::serve(Limits::default().workers(1).queue(8), support::Held(gate.clone()));
    let mut held = site.client();
    gate.open();
    held.say("first").hear("first");
    // Until then its turn may go on, and read what is said next.
    site.until("its turn has ended", |now| now.idle == 1);
    gate.shut();
    let mut busy = site.client();
    busy.mutter("x");
    site.until("the worker is busy", |now| now.active == 1);
    held.mutter("second");
    let newcomers: Vec<_> = (0..3).map(|_| site.client()).collect();
    let seen = site.until("they wait", |now| (now.queued, now.newcomers) == (4, 3));
    assert_eq!(site.stats().queue_length, 4, "the queue is what the listeners say: {seen:?}");
    gate.open();
    site.until("none waits", |now| (now.queued, now.newcomers) == (0, 0));
    drop(newcomers);
}
