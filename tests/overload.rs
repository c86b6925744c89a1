//! What exceeds the bounds is refused quickly and visibly, and what was admitted is finished.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, Held, Site, eventually, figure, throughout};
use tidegate::limits::RefusalRate;
use tidegate::reason::{CloseReason, DropReason, TurnShed};
use tidegate::{Echo, Limits, Overload, QueueOrder, Server, lines};

/// One worker, held; `queue` may wait.
fn narrow(queue: usize) -> Limits {
    Limits::default().workers(1).queue(queue)
}

/// A client whose request holds the worker.
fn occupy(site: &Site) -> Client {
    let mut client = site.client();
    client.say("first");
    site.until("a worker is held", |now| now.active == 1);
    client
}

/// Whether this client is let in and answered.
fn served(mut client: Client) -> Option<()> {
    client.mutter("me?").heard(&mut [0; 3]).then_some(())
}

/// Clients that wait in the queue, each having sent a request; the oldest first.
fn line_up(site: &Site, count: u64) -> Vec<Client> {
    (1..=count)
        .map(|n| {
            let mut client = site.client();
            client.say("next");
            site.until("it waits in the queue", |now| now.queued == n);
            client
        })
        .collect()
}

#[test]
fn in_order_of_arrival_a_full_queue_refuses_with_a_reset_and_serves_whom_it_admitted() {
    let gate = Gate::new();
    let site = Site::serve(narrow(2).queue_order(QueueOrder::Fifo), Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting = line_up(&site, 2);
    for n in 1..=3 {
        assert_eq!(site.client().end(), End::Reset);
        site.until_dropped(DropReason::QueueFull, n);
    }
    gate.open();
    first.hear("first");
    for client in &mut waiting {
        client.hear("next");
    }
    site.end();
}

#[test]
fn once_a_full_queue_stands_the_freshest_has_the_place_of_whoever_has_waited_longest() {
    let gate = Gate::new();
    let site = Site::serve(narrow(2), Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting = line_up(&site, 2);
    site.until("the queue stands", |_| site.stats().standing.is_some());
    let mut fresh = line_up_beyond(&site, 2);
    for client in &mut waiting {
        assert_eq!(client.end(), End::Reset);
    }
    gate.open();
    first.hear("first");
    fresh.iter_mut().for_each(|client| {
        client.hear("next");
    });
    site.end();
}

/// Clients that ask while the queue is full.
fn line_up_beyond(site: &Site, count: u64) -> Vec<Client> {
    (1..=count)
        .map(|n| {
            let mut client = site.client();
            client.say("next");
            site.until_dropped(DropReason::QueueFull, n);
            client
        })
        .collect()
}

/// Clients that are connected and have not said a word.
fn silent(site: &Site, count: u64) -> Vec<Client> {
    (1..=count)
        .map(|n| {
            let client = site.client();
            site.until("it is let in", |now| now.idle == n);
            client
        })
        .collect()
}

#[test]
fn a_connection_that_was_silent_and_asks_later_waits_like_any_other_for_its_time() {
    let gate = Gate::new();
    let limits = narrow(2).queue_timeout(Duration::from_millis(400));
    let site = Site::serve(limits, Held(gate.clone()));
    let mut clients = silent(&site, 6);
    clients[0].say("asked");
    site.until("a worker is held", |now| now.active == 1);
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.say("asked");
        site.until("it waits", |now| now.queued == n as u64);
    }
    throughout(Duration::from_millis(200), "all wait", || site.counts().queued == 5);
    // They have had their turn to be let in, so they take no newcomer's place.
    let mut newcomer = site.client();
    newcomer.say("newcomer");
    site.until("it waits too", |now| now.queued == 6);
    for client in &mut clients[1..] {
        assert_eq!(client.end(), End::Reset);
    }
    site.until_closed(CloseReason::Overload, 5);
    assert_eq!(site.counts().turns_shed[TurnShed::QueueTimeout as usize], 5);
    assert_eq!(newcomer.end(), End::Reset);
    site.until_dropped(DropReason::QueueTimeout, 1);
    gate.open();
    clients[0].hear("asked");
    site.end();
}

#[test]
fn who_was_served_once_is_not_refused_for_want_of_a_queue_place() {
    let gate = Gate::new();
    gate.open();
    let site = Site::serve(narrow(1), Held(gate.clone()));
    let mut clients = silent(&site, 5);
    for client in &mut clients {
        client.say("once");
        client.hear("once");
    }
    gate.shut();
    clients[0].say("again");
    site.until("a worker is held", |now| now.active == 1);
    for client in &mut clients[1..] {
        client.say("again");
    }
    site.until("they wait", |now| now.queued == 4);
    throughout(Duration::from_millis(50), "all wait", || site.counts().queued == 4);
    gate.open();
    for client in &mut clients {
        client.hear("again");
    }
    site.end();
}

#[test]
fn a_busy_reply_arrives_whole_though_the_client_had_sent_more_than_was_read() {
    let gate = Gate::new();
    let limits = narrow(1).queue_order(QueueOrder::Fifo);
    let builder = Server::builder().limits(limits).busy_reply("try later\n");
    let site = Site::build(builder, Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting = line_up(&site, 1);
    for _ in 0..3 {
        let mut refused = site.client();
        refused.mutter(vec![b'x'; 32 * 1024]);
        let (said, end) = refused.rest();
        assert_eq!((String::from_utf8_lossy(&said).as_ref(), end), ("try later\n", End::Fin));
    }
    site.until_dropped(DropReason::QueueFull, 3);
    eventually("the polite closes are over", || (site.stats().lingering == 0).then_some(()));
    gate.open();
    first.hear("first");
    waiting[0].hear("next");
    site.end();
}

#[test]
fn a_client_that_never_ends_its_half_is_not_lingered_for_for_ever() {
    let gate = Gate::new();
    let limits = narrow(1).linger_timeout(Duration::from_millis(100)).lingering(4);
    let site = Site::build(Server::builder().limits(limits).busy_reply("busy\n"), Held(gate.clone()));
    let _first = occupy(&site);
    let _waiting = line_up(&site, 1);
    let mut stubborn: Vec<Client> = (0..20).map(|_| site.client()).collect();
    let mut most = 0;
    for client in &mut stubborn {
        client.hear("busy\n");
        most = most.max(site.stats().lingering);
        assert!(most <= 4, "polite closes have a budget");
    }
    let told = Instant::now();
    eventually("the polite closes are given up", || (site.stats().lingering == 0).then_some(()));
    figure(format!(
        "20 told, at most {most} polite closes at once, none {:.1?} after the last",
        told.elapsed()
    ));
    gate.open();
    site.end();
}

#[test]
fn waiting_for_a_place_ends_with_service_or_with_the_deadline() {
    let gate = Gate::new();
    let patience = Duration::from_millis(300);
    let site = Site::serve(narrow(1).overload(Overload::Wait(patience)), Held(gate.clone()));
    let _first = occupy(&site);
    let _waiting = line_up(&site, 1);
    let began = Instant::now();
    assert_eq!(site.client().end(), End::Reset);
    assert!(began.elapsed() >= patience, "refused after {:?}", began.elapsed());
    site.until_dropped(DropReason::QueueFull, 1);
    gate.open();
    // The queue has been full for longer than a newcomer may wait, until the one in it has a worker.
    site.until("the queue has a place again", |counts| counts.queued == 0);
    site.client().say("late").hear("late");
    site.end();

    let gate = Gate::new();
    let patience = Duration::from_secs(60);
    let site = Site::serve(narrow(1).overload(Overload::Wait(patience)), Held(gate.clone()));
    let _first = occupy(&site);
    let _waiting = line_up(&site, 1);
    let mut held_back = site.client();
    held_back.say("patient");
    throughout(Duration::from_millis(200), "it waits in the kernel", || site.counts().accepted == 2);
    gate.open();
    held_back.hear("patient");
    assert_eq!(site.counts().dropped_total(), 0);
    site.end();
}

#[test]
fn drop_oldest_refuses_who_has_waited_longest() {
    let gate = Gate::new();
    let site = Site::serve(narrow(2).overload(Overload::DropOldest), Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting = line_up(&site, 2);
    let mut newest = site.client();
    newest.say("newest");
    site.until_dropped(DropReason::QueueFull, 1);
    assert_eq!(waiting[0].end(), End::Reset);
    gate.open();
    first.hear("first");
    waiting[1].hear("next");
    newest.hear("newest");
    site.end();
}

#[test]
fn drop_oldest_leaves_those_with_more_to_do_alone() {
    let (gate, said) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let (at, notes) = (gate.clone(), said.clone());
    let service = lines("noting", move |line, reply| {
        notes.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        if line == b"hold" {
            at.pass();
        }
        reply.send(line)?;
        reply.send(b"\n")
    });
    let site = Site::serve(narrow(2).overload(Overload::DropOldest), service);
    let mut early = site.client();
    early.say("early\n").hear("early\n");
    let mut holder = site.client();
    holder.say("hold\n");
    site.until("the worker is held", |now| (now.active, now.idle) == (1, 1));
    early.say("more\n");
    site.until("it has more to do", |now| now.queued == 1);
    let mut newcomers = Vec::new();
    for (words, queued) in [("one\n", 2), ("two\n", 3), ("three\n", 3)] {
        newcomers.push(site.client());
        newcomers.last_mut().unwrap().say(words);
        site.until("it waits", |now| now.queued == queued && now.accepted == newcomers.len() as u64 + 2);
    }
    site.until_dropped(DropReason::QueueFull, 1);
    assert_eq!(newcomers[0].end(), End::Reset);
    gate.open();
    early.hear("more\n");
    newcomers[1].hear("two\n");
    newcomers[2].hear("three\n");
    let mut said = said.lock().unwrap().clone();
    said.sort_unstable();
    assert_eq!(said, ["early", "hold", "more", "three", "two"]);
    site.end();
}

#[test]
fn drop_oldest_with_nobody_to_drop_refuses_the_newcomer() {
    let gate = Gate::new();
    let site = Site::serve(narrow(0).overload(Overload::DropOldest), Held(gate.clone()));
    let mut first = occupy(&site);
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::QueueFull, 1);
    gate.open();
    first.hear("first");
    site.end();
}

#[test]
fn a_queue_of_0_hands_over_and_lets_nobody_wait() {
    let gate = Gate::new();
    let site = Site::serve(narrow(0).workers(2), Held(gate.clone()));
    let mut served: Vec<Client> = (1..=2)
        .map(|n| {
            let mut client = site.client();
            client.say("me");
            site.until("it has a worker", |now| now.active == n);
            client
        })
        .collect();
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::QueueFull, 1);
    gate.open();
    for client in &mut served {
        client.hear("me");
    }
    site.client().say("again").hear("again");
    site.end();
}

#[test]
fn without_a_budget_for_refusals_the_kernel_holds_and_refuses() {
    let gate = Gate::new();
    let site =
        Site::serve(narrow(1).refusal_rate(RefusalRate::PerSecond(0.0)).backlog(8), Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting = line_up(&site, 1);
    let mut held: Vec<Client> = (0..8).map(|_| site.client()).collect();
    throughout(Duration::from_millis(300), "nobody is refused by us", || {
        let now = site.counts();
        (now.accepted, now.dropped_total()) == (2, 0)
    });
    // The backlog takes one more than its number; what is past it is not answered by the kernel.
    let late = (0..3).filter_map(|_| Client::try_connect(site.address, Duration::from_millis(200)).ok());
    held.extend(late);
    assert!(held.len() <= 10, "the backlog of 8 took {}", held.len());
    gate.open();
    first.hear("first");
    waiting[0].hear("next");
    for client in &mut held {
        client.say("held").hear("held");
    }
    site.end();
}

#[test]
fn refusals_keep_to_their_rate_and_the_rest_waits() {
    let gate = Gate::new();
    let site =
        Site::serve(narrow(1).refusal_rate(RefusalRate::PerSecond(20.0)).backlog(256), Held(gate.clone()));
    let _first = occupy(&site);
    let _waiting = line_up(&site, 1);
    let began = Instant::now();
    let _crowd: Vec<Client> = (0..100).map(|_| site.client()).collect();
    site.until("ten are refused", |now| now.dropped_total() >= 10);
    let refused = site.dropped(DropReason::QueueFull);
    // A tenth of a second's worth may come at once.
    let most = 2.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!(refused as f64 <= most + 1.0, "{refused} refusals in {:?}", began.elapsed());
    gate.open();
    site.end();
}

#[test]
fn a_listener_that_is_overloaded_without_end_does_not_stop_the_others() {
    let gate = Gate::new();
    let limits = narrow(1).refusal_rate(RefusalRate::PerSecond(20.0)).backlog(256);
    let builder = Server::builder().limits(limits).listen("127.0.0.1:0", Held(gate.clone())).unwrap();
    let site = Site::build(builder, Echo);
    let quiet = site.handle().addresses()[1].ip().unwrap();
    let _first = occupy(&site);
    let _waiting = line_up(&site, 1);
    let _crowd: Vec<Client> = (0..200).map(|_| site.client()).collect();
    for n in 1..=3 {
        assert_eq!(Client::connect(quiet).end(), End::Reset);
        let stats = site.stats();
        assert_eq!(stats.listeners[1].dropped[DropReason::QueueFull as usize], n);
        // The crowd is still there: 200 at 20 a second take 10 seconds.
        let waiting = stats.listeners[0].backlog.map_or(0, |backlog| backlog.connections);
        assert!(waiting > 0, "its client waited for the end of the crowd: {:?}", stats.listeners);
    }
    gate.open();
    Client::connect(quiet).say("in").hear("in");
    site.end();
}

#[test]
fn who_waits_too_long_is_shed_though_no_worker_is_free() {
    let gate = Gate::new();
    let limits = narrow(8).queue_timeout(Duration::from_millis(500));
    let site = Site::build(Server::builder().limits(limits).busy_reply("too late\n"), Held(gate.clone()));
    let mut first = occupy(&site);
    let mut waiting: Vec<Client> = (0..3).map(|_| site.client()).collect();
    for client in &mut waiting {
        let (said, end) = client.rest();
        assert_eq!((said.as_slice(), end), (&b"too late\n"[..], End::Fin));
    }
    site.until_dropped(DropReason::QueueTimeout, 3);
    assert_eq!(site.counts().active, 1, "the worker is still held");
    gate.open();
    first.hear("first");
    site.end();
}

#[test]
fn who_left_while_waiting_gets_no_turn() {
    let gate = Gate::new();
    let site = Site::serve(narrow(8), Held(gate.clone()));
    let mut first = occupy(&site);
    drop(site.client());
    site.client().reset();
    let mut spoke = site.client();
    spoke.say("a request that nobody waits for");
    spoke.reset();
    let mut half_closed = site.client();
    half_closed.say("still listening").finish();
    site.until("four wait", |now| now.queued == 4);
    // A younger one is not looked at.
    let since = Instant::now();
    eventually("they have waited", || (since.elapsed() > Duration::from_millis(20)).then_some(()));
    gate.open();
    first.hear("first");
    assert_eq!(half_closed.rest(), (b"still listening".to_vec(), End::Fin));
    site.until_dropped(DropReason::ClientGone, 3);
    assert_eq!(site.closed(CloseReason::Client), 1);
    figure("3 who left were dropped without a turn, the one that had closed its half was answered");
    site.end();
}

#[test]
fn an_established_client_that_resets_while_it_waits_is_ended_before_a_worker_is_free() {
    let gate = Gate::new();
    let site = Site::serve(narrow(8), patient_lines(gate.clone()));
    let (mut busy, mut leaving) = (site.client(), site.client());
    busy.say("a\n").hear("a\n");
    leaving.say("b\n").hear("b\n");
    busy.say("hold\n");
    site.until("the worker is held", |now| now.active == 1);
    leaving.say("one\n");
    eventually("it is on the shelf", || (site.stats().shelf_length == 1).then_some(()));
    leaving.reset();
    site.until("its turn is shed", |now| now.turns_shed[TurnShed::ClientGone as usize] == 1);
    site.until_closed(CloseReason::Client, 1);
    assert_eq!(site.counts().active, 1, "the worker is still held");
    gate.open();
    busy.hear("hold\n");
    site.end();
}

/// Keeps every processor busy for as long as it lives.
struct Burning(Arc<AtomicBool>);

impl Burning {
    fn new() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients whose requests wait behind one that holds the worker, and that have all left while no processor had rest; and
/// the one that holds it.
fn leave_under_overload(site: &Site, count: u64) -> Client {
    let mut busy = site.client();
    busy.say("a\n").hear("a\n");
    let established = |_| {
        let mut client = site.client();
        client.say("b\n").hear("b\n");
        client
    };
    let mut leaving: Vec<Client> = (0..count).map(established).collect();
    busy.say("hold\n");
    site.until("the worker is held", |now| now.active == 1);
    for client in &mut leaving {
        client.say("one\n");
    }
    eventually("all are on the shelf", || (site.stats().shelf_length == count).then_some(()));
    // It takes the timekeeper two looks, of 200 ms each, to see that the processors have no rest.
    let since = Instant::now();
    eventually("it has looked", || (since.elapsed() > Duration::from_millis(600)).then_some(()));
    leaving.into_iter().for_each(Client::reset);
    site.until("their turns are shed", |now| now.turns_shed[TurnShed::ClientGone as usize] == count);
    busy
}

#[test]
fn under_overload_the_sockets_of_leavers_are_closed_over_the_next_seconds() {
    let gate = Gate::new();
    let limits = narrow(8).queue_timeout(Duration::from_secs(60));
    let site = Site::serve(limits, patient_lines(gate.clone()));
    let burning = Burning::new();
    let began = Instant::now();
    let mut busy = leave_under_overload(&site, 60);
    // Their ends are counted, and the books balance, which each reading checks.
    site.until_closed(CloseReason::Client, 60);
    let late = site.stats().late_closes;
    assert!(late > 0, "60 left, and each was closed at once");
    eventually("the sockets are closed one by one", || (site.stats().late_closes < late).then_some(()));
    eventually("all are closed", || (site.stats().late_closes == 0).then_some(()));
    figure(format!("{late} of 60 to be closed late, the last {:.1?} after the first came", began.elapsed()));
    drop(burning);
    gate.open();
    busy.hear("hold\n");
    site.end();
}

#[test]
fn late_closes_do_not_outlast_the_overload() {
    let gate = Gate::new();
    let limits = narrow(8).queue_timeout(Duration::from_secs(60));
    let site = Site::serve(limits, patient_lines(gate.clone()));
    let burning = Burning::new();
    let mut busy = leave_under_overload(&site, 60);
    assert!(site.stats().late_closes > 0);
    drop(burning);
    gate.open();
    busy.hear("hold\n");
    let since = Instant::now();
    eventually("they are closed", || (site.stats().late_closes == 0).then_some(()));
    figure(format!("all closed {:.1?} after the last turn", since.elapsed()));
    site.end();
}

#[test]
fn connections_have_a_limit_and_a_place_comes_back() {
    let site = Site::serve(Limits::default().max_connections(3).queue(2), Echo);
    let mut open: Vec<Client> = (0..3).map(|_| site.client()).collect();
    for client in &mut open {
        client.say("in").hear("in");
    }
    assert_eq!(site.client().end(), End::Reset);
    site.until_dropped(DropReason::MaxConnections, 1);
    drop(open.pop());
    eventually("the place is free", || served(site.client()));
    for client in &mut open {
        client.say("still").hear("still");
    }
    site.end();
}

#[test]
fn a_source_has_its_own_limit_and_its_own_rate() {
    let site = Site::serve(Limits::default().max_per_source(2), Echo);
    let mut greedy: Vec<Client> = (0..2).map(|_| Client::from("127.0.0.2", site.address)).collect();
    for client in &mut greedy {
        client.say("in").hear("in");
    }
    assert_eq!(Client::from("127.0.0.2", site.address).end(), End::Reset);
    site.until_dropped(DropReason::PerSource, 1);
    Client::from("127.0.0.3", site.address).say("other").hear("other");
    drop(greedy.pop());
    eventually("its place is free", || served(Client::from("127.0.0.2", site.address)));
    site.end();

    let site = Site::serve(Limits::default().source_rate(0.5), Echo);
    Client::from("127.0.0.2", site.address).say("first").hear("first");
    assert_eq!(Client::from("127.0.0.2", site.address).end(), End::Reset);
    site.until_dropped(DropReason::Rate, 1);
    Client::from("127.0.0.3", site.address).say("other").hear("other");
    let began = Instant::now();
    eventually("its rate recovers", || served(Client::from("127.0.0.2", site.address)));
    figure(format!(
        "one of three dropped for per_source, one of two for rate; let in again after {:.1?}",
        began.elapsed()
    ));
    site.end();
}

#[test]
fn who_is_refused_for_its_source_is_told_so_at_the_same_rate_and_else_reset() {
    let limits = Limits::default().max_per_source(1).refusal_rate(RefusalRate::PerSecond(20.0));
    let site = Site::build(Server::builder().limits(limits).busy_reply("one is enough\n"), Echo);
    let mut only = site.client();
    only.say("in").hear("in");
    let began = Instant::now();
    let mut told = 0;
    for _ in 0..60 {
        let (said, end) = site.client().rest();
        match (said.as_slice(), end) {
            (b"one is enough\n", End::Fin) => told += 1,
            (b"", End::Reset) => {}
            other => panic!("neither told nor reset: {other:?}"),
        }
    }
    site.until_dropped(DropReason::PerSource, 60);
    // A tenth of a second's worth may come at once.
    let most = 2.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!(told >= 2 && f64::from(told) <= most + 1.0, "{told} were told in {:?}", began.elapsed());
    only.say("still").hear("still");
    site.end();
}

#[test]
fn a_standing_queue_serves_the_freshest_first_and_a_calm_one_in_order() {
    for (wait, order) in [(0, [0, 1, 2, 3, 4]), (200, [4, 3, 2, 1, 0])] {
        let (gate, served) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
        let (at, notes) = (gate.clone(), served.clone());
        let service = lines("noting", move |line, reply| {
            at.pass();
            notes.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
            reply.send(b"done\n")
        });
        let site = Site::serve(narrow(64), service);
        let mut holder = site.client();
        holder.say("hold\n");
        site.until("the worker is held", |now| now.active == 1);
        let mut waiting = Vec::new();
        for n in 0..5u64 {
            waiting.push(site.client());
            waiting.last_mut().unwrap().say(format!("{n}\n"));
            site.until("it waits", |now| now.queued == n + 1);
        }
        let since = Instant::now();
        let wait = Duration::from_millis(wait);
        eventually("they have waited", || (since.elapsed() >= wait).then_some(()));
        gate.open();
        waiting.iter_mut().for_each(|client| _ = client.hear("done\n"));
        let expected: Vec<String> =
            std::iter::once("hold".to_owned()).chain(order.iter().map(|n| n.to_string())).collect();
        assert_eq!(*served.lock().unwrap(), expected, "after {wait:?}");
        site.end();
    }
}

/// Answers each line with itself, and holds its worker for one that says `hold`.
fn patient_lines(gate: Arc<Gate>) -> tidegate::Lines<(), impl tidegate::service::AnswerLine<()>> {
    lines("patient", move |line, reply| {
        if line == b"hold" {
            gate.pass();
        }
        reply.send(&[line, b"\n"].concat())
    })
}

/// Two lines of an established client wait longer than `queue_timeout`; what it hears, and that it is served later.
fn lines_that_waited_too_long(site: &Site, gate: &Gate, told: &str) {
    let (mut busy, mut late) = (site.client(), site.client());
    busy.say("a\n").hear("a\n");
    late.say("b\n").hear("b\n");
    busy.say("hold\n");
    site.until("the worker is held", |now| now.active == 1);
    late.say("one\ntwo\nthr");
    site.until("they have waited too long", |now| now.turns_shed[TurnShed::QueueTimeout as usize] == 1);
    gate.open();
    busy.hear("hold\n");
    late.hear(told).hear(told).say("ee\n").hear("three\n");
    assert_eq!(site.counts().accepted, 2, "nobody had to come back");
}

#[test]
fn a_line_that_waited_too_long_is_answered_with_the_busy_reply_and_its_connection_stays() {
    let gate = Gate::new();
    let service = patient_lines(gate.clone()).busy_reply("busy: come again in {retry-after} s");
    let site = Site::serve(narrow(2).queue_timeout(Duration::from_millis(500)), service);
    lines_that_waited_too_long(&site, &gate, "busy: come again in 1 s\n");
    site.end();
}

#[test]
fn a_service_of_lines_can_answer_an_overload_itself() {
    let gate = Gate::new();
    let service = patient_lines(gate.clone()).on_overload(|(), line, reply, wait| {
        let line = String::from_utf8_lossy(line).len();
        reply.send(format!("{line} bytes, in {} s\n", wait.as_secs()).as_bytes())
    });
    let site = Site::serve(narrow(2).queue_timeout(Duration::from_millis(500)), service);
    lines_that_waited_too_long(&site, &gate, "3 bytes, in 1 s\n");
    site.end();
}

#[test]
fn a_line_that_waited_too_long_ends_its_connection_where_there_are_no_words_for_it() {
    let gate = Gate::new();
    let site = Site::serve(narrow(2).queue_timeout(Duration::from_millis(500)), patient_lines(gate.clone()));
    let (mut busy, mut late) = (site.client(), site.client());
    busy.say("a\n").hear("a\n");
    late.say("b\n").hear("b\n");
    busy.say("hold\n");
    site.until("the worker is held", |now| now.active == 1);
    late.say("one\n");
    site.until_closed(CloseReason::Overload, 1);
    assert_eq!(late.end(), End::Reset);
    gate.open();
    busy.hear("hold\n");
    site.end();
}
