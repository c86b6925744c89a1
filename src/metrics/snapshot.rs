//! One reading of everything that a server counts: plain data, consistent in itself.
//!
//! In every snapshot and for each listener
//! `accepted = dropped + closed + queued + active + idle` holds.

use super::backends::BackendsSnapshot;
use super::handshakes::HandshakesSnapshot;
use super::web::WebSnapshot;
use crate::reason::{AcceptError, CloseReason, DatagramDrop, DropReason, TurnOutcome, TurnShed, WouldDrop};
use std::time::Duration;

pub use super::histogram::{BUCKETS, HistogramSnapshot};
pub use crate::phase::Phase;

/// A listener's own queue in the kernel: connections whose handshake is complete and that wait
/// to be accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptQueue {
    /// How many wait now.
    pub connections: u64,
    /// How many may wait.
    pub limit: u64,
    /// How many handshakes the kernel has dropped since the listener was opened.
    pub drops: u64,
}

/// What is known of one listener.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListenerSnapshot {
    /// Its address as a URL with the real port: the `listener` label.
    pub listener: String,
    /// The name of its service: the `service` label.
    pub service: String,
    /// Whether it takes datagrams and not connections.
    pub datagram: bool,
    /// Whether it was closed while the server goes on: it accepts nobody, and its last connections may be open.
    pub is_closed: bool,
    /// Accepts that returned a socket.
    pub accepted: u64,
    /// Connections turned away before a first turn, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Connections ended after that, by [`CloseReason`].
    pub closed: [u64; CloseReason::COUNT],
    /// Connections that wait for a worker.
    pub queued: u64,
    /// How many of those wait for their first turn, until which they may be turned away.
    pub newcomers: u64,
    /// Connections that have a worker.
    pub active: u64,
    /// Connections that wait for their client and own no thread.
    pub idle: u64,
    /// Errors of accept, by [`AcceptError`].
    pub accept_errors: [u64; AcceptError::COUNT],
    /// The kernel's accept queue, where the system tells; `None` when the listener is closed.
    pub backlog: Option<AcceptQueue>,
    /// Turns of the service, by [`TurnOutcome`].
    pub turns: [u64; TurnOutcome::COUNT],
    /// Requests of established connections that got no turn, by [`TurnShed`].
    pub turns_shed: [u64; TurnShed::COUNT],
    /// How long the turns took, the service alone.
    pub turn_duration: HistogramSnapshot,
    /// Bytes read from clients.
    pub received_bytes: u64,
    /// Bytes the kernel took for clients.
    pub sent_bytes: u64,
    /// Datagrams taken from the kernel.
    pub datagrams_received: u64,
    /// Datagrams not answered, by [`DatagramDrop`].
    pub datagrams_dropped: [u64; DatagramDrop::COUNT],
    /// What limits in a dry run would have refused or shed, by [`WouldDrop`].
    pub would_drop: [u64; WouldDrop::COUNT],
    /// The backends of a gate.
    pub backends: Option<BackendsSnapshot>,
    /// The TLS handshakes, where the listener has them.
    pub handshakes: Option<HandshakesSnapshot>,
    /// The HTTP and the WebSockets, where the listener speaks them.
    pub web: Option<WebSnapshot>,
}

impl ListenerSnapshot {
    /// All connections turned away before a first turn.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// All connections ended after their admission.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.queued + self.active + self.idle
    }

    /// HTTP requests that got no place at a gate's backends, by [`DropReason`]. Their connections stay, so they are not
    /// part of [`dropped`](Self::dropped); at a gate for connections, the clients without a place are.
    pub fn requests_refused(&self) -> [u64; DropReason::COUNT] {
        let mut refused = [0; DropReason::COUNT];
        if let (Some(gate), Some(_)) = (&self.backends, &self.web) {
            gate.refused().iter().for_each(|&(reason, count)| refused[reason as usize] = count);
        }
        refused
    }

    /// Everybody turned away: connections, requests and datagrams.
    pub fn turned_away(&self) -> u64 {
        let requests = self.turns_shed.iter().chain(&self.datagrams_dropped).sum::<u64>();
        self.dropped_total() + requests + self.requests_refused().iter().sum::<u64>()
    }

    /// Whether every accepted connection is accounted for, and every place at a backend.
    pub fn conserved(&self) -> bool {
        self.accepted == self.dropped_total() + self.closed_total() + self.open()
            && self.backends.as_ref().is_none_or(BackendsSnapshot::conserved)
    }
}

/// One reading of everything a server counts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the server is doing.
    pub phase: Phase,
    /// Time since the server began to serve.
    pub uptime: Duration,
    /// Every listener, in the order they were given.
    pub listeners: Vec<ListenerSnapshot>,
    /// How many connections may be open.
    pub connections_limit: u64,
    /// Entries in the queue, newcomers and connections with more to do.
    pub queue_length: u64,
    /// How many newcomers, and how many datagrams, may wait before others are refused.
    pub queue_limit: u64,
    /// Requests set aside while the queue stands, to be served by sources in turn; part of `queue_length`.
    pub shelf_length: u64,
    /// How long the oldest of those has waited.
    pub shelf_oldest: Duration,
    /// For how long the queue has stood; `None` while it does not.
    pub standing: Option<Duration>,
    /// Whether requests that are set aside are served in the order in which they came, not the freshest first: by
    /// `queue_order`, or because all of them can be served soon.
    pub in_order: bool,
    /// From entering the queue to meeting a worker.
    pub queue_wait: HistogramSnapshot,
    /// Configured workers.
    pub workers_limit: u64,
    /// Workers in a turn.
    pub workers_busy: u64,
    /// Workers in one turn for longer than `stuck_threshold`.
    pub workers_stuck: u64,
    /// Time that all workers together have spent in turns.
    pub worker_busy: Duration,
    /// Panics caught in services.
    pub handler_panics: u64,
    /// Polite closes under way.
    pub lingering: u64,
    /// Connections that ended because their client left under overload, and whose socket is closed within four seconds.
    pub late_closes: u64,
    /// Bytes held for lines whose end has not come.
    pub pending_input_bytes: u64,
    /// Bytes of replies that clients have not taken yet.
    pub pending_output_bytes: u64,
    /// Why newcomers are being refused at this moment, if they are.
    pub shedding: Option<DropReason>,
}

impl Snapshot {
    /// Whether every listener accounts for every connection it accepted.
    pub fn conserved(&self) -> bool {
        self.listeners.iter().all(ListenerSnapshot::conserved)
    }
}

/// One refusal, for the status page: no address of a client is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusalEntry {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Index into [`Snapshot::listeners`].
    pub listener: usize,
    /// Why.
    pub reason: DropReason,
    /// Whether requests of open connections were refused, and not connections.
    pub requests: bool,
    /// How many in this entry: a flood is one entry a second for each listener and reason.
    pub count: u64,
}

/// A source of connections that is being refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedSource {
    /// Its address, or its network where `source_prefix` tells only networks apart.
    pub source: String,
    /// How often it was refused in the time that was looked at.
    pub count: u64,
}

/// What was sized when a server started, so that limits cannot be raised above it until a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ceilings {
    /// Connections that there is room for.
    pub connections: usize,
    /// Workers that there is room for.
    pub workers: usize,
    /// Places for datagrams that wait or are being answered, where a listener takes them.
    pub datagrams: usize,
    /// Listeners that there is room for.
    pub listeners: usize,
}

/// Something that can be observed: a server, seen by the admin endpoint and the metrics.
pub trait Observe: Send + Sync {
    /// Reads everything, at the cost of one pass over the counters.
    fn snapshot(&self) -> Snapshot;

    /// The last refusals, newest first, at most 50.
    fn refusals(&self) -> Vec<RefusalEntry>;

    /// The sources that were refused most in the last minute for being who they are (`max_per_source`,
    /// `source_rate`), the most refused first, at most five.
    fn refused_sources(&self) -> Vec<RefusedSource> {
        Vec::new()
    }

    /// The effective limits as names and values for people, in the order of the documentation.
    fn limits(&self) -> Vec<(&'static str, String)>;

    /// For each listener, in the order of the snapshot's, the limits that are others there than those of the server, with
    /// their values.
    fn own_limits(&self) -> Vec<Vec<(&'static str, String)>> {
        Vec::new()
    }

    /// What was sized at the start.
    fn ceilings(&self) -> Ceilings {
        Ceilings::default()
    }
}
