//! What a front costs: the same load through each of them, with a one-thread loop behind.

use super::front::{self, Front, Wanted};
use crate::hold;
use crate::load::Shape;
use crate::measure::{Bench, Comparison, Load, Sample, finite};
use crate::peers::{DOWNLOAD_BYTES, Mode};
use crate::scene::in_a_line;
use crate::server::{Server, Service, Spec};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections that wait in `quiet`, each of which was used once.
pub(crate) const QUIET: usize = 4_000;
/// More than any work asks for.
const PLACES: usize = 5_000;
/// Requests at the backend at once, of a front for HTTP that has a limit.
const PLACES_HTTP: usize = 8;
/// As many may wait as come, and each is served in its turn: what is measured is the cost of requests that are served.
const IN_ORDER: &str = "--queue 2000 --queue-order fifo";
/// Downloads in one measurement: the kernel counts processor time in hundredths of a second.
const DOWNLOADS: u64 = 3;
/// Runs that go before those which count, at most.
const WORN_IN_MOST: usize = 8;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

const ECHO: Service = Service::stream(Mode::Echo);

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A front that passes bytes on, and a one-thread loop behind it.
    Bytes,
    /// A front that passes HTTP requests on, and nginx behind it, which answers by itself.
    HttpGate,
    /// A server that answers by itself.
    HttpServer,
}

impl Kind {
    /// What is measured.
    pub(crate) fn servers(self) -> &'static str {
        match self {
            Kind::Bytes => "tidegate haproxy haproxy-splice nginx tokio-relay relay",
            Kind::HttpGate => "tidegate haproxy nginx",
            Kind::HttpServer => "tidegate nginx hyper http",
        }
    }

    /// What people use today.
    pub(super) fn rivals(self) -> [&'static str; 2] {
        match self {
            Kind::Bytes | Kind::HttpGate => ["haproxy", "nginx"],
            Kind::HttpServer => ["nginx", "hyper"],
        }
    }
}

/// A closed loop against a front or a server.
pub(crate) struct Through {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    shape: Shape,
    pub(crate) connections: usize,
    size: usize,
    /// Most processor time for a request, over that of the better rival; none is promised everywhere.
    pub(crate) cpu_most: Option<f64>,
}

/// All of them, in the order of the report.
pub(crate) const WORKS: [Through; 11] = [
    Through {
        key: "echo-1",
        title: "Through the gate: 64 bytes, 1 connection",
        kind: Kind::Bytes,
        shape: Shape::Echo,
        connections: 1,
        size: 64,
        cpu_most: Some(0.98),
    },
    Through {
        key: "echo-32",
        title: "Through the gate: 64 bytes, 32 connections",
        kind: Kind::Bytes,
        shape: Shape::Echo,
        connections: 32,
        size: 64,
        cpu_most: Some(0.98),
    },
    Through {
        key: "echo-1000",
        title: "Through the gate: 64 bytes, 1,000 connections",
        kind: Kind::Bytes,
        shape: Shape::Echo,
        connections: 1_000,
        size: 64,
        cpu_most: Some(0.98),
    },
    Through {
        key: "churn",
        title: "Through the gate: connect, 64 bytes, close; 32 at once",
        kind: Kind::Bytes,
        shape: Shape::Churn,
        connections: 32,
        size: 64,
        cpu_most: Some(0.98),
    },
    Through {
        key: "bulk",
        title: "Through the gate: 256 KiB there and back, 8 connections",
        kind: Kind::Bytes,
        shape: Shape::Echo,
        connections: 8,
        size: 256 << 10,
        cpu_most: Some(0.9),
    },
    Through {
        key: "http-gate-1",
        title: "Through the gate for HTTP: 1 connection",
        kind: Kind::HttpGate,
        shape: Shape::Http,
        connections: 1,
        size: 64,
        cpu_most: None,
    },
    Through {
        key: "http-gate-32",
        title: "Through the gate for HTTP: 32 connections",
        kind: Kind::HttpGate,
        shape: Shape::Http,
        connections: 32,
        size: 64,
        cpu_most: Some(0.95),
    },
    Through {
        key: "http-gate-1000",
        title: "Through the gate for HTTP: 1,000 connections",
        kind: Kind::HttpGate,
        shape: Shape::Http,
        connections: 1_000,
        size: 64,
        cpu_most: Some(0.5),
    },
    Through {
        key: "http-1",
        title: "HTTP server: 1 connection",
        kind: Kind::HttpServer,
        shape: Shape::Http,
        connections: 1,
        size: 64,
        cpu_most: None,
    },
    Through {
        key: "http-32",
        title: "HTTP server: 32 connections",
        kind: Kind::HttpServer,
        shape: Shape::Http,
        connections: 32,
        size: 64,
        cpu_most: Some(1.0),
    },
    Through {
        key: "http-1000",
        title: "HTTP server: 1,000 connections",
        kind: Kind::HttpServer,
        shape: Shape::Http,
        connections: 1_000,
        size: 64,
        cpu_most: Some(1.0),
    },
];

/// A download through a front.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Download {
    /// Bytes a second.
    pub(crate) rate: f64,
    /// The front's CPU seconds for 10^9 bytes.
    pub(crate) cpu: f64,
}

/// What the fronts came to, and why some did not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured<T> {
    pub(crate) values: BTreeMap<String, Vec<T>>,
    pub(crate) missing: BTreeMap<String, String>,
}

impl Through {
    pub(crate) fn load(&self, duration: Duration) -> Load {
        let Self { shape, connections, size, .. } = *self;
        Load { shape, mode: Mode::Echo, connections, in_flight: 1, size, rate: 0.0, duration }
    }

    /// Measures the fronts in turn. Those that cannot be measured are left out of the comparison.
    pub(crate) fn compare(
        &self,
        specs: &[Spec],
        rounds: usize,
        duration: Duration,
        bench: &Bench,
    ) -> Result<(Comparison, BTreeMap<String, String>)> {
        let load = self.load(duration);
        if let (Shape::Churn, Some(first)) = (self.shape, specs.first()) {
            self.wear_in(first, &load, bench);
        }
        let mut measured = in_turn(specs, rounds, |spec| -> Result<Sample> {
            let (front, _backend) = self.stand(spec, bench)?;
            load.run_against(&front.server, bench)
        });
        let servers: Vec<String> = specs
            .iter()
            .map(|spec| spec.name.clone())
            .filter(|name| measured.values.contains_key(name))
            .collect();
        let samples = servers.iter().filter_map(|name| measured.values.remove(name)).collect();
        Ok((Comparison { servers, samples }, measured.missing))
    }

    /// Runs that count for nothing, until the kernel keeps as many closed connections in TIME_WAIT as it ever does. Each of them
    /// blocks a port for its second end, and the search for a free one is up to a fifth of a front's time. Past its bound the
    /// kernel keeps no more. So the fronts that are measured first would pay for what the later ones are spared.
    fn wear_in(&self, first: &Spec, load: &Load, bench: &Bench) {
        let mut before = 0;
        for _ in 0..WORN_IN_MOST {
            let _ =
                self.stand(first, bench).and_then(|(front, _backend)| load.run_against(&front.server, bench));
            let now = in_time_wait();
            if now <= before + before / 20 {
                break;
            }
            before = now;
        }
    }
}

/// Connections in TIME_WAIT; 0 where the kernel does not say.
fn in_time_wait() -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let words = sockets.lines().find_map(|line| line.strip_prefix("TCP:"));
    let mut words = words.unwrap_or_default().split_whitespace();
    words.find(|&word| word == "tw").and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

impl Through {
    /// What is loaded, and what stands behind it.
    fn stand(&self, spec: &Spec, bench: &Bench) -> Result<(Front, Option<Server>)> {
        match self.kind {
            Kind::Bytes => {
                let backend = Server::start(&Spec::new("epoll"), ECHO, &bench.client_cpus)?;
                Ok((through(spec, backend.addr, bench)?, Some(backend)))
            }
            Kind::HttpGate => {
                let Front { server: backend, folder } = front::nginx_alone(&bench.client_cpus)?;
                let wanted =
                    Wanted { backends: &[backend.addr], places: PLACES_HTTP, http: true, more: IN_ORDER };
                let front = front::start(spec, wanted, &bench.server_cpus)?;
                // nginx has read its configuration.
                drop(folder);
                Ok((front, Some(backend)))
            }
            Kind::HttpServer => Ok((front::http_server(spec, &bench.server_cpus)?, None)),
        }
    }
}

/// A front on the servers' processor, with enough places.
fn through(spec: &Spec, backend: SocketAddr, bench: &Bench) -> Result<Front> {
    front::start(
        spec,
        Wanted { backends: &[backend], places: PLACES, http: false, more: "" },
        &bench.server_cpus,
    )
}

/// Measures each of the fronts, `rounds` times, in turn; one that has failed is not tried again.
pub(crate) fn in_turn<T>(specs: &[Spec], rounds: usize, measure: impl Fn(&Spec) -> Result<T>) -> Measured<T> {
    let mut measured = Measured { values: BTreeMap::new(), missing: BTreeMap::new() };
    for round in 0..rounds {
        for turn in 0..specs.len() {
            let spec = &specs[(round + turn) % specs.len()];
            if measured.missing.contains_key(&spec.name) {
                continue;
            }
            match measure(spec) {
                Ok(value) => measured.values.entry(spec.name.clone()).or_insert_with(Vec::new).push(value),
                Err(error) => {
                    measured.values.remove(&spec.name);
                    measured.missing.insert(spec.name.clone(), in_a_line(&error));
                }
            }
        }
    }
    measured
}

/// Large files through the fronts.
pub(crate) fn downloads(specs: &[Spec], rounds: usize, bench: &Bench) -> Measured<Download> {
    in_turn(specs, rounds, |spec| {
        let backend = Server::start(&Spec::new("download"), ECHO, &bench.client_cpus)?;
        let front = through(spec, backend.addr, bench)?;
        let target = front.server.addr;
        let (before, started) = (front.server.cost()?.cpu, Instant::now());
        bench.client_cpus.run(move || (0..DOWNLOADS).try_for_each(|_| fetch(target)))??;
        let elapsed = started.elapsed().as_secs_f64();
        let bytes = (DOWNLOADS * DOWNLOAD_BYTES) as f64;
        let cpu = front.server.cost()?.cpu - before;
        Ok(Download { rate: bytes / elapsed, cpu: finite(cpu / (bytes / 1e9)) })
    })
}

/// One download, to its end.
fn fetch(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(DOWNLOAD_TIMEOUT))?;
    stream.write_all(b"?")?;
    let (mut buffer, mut all) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => all += n as u64,
        }
    }
    ensure!(all == DOWNLOAD_BYTES, "{all} bytes came, not {DOWNLOAD_BYTES}");
    Ok(())
}

/// The peak memory of each front with quiet pairs, in bytes.
pub(crate) fn quiet(specs: &[Spec], rounds: usize, bench: &Bench) -> Measured<u64> {
    in_turn(specs, rounds, |spec| {
        let backend = Server::start(&Spec::new("epoll"), ECHO, &bench.client_cpus)?;
        let front = through(spec, backend.addr, bench)?;
        let _held = hold::open(front.server.addr, QUIET, &[b'q'; 64])?;
        Ok(front.server.cost()?.peak_rss)
    })
}
