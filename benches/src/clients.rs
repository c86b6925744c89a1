//! The load clients: `tidegate stress` beside the bare client and beside wrk, in turn, against one server that is nothing
//! but a loop.

use crate::load::{self, Plan, Shape};
use crate::measure::Bench;
use crate::peers::Mode;
use crate::results::ClientRates;
use crate::server::{self, Server, Service, Spec};
use anyhow::{Context, Result, bail, ensure};
use std::process::Command;
use std::time::Duration;

/// Before the measured time: thousands of connections take long until each has its turn.
const WARMUP: Duration = Duration::from_secs(2);
/// The shortest measured time.
const MEASURED_MIN: Duration = Duration::from_secs(2);
/// Where the short connections of `tidegate stress` come from. The bare client too gives each a port and an address that
/// rest no more, from others of these.
const SOURCES: &str = "127.78.0.0/24";
const ECHO: Service = Service::stream(Mode::Echo);

/// Measures them.
pub(crate) struct Clients<'a> {
    bench: &'a Bench,
    rounds: usize,
    measured: Duration,
}

/// Whether there is a wrk to compare with.
pub(crate) fn wrk_is_installed() -> bool {
    Command::new("wrk").arg("--version").output().is_ok()
}

impl<'a> Clients<'a> {
    /// Each client is measured in this number of rounds, for this time each, or for two seconds if that is more.
    pub(crate) fn new(bench: &'a Bench, rounds: usize, duration: Duration) -> Self {
        Self { bench, rounds, measured: duration.max(MEASURED_MIN) }
    }

    /// Echo over connections that stay.
    pub(crate) fn echo(&self, connections: usize) -> Result<ClientRates> {
        let server = self.server("epoll")?;
        self.pairs(
            || self.stress("tcp", &server, connections, &["--size", "64"]),
            || self.bare(Shape::Echo, &server, connections),
        )
    }

    /// Connect, echo, close.
    pub(crate) fn churn(&self, connections: usize) -> Result<ClientRates> {
        let server = self.server("epoll")?;
        let args = ["--size", "64", "--reuse", "never", "--source-ip", SOURCES];
        self.pairs(
            || self.stress("tcp", &server, connections, &args),
            || self.bare(Shape::Churn, &server, connections),
        )
    }

    /// HTTP over connections that stay.
    pub(crate) fn http(&self, connections: usize) -> Result<ClientRates> {
        let server = self.server("http")?;
        self.pairs(|| self.stress("http", &server, connections, &[]), || self.wrk(&server, connections))
    }

    fn server(&self, name: &str) -> Result<Server> {
        Server::start(&Spec::new(name), ECHO, &self.bench.server_cpus)
    }

    fn threads(&self, connections: usize) -> String {
        self.bench.client_cpus.count().min(connections).to_string()
    }

    /// Both in turn, each round beginning with the other one.
    fn pairs(
        &self,
        stress: impl Fn() -> Result<f64>,
        other: impl Fn() -> Result<f64>,
    ) -> Result<ClientRates> {
        let mut rates = ClientRates::default();
        for round in 0..self.rounds {
            if round % 2 == 0 {
                rates.stress.push(stress()?);
                rates.other.push(other()?);
            } else {
                rates.other.push(other()?);
                rates.stress.push(stress()?);
            }
        }
        Ok(rates)
    }

    fn bare(&self, shape: Shape, server: &Server, connections: usize) -> Result<f64> {
        let plan = Plan {
            shape,
            target: server.addr,
            connections,
            in_flight: 1,
            size: 64,
            rate: 0.0,
            warmup: WARMUP,
            duration: self.measured,
            threads: self.bench.client_cpus.count(),
        };
        let outcome = load::run(&plan, &self.bench.client_cpus, || {})?;
        ensure!(outcome.errors.sum() == 0, "the bare client had errors: {:?}", outcome.errors);
        Ok(outcome.rate)
    }

    fn stress(&self, scheme: &str, server: &Server, connections: usize, args: &[&str]) -> Result<f64> {
        let mut command = Command::new(server::default_tidegate());
        command.args(["stress", &format!("{scheme}://{}", server.addr), "-o", "json"]).args(args);
        command.args(["-c", &connections.to_string(), "--threads", &self.threads(connections)]);
        command.args(["-d", &format!("{}ms", self.measured.as_millis())]);
        command.args(["--warmup", &format!("{}ms", WARMUP.as_millis())]);
        let output = self.bench.client_cpus.output(command)?;
        if !output.status.success() {
            bail!("tidegate stress: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("what tidegate stress printed is not JSON")?;
        let outcomes = &report["outcomes"];
        ensure!(report["sent"] == report["done"], "tidegate stress had other outcomes than ok: {outcomes}");
        report["rate"].as_f64().context("the report of tidegate stress has no rate")
    }

    /// wrk has no warm-up, so it runs for as long as the others with theirs, and all of it counts.
    fn wrk(&self, server: &Server, connections: usize) -> Result<f64> {
        let mut command = Command::new("wrk");
        command.args(["-t", &self.threads(connections), "-c", &connections.to_string()]);
        command.args(["-d", &format!("{}s", (WARMUP + self.measured).as_secs_f64().ceil())]);
        command.arg(format!("http://{}/", server.addr));
        let output = self.bench.client_cpus.output(command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {}: {text}", output.status);
        wrk_rate(&text)
    }
}

/// The rate in what wrk prints. Errors leave none: what is not asked for costs nothing.
fn wrk_rate(text: &str) -> Result<f64> {
    for error in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        ensure!(!text.contains(error), "wrk had errors: {text}");
    }
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate = line.and_then(|rate| rate.trim().parse().ok());
    rate.with_context(|| format!("wrk says no rate: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_wrk_is_found_unless_it_had_errors() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
                    90000 requests in 1.00s, 9.00MB read\nRequests/sec:  89012.34\nTransfer/sec:      9.00MB\n";
        assert_eq!(wrk_rate(text).unwrap(), 89012.34);
        let errors = "  Socket errors: connect 0, read 3, write 0, timeout 0\n";
        assert!(wrk_rate(&format!("{errors}{text}")).is_err());
        assert!(wrk_rate("").is_err());
    }
}
