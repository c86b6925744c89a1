//! One server, one load: what came of it. And several servers in turn, again and again, so that what the machine does
//! besides falls on all of them alike.

use crate::load::{self, Outcome, Plan, Shape};
use crate::peers::Mode;
use crate::pin::Cpus;
use crate::scene::plan::Wire;
use crate::server::{Cost, Server, Service, Spec};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for a first reply.
const FIRST_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where servers and clients run.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) server_cpus: Cpus,
    pub(crate) client_cpus: Cpus,
}

impl Bench {
    /// Servers on one processor and clients on the others, or all on all.
    pub(crate) fn new(pinned: bool) -> Result<Self> {
        let all = Cpus::all()?;
        let (server_cpus, client_cpus) = if pinned { all.apart() } else { (all.clone(), all) };
        Ok(Self { server_cpus, client_cpus })
    }
}

/// A load to measure servers with.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    /// Requests under way on each socket (datagrams).
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
}

/// What one run of one server came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) outcome: Outcome,
    /// The server's CPU seconds for each second of the run: 1.0 is a whole processor.
    pub(crate) server_cpu: f64,
    /// The server's CPU seconds for each request.
    pub(crate) cpu_per_request: f64,
    /// The most memory the server had, in bytes.
    pub(crate) peak_rss: u64,
    /// The server's threads at the end.
    pub(crate) threads: u64,
}

impl Load {
    fn plan(&self, server: &Server, clients: &Cpus) -> Plan {
        // The open loop's first second is that in which a queue that only grows has not yet passed a client's patience.
        let warmup = match self.shape {
            Shape::Open => Duration::from_millis(2_000),
            _ => (self.duration / 4).max(Duration::from_millis(200)),
        };
        Plan {
            shape: self.shape,
            target: server.addr,
            connections: self.connections,
            in_flight: self.in_flight,
            size: self.size,
            rate: self.rate,
            warmup,
            duration: self.duration,
            threads: clients.count(),
        }
    }

    fn service(&self) -> Service {
        let wire = if self.shape == Shape::Udp { Wire::Datagrams } else { Wire::Stream };
        Service { wire, mode: self.mode }
    }

    /// Runs it against a fresh server.
    pub(crate) fn run(&self, spec: &Spec, bench: &Bench) -> Result<Sample> {
        let server = Server::start(spec, self.service(), &bench.server_cpus)?;
        self.run_against(&server, bench).with_context(|| format!("measuring {}", spec.name))
    }

    pub(crate) fn run_against(&self, server: &Server, bench: &Bench) -> Result<Sample> {
        let plan = self.plan(server, &bench.client_cpus);
        // A server that refuses everybody is one that is full: somebody holds its only place.
        let _holder = match self.shape {
            Shape::Refuse => Some(hold(server)?),
            _ => None,
        };
        let mut costs = Vec::with_capacity(2);
        let outcome = load::run(&plan, &bench.client_cpus, || costs.push((Instant::now(), server.cost())))?;
        let mut costs = costs.into_iter();
        let (Some((from, first)), Some((to, last))) = (costs.next(), costs.next()) else {
            bail!("the run ended before it was measured");
        };
        // A server that the load has ended has no costs any more: a sample that shows it, and the run goes on.
        let gone = Cost { cpu: f64::NAN, peak_rss: 0, threads: 0 };
        let (first, last, after) =
            (first.unwrap_or(gone), last.unwrap_or(gone), server.cost().unwrap_or(gone));
        let (cpu, elapsed) = (last.cpu - first.cpu, (to - from).as_secs_f64());
        Ok(Sample {
            server_cpu: finite(cpu / elapsed),
            cpu_per_request: finite(cpu / (outcome.replies.max(1) as f64)),
            peak_rss: after.peak_rss,
            threads: after.threads,
            outcome,
        })
    }
}

/// JSON has no other numbers.
pub(crate) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn hold(server: &Server) -> Result<TcpStream> {
    let stream = TcpStream::connect(server.addr)?;
    // The reset peer takes nobody; a server with one place answers once it is taken.
    let mut stream_ref = &stream;
    stream.set_read_timeout(Some(FIRST_REPLY_TIMEOUT))?;
    let _ = stream_ref.write(b"hold");
    let _ = stream_ref.read(&mut [0; 4]);
    Ok(stream)
}

/// From the start of a server's process to the first reply: what a user of a restarted server waits.
pub(crate) fn start_to_first_reply(spec: &Spec, bench: &Bench) -> Result<Duration> {
    let started = Instant::now();
    let server = Server::start(spec, Service::stream(Mode::Echo), &bench.server_cpus)?;
    let mut stream = TcpStream::connect(server.addr)?;
    stream.set_read_timeout(Some(FIRST_REPLY_TIMEOUT))?;
    stream.write_all(b"first")?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).with_context(|| format!("{} did not reply", spec.name))?;
    ensure!(&reply == b"first", "{} did not echo", spec.name);
    Ok(started.elapsed())
}

/// What several servers came to under one load: a sample for each server and round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) servers: Vec<String>,
    /// `samples[server][round]`.
    pub(crate) samples: Vec<Vec<Sample>>,
}

/// Measures the servers in turn, `rounds` times, each round beginning with another one.
pub(crate) fn compare(load: &Load, specs: &[Spec], rounds: usize, bench: &Bench) -> Result<Comparison> {
    let mut samples = vec![Vec::new(); specs.len()];
    for round in 0..rounds {
        for turn in 0..specs.len() {
            let at = (round + turn) % specs.len();
            samples[at].push(load.run(&specs[at], bench)?);
        }
    }
    Ok(Comparison { servers: specs.iter().map(|spec| spec.name.clone()).collect(), samples })
}

impl Comparison {
    /// One figure of a server, for each round.
    pub(crate) fn values(&self, server: usize, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples[server].iter().map(figure).collect()
    }

    /// One server's figure over another's, round by round.
    pub(crate) fn ratios(&self, server: usize, other: usize, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let pairs = self.samples[server].iter().zip(&self.samples[other]);
        pairs.map(|(one, two)| figure(one) / figure(two)).collect()
    }
}
