//! What the load clients do, how much of it, and how long.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest wait for a connection, a first reply, or an event in a run that should be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// If a client begins more than one request in a hundred later than this, it has too little of its processor, and
/// what it measures is partly its own delay.
pub(crate) const LATE: Duration = Duration::from_millis(50);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Each connection sends a request, waits for its echo, and sends the next.
    Echo,
    /// Each connection sends an HTTP request, waits for its answer, and sends the next.
    Http,
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

/// The measured part of a run: from `start` to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn of(plan: &Plan) -> Self {
        let start = Instant::now() + plan.warmup;
        Self { start, end: start + plan.duration }
    }

    pub(super) fn contains(&self, instant: Instant) -> bool {
        self.start <= instant && instant < self.end
    }
}

/// What is sent: not all one byte, so that a reply out of place shows.
pub(crate) fn request(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 23) as u8).collect()
}

/// A time as `2s` or `500ms`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number = |digits: &str, unit: f64| digits.parse::<f64>().ok().map(|number| number * unit);
    let seconds = match text.strip_suffix("ms") {
        Some(digits) => number(digits, 1e-3),
        None => text.strip_suffix('s').and_then(|digits| number(digits, 1.0)),
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a time: write it like 2s or 500ms"))
}
