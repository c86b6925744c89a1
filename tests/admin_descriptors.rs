//! The admin endpoint answers while the process has no descriptor left. A process of its own, so
//! that nobody else suffers.

#[path = "support/admin_fake.rs"]
mod fake;
#[path = "support/figure.rs"]
mod figure;
#[path = "support/admin_http.rs"]
mod http;
#[path = "support/stop.rs"]
mod stop;

use fake::Fake;
use http::{get, read_reply, sample};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stop::Stop;
use tidegate::admin::Admin;

#[test]
fn it_answers_without_a_free_descriptor_again_and_again() {
    let fake = Arc::new(Fake::serving());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any, fake).unwrap().serve().unwrap();
    let before = sample(&get(admin.address(), "/metrics").unwrap().body, "process_open_fds").unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();

    // The clients' sockets are made first: to connect them needs no descriptor.
    let tcp = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let clients: Vec<_> = (0..60).map(|_| tcp()).collect();
    let mut fill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let stop = AtomicBool::new(false);
    let free = std::thread::scope(|scope| {
        // Another part of the process grabs every descriptor that becomes free.
        let greedy = scope.spawn(|| {
            let mut taken = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                taken.extend(File::open("/dev/null"));
                std::thread::sleep(Duration::from_micros(500));
            }
            taken.len()
        });
        let stopped = Stop(&stop);
        for (n, client) in clients.into_iter().enumerate() {
            client.connect(&admin.address().into()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut stream = TcpStream::from(client);
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            let reply = read_reply(&mut stream).unwrap_or_else(|error| panic!("scrape {n}: {error}"));
            assert_eq!(reply.status, 200);
            let open = sample(&reply.body, "process_open_fds").unwrap();
            assert!(open >= 240.0, "scrape {n} sees {open} of 256 descriptors in use");
            assert_eq!(sample(&reply.body, "process_max_fds"), Some(256.0));
            // The client keeps its descriptor, so that there never is a free one.
            fill.push(File::from(std::os::fd::OwnedFd::from(stream)));
        }
        drop(stopped);
        greedy.join().unwrap()
    });
    drop(fill);
    figure::figure(format!("60 of 60 scrapes; {free} descriptors were free meanwhile"));
    let after = sample(&get(admin.address(), "/metrics").unwrap().body, "process_open_fds").unwrap();
    assert!((after - before).abs() <= 3.0, "{before} descriptors before, {after} after");
}
