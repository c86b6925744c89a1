//! The admin endpoint answers while it is attacked. A process of its own, so that its threads can
//! be counted.

#[path = "support/admin_fake.rs"]
mod fake;
#[path = "support/figure.rs"]
mod figure;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/stop.rs"]
mod stop;

use fake::Fake;
use http::{eventually, get, threads};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stop::Stop;
use tidegate::admin::Admin;

/// 5,000 idle connections, thousands more a second, a header without an end, and a client that asks
/// without reading: twenty
/// scrapes of twenty succeed within a second each, with no more threads than before.
#[test]
fn it_answers_while_it_is_attacked() {
    let threads_at_first = threads(std::process::id());
    let fake = Arc::new(Fake::serving());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any, fake.clone()).unwrap().serve().unwrap();
    let to = admin.address();
    let listener = fake.change().listeners[0].clone();
    fake.change().listeners = vec![listener; 50];
    get(to, "/metrics").unwrap();
    let _idle: Vec<_> = (0..5000).map(|_| TcpStream::connect(to).unwrap()).collect();
    let threads_before = threads(std::process::id());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let _stopped = Stop(stop);
        scope.spawn(move || {
            attack(to, stop, b"GET / HTTP/1.1\r\nx: ", &[b'x'; 512], Duration::from_millis(1));
        });
        scope.spawn(move || {
            let many = b"GET /metrics HTTP/1.1\r\n\r\n".repeat(50);
            attack(to, stop, b"", &many, Duration::from_millis(1));
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = TcpStream::connect(to);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let mut worst = Duration::ZERO;
        for scrape in 0..20 {
            let begun = Instant::now();
            let reply = get(to, "/metrics");
            let took = begun.elapsed();
            worst = worst.max(took);
            let reply = reply.unwrap_or_else(|error| panic!("scrape {scrape}: {error} after {took:?}"));
            assert!(reply.status == 200 && reply.body.contains("tidegate_workers_limit 32"));
            assert!(took < Duration::from_secs(1), "scrape {scrape} took {took:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The three attackers are threads of this process too.
        let now = threads(std::process::id());
        assert!(now <= threads_before + 3, "{now} threads, {threads_before} before");
        figure::figure(format!(
            "20 of 20 scrapes, the slowest took {worst:.1?}; {now} threads, {threads_before} before and 3 attackers"
        ));
    });
    admin.shutdown();
    // The pool of tiny_http takes five seconds to see that it is not needed.
    eventually("its threads end", Duration::from_secs(20), || {
        threads(std::process::id()) <= threads_at_first
    });
}

/// Sends `first`, then `more` again and again without reading; connects anew when it is cut.
fn attack(to: SocketAddr, stop: &AtomicBool, first: &[u8], more: &[u8], pace: Duration) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(to) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
        let mut sent = stream.write_all(first);
        while sent.is_ok() && !stop.load(Ordering::Relaxed) {
            sent = stream.write_all(more);
            if matches!(&sent, Err(e) if e.kind() == ErrorKind::WouldBlock) {
                sent = Ok(());
            }
            std::thread::sleep(pace);
        }
    }
}
