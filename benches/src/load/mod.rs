//! The bare load client: epoll, no options, nothing between the socket and the clock. It measures the servers, and it
//! is the limit that `tidegate stress` is measured against.

mod churn;
mod closed;
mod datagram;
mod open;
pub(crate) mod sources;

use crate::pin::Cpus;
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Longest latency told apart from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a connection, a first reply, or an event in a run that should be busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that begins more than a request in a hundred so much later than intended has too little of its processor:
/// what it sees is its own doing too.
pub(crate) const LATE: Duration = Duration::from_millis(50);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Each connection sends a request, waits for its echo, and sends the next.
    Echo,
    /// As echo, but each request has a connection of its own.
    Churn,
    /// Each connection waits for its reset, and the next is made.
    Refuse,
    /// Requests come at a rate, whatever the server does, each on a connection of its own; one that is not answered
    /// within a second is of no use.
    Open,
    /// Each socket sends a datagram (or a few), waits for the answer, and sends the next.
    Udp,
}

/// What to do, how much of it, how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) target: SocketAddr,
    /// Connections at once, in all threads; of no meaning for the open loop.
    pub(crate) connections: usize,
    /// Requests under way on each socket (datagrams).
    pub(crate) in_flight: usize,
    /// Bytes of a request.
    pub(crate) size: usize,
    /// Requests a second (open loop).
    pub(crate) rate: f64,
    /// Not measured, before the measured time.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) duration: Duration,
    /// Each with its own epoll and its share of the connections.
    pub(crate) threads: usize,
}

/// Options of the load client.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// What the clients do.
    shape: Shape,
    /// Where the server is.
    target: SocketAddr,
    /// Connections at once.
    #[arg(short, long, default_value_t = 32)]
    connections: usize,
    /// Requests under way on each socket (udp).
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Bytes of a request.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Requests a second (open).
    #[arg(short, long, default_value_t = 1000.0)]
    rate: f64,
    /// Measured time.
    #[arg(short, long, default_value = "2s", value_parser = crate::quick::seconds)]
    duration: Duration,
    /// Time before it that is not measured.
    #[arg(long, default_value = "500ms", value_parser = crate::quick::seconds)]
    warmup: Duration,
    /// Threads, each with its share of the connections.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Loads a server and prints what it saw.
pub(crate) fn command(args: LoadArgs) -> Result<()> {
    use std::io::Write;
    let LoadArgs { shape, target, connections, in_flight, size, rate, duration, warmup, threads } = args;
    let plan = Plan { shape, target, connections, in_flight, size, rate, warmup, duration, threads };
    let outcome = run(&plan, &Cpus::all()?, || {})?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &outcome)?;
    Ok(writeln!(out)?)
}

/// What one thread saw.
pub(crate) struct Tally {
    /// Latency of every good reply, in nanoseconds.
    latency: Histogram<u64>,
    /// Requests whose intended instant lies in the measured time (open loop), or that ended in it.
    requests: u64,
    /// How much later than intended each request was begun (open loop), in nanoseconds: the client's own doing.
    late: Histogram<u64>,
    errors: Errors,
    measured: Duration,
}

/// What was not a good reply.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// Reset, or refused by the kernel.
    pub(crate) reset: u64,
    /// Ended before the reply.
    pub(crate) eof: u64,
    /// No reply in time.
    pub(crate) timeout: u64,
    /// Not sent: no descriptor or no address.
    pub(crate) unsent: u64,
    /// Datagrams that had to be sent again.
    pub(crate) lost: u64,
}

impl Errors {
    /// All of them.
    pub(crate) fn sum(&self) -> u64 {
        self.reset + self.eof + self.timeout + self.unsent + self.lost
    }
}

/// What a run saw. Times are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests asked for in the measured time.
    pub(crate) requests: u64,
    /// Good replies in the measured time.
    pub(crate) replies: u64,
    /// Good replies a second.
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// How much later than intended the client itself began one request in a hundred (open loop).
    #[serde(default)]
    pub(crate) late_p99: f64,
    pub(crate) errors: Errors,
    pub(crate) seconds: f64,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)?,
            requests: 0,
            late: Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 2)?,
            errors: Errors::default(),
            measured: Duration::ZERO,
        })
    }

    fn reply(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    fn begun(&mut self, late: Duration) {
        self.late.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    fn merge(&mut self, other: Tally) -> Result<()> {
        self.latency.add(&other.latency)?;
        self.requests += other.requests;
        self.late.add(&other.late)?;
        self.measured = self.measured.max(other.measured);
        let Errors { reset, eof, timeout, unsent, lost } = other.errors;
        self.errors.reset += reset;
        self.errors.eof += eof;
        self.errors.timeout += timeout;
        self.errors.unsent += unsent;
        self.errors.lost += lost;
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        let quantile = |q| match self.latency.len() {
            0 => 0.0,
            _ => self.latency.value_at_quantile(q) as f64 / 1e9,
        };
        let seconds = self.measured.as_secs_f64();
        Outcome {
            requests: self.requests,
            replies: self.latency.len(),
            rate: self.latency.len() as f64 / seconds,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: quantile(1.0),
            late_p99: self.late.value_at_quantile(0.99) as f64 / 1e9,
            errors: self.errors,
            seconds,
        }
    }
}

/// The measured part of a run: from `start` to `end`.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Instant,
    end: Instant,
}

impl Window {
    fn of(plan: &Plan) -> Self {
        let start = Instant::now() + plan.warmup;
        Self { start, end: start + plan.duration }
    }

    fn contains(&self, instant: Instant) -> bool {
        self.start <= instant && instant < self.end
    }
}

/// Runs a plan on these processors. `probe` is called when the measured time begins and when it ends.
pub(crate) fn run(plan: &Plan, cpus: &Cpus, mut probe: impl FnMut()) -> Result<Outcome> {
    ensure!(plan.size > 0 && plan.connections > 0, "a request has at least one byte and one connection");
    ensure!(plan.in_flight > 0, "a socket has at least one request under way");
    let threads = plan.threads.clamp(1, plan.connections);
    let barrier = Barrier::new(threads + 1);
    let tallies: Vec<Result<Tally>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|index| {
                let mut share = plan.clone();
                share.connections =
                    plan.connections / threads + usize::from(index < plan.connections % threads);
                share.rate = plan.rate / threads as f64;
                let barrier = &barrier;
                scope.spawn(move || {
                    // Every thread meets the others at the barrier, whatever has happened to it.
                    if let Err(error) = cpus.pin_this_thread() {
                        barrier.wait();
                        return Err(error);
                    }
                    client(&share, index, barrier)
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(plan.warmup);
        probe();
        std::thread::sleep(plan.duration);
        probe();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| anyhow::bail!("a client thread panicked")))
            .collect()
    });
    let mut all = Tally::new()?;
    for tally in tallies {
        all.merge(tally?)?;
    }
    Ok(all.outcome())
}

fn client(plan: &Plan, index: usize, barrier: &Barrier) -> Result<Tally> {
    match plan.shape {
        Shape::Echo => closed::run(plan, barrier),
        Shape::Churn | Shape::Refuse => churn::run(plan, index, barrier),
        Shape::Open => open::run(plan, index, barrier),
        Shape::Udp => datagram::run(plan, barrier),
    }
    .with_context(|| format!("the {:?} client of {}", plan.shape, plan.target))
}

/// What is sent: not all one byte, so that a reply out of place shows.
pub(crate) fn request(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 23) as u8).collect()
}
