//! Listeners for datagrams that open and close at SIGHUP: what was received is answered, and what is counted adds up.
#![cfg(target_os = "linux")]

#[path = "support/configuration.rs"]
mod configuration;
mod support;

use configuration::{Configuration, address, listen, listener, reload, status};
use rustix::process::Signal;
use serde_json::Value;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, Running, command, eventually, path};

const ECHO: &str = "echo=tcp://127.0.0.1:0";
const DATAGRAMS: &str = "echo=udp://127.0.0.1:0";

/// A client of one address, which hears when nobody is there.
fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[track_caller]
fn hear(socket: &UdpSocket, expected: &str) {
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..len], expected.as_bytes());
}

/// Nobody has the address: the kernel says so.
fn is_refused(address: SocketAddr) -> bool {
    let socket = client(address);
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let _ = socket.send(b"x");
    socket.recv(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// What was received is answered, or was dropped by the server and counted.
#[track_caller]
fn accounted(listener: &Value) {
    let sum = |name: &str| -> u64 {
        listener[name].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    };
    let kernel = listener["datagrams_dropped"]["kernel_buffer"].as_u64().unwrap();
    assert_eq!(
        listener["datagrams_received"],
        sum("turns") + sum("datagrams_dropped") - kernel,
        "{listener}"
    );
}

#[test]
fn one_for_datagrams_opens_closes_and_opens_again_and_keeps_its_counts() {
    let file = Configuration::new("datagrams", &listen(&[ECHO]));
    let server = file.program().without_echo().start();
    file.write(&listen(&[DATAGRAMS, ECHO, "hello=tcp://127.0.0.1:0"]));
    let said = reload(&server);
    assert!(said.ends_with(&format!("{DATAGRAMS} opens, hello=tcp://127.0.0.1:0 opens")), "{said}");
    let datagrams = address(&server, 1);
    let asks = client(datagrams);
    asks.send(b"first").unwrap();
    hear(&asks, "first");
    assert_eq!(listener(&server, 2)["service"], "hello", "each has its place");

    for round in 0..3 {
        file.write(&listen(&[ECHO]));
        let said = reload(&server);
        assert!(said.contains(&format!("{DATAGRAMS} closes")), "{said}");
        eventually("its port is free", || is_refused(datagrams).then_some(()));
        let closed = listener(&server, 1);
        assert_eq!(
            (&closed["listening"], &closed["datagrams_received"]),
            (&false.into(), &(1 + round).into())
        );
        accounted(&closed);
        assert_eq!(status(&server)["view"]["rows"]["listeners"][1][7], "closed");

        file.write(&listen(&[ECHO, DATAGRAMS]));
        let said = reload(&server);
        assert!(said.contains(&format!("{DATAGRAMS} opens")), "{said}");
        assert_eq!(address(&server, 1), datagrams, "it is where it was");
        let again = client(datagrams);
        again.send(b"again").unwrap();
        hear(&again, "again");
    }
    assert_eq!(status(&server)["listeners"].as_array().unwrap().len(), 3);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
    assert!(is_refused(datagrams));
}

#[test]
fn where_a_port_is_taken_nothing_opens_and_nothing_closes() {
    let file = Configuration::new("datagrams-busy", &["queue = 40\n", &listen(&[ECHO, DATAGRAMS])].concat());
    let server = file.program().without_echo().start();
    let datagrams = address(&server, 1);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let busy = format!("time=udp://{}", taken.local_addr().unwrap());
    let time = format!("time=udp://{datagrams}");
    for (listeners, limits, why) in [
        (
            vec![ECHO, "hello=udp://127.0.0.1:0", &busy],
            "queue = 40\n",
            "the address is in use: end what listens there",
        ),
        (
            vec![ECHO, &time],
            "queue = 40\n",
            "is where another one was since the start: it opens at a restart",
        ),
        (vec![ECHO, DATAGRAMS], "queue = 41\n", "because there are places for that many datagrams"),
    ] {
        file.write(&[limits, "idle-timeout = \"2h\"\n", &listen(&listeners)].concat());
        let said = reload(&server);
        assert!(said.contains("nothing has changed: ") && said.contains(why), "{said}");
        assert_eq!(status(&server)["listeners"].as_array().unwrap().len(), 2, "{listeners:?}");
        assert_eq!(status(&server)["limits"]["idle-timeout"], "60s", "{listeners:?}");
        let asks = client(datagrams);
        asks.send(b"x").unwrap();
        hear(&asks, "x");
    }
    // Where connections are taken, datagrams may be taken too.
    let beside = format!("time=udp://{}", address(&server, 0));
    drop(taken);
    file.write(&["queue = 40\n", &listen(&[ECHO, &busy, &beside])].concat());
    let said = reload(&server);
    assert!(said.contains(&format!("{busy} opens, {beside} opens, {DATAGRAMS} closes")), "{said}");
    let asks = client(address(&server, 0));
    asks.send(b"?").unwrap();
    assert!(asks.recv(&mut [0; 64]).unwrap() > 20, "the time of day");
}

/// A server without a listener for datagrams may have a longer queue than at its start; there are not as many places for
/// datagrams.
#[test]
fn where_the_queue_was_raised_beyond_the_places_one_for_datagrams_waits_for_a_restart() {
    let file = Configuration::new("datagrams-places", &["queue = 4\n", &listen(&[ECHO])].concat());
    let server = file.program().without_echo().start();
    file.write(&["queue = 400\n", &listen(&[ECHO])].concat());
    assert!(reload(&server).contains("queue 4 -> 400"));
    file.write(&["queue = 400\n", &listen(&[ECHO, DATAGRAMS])].concat());
    let said = reload(&server);
    assert!(said.contains("queue is 400: until a restart it can be 4 at most"), "{said}");
    file.write(&["queue = 4\n", &listen(&[ECHO, DATAGRAMS])].concat());
    assert!(reload(&server).contains("opens"));
}

#[test]
fn what_was_received_before_it_closed_is_answered_and_what_comes_later_is_not_taken() {
    let text = |listeners: &[&str]| format!("work = \"sleep:700ms\"\nworkers = 2\n{}", listen(listeners));
    let work = "work=udp://127.0.0.1:0";
    let file = Configuration::new("datagrams-last", &text(&[ECHO, work]));
    let server = file.program().without_echo().start();
    let datagrams = address(&server, 1);
    // Two are at work, and the others wait.
    let asking: Vec<_> = (0..6)
        .map(|number| {
            let asks = client(datagrams);
            asks.send(format!("{number}").as_bytes()).unwrap();
            asks
        })
        .collect();
    eventually("they are at work", || (status(&server)["workers"]["busy"] == 2).then_some(()));
    file.write(&text(&[ECHO]));
    assert!(reload(&server).ends_with("closes"));
    let late = client(datagrams);
    let _ = late.send(b"late");
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(late.recv(&mut [0; 8]).is_err(), "nobody takes it");
    asking.iter().enumerate().for_each(|(number, asks)| hear(asks, &number.to_string()));
    eventually("then its port is free", || is_refused(datagrams).then_some(()));
    let closed = listener(&server, 1);
    assert_eq!(closed["datagrams_received"], 6);
    accounted(&closed);

    // One that opens again while it still answers is open, and loses none of these either.
    file.write(&text(&[ECHO, work]));
    assert!(reload(&server).ends_with("opens"));
    let asks = client(datagrams);
    asks.send(b"before").unwrap();
    eventually("it is at work", || (status(&server)["workers"]["busy"] == 1).then_some(()));
    file.write(&text(&[ECHO]));
    assert!(reload(&server).ends_with("closes"));
    file.write(&text(&[ECHO, work]));
    assert!(reload(&server).ends_with("opens"));
    let after = client(datagrams);
    after.send(b"after").unwrap();
    hear(&asks, "before");
    hear(&after, "after");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

/// What its service does not answer within `drain-timeout` is given up, and the port is free.
#[test]
fn a_closed_one_whose_service_is_stuck_is_cut_after_the_drain_timeout() {
    let text = |listeners: &[&str]| {
        format!("work = \"sleep:4s\"\ndrain-timeout = \"300ms\"\nworkers = 2\n{}", listen(listeners))
    };
    let file = Configuration::new("datagrams-stuck", &text(&[ECHO, "work=udp://127.0.0.1:0"]));
    let server = file.program().without_echo().start();
    let datagrams = address(&server, 1);
    let asks = client(datagrams);
    asks.send(b"x").unwrap();
    eventually("it is at work", || (status(&server)["workers"]["busy"] == 1).then_some(()));
    file.write(&text(&[ECHO]));
    let closed_at = Instant::now();
    assert!(reload(&server).ends_with("closes"));
    eventually("its port is free", || is_refused(datagrams).then_some(()));
    assert!(closed_at.elapsed() < Duration::from_millis(3500), "its service was not waited for");
    server.client().say("y").hear("y");
    eventually("the answer that came too late is counted", || {
        (listener(&server, 1)["datagrams_dropped"]["unsent"] == 1).then_some(())
    });
}

/// One datagram after another: each is answered, or the listener was closed meanwhile.
fn ask_on(server: SocketAddr, over: &AtomicBool, answered: &AtomicU64) {
    let socket = client(server);
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (mut number, mut buffer) = (0u64, [0; 64]);
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let words = number.to_string();
        if socket.send(words.as_bytes()).is_err() {
            continue;
        }
        // An answer to one that was given up may come late.
        while let Ok(len) = socket.recv(&mut buffer) {
            answered.fetch_add(1, Ordering::Relaxed);
            if &buffer[..len] == words.as_bytes() {
                break;
            }
        }
    }
}

/// The load generator goes on at a listener for connections while one for datagrams opens and closes: none of its clients is
/// lost, and every datagram that the server has taken is answered.
#[test]
fn no_datagram_that_was_taken_is_lost_while_its_listener_opens_and_closes_ten_times_under_load() {
    let file = Configuration::new("datagrams-load", &listen(&[ECHO, DATAGRAMS]));
    let server =
        file.program().without_echo().arg("--queue", 1000).arg("--datagram-source-rate", "off").start();
    let mut stress = command(path());
    let target = format!("tcp://{}", server.address());
    stress.args(["stress", &target, "-c", "20", "-r", "300", "-d", "5s", "--reuse", "5", "--warmup", "0s"]);
    stress.args(["--output", "json"]);
    let mut load = Running::of(stress.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let datagrams = address(&server, 1);
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ask_on(datagrams, &over, &answered));
        }
        for round in 0..10 {
            let before = answered.load(Ordering::Relaxed);
            let until = Instant::now() + PATIENCE;
            while answered.load(Ordering::Relaxed) < before + 100 {
                assert!(Instant::now() < until, "nobody is answered in round {round}");
                configuration::conserved(&status(&server));
            }
            file.write(&listen(&[ECHO]));
            assert!(reload(&server).ends_with("closes"));
            file.write(&listen(&[ECHO, DATAGRAMS]));
            assert!(reload(&server).ends_with("opens"));
        }
        over.store(true, Ordering::Relaxed);
    });
    load.ended_well();
    let seen = status(&server);
    configuration::conserved(&seen);
    let listener = &seen["listeners"][1];
    accounted(listener);
    let answered = answered.load(Ordering::Relaxed);
    assert_eq!(listener["datagrams_received"], answered, "each that was taken was answered: {listener}");
    println!("{answered} datagrams taken and answered while their listener closed and opened ten times");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}
