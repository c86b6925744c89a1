//! The bare load client: epoll, no options, nothing between the socket and the clock. It measures the servers, and it
//! is the limit that `tidegate stress` is measured against.

mod churn;
mod closed;
mod datagram;
mod http;
mod open;
mod plan;
pub(crate) mod sources;
mod tally;

use crate::pin::Cpus;
use anyhow::{Context, Result, ensure};
pub(crate) use plan::{LATE, Plan, Shape, request, seconds};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Duration;
#[cfg(test)]
pub(crate) use tally::Errors;
pub(crate) use tally::Outcome;
use tally::Tally;

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
    #[arg(short, long, default_value = "2s", value_parser = plan::seconds)]
    duration: Duration,
    /// Time before it that is not measured.
    #[arg(long, default_value = "500ms", value_parser = plan::seconds)]
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
        Shape::Echo | Shape::Http => closed::run(plan, barrier),
        Shape::Churn | Shape::Refuse => churn::run(plan, index, barrier),
        Shape::Open => open::run(plan, index, barrier),
        Shape::Udp => datagram::run(plan, barrier),
    }
    .with_context(|| format!("the {:?} client of {}", plan.shape, plan.target))
}
