//! What the admin endpoint says of a gate: readiness, metrics that add up on every scrape, and the table of backends.

#[path = "support/admin_http.rs"]
mod http;
#[path = "support/admin_process.rs"]
mod process;

use http::{eventually, get, sample};
use process::Tidegate;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

fn gate(backends: &str, options: &[&str]) -> Tidegate {
    let listen = format!("proxy:{backends}=tcp://127.0.0.1:0");
    Tidegate::start(&[&["--listen", &listen], options].concat())
}

#[test]
fn readiness_may_need_a_backend_and_otherwise_does_not() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = address(&backend);
    drop(backend);
    let careless = gate(&name, &["--backend-check", "50ms"]);
    let careful = gate(&name, &["--backend-check", "50ms", "--ready-needs-backend"]);
    let set_aside = || {
        let scrape = get(careless.admin, "/metrics").unwrap().body;
        let labels = format!("{{listener=\"{}\",backend=\"{name}\"}}", careless.listeners[0]);
        sample(&scrape, &format!("tidegate_backend_up{labels}")) == Some(0.0)
    };
    eventually("it is known that nobody listens", PATIENCE, set_aside);
    assert_eq!(get(careless.admin, "/readyz").unwrap().status, 200);
    let ready = || get(careful.admin, "/readyz").unwrap();
    let said = ready();
    let words = format!("not ready: no backend of {} is up\n", careful.listeners[0]);
    assert_eq!((said.status, said.body.as_str()), (503, words.as_str()));
    let backend = TcpListener::bind(&name).unwrap();
    eventually("a check finds the backend", PATIENCE, || ready().status == 200);
    drop(backend);
    eventually("a check misses the backend", PATIENCE, || ready().status == 503);
    assert_eq!(get(careful.admin, "/livez").unwrap().status, 200, "a restart would not help");
}

/// All samples of a metric with this listener.
fn samples(scrape: &str, name: &str, listener: &str) -> Vec<(String, u64)> {
    let mine = scrape.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{")));
    let mine = mine.filter(|line| line.contains(&format!("listener=\"{listener}\"")));
    let parsed = mine.map(|line| {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        let backend = labels.split("backend=\"").nth(1).map_or("", |rest| rest.split('"').next().unwrap());
        (backend.to_owned(), value.parse::<f64>().unwrap() as u64)
    });
    parsed.collect()
}

/// Clients come faster than two backends of two places serve; the page and every scrape add up all the while.
#[test]
fn on_every_scrape_places_taken_are_places_given_back_and_places_in_use() {
    let work = ["--listen", "work=tcp://127.0.0.1:0", "--work", "sleep:2ms"];
    let (one, two) = (Tidegate::start(&work), Tidegate::start(&work));
    let names = [&one, &two].map(|server| server.listeners[0].strip_prefix("tcp://").unwrap().to_owned());
    let options = ["--backend-connections", "2", "--queue", "4", "--refusal-rate", "2000"];
    let server = gate(&names.join(","), &options);
    let listener = &server.listeners[0];
    let flood = server.stress(&["-c", "50", "-d", "60s", "--warmup", "0s", "--reuse", "never"]);
    let (end, mut scrapes, mut seen_waiting, mut seen_full) =
        (Instant::now() + Duration::from_secs(3), 0, 0, 0);
    let mut scrape = String::new();
    while Instant::now() < end {
        scrape = get(server.admin, "/metrics").unwrap().body;
        let of = |name: &str| samples(&scrape, &format!("tidegate_{name}"), listener);
        let (taken, given) = (of("backend_places_taken_total"), of("backend_places_given_back_total"));
        let in_use = of("backend_places");
        for (at, (name, places)) in in_use.iter().enumerate() {
            assert!(names.contains(name) && *places <= 2, "{in_use:?}");
            assert_eq!(taken[at].1, given[at].1 + places, "{name}\n{scrape}");
        }
        let all = in_use.iter().map(|(_, places)| places).sum::<u64>();
        assert_eq!((of("gate_places")[0].1, of("gate_places_limit")[0].1), (all, 4));
        let waiting = of("gate_waiting_clients")[0].1;
        assert!(waiting <= 4, "{waiting} wait");
        (seen_waiting, seen_full) = (seen_waiting.max(waiting), seen_full.max(all));
        scrapes += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(scrapes > 20 && seen_waiting > 0 && seen_full == 4, "{scrapes}, {seen_waiting}, {seen_full}");
    let of = |name: &str| samples(&scrape, &format!("tidegate_{name}"), listener);
    let sum = |name: &str| of(name).iter().map(|(_, n)| n).sum::<u64>();
    assert!(sum("gate_refused_total") > 0 && sum("gate_wait_seconds_count") > 100, "{scrape}");
    assert_eq!(sum("backend_failures_total"), 0);
    // Each backend has its half.
    let connected = of("backend_connections_total");
    let (least, most) = (connected.iter().map(|c| c.1).min(), connected.iter().map(|c| c.1).max());
    assert!(least.unwrap() * 2 > most.unwrap(), "{connected:?}");
    let json: serde_json::Value =
        serde_json::from_str(&get(server.admin, "/status.json").unwrap().body).unwrap();
    let gate = &json["listeners"][0]["gate"];
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert_eq!(number(&gate["taken"]), number(&gate["given_back"]) + number(&gate["in_use"]));
    assert_eq!(gate["backends"][0]["backend"], names[0].as_str());
    let page = get(server.admin, "/status").unwrap().body;
    assert!(page.contains(&format!("\n  {} ", names[1])), "{page}");
    flood.end();
}

/// A client has the only place: no check comes beside it.
#[test]
fn a_check_needs_a_place_like_everybody() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = gate(&address(&backend), &["--backend-check", "20ms", "--backend-connections", "1"]);
    let mut client = TcpStream::connect(server.listeners[0].strip_prefix("tcp://").unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    // Checks say nothing and leave.
    let _served = loop {
        let (mut peer, _) = backend.accept().unwrap();
        if peer.read(&mut [0]).unwrap() == 1 {
            break peer;
        }
    };
    let connected = || {
        let scrape = get(server.admin, "/metrics").unwrap().body;
        samples(&scrape, "tidegate_backend_connections_total", &server.listeners[0])[0].1
    };
    let before = connected();
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        assert_eq!(connected(), before, "a check came beside the client");
        std::thread::sleep(Duration::from_millis(20));
    }
}
