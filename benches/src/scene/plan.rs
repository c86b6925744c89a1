//! What a scene is: stages of time, and groups of clients that behave alike and are measured together.

use std::net::Ipv4Addr;
use std::time::Duration;

/// A part of a scene's time, in which every group keeps its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
}

/// What the clients of a group do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asks {
    /// Each has a connection that stays and asks by a clock of its own; together they ask at the group's rate. A client
    /// that still waits when its next request is due asks once the wait is over.
    Standing,
    /// Each has a connection that stays and asks again as soon as it has its reply, in stages with a rate above zero.
    Closed,
    /// Newcomers at the group's rate: connect, ask once, close.
    OneShot,
    /// As many newcomers as the group has clients at one instant, at the start of each stage with a rate above zero and
    /// then after each pause.
    Burst { pause: Duration },
    /// Each connects when a stage with a rate above zero begins, sends all its bytes at once, and takes what comes.
    Flood,
}

/// Where the clients of a group connect from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum From {
    /// A few addresses in turn as long as they have ports, and then the next few: the kernel keeps the port of a connection
    /// that its client has closed for a minute, and looks through all of them when few are free.
    Spread,
    /// `count` addresses from this one on; client i has the address i modulo `count`.
    Addresses { first: Ipv4Addr, count: usize },
    /// Where an earlier group connects from, so that the server takes both for one source.
    Like { group: usize },
}

/// Clients that behave alike and are measured together.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) name: &'static str,
    pub(crate) asks: Asks,
    pub(crate) from: From,
    /// Standing clients, or newcomers at once.
    pub(crate) clients: usize,
    /// Requests a second of all of them together, one rate for each stage.
    pub(crate) rates: Vec<f64>,
    /// Bytes of a request.
    pub(crate) size: usize,
    /// How long a client waits for its reply before it closes.
    pub(crate) patience: Duration,
    /// How long after a failure a standing client comes back.
    pub(crate) pause: Duration,
    /// Every n-th client sends the second half of its request this much later than the first.
    pub(crate) halves: Option<(usize, Duration)>,
}

impl Party {
    /// Standing clients with a second of patience that come back half a second after a failure.
    pub(crate) fn standing(name: &'static str, clients: usize, rates: &[f64]) -> Self {
        Self {
            name,
            asks: Asks::Standing,
            from: From::Spread,
            clients,
            rates: rates.to_vec(),
            size: 64,
            patience: Duration::from_secs(1),
            pause: Duration::from_millis(500),
            halves: None,
        }
    }

    /// Newcomers with a second of patience.
    pub(crate) fn newcomers(name: &'static str, rates: &[f64]) -> Self {
        Self { asks: Asks::OneShot, ..Self::standing(name, 0, rates) }
    }

    /// Whether its connections are opened, and used once, before the first stage.
    pub(super) fn joins(&self) -> bool {
        matches!(self.asks, Asks::Standing | Asks::Closed)
    }
}

/// The form of requests on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Bytes over TCP, which come back.
    Stream,
    /// Lines over TCP, which come back; a flood sends newlines.
    Lines,
    /// Datagrams, which come back.
    Datagrams,
    /// HTTP requests; an answer with status 200 is a reply, and any other a refusal. Newcomers ask for their connection to
    /// be closed.
    Http,
}

/// All that the clients of a scene do.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) wire: Wire,
    pub(crate) stages: Vec<Stage>,
    pub(crate) groups: Vec<Party>,
}

impl Script {
    /// When a stage begins, from the start of the first; that of one past the last is the end.
    pub(super) fn begin(&self, stage: usize) -> Duration {
        self.stages[..stage].iter().map(|stage| stage.time).sum()
    }

    /// From the start of the first stage to the end of the last.
    pub(super) fn time(&self) -> Duration {
        self.begin(self.stages.len())
    }
}
