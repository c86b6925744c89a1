//! The admin endpoint beside the real server: within its thread budget, and through a drain.

#[path = "support/admin_http.rs"]
mod http;
#[path = "support/admin_process.rs"]
mod process;

use http::{eventually, get, sample, threads};
use process::Tidegate;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn it_keeps_the_thread_budget_while_it_is_attacked() {
    let server = Tidegate::start(&["--listen", "echo=tcp://127.0.0.1:0", "--workers", "8"]);
    let _idle: Vec<_> = (0..1000).map(|_| TcpStream::connect(server.admin).unwrap()).collect();
    for _ in 0..20 {
        let scrape = get(server.admin, "/metrics").unwrap();
        let seen = sample(&scrape.body, "process_threads").unwrap();
        // Beside the workers: main, acceptor, timekeeper, two for signals, log, the endpoint's two, and its library's first
        // four.
        assert!(seen <= 8.0 + 12.0, "{seen} threads");
        assert!(threads(server.pid()) <= 20);
    }
}

#[test]
fn readyz_says_no_from_the_order_to_the_end_and_metrics_go_on() {
    let listen = ["--listen", "echo=tcp://127.0.0.1:0"];
    let mut server = Tidegate::start(&[&listen[..], &["--drain-delay", "1s"]].concat());
    let address = server.listeners[0].trim_start_matches("tcp://").to_owned();
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(get(server.admin, "/readyz").unwrap().status, 200);
    let idle = format!("tidegate_connections{{listener=\"tcp://{address}\",state=\"idle\"}}");
    let scrape = || get(server.admin, "/metrics").unwrap().body;
    eventually("the client is seen idle", Duration::from_secs(5), || sample(&scrape(), &idle) == Some(1.0));
    assert_eq!(sample(&scrape(), "tidegate_draining"), Some(0.0));

    server.terminate();
    eventually("it is not ready", Duration::from_secs(5), || {
        let ready = get(server.admin, "/readyz").unwrap();
        ready.status == 503 && ready.body == "not ready: leaving\n"
    });
    assert_eq!(sample(&scrape(), "tidegate_draining"), Some(1.0));
    assert_eq!(get(server.admin, "/livez").unwrap().status, 200);
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_and_ends_it_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["--listen", "echo=tcp://127.0.0.1:0", "--admin", &address])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.trim_end().lines().count() == 1, "{said}");
}

#[test]
fn the_names_that_the_options_know_are_answered() {
    let listen = ["--listen", "echo=tcp://127.0.0.1:0"];
    let server = Tidegate::start(&[&listen[..], &["--admin-host", "gate.example,other.example"]].concat());
    for (host, status) in
        [("gate.example:80", 200), ("OTHER.example", 200), ("localhost", 200), ("evil.example", 421)]
    {
        let request = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(http::ask(server.admin, &request).unwrap().status, status, "{host}");
    }
}
