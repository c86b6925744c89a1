//! Line services from closures, with state for each connection and every hook.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Client, End, Gate, Site, eventually, hush_panics};
use tidegate::reason::{CloseReason, DropReason};
use tidegate::{Limits, lines, lines_with};

#[test]
fn each_connection_has_a_state_of_its_own() {
    let service = lines_with(
        "count",
        |_peer| 0,
        |lines, _line, reply| {
            *lines += 1;
            reply.send(format!("{lines}\n").as_bytes())
        },
    );
    let site = Site::serve(Limits::default().workers(2), service);
    let (mut one, mut other) = (site.client(), site.client());
    one.say("a\nb\n").hear("1\n2\n");
    other.say("x\n").hear("1\n");
    one.say("c\n").hear("3\n");
    assert_eq!(site.counts().service, "count");
    site.end();
}

#[test]
fn every_hook_of_a_line_service_is_called_in_its_order() {
    hush_panics();
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &str| {
        let (log, what) = (log.clone(), what.to_owned());
        move |more: &str| log.lock().unwrap().push(format!("{what} {more}"))
    };
    let (opened, greeted, closed, failed) = (note("open"), note("greet"), note("close"), note("error"));
    let service = lines_with(
        "hooked",
        move |peer| {
            opened("");
            peer.address.socket_addr().unwrap().port()
        },
        |port, line, reply| {
            assert_eq!(reply.peer().address.socket_addr().unwrap().port(), *port);
            match line {
                b"bye" => reply.close(),
                b"panic" => panic!("as asked"),
                b"fail" => return Err(std::io::Error::other("as asked")),
                _ => {}
            }
            reply.send(line)?;
            reply.send(b"\n")
        },
    )
    .verify(|peer| peer.address.ip() != Some([127, 0, 0, 9].into()))
    .on_open(move |port, reply| {
        assert_eq!(reply.peer().address.socket_addr().unwrap().port(), *port);
        greeted("");
        reply.send(b"welcome\n")
    })
    .on_close(move |_port, reason| closed(reason.as_str()))
    .on_error(move |_peer, error| failed(&error.to_string()))
    .busy_reply("not you\n");
    let site = Site::serve(Limits::default().workers(1), service);
    let said = |words: &str| {
        // The greeting comes before the client says anything.
        let mut client = site.client();
        client.hear("welcome\n").say(words).finish_quietly();
        let rest = client.rest();
        eventually("it is told", || log.lock().unwrap().last()?.starts_with("close").then_some(()));
        rest
    };
    assert_eq!(said("one\nbye\nunheard\n"), (b"one\nbye\n".to_vec(), End::Fin));
    assert_eq!(said("last"), (b"last\n".to_vec(), End::Fin));
    assert_eq!(said("fail\n").1, End::Reset);
    assert_eq!(said("panic\n").1, End::Reset);
    assert_eq!(Client::from("127.0.0.9", site.address).rest(), (b"not you\n".to_vec(), End::Fin));
    let expected = [
        "open ",
        "greet ",
        "close server",
        "open ",
        "greet ",
        "close client",
        "open ",
        "greet ",
        "error as asked",
        "close error",
        "open ",
        "greet ",
        "error the service panicked",
        "close panic",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    assert_eq!(site.dropped(DropReason::Denied), 1);
    site.end();
}

#[test]
fn a_greeting_is_said_to_a_client_that_will_say_nothing() {
    let service =
        lines("greeter", |line, reply| reply.send(line)).on_open(|(), reply| reply.send(b"hello\n"));
    let site = Site::serve(Limits::default(), service);
    let mut silent = site.client();
    silent.finish();
    assert_eq!(silent.rest(), (b"hello\n".to_vec(), End::Fin));
    site.until_closed(CloseReason::Client, 1);
    site.end();
}

#[test]
fn a_line_service_has_words_for_a_client_that_is_refused() {
    let gate = Gate::new();
    let held = gate.clone();
    let service = lines("busy", move |line, reply| {
        held.pass();
        reply.send(line)
    })
    .busy_reply("come back later\n");
    let site = Site::serve(Limits::default().workers(1).queue(1), service);
    let mut first = site.client();
    first.say("a\n");
    site.until("the worker is held", |now| now.active == 1);
    let _second = site.client();
    site.until("one waits", |now| now.queued == 1);
    assert_eq!(site.client().rest(), (b"come back later\n".to_vec(), End::Fin));
    gate.open();
    first.hear("a");
    site.end();
}

#[test]
fn lines_come_with_their_ends_where_that_is_wanted() {
    let service = lines("exact", |line, reply| reply.send(format!("{line:?};").as_bytes())).with_ends();
    let site = Site::serve(Limits::default().max_line(4), service);
    let mut client = site.client();
    client.say("a\nb\r\n\n\rc").finish();
    let expected: String =
        ["a\n", "b\r\n", "\n", "\rc"].map(|line| format!("{:?};", line.as_bytes())).concat();
    assert_eq!(client.rest(), (expected.into_bytes(), End::Fin));
    // Its end does not count to the length of a line.
    let mut fitting = site.client();
    fitting.say("1234\r\n").finish();
    assert_eq!(fitting.rest(), (format!("{:?};", b"1234\r\n").into_bytes(), End::Fin));
    site.client().say("12345\n").hear("");
    site.until_closed(CloseReason::Protocol, 1);
    site.end();
}

#[test]
fn the_state_of_a_connection_lives_as_long_as_the_connection() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let alive = Arc::new(AtomicUsize::new(0));
    let count = alive.clone();
    let open = move |_peer: &tidegate::Peer| {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count.clone())
    };
    let service = lines_with("counted", open, |_state, line, reply| reply.send(line));
    let limits = Limits::default().idle_timeout(Duration::from_millis(300));
    let site = Site::serve(limits, service);
    let mut clients: Vec<Client> = (0..5).map(|_| site.client()).collect();
    for client in &mut clients {
        client.say("x\n").hear("x");
    }
    assert_eq!(alive.load(Ordering::SeqCst), 5);
    clients.truncate(2);
    site.until_closed(CloseReason::IdleTimeout, 2);
    eventually("all are gone", || (alive.load(Ordering::SeqCst) == 0).then_some(()));
    site.end();
}
