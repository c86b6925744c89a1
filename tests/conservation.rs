//! `accepted = dropped + closed + queued + active + idle`, in every reading, whatever happens meanwhile.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Site, Stop, figure};
use tidegate::limits::RefusalRate;
use tidegate::service::{Cost, Work};
use tidegate::{Limits, Overload};

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
