//! Datagrams that come from whom they should not: forged sources that would make two servers answer each other for ever,
//! and one source that sends without pause.

mod support;

use rustix::process::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Program, Running, Stop, eventually, throughout};
use tidegate::metrics::snapshot::ListenerSnapshot;
use tidegate::reason::DatagramDrop;
use tidegate::service::{Cost, Work, hello_datagrams};
use tidegate::{BoundServer, DatagramService, Echo, Handle, Limits, Server, Time};

fn bind(address: &str, rate: f64, service: impl DatagramService) -> BoundServer {
    let limits = Limits::default().workers(2).datagram_source_rate(rate);
    Server::builder().limits(limits).listen_datagrams(address, service).unwrap().bind().unwrap()
}

fn counts(handle: &Handle) -> ListenerSnapshot {
    handle.stats().listeners.remove(0)
}

/// Two servers, of which the second has been made to answer the first's answer: the first was sent a datagram from the port
/// where the second listens since.
fn entangled(rate: f64, one: impl DatagramService, other: impl DatagramService) -> [Handle; 2] {
    let first = bind("127.0.0.1:0", rate, one);
    let forger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = forger.local_addr().unwrap();
    forger.send_to(b"for ever?", first.addresses()[0].ip().unwrap()).unwrap();
    drop(forger);
    let second = bind(&port.to_string(), rate, other).serve().unwrap();
    [first.serve().unwrap(), second]
}

/// Datagrams that both have received, once nothing more comes.
fn exchanged(servers: &[Handle; 2]) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    eventually("they fall silent", || {
        let now = servers.iter().map(|handle| counts(handle).datagrams_received).sum();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now > 1 && since.elapsed() > Duration::from_millis(300)).then_some(now)
    })
}

#[test]
fn two_servers_that_were_made_to_answer_each_other_stop_after_a_few_answers() {
    let default = Limits::default().datagram_source_rate;
    // Each answers six times; a few more where a second ends meanwhile, so that a clock says something else.
    let most = 20;
    let pairs = [
        entangled(default, Echo, Echo),
        entangled(default, Time, Time),
        entangled(default, Echo, Time),
        entangled(default, hello_datagrams(), hello_datagrams()),
        entangled(default, Time, hello_datagrams()),
    ];
    for servers in &pairs {
        let count = exchanged(servers);
        assert!(count <= most, "{count} datagrams, more than {most}");
        let dropped = |handle| counts(handle).datagrams_dropped[DatagramDrop::RefusedSource as usize];
        // Where one of them has no answer to the other's, it ended by that.
        assert!(servers.iter().map(dropped).sum::<u64>() <= 1);
    }
    // Without the limit they would not have stopped: each has heard far more than the limit leaves to both.
    let servers = entangled(0.0, Echo, Echo);
    eventually("they go on", || (counts(&servers[0]).datagrams_received > 10 * most).then_some(()));
    let [first, second] = servers;
    assert!(first.shutdown(Duration::from_secs(5)).is_clean(), "it ends nevertheless");
    drop(second);
}

fn program(service: &str, address: &str) -> Running {
    let listener = format!("{service}=udp://{address}");
    Program::new().without_echo().admin().arg("--listen", listener).start()
}

#[test]
fn two_programs_that_were_made_to_answer_each_other_stop_after_a_handful_of_answers() {
    for (one, other) in [("echo", "echo"), ("time", "hello"), ("hello", "hello"), ("echo", "time")] {
        let first = program(one, "127.0.0.1:0");
        // While it is stopped, it is sent a datagram from a port where the other listens since.
        first.signal(Signal::STOP);
        eventually("it has stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", first.pid())).unwrap();
            stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
        });
        let forger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = forger.local_addr().unwrap();
        forger.send_to(b"for ever?", first.listening(&format!("{one} on udp"))).unwrap();
        drop(forger);
        let second = program(other, &port.to_string());
        first.signal(Signal::CONT);
        let received = |server: &Running| {
            let mut scrape = Client::connect(server.admin());
            scrape.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let text = String::from_utf8(scrape.rest().0).unwrap();
            let line = text.lines().find(|line| line.starts_with("tidegate_datagrams_received_total{"));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("it is in the scrape")
        };
        eventually("they have answered each other", || (received(&second) > 0).then_some(()));
        throughout(Duration::from_millis(500), "a handful of answers", || {
            received(&first) + received(&second) <= 20
        });
    }
}

#[test]
fn a_server_that_was_made_to_answer_itself_does_not_answer_once() {
    let limits = Limits::default().workers(2).datagram_source_rate(0.0);
    let handle = Server::builder()
        .limits(limits)
        .listen_datagrams("127.0.0.1:0", Echo)
        .unwrap()
        .listen_datagrams("127.0.0.1:0", Time)
        .unwrap()
        .bind()
        .unwrap()
        .serve()
        .unwrap();
    // From the number of each of its ports to each of them; from another address, since its own are taken: the port tells.
    let addresses = handle.addresses();
    let mut sent = 0;
    for own in &addresses {
        let forger = UdpSocket::bind(("127.0.0.2", own.ip().unwrap().port())).unwrap();
        for address in &addresses {
            forger.send_to(b"for ever?", address).unwrap();
            sent += 1;
        }
        eventually("they are counted", || {
            let refused = |of: &ListenerSnapshot| of.datagrams_dropped[DatagramDrop::RefusedSource as usize];
            (handle.stats().listeners.iter().map(refused).sum::<u64>() == sent).then_some(())
        });
        forger.set_nonblocking(true).unwrap();
        assert!(forger.recv(&mut [0; 64]).is_err(), "it was answered");
    }
}

#[test]
fn a_client_that_sends_the_same_again_is_answered_again() {
    let handle = bind("127.0.0.1:0", Limits::default().datagram_source_rate, Echo).serve().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(handle.addresses()[0]).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut lost = 0;
    for _ in 0..100 {
        client.send(b"ping").unwrap();
        let mut tries = 1;
        while client.recv(&mut [0; 8]).is_err() {
            client.send(b"ping").unwrap();
            tries += 1;
            assert!(tries < 10, "a client that asks again is answered");
        }
        lost += tries - 1;
    }
    // Four are enough to know it by; a busy machine may lose some more.
    assert!((1..=10).contains(&lost), "{lost} of 100");
}

/// Sends a datagram until it is answered. It is sent again only where the kernel dropped some meanwhile: while the server
/// has no processor its buffer overflows, and then the kernel drops whatever comes. How often that was.
fn asks_until_answered(handle: &Handle, polite: &UdpSocket, word: u8) -> u32 {
    let lost = || counts(handle).datagrams_dropped[DatagramDrop::KernelBuffer as usize];
    polite.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (began, mut again) = (Instant::now(), 0);
    loop {
        let before = lost();
        polite.send(&[word]).unwrap();
        loop {
            let mut reply = [0; 8];
            if matches!(polite.recv(&mut reply), Ok(1) if reply[0] == word) {
                return again;
            }
            assert!(began.elapsed() < support::PATIENCE, "{polite:?} is not answered");
            if lost() > before {
                break;
            }
        }
        again += 1;
    }
}

#[test]
fn a_source_that_floods_takes_nothing_from_the_others() {
    let limits = Limits::default().workers(2).queue(64);
    let handle = Server::builder()
        .limits(limits)
        .listen_datagrams("127.0.0.1:0", Work(Cost::Sleep(Duration::from_millis(1))))
        .unwrap()
        .bind()
        .unwrap()
        .serve()
        .unwrap();
    let address = handle.addresses()[0].ip().unwrap();
    let over = AtomicBool::new(false);
    let noisy = UdpSocket::bind("127.0.0.2:0").unwrap();
    std::thread::scope(|scope| {
        let _over = Stop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // As fast as one core sends would be a test of the kernel's buffer.
                for _ in 0..50 {
                    let _ = noisy.send_to(b"more", address);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        eventually("the flood is on", || {
            (counts(&handle).datagrams_dropped[DatagramDrop::SourceRate as usize] > 1_000).then_some(())
        });
        let mut again = 0;
        for n in 0..40u8 {
            let polite = UdpSocket::bind(SocketAddr::from(([127, 0, 1, n], 0))).unwrap();
            polite.connect(address).unwrap();
            again += asks_until_answered(&handle, &polite, n);
        }
        let dropped = counts(&handle).datagrams_dropped[DatagramDrop::SourceRate as usize];
        support::figure(format!(
            "40 of 40 polite sources answered beside a flood of which {dropped} were dropped ({again} asked again, since the \
             kernel's buffer was full)"
        ));
    });
    // Of the flood what its source is allowed was answered, and the operator is told who it was.
    let observe = handle.observe();
    let named = observe.refused_sources();
    assert_eq!(
        (named[0].source.as_str(), named.len()),
        ("127.0.0.2", 1),
        "nobody else was refused: {named:?}"
    );
    assert!(handle.shutdown(Duration::from_secs(5)).is_clean());
}

#[test]
fn ports_of_reflectors_are_not_answered_though_nobody_configured_it() {
    let port = 11_211;
    let (Ok(memcached), Ok(other)) = (UdpSocket::bind(("127.0.0.1", port)), UdpSocket::bind("127.0.0.1:0"))
    else {
        panic!("port {port} is in use on this machine");
    };
    let handle = bind("127.0.0.1:0", 0.0, Echo).serve().unwrap();
    for socket in [&memcached, &other] {
        socket.send_to(b"stats", handle.addresses()[0].ip().unwrap()).unwrap();
    }
    other.set_read_timeout(Some(support::PATIENCE)).unwrap();
    assert_eq!(other.recv(&mut [0; 16]).unwrap(), 5);
    eventually("it is counted", || {
        (counts(&handle).datagrams_dropped[DatagramDrop::RefusedSource as usize] == 1).then_some(())
    });
    memcached.set_nonblocking(true).unwrap();
    assert!(memcached.recv(&mut [0; 16]).is_err(), "it was answered");
}

#[test]
fn the_rate_of_a_source_is_an_option_and_off_turns_it_off() {
    let sent = 400;
    for (option, all) in [("off", true), ("100", false)] {
        let server = Program::new()
            .without_echo()
            .arg("--listen", "echo=udp://127.0.0.1:0")
            .arg("--datagram-source-rate", option)
            .start();
        let text = server.stdout();
        let address: SocketAddr =
            text.lines().find_map(|line| line.split_once("udp://")?.1.trim().parse().ok()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answered = 0;
        for _ in 0..sent / 10 {
            (0..10).for_each(|_| assert_eq!(socket.send(b"x").unwrap(), 1));
            // What is answered is answered at once.
            let wait = if all { Duration::from_secs(5) } else { Duration::from_millis(20) };
            socket.set_read_timeout(Some(wait)).unwrap();
            answered += (0..10).take_while(|_| socket.recv(&mut [0; 8]).is_ok()).count();
        }
        assert_eq!(answered == sent, all, "{answered} of {sent} with {option}");
        assert!(answered >= 8, "{answered}");
    }
}
