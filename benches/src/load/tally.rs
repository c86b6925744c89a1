//! What the load clients saw: of each thread, and of all together.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest latency told apart from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// What one thread saw.
pub(super) struct Tally {
    /// Latency of every good reply, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Requests whose intended instant lies in the measured time (open loop), or that ended in it.
    pub(super) requests: u64,
    /// How much later than intended each request was begun (open loop), in nanoseconds: the client's own doing.
    pub(super) late: Histogram<u64>,
    pub(super) errors: Errors,
    pub(super) measured: Duration,
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
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)?,
            requests: 0,
            late: Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 2)?,
            errors: Errors::default(),
            measured: Duration::ZERO,
        })
    }

    pub(super) fn reply(&mut self, latency: Duration) {
        self.latency.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn begun(&mut self, late: Duration) {
        self.late.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn merge(&mut self, other: Tally) -> Result<()> {
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

    pub(super) fn outcome(&self) -> Outcome {
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
