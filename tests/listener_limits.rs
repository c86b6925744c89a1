//! Limits of a listener's own: how many connections it may have, how many newcomers may wait there and for how long. One
//! listener that is flooded comes to its own bound, and the others do not notice.

mod support;

use rustix::process::Signal;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{
    Client, End, Ending, Folder, Gate, Held, Program, Reply, Running, Site, command, eventually, path, run,
    throughout,
};
use tidegate::metrics::snapshot::ListenerSnapshot;
use tidegate::reason::DropReason;
use tidegate::{
    Echo, Limits, Listen, Overload, Peer, Received, RefusalRate, Server, Service, Session, Stream, Turn,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The limits of these tests: every refusal is made at once, and nothing ends by time.
fn base() -> Limits {
    let limits = Limits::default().workers(1).queue(8).max_connections(16);
    limits.refusal_rate(RefusalRate::All).queue_timeout(HOUR).queue_target(HOUR)
}

fn listen(service: impl Service, own: impl Fn(Limits) -> Limits + Send + Sync + 'static) -> Listen {
    Listen::new("127.0.0.1:0", service).unwrap().limits(own)
}

fn sites(limits: Limits, first: Listen, second: Listen) -> (Site, SocketAddr, SocketAddr) {
    let site = Site::listening(Server::builder().limits(limits).listener(first).listener(second));
    let addresses: Vec<_> = site.handle().addresses().iter().filter_map(|address| address.ip()).collect();
    (site, addresses[0], addresses[1])
}

#[track_caller]
fn served(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.say("x").hear("x");
    client
}

/// Waits until the counts of one listener are as `holds` wants them; all counts are conserved at each look.
#[track_caller]
fn until(site: &Site, listener: usize, what: &str, holds: impl Fn(&ListenerSnapshot) -> bool) {
    eventually(what, || holds(&site.stats().listeners[listener]).then_some(()));
}

/// A client that waits at a listener, which has so many then.
#[track_caller]
fn waits(site: &Site, (listener, address): (usize, SocketAddr), count: u64) -> Client {
    let mut client = Client::connect(address);
    client.say("waits");
    until(site, listener, "it waits", |now| now.queued == count);
    client
}

fn dropped(site: &Site, reason: DropReason) -> [u64; 2] {
    [0, 1].map(|listener| site.stats().listeners[listener].dropped[reason as usize])
}

#[test]
fn a_listener_has_as_many_connections_as_it_may_and_the_others_have_the_rest() {
    let few = listen(Echo, |limits| limits.max_connections(3)).busy_reply("three are here\n");
    let (site, few, rest) = sites(base(), few, listen(Echo, |limits| limits));
    let mut own: Vec<_> = (0..3).map(|_| served(few)).collect();
    for _ in 0..5 {
        assert_eq!(Client::connect(few).rest(), (b"three are here\n".to_vec(), End::Fin));
    }
    let mut others: Vec<_> = (0..13).map(|_| served(rest)).collect();
    assert_eq!(Client::connect(rest).end(), End::Reset, "16 are open in all");
    assert_eq!(dropped(&site, DropReason::MaxConnections), [5, 1]);
    others.truncate(1);
    until(&site, 1, "all but one have left", |now| now.open() == 1);
    assert_eq!(Client::connect(few).rest().1, End::Fin, "the places of others are not its own");
    own.truncate(2);
    until(&site, 0, "one has left", |now| now.open() == 2);
    own.push(served(few));
    for client in own.iter_mut().chain(&mut others) {
        client.say("y").hear("y");
    }
    assert_eq!(dropped(&site, DropReason::MaxConnections), [6, 1]);
    site.end();
}

#[test]
fn the_queue_of_a_listener_is_full_for_its_own_newcomers_only() {
    let gate = Gate::new();
    let own = listen(Held(gate.clone()), |limits| limits.queue(2));
    let (site, short, long) = sites(base(), own, listen(Held(gate.clone()), |limits| limits));
    let mut first = Client::connect(short);
    first.say("first");
    until(&site, 0, "it has the worker", |now| now.active == 1);
    let mut waiting: Vec<_> = (1..=2).map(|count| waits(&site, (0, short), count)).collect();
    for _ in 0..5 {
        assert_eq!(Client::connect(short).end(), End::Reset);
    }
    waiting.extend((1..=6).map(|count| waits(&site, (1, long), count)));
    assert_eq!(Client::connect(long).end(), End::Reset, "8 wait in all");
    assert_eq!(dropped(&site, DropReason::QueueFull), [5, 1]);
    gate.open();
    first.hear("first");
    waiting.iter_mut().for_each(|client| {
        client.hear("waits");
    });
    site.end();
}

#[test]
fn a_full_queue_of_a_listener_gives_up_the_oldest_of_its_own() {
    let gate = Gate::new();
    let drops = listen(Held(gate.clone()), |limits| limits.queue(1).overload(Overload::DropOldest));
    let (site, drops, other) = sites(base(), drops, listen(Held(gate.clone()), |limits| limits));
    let mut first = Client::connect(other);
    first.say("first");
    until(&site, 1, "it has the worker", |now| now.active == 1);
    let mut oldest_of_all = waits(&site, (1, other), 1);
    let mut oldest = waits(&site, (0, drops), 1);
    let mut newest = Client::connect(drops);
    newest.say("newest");
    assert_eq!(oldest.end(), End::Reset);
    until(&site, 0, "the newest has its place", |now| now.queued == 1);
    assert_eq!(dropped(&site, DropReason::QueueFull), [1, 0]);
    gate.open();
    first.hear("first");
    oldest_of_all.hear("waits");
    newest.hear("newest");
    site.end();
}

#[test]
fn each_listener_has_its_own_patience_with_what_waits() {
    let gate = Gate::new();
    let hasty = listen(Held(gate.clone()), |limits| limits.queue_timeout(Duration::from_millis(300)));
    // The queue stands soon, as it does by default: what waits is on the shelf then.
    let limits = base().queue_target(Duration::from_millis(20));
    let (site, hasty, patient) = sites(limits, hasty, listen(Held(gate.clone()), |limits| limits));
    let mut first = Client::connect(patient);
    first.say("first");
    until(&site, 1, "it has the worker", |now| now.active == 1);
    // Those that are patient wait longer, and before and between the others.
    let mut stay = vec![waits(&site, (1, patient), 1)];
    let mut go = vec![waits(&site, (0, hasty), 1)];
    stay.push(waits(&site, (1, patient), 2));
    go.push(waits(&site, (0, hasty), 2));
    for client in &mut go {
        assert_eq!(client.end(), End::Reset);
    }
    assert_eq!(dropped(&site, DropReason::QueueTimeout), [2, 0]);
    throughout(Duration::from_millis(400), "the patient ones stay", || site.stats().listeners[1].queued == 2);
    gate.open();
    first.hear("first");
    stay.iter_mut().for_each(|client| {
        client.hear("waits");
    });
    site.end();
}

/// Nobody may be refused, so whoever comes to the full listener waits in the kernel, and the acceptor holds back its newcomers.
#[test]
fn newcomers_that_are_held_back_at_one_listener_hold_up_no_other() {
    let limits = base().refusal_rate(RefusalRate::PerSecond(0.0));
    let one = listen(Echo, |limits| limits.max_connections(1));
    let (site, one, other) = sites(limits, one, listen(Echo, |limits| limits));
    for round in 0..5 {
        let mut holds = served(one);
        let mut held = Client::connect(one);
        held.say(format!("held {round}"));
        for _ in 0..20 {
            served(other);
        }
        let now = site.stats();
        assert_eq!((now.listeners[0].open(), now.listeners[0].dropped_total()), (1, 0));
        holds.finish();
        assert_eq!(holds.end(), End::Fin);
        held.hear(format!("held {round}")).finish();
        assert_eq!(held.end(), End::Fin);
        until(&site, 0, "it is empty", |now| now.open() == 0);
    }
    site.end();
}

#[test]
fn a_listener_has_no_larger_part_than_all() {
    let error = |own: fn(Limits) -> Limits| {
        let builder = Server::builder().limits(base()).listener(listen(Echo, own));
        builder.bind().unwrap_err().to_string()
    };
    let larger = "for all listeners together: a listener cannot have more than all";
    let told = error(|limits| limits.max_connections(17));
    assert_eq!(told, format!("listener 127.0.0.1:0: max-connections is 17 here and 16 {larger}"));
    let told = error(|limits| limits.queue(9));
    assert_eq!(told, format!("listener 127.0.0.1:0: queue is 9 here and 8 {larger}"));
    // The whole becomes smaller than a part.
    let part = listen(Echo, |limits| limits.max_connections(10));
    let site = Site::listening(Server::builder().limits(base()).listener(part));
    let told = site.handle().set_limits(base().max_connections(9)).unwrap_err().to_string();
    assert!(told.ends_with(&format!("max-connections is 10 here and 9 {larger}")), "{told}");
    assert_eq!(site.handle().limits(), base());
}

/// The queue stands, and is full of newcomers of the first listener. Those of the second have their part of it, though they
/// come from the same address; more of either push out their own.
#[test]
fn a_flood_at_one_listener_leaves_each_other_its_share_of_the_queue() {
    for rate in [RefusalRate::All, RefusalRate::PerSecond(0.0)] {
        let gate = Gate::new();
        let limits = base().queue_target(Duration::from_millis(20)).refusal_rate(rate);
        let held = || listen(Held(gate.clone()), |limits| limits);
        let (site, flooded, other) = sites(limits, held(), held());
        let mut first = Client::connect(flooded);
        first.say("first");
        until(&site, 0, "it has the worker", |now| now.active == 1);
        let mut flood: Vec<_> = (1..=8).map(|count| waits(&site, (0, flooded), count)).collect();
        eventually("the queue stands", || site.stats().standing.map(drop));
        let mut others: Vec<_> = (1..=4).map(|count| waits(&site, (1, other), count)).collect();
        assert_eq!(dropped(&site, DropReason::QueueFull), [4, 0], "the flood makes room");
        if rate == RefusalRate::All {
            for (listener, at, own) in [(0, flooded, &mut flood), (1, other, &mut others)] {
                let mut newest = Client::connect(at);
                newest.say("waits");
                own.push(newest);
                until(&site, listener, "one of its own makes room", |now| {
                    (now.accepted, now.queued) == (10 - 5 * listener as u64, 4)
                });
            }
            assert_eq!(dropped(&site, DropReason::QueueFull), [5, 1]);
        }
        gate.open();
        first.hear("first");
        for clients in [&mut flood, &mut others] {
            let served = clients.iter_mut().filter_map(|client| client.heard(&mut [0; 5]).then_some(()));
            assert_eq!(served.count(), 4);
        }
        site.end();
    }
}

/// Notes the name of a listener for each of its turns with a request.
struct Noted(&'static str, Arc<Gate>, Arc<Mutex<Vec<&'static str>>>);

impl Service for Noted {
    fn connect(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Noted(self.0, self.1.clone(), self.2.clone()))
    }
}

impl Session for Noted {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        match stream.receive()? {
            Received::Data(_) => {
                self.1.pass();
                self.2.lock().unwrap().push(self.0);
                Ok(Turn::Park)
            }
            Received::Nothing => Ok(Turn::Park),
            Received::End => Ok(Turn::Close),
        }
    }
}

/// The freshest clients are all at the flooded listener, and all clients have one address.
#[test]
fn a_flood_at_one_listener_takes_no_turns_from_those_of_the_same_source_at_another() {
    let (gate, order) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let noted = |name| listen(Noted(name, gate.clone(), order.clone()), |limits| limits);
    let limits = base().queue(16).queue_target(Duration::from_millis(20));
    let (site, flooded, other) = sites(limits, noted("flooded"), noted("other"));
    let mut first = Client::connect(flooded);
    first.say("first");
    until(&site, 0, "it has the worker", |now| now.active == 1);
    let mut flood: Vec<_> = (1..=3).map(|count| waits(&site, (0, flooded), count)).collect();
    let _waits = waits(&site, (1, other), 1);
    // What waits in the kernel tells its age in milliseconds: those that come later are younger for certain.
    throughout(Duration::from_millis(50), "it waits", || site.stats().listeners[1].queued == 1);
    flood.extend((4..=9).map(|count| waits(&site, (0, flooded), count)));
    eventually("the queue stands", || site.stats().standing.map(drop));
    gate.open();
    eventually("all have had their turns", || (order.lock().unwrap().len() == 11).then_some(()));
    let turn = order.lock().unwrap().iter().position(|name| *name == "other");
    // The first was in its turn, and one of the flood may come before it.
    assert!(turn.is_some_and(|turn| turn <= 2), "{turn:?}: {order:?}");
    site.end();
}

/// Two listeners in a file: one may have three connections, two of them new.
fn file(folder: &Folder, connections: usize) -> String {
    let path = folder.path("tidegate.toml");
    let text = format!(
        "admin = \"127.0.0.1:0\"\nrefusal-rate = \"all\"\nqueue-timeout = \"9s\"\n\
         [[listener]]\nlisten = \"echo=tcp://127.0.0.1:0\"\nmax-connections = {connections}\nqueue = 2\n\
         queue-timeout = \"250ms\"\n[[listener]]\nlisten = \"hello=tcp://127.0.0.1:0\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[track_caller]
fn metrics(server: &Running) -> String {
    let mut client = Client::connect(server.admin());
    let reply: Reply = client.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    reply.text().to_owned()
}

/// What a listener has dropped for a reason.
fn dropped_at(metrics: &str, listener: SocketAddr, reason: DropReason) -> u64 {
    let series = format!("listener=\"tcp://{listener}\",reason=\"{reason}\"}} ");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("tidegate_connections_dropped_total") && line.contains(&series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_flood_at_one_listener_of_the_program_comes_to_its_bound_and_the_other_is_untouched() {
    let folder = Folder::new("listener-limits");
    let config = file(&folder, 3);
    let server = Program::new().without_echo().drop_first_admin().arg("--config", &config).start();
    let [flooded, quiet] = server.addresses()[..] else { panic!("{}", server.stdout()) };
    let target = format!("tcp://{flooded}");
    let mut flood = command(path());
    flood.args([
        "stress",
        &target,
        "-c",
        "40",
        "--reuse",
        "never",
        "-d",
        "3s",
        "--warmup",
        "0s",
        "--progress",
        "off",
    ]);
    let mut flood = Ending(flood.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the flood comes to the bound", || {
        (dropped_at(&metrics(&server), flooded, DropReason::MaxConnections) > 50).then_some(())
    });
    for number in 0..200 {
        let mut client = Client::connect(quiet);
        client.say(format!("{number}\n")).hear(format!("hello {number}\n"));
    }
    assert!(flood.0.try_wait().unwrap().is_none(), "the flood lasts");
    let seen = metrics(&server);
    for reason in DropReason::ALL {
        assert_eq!(dropped_at(&seen, quiet, *reason), 0, "{reason}");
    }
    flood.0.wait().unwrap();
    eventually("the flood is over", || {
        let open = metrics(&server);
        let open = open.lines().filter(|line| line.starts_with("tidegate_connections{"));
        open.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
            .eq(&0)
            .then_some(())
    });
    let mut three: Vec<_> = (0..3).map(|_| served(flooded)).collect();
    assert_eq!(Client::connect(flooded).end(), End::Reset);
    file(&folder, 4);
    server.signal(Signal::HUP);
    eventually("the log says what has changed", || {
        let change = format!("max-connections 3 -> 4 at tcp://{flooded}");
        server.stderr().contains(&change).then_some(())
    });
    three.push(served(flooded));
    assert_eq!(Client::connect(flooded).end(), End::Reset);
    three.iter_mut().for_each(|client| {
        client.say("y").hear("y");
    });
}

#[test]
fn check_shows_a_listeners_part_and_says_when_it_is_more_than_the_whole() {
    let folder = Folder::new("listener-check");
    let config = file(&folder, 3);
    let check = |more: &[&str]| {
        let output = run([&["check", "--config", &config], more].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, shown) = check(&[]);
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "echo tcp://127.0.0.1:0 queue 2 max-connections 3 backlog auto overload reject queue-timeout 250ms",
        "hello tcp://127.0.0.1:0 queue 128 max-connections 10000 backlog auto overload reject queue-timeout 9s",
    ] {
        assert!(words.contains(part), "`{part}` is not in {shown}");
    }
    let (code, said) = check(&["--max-connections", "2", "--queue", "1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("queue is 2 here and 1 for all listeners together"), "{said}");
}
