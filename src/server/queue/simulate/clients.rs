//! The clients: groups of them, each with its pace, its patience and its manners.

use super::random::SeededRandom;
use super::server::SECOND;
use crate::clock::Nanos;
use crate::server::queue::accounts::SourceId;

/// When a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClientPace {
    /// Again this time after its answer.
    Closed(Nanos),
    /// At random, with this mean time between two requests of one client, and at another one from a moment on.
    Standing { mean: Nanos, surge_at: Nanos, mean_then: Nanos },
    /// New clients come at random, this many a second, ask once and leave.
    Once { rate: u64 },
    /// The same, all that many at once, again and again.
    Bursts { clients: u64, every: Nanos },
}

/// Clients that are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientGroup {
    /// How many there are; of those that come once, how many can wait at a time.
    pub(super) clients: usize,
    pub(super) pace: ClientPace,
    /// When the first of them come.
    pub(super) from: Nanos,
    pub(super) patience: Nanos,
    /// How long a client that lost patience stays away.
    pub(super) pause: Nanos,
    /// How many share a source.
    pub(super) per_source: usize,
    /// They stand connected when the world begins.
    pub(super) connected: bool,
    /// They speak in datagrams.
    pub(super) datagrams: bool,
    /// The share of requests after which the client closes its sending half, and waits.
    pub(super) half_close: f64,
    /// Those that leave reset their connection, so that the server can be sure.
    pub(super) resets: bool,
    /// What a turn costs, as a multiple of the server's mean.
    pub(super) cost: f64,
}

impl ClientGroup {
    pub(super) const PLAIN: Self = Self {
        clients: 1,
        pace: ClientPace::Closed(0),
        from: 0,
        patience: SECOND,
        pause: SECOND / 2,
        per_source: 1,
        connected: false,
        datagrams: false,
        half_close: 0.0,
        resets: false,
        cost: 1.0,
    };
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientDoing {
    Nothing,
    /// It waits for its answer since then.
    Waiting(Nanos),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ClientModel {
    pub(super) group: usize,
    pub(super) source: SourceId,
    pub(super) doing: ClientDoing,
    /// The slot of its connection and the generation.
    pub(super) connection: Option<(u32, u32)>,
    /// Requests so far: a timer or an answer that belongs to an earlier one is stale.
    pub(super) asks: u32,
    /// The kernel dropped its handshake, so it has waited for longer than the server can know.
    pub(super) unheard: bool,
    /// Its last request waits in the server.
    pub(super) queued: bool,
}

impl ClientModel {
    pub(super) fn is_waiting(&self, ask: u32) -> bool {
        self.asks == ask && self.doing != ClientDoing::Nothing
    }
}

impl ClientPace {
    /// When a client that asked at `asked` and is free since `now` asks again.
    pub(super) fn next(&self, asked: Nanos, now: Nanos, random: &mut SeededRandom) -> Option<Nanos> {
        match *self {
            Self::Closed(think) => Some(now + think),
            Self::Standing { mean, surge_at, mean_then } => {
                let next = asked + random.interval(if now >= surge_at { mean_then } else { mean });
                let next = if now < surge_at && next > surge_at {
                    surge_at + random.interval(mean_then)
                } else {
                    next
                };
                Some(next.max(now))
            }
            Self::Once { .. } | Self::Bursts { .. } => None,
        }
    }
}
