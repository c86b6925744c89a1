//! `accepted = dropped + closed + queued + active + idle`, in every reading, whatever happens meanwhile.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Site, Stop, figure};
use tidegate::limits::RefusalRate;
use tidegate::reason::{DropReason, TurnShed};
use tidegate::service::{Cost, Service, Work};
use tidegate::{Limits, Overload, http, lines};

/// One client's life: any of the ways in which clients come and go.
fn live(site: &Site, way: u64) -> bool {
    let timeout = Duration::from_millis(500);
    let Ok(mut client) = Client::try_connect(site.address, timeout) else {
        return false;
    };
    let mut reply = [0; 5];
    match way % 6 {
        0 => drop(client),
        1 => {
            client.mutter("hello").reset_quietly();
        }
        2 => {
            client.mutter("hello").finish_quietly();
            return client.heard(&mut reply);
        }
        3 => drop(client.mutter("hello")),
        _ => {
            return (0..5).all(|_| client.mutter("hello").heard(&mut reply));
        }
    }
    true
}

/// Clients of every kind for a while, more than can be served, and readings all the while.
fn churn(overload: Overload) {
    let limits = Limits::default()
        .workers(2)
        .queue(4)
        .max_connections(24)
        .queue_timeout(Duration::from_millis(20))
        .idle_timeout(Duration::from_millis(200))
        .refusal_rate(RefusalRate::PerSecond(100_000.0))
        .overload(overload);
    let site = Site::serve(limits, Work(Cost::Sleep(Duration::from_millis(2))));
    let (stop, answered, readings) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stopped = Stop(&stop);
        for n in 0..16 {
            let (site, stop, answered) = (&site, &stop, &answered);
            scope.spawn(move || {
                let mut way = n;
                while !stop.load(Ordering::Relaxed) {
                    answered.fetch_add(u64::from(live(site, way)), Ordering::Relaxed);
                    way += 7;
                }
            });
        }
        let began = Instant::now();
        let mut accepted = 0;
        while began.elapsed() < Duration::from_secs(2) {
            let stats = site.stats();
            let now = &stats.listeners[0];
            assert!(now.open() <= 24 + 2, "more open than may be: {now:?}");
            assert!(stats.workers_busy <= 2, "more workers than there are");
            accepted = accepted.max(now.accepted);
            readings.fetch_add(1, Ordering::Relaxed);
        }
        assert!(accepted > 100, "only {accepted} came");
    });
    let now = site.counts();
    assert!(now.dropped_total() > 0 && answered.load(Ordering::Relaxed) > 0, "{now:?}");
    let report = site.end();
    figure(format!(
        "{} readings, each conserved: {} accepted = {} dropped + {} closed + {} open at the last; {report}",
        readings.load(Ordering::Relaxed),
        now.accepted,
        now.dropped_total(),
        now.closed_total(),
        now.open(),
    ));
}

#[test]
fn while_newcomers_are_refused() {
    churn(Overload::Reject);
}

#[test]
fn while_newcomers_wait() {
    churn(Overload::Wait(Duration::from_millis(5)));
}

#[test]
fn while_the_oldest_are_dropped() {
    churn(Overload::DropOldest);
}

/// A client that asks again as soon as it is answered, whatever the answer is, and comes back when its connection has ended;
/// one in eight of its requests it gives up.
fn ask_again(site: &Site, request: &[u8], stop: &AtomicBool, answered: &AtomicU64) {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(site.address) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        while !stop.load(Ordering::Relaxed) && stream.write_all(request).is_ok() {
            asked += 1;
            if asked % 8 == 0 || !matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// 40 clients that stay, and 16 that come for one request each, want five times what two workers can do: requests of
/// connections that were served before wait on the shelf until some are shed, and newcomers make room for others.
fn shed_under(service: impl Service, request: &'static [u8]) {
    let limits = Limits::default()
        .workers(2)
        .queue(4)
        .queue_target(Duration::from_millis(5))
        .queue_timeout(Duration::from_millis(60))
        .refusal_rate(RefusalRate::All);
    let site = Site::serve(limits, service);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut readings, mut shelved) = (0, 0);
    std::thread::scope(|scope| {
        let _stopped = Stop(&stop);
        for n in 0..56 {
            let (site, stop, answered) = (&site, &stop, &answered);
            scope.spawn(move || match n {
                0..40 => ask_again(site, request, stop, answered),
                _ => {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(mut client) = Client::try_connect(site.address, Duration::from_millis(500))
                        {
                            client.mutter(request).heard(&mut [0; 1]);
                        }
                    }
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            // It asserts that all counts are conserved.
            shelved += u64::from(site.stats().shelf_length > 0);
            readings += 1;
        }
    });
    let now = site.counts();
    let shed = |reason: TurnShed| now.turns_shed[reason as usize];
    let displaced = now.dropped[DropReason::QueueFull as usize];
    assert!(shed(TurnShed::QueueTimeout) > 0 && shed(TurnShed::ClientGone) > 0, "{now:?}");
    assert!(displaced > 0 && shelved > 10 && answered.load(Ordering::Relaxed) > 100, "{now:?}");
    let report = site.end();
    figure(format!(
        "{readings} readings, {shelved} of them with a shelf, each conserved: {} requests shed for their wait and {} for their \
         client, {displaced} newcomers turned away; {report}",
        shed(TurnShed::QueueTimeout),
        shed(TurnShed::ClientGone),
    ));
}

#[test]
fn while_requests_of_established_connections_are_shed_over_lines() {
    let slow = lines("slow", |line, reply| {
        std::thread::sleep(Duration::from_millis(5));
        reply.send(&[line, b"\n"].concat())
    });
    shed_under(slow.busy_reply("busy"), b"a line\n");
}

#[test]
fn while_requests_of_established_connections_are_shed_over_http() {
    let slow = http(|_, response| {
        std::thread::sleep(Duration::from_millis(5));
        response.text("slow")
    });
    shed_under(slow, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
}
