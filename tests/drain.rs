//! The end: nothing that was asked for goes unanswered, nothing is reset that could end in good order, and every wait
//! has a deadline.

mod support;

use rustix::process::Signal;
use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, End, Gate, Held, Program, Running, Site, Stop, eventually, figure, throughout};
use tidegate::limits::RefusalRate;
use tidegate::metrics::snapshot::Phase;
use tidegate::reason::{CloseReason, DropReason};
use tidegate::service::{Cost, Work, hello};
use tidegate::{Echo, Limits, Server, handler, lines};

/// Connections that were served once and wait.
fn idle_clients(server: &Running, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x").hear("x");
    }
    clients
}

/// The line that says how the drain went.
#[track_caller]
fn report(stderr: &str) -> &str {
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("drained")).collect();
    assert_eq!(lines.len(), 1, "one line says what was drained:\n{stderr}");
    lines[0]
}

#[test]
fn idle_connections_end_with_fin_and_the_exit_is_clean() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = Program::new().start();
        let address = server.address();
        let mut idle = idle_clients(&server, 50);
        server.signal(signal);
        for client in &mut idle {
            assert_eq!(client.end(), End::Fin);
        }
        drop(idle);
        let (code, stderr) = server.ended();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(report(&stderr).contains("drained 50 connections"), "{stderr}");
        assert!(Client::try_connect(address, Duration::from_secs(1)).is_err(), "nobody listens any more");
    }
}

#[test]
fn an_idle_server_ends_at_once() {
    let server = Program::new().start();
    let began = Instant::now();
    server.signal(Signal::TERM);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn requests_already_sent_are_answered_though_they_wait() {
    let server = Program::new().service("work").arg("--work", "sleep:50ms").arg("--workers", 2).start();
    let mut clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("please");
    }
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.rest(), (b"please".to_vec(), End::Fin));
    }
    drop(clients);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(report(&stderr).contains("drained 40 connections"), "{stderr}");
    figure(format!("40 of 40 answered, exit code 0: {}", report(&stderr)));
}

#[test]
fn what_the_kernel_had_completed_is_served() {
    let gate = Gate::new();
    // Nothing is refused, so what finds no place stays in the kernel.
    let limits = Limits::default().workers(1).queue(1).refusal_rate(RefusalRate::PerSecond(0.0)).backlog(64);
    let site = Site::serve(limits, Held(gate.clone()));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..30 {
        clients.push(site.client());
        clients.last_mut().unwrap().say("x");
        site.until("the worker is held", |now| now.active == 1);
    }
    site.until("most are in the backlog", |now| now.accepted == 2 && now.active == 1);
    site.handle().trigger().drain();
    site.until("all were taken in", |now| now.accepted == 30);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest(), (b"x".to_vec(), End::Fin));
    }
    drop(clients);
    assert_eq!(site.counts().dropped_total(), 0);
    assert!(site.end().is_clean());
}

#[test]
fn half_a_request_has_until_its_own_deadline() {
    let limits = Limits::default().read_timeout(Duration::from_millis(700));
    let site = Site::serve(limits, hello());
    let (mut goes_on, mut stays) = (site.client(), site.client());
    for client in [&mut goes_on, &mut stays] {
        client.say("wor");
    }
    site.until("both halves were read", |now| now.received_bytes == 6 && now.idle == 2);
    site.handle().trigger().drain();
    site.until("the listener is closed", |_| {
        // Who asks just before is not answered, and would ask again after a second.
        Client::try_connect(site.address, Duration::from_millis(20)).is_err()
    });
    goes_on.say("ld\n");
    assert_eq!(goes_on.rest(), (b"hello world\n".to_vec(), End::Fin));
    assert_eq!(stays.end(), End::Fin);
    assert_eq!(site.closed(CloseReason::ReadTimeout), 1);
    assert!(site.end().is_clean());
}

#[test]
fn replies_that_wait_for_their_reader_are_flushed() {
    let limits = Limits::default().output_per_connection(32 << 20);
    let reply = vec![b'r'; 8 << 20];
    let expected = reply.clone();
    let site = Site::serve(limits, lines("large", move |_line, out| out.send(&reply)));
    let mut client = Client::narrow(site.address);
    client.say("please\n");
    eventually("its reply is kept", || (site.stats().pending_output_bytes > 0).then_some(()));
    site.handle().trigger().drain();
    site.until("it drains", |_| site.stats().phase == Phase::Draining);
    let (received, end) = client.rest();
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    assert_eq!(end, End::Fin);
    figure(format!(
        "{} of {} bytes came after the drain had begun to wait for them",
        received.len(),
        expected.len()
    ));
    drop(client);
    assert!(site.end().is_clean());
}

#[test]
fn the_drain_delay_serves_on() {
    let delay = Duration::from_millis(2500);
    let server = Program::new().arg("--drain-delay", "2500ms").start();
    let began = Instant::now();
    let mut early = server.client();
    early.say("x").hear("x");
    server.signal(Signal::TERM);
    throughout(Duration::from_millis(500), "newcomers are served in the delay", || {
        server.client().say("new").hear("new");
        true
    });
    early.say("on").hear("on");
    assert_eq!(early.end(), End::Fin);
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    drop(early);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn what_does_not_end_in_time_is_cut_and_the_exit_code_says_so() {
    let server = Program::new()
        .service("work")
        .arg("--work", "sleep:30s")
        .arg("--workers", 1)
        .arg("--drain-timeout", "300ms")
        .start();
    let mut clients: Vec<Client> = (0..5).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say("x");
    }
    let began = Instant::now();
    server.signal(Signal::TERM);
    // One is in a turn that does not return: it ends with the process.
    let resets = clients.iter_mut().filter_map(|client| (client.end() == End::Reset).then_some(())).count();
    assert!(resets >= 4, "{resets} of 5 were reset");
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(report(&stderr).contains("cut 5"), "{stderr}");
    figure(format!("exit code 3 after {:.1?} (drain-timeout 300 ms): {}", began.elapsed(), report(&stderr)));
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Program::new().service("work").arg("--work", "sleep:30s").start();
    let mut client = server.client();
    client.say("x");
    let began = Instant::now();
    server.signal(Signal::TERM);
    eventually("it drains", || Client::try_connect(server.address(), Duration::from_secs(1)).err());
    // Two signals within a second are one order.
    eventually("a second has passed", || (began.elapsed() > Duration::from_millis(1_200)).then_some(()));
    server.signal(Signal::INT);
    let (code, stderr) = server.ended();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// How the clients of a request loop fared.
#[derive(Default)]
struct Fates {
    replies: AtomicU64,
    /// FIN before the next request was answered at all.
    ends: AtomicU64,
    /// Refused to connect: nobody listens any more.
    refused: AtomicU64,
    lost: AtomicU64,
}

/// Sends requests, on one connection or each on its own, until nobody listens: each is answered whole, or the
/// connection ends with FIN before it is.
fn loop_requests(address: SocketAddr, reuse: bool, stop: &AtomicBool, fates: &Fates) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = Client::try_connect(address, Duration::from_secs(10)) else {
            count(&fates.refused);
            return;
        };
        if client.was_reset() {
            count(&fates.lost);
            return;
        }
        let mut stream = client.stream();
        loop {
            let mut reply = [0; 64];
            let mut got = 0;
            // After FIN a write may meet an RST; what counts is what was answered.
            let _ = stream.write_all(&[b'q'; 64]);
            while got < 64 {
                match stream.read(&mut reply[got..]) {
                    Ok(0) if got == 0 => break,
                    Ok(n @ 1..) => got += n,
                    _ => {
                        count(&fates.lost);
                        return;
                    }
                }
            }
            if got == 0 {
                count(&fates.ends);
                break;
            }
            count(&fates.replies);
            if !reuse {
                break;
            }
        }
    }
}

#[test]
fn no_client_in_a_request_loop_is_reset() {
    let mut replies = 0;
    for round in 0..5 {
        let limits = Limits::default().workers(4).queue(64);
        let site = Site::serve(limits, Work(Cost::Sleep(Duration::from_micros(200))));
        let (stop, fates) = (AtomicBool::new(false), Fates::default());
        let address = site.address;
        std::thread::scope(|scope| {
            let _stopped = Stop(&stop);
            for n in 0..16 {
                let (stop, fates) = (&stop, &fates);
                scope.spawn(move || loop_requests(address, n % 2 == 0, stop, fates));
            }
            eventually("requests flow", || (fates.replies.load(Ordering::Relaxed) > 500).then_some(()));
            site.handle().trigger().drain();
            site.handle().wait();
        });
        let lost = fates.lost.load(Ordering::Relaxed);
        assert_eq!(lost, 0, "round {round}: {lost} requests were neither answered nor ended with FIN");
        replies += fates.replies.load(Ordering::Relaxed);
        assert!(site.end().is_clean());
    }
    figure(format!("5 drains beside 16 clients: {replies} requests answered, 0 lost"));
}

#[test]
fn the_report_says_what_became_of_connections() {
    let site = Site::serve(Limits::default(), Echo);
    let mut clients: Vec<Client> = (0..3).map(|_| site.client()).collect();
    for client in &mut clients {
        client.say("x").hear("x");
    }
    drop(clients.pop());
    site.until_closed(CloseReason::Client, 1);
    let report = site.end();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.drained, report.aborted, report.workers_left), (2, 0, 0));
}

#[test]
fn a_worker_that_does_not_return_is_left_behind_and_reported() {
    let gate = Gate::new();
    let handle = {
        let builder = Server::builder().workers(2).listen("127.0.0.1:0", Held(gate.clone())).unwrap();
        builder.bind().unwrap().serve().unwrap()
    };
    let mut client = Client::connect(handle.addresses()[0].ip().unwrap());
    client.say("x");
    eventually("a worker is held", || (handle.stats().listeners[0].active == 1).then_some(()));
    let report = handle.shutdown(Duration::from_millis(100));
    assert_eq!((report.aborted, report.workers_left), (1, 1), "{report}");
    assert!(!report.is_clean());
    figure(report);
    gate.open();
}

#[test]
fn a_blocking_handler_that_waits_is_cut_at_the_deadline_and_reported() {
    let service = handler(|stream| stream.read_exact(&mut [0; 8]));
    let site = Site::serve(Limits::default().read_timeout(Duration::from_secs(60)), service);
    let mut client = site.client();
    client.say("half");
    site.until("the handler waits for the rest", |now| now.active == 1);
    let report = site.end_within(Duration::from_millis(200));
    assert_eq!((report.aborted, report.workers_left), (1, 0), "{report}");
    assert_eq!(client.end(), End::Reset);
}

#[test]
fn a_grace_is_kept_though_the_drain_has_begun_with_more() {
    let service = handler(|stream| stream.read_exact(&mut [0; 8]));
    let site = Site::serve(Limits::default().read_timeout(Duration::from_secs(60)), service);
    let mut client = site.client();
    client.say("half");
    site.until("the handler waits for the rest", |now| now.active == 1);
    site.handle().trigger().drain();
    site.until("it drains", |_| site.stats().phase == Phase::Draining);
    let report = site.end_within(Duration::from_millis(200));
    assert_eq!((report.aborted, report.workers_left), (1, 0), "{report}");
    assert_eq!(client.end(), End::Reset);
}

#[test]
fn newcomers_that_are_cut_are_counted_as_such() {
    let service = handler(|stream| stream.read_exact(&mut [0; 8]));
    let limits = Limits::default().workers(1).read_timeout(Duration::from_secs(60));
    let site = Site::build(Server::builder().limits(limits).busy_reply("busy\n"), service);
    let observe = site.handle().observe();
    let mut clients: Vec<Client> = (0..5)
        .map(|n| {
            let client = site.client();
            site.until("one is served, the others wait", |now| (now.active, now.queued) == (1, n));
            client
        })
        .collect();
    let report = site.end_within(Duration::from_millis(100));
    assert_eq!((report.aborted, report.drained, report.workers_left), (5, 0, 0), "{report}");
    let now = &observe.snapshot().listeners[0];
    assert_eq!((now.dropped[DropReason::Draining as usize], now.dropped_total()), (4, 4));
    assert_eq!((now.closed[CloseReason::Shutdown as usize], now.closed_total()), (1, 1));
    for client in &mut clients {
        assert_eq!(client.end(), End::Reset);
    }
}

#[test]
fn who_does_not_read_is_not_asked_again_and_again() {
    let limits = Limits::default().output_per_connection(32 << 20);
    let reply = vec![b'r'; 8 << 20];
    let both = reply.len() * 2;
    let site = Site::serve(limits, lines("large", move |_line, out| out.send(&reply)));
    let mut client = Client::narrow(site.address);
    client.say("please\n");
    eventually("its reply is kept", || (site.stats().pending_output_bytes > 0).then_some(()));
    client.say("more\n");
    site.handle().trigger().drain();
    site.until("it drains", |now| site.stats().phase == Phase::Draining && now.idle == 1);
    let turns = || site.stats().queue_wait.count();
    let (before, since) = (turns(), Instant::now());
    eventually("a while", || (since.elapsed() > Duration::from_millis(300)).then_some(()));
    let more = turns() - before;
    assert!(more <= 5, "{more} turns for a client that does nothing");
    let (received, end) = client.rest();
    assert_eq!((received.len(), end), (both, End::Fin));
    drop(client);
    assert!(site.end().is_clean());
}

#[test]
fn whoever_was_on_the_way_in_sees_an_end_when_the_server_is_cut() {
    for _ in 0..10 {
        // Most stand in the backlog when the order comes.
        let limits =
            Limits::default().workers(1).queue(1).refusal_rate(RefusalRate::PerSecond(0.0)).backlog(64);
        let site = Site::serve(limits, Work(Cost::Sleep(Duration::from_millis(5))));
        let mut clients: Vec<Client> = (0..40).map(|_| site.client()).collect();
        for client in &mut clients {
            client.mutter("x");
        }
        site.handle().trigger().cut();
        for client in &mut clients {
            // Answered and ended, or cut; `rest` wants an end.
            let (said, _) = client.rest();
            assert!(said.is_empty() || said == b"x");
        }
        site.handle().wait();
        site.end();
    }
}

#[test]
fn a_turn_that_returns_after_the_end_with_more_to_read_is_cut() {
    let gate = Gate::new();
    let limits = Limits::default().workers(1).turn_bytes(64 * 1024);
    let builder = Server::builder().limits(limits).listen("127.0.0.1:0", Held(gate.clone())).unwrap();
    let handle = builder.bind().unwrap().serve().unwrap();
    let observe = handle.observe();
    let mut client = Client::connect(handle.addresses()[0].ip().unwrap());
    client.say(vec![b'x'; 200 * 1024]);
    eventually("a worker is held", || (handle.stats().listeners[0].active == 1).then_some(()));
    let report = handle.shutdown(Duration::from_millis(100));
    assert_eq!((report.aborted, report.workers_left), (1, 1), "{report}");
    gate.open();
    assert_eq!(client.rest().1, End::Reset);
    eventually("nothing is open", || (observe.snapshot().listeners[0].open() == 0).then_some(()));
}

/// Sends numbered lines without end and counts the answers, until the connection ends. How many were sent when the order
/// came, how many were answered, and how that ended.
fn pipeline_without_end(site: &Site) -> (u64, u64, End) {
    let client = site.client();
    let (stop, sent, ordered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stopped = Stop(&stop);
        scope.spawn(|| {
            let mut stream = client.stream();
            let line = [&[b'x'; 99][..], b"\n"].concat();
            while !stop.load(Ordering::Relaxed) && stream.write_all(&line).is_ok() {
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut stream = client.stream();
        let (mut bytes, mut buffer) = (0u64, vec![0; 64 * 1024]);
        let end = loop {
            if bytes > 2_000_000 && ordered.load(Ordering::SeqCst) == 0 {
                // What the server's kernel has not received yet, it may not know of.
                ordered.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
                site.handle().trigger().drain();
            }
            match stream.read(&mut buffer) {
                Ok(0) => break End::Fin,
                Ok(n) => bytes += n as u64,
                Err(_) => break End::Reset,
            }
        };
        let _ = stream.shutdown(std::net::Shutdown::Both);
        (ordered.load(Ordering::SeqCst), bytes / 100, end)
    })
}

#[test]
fn a_client_that_pipelines_without_end_does_not_hold_a_drain() {
    let shout = handler(|stream| {
        let mut line = String::new();
        while stream.read_line(&mut line)? > 0 {
            stream.write_all(line.as_bytes())?;
            line.clear();
        }
        Ok(())
    });
    let limits = || Limits::default().workers(2);
    let sites = [
        Site::serve(limits(), Echo),
        Site::serve(limits(), lines("lines", |line, out| out.send(&[line, b"\n"].concat()))),
        Site::serve(limits(), shout),
    ];
    for site in sites {
        let began = Instant::now();
        let (sent, answered, end) = pipeline_without_end(&site);
        // The buffers of both kernels are what may be on the way; all that had arrived is answered.
        assert!(answered + 80_000 > sent, "{answered} of {sent} were answered");
        let report = site.end();
        figure(format!("{answered} lines answered, {sent} sent when the order came, {end:?}; {report}"));
        assert!(report.is_clean() && report.drained == 1, "{report}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(report.elapsed < Duration::from_secs(3), "{report}");
    }
}

#[test]
fn what_a_client_had_pipelined_before_the_drain_is_answered_whole() {
    let gate = Gate::new();
    let limits = Limits::default().workers(1).turn_bytes(32 * 1024);
    let site = Site::serve(limits, Held(gate.clone()));
    let (mut holder, mut client) = (site.client(), site.client());
    holder.say("x");
    site.until("the worker is held", |now| now.active == 1);
    let data: Vec<u8> = (0..150_000u32).map(|n| (n % 251) as u8).collect();
    client.stream().write_all(&data).unwrap();
    site.handle().trigger().drain();
    site.until("it drains", |_| site.stats().phase == Phase::Draining);
    gate.open();
    let mut heard = vec![0; data.len()];
    assert!(client.heard(&mut heard) && heard == data, "what was sent is answered");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(holder.rest(), (b"x".to_vec(), End::Fin));
    assert!(site.end().is_clean());
}

#[test]
fn a_trigger_ends_the_server_from_another_thread() {
    let site = Site::serve(Limits::default(), Echo);
    let mut client = site.client();
    client.say("x").hear("x");
    let trigger = site.handle().trigger();
    let report = std::thread::scope(|scope| {
        scope.spawn(move || {
            trigger.clone().drain();
            trigger.drain();
        });
        site.handle().wait()
    });
    assert!(report.is_clean() && report.drained == 1, "{report}");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(site.stats().phase, Phase::Stopped);
}

#[test]
fn dropping_the_handle_cuts_what_is_open() {
    let bound = Server::builder().listen("127.0.0.1:0", Echo).unwrap().bind().unwrap();
    let address = bound.addresses()[0].ip().unwrap();
    let handle = bound.serve().unwrap();
    let observe = handle.observe();
    let mut client = Client::connect(address);
    client.say("x").hear("x");
    drop(handle);
    let end = client.end();
    assert!(matches!(end, End::Reset | End::Fin));
    let now = observe.snapshot();
    assert_eq!(now.phase, Phase::Stopped);
    assert!(now.conserved() && now.listeners[0].open() == 0, "{now:?}");
    assert!(Client::try_connect(address, Duration::from_secs(1)).is_err(), "nobody listens any more");
}
