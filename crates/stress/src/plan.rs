//! The plan of a run: everything that is decided before it begins.

use super::names::named;
use super::outcome::Outcome;
use super::schedule::{Profile, Spread};
use super::source::Sources;
use super::target::Target;
use super::wire::Wire;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_protocols::tls::Tls;
use tidegate_units as units;
use tidegate_units::url::{Scheme, Url};
use tidegate_units::{counted, show_time};

/// The most load threads.
pub(crate) const MAX_THREADS: usize = 64;
/// The most connections: beyond it the descriptor limit of any usual system is passed anyway.
pub(crate) const MAX_CONNECTIONS: u64 = 1_000_000;
/// The highest rate a second.
pub(crate) const MAX_RATE: f64 = 10_000_000.0;
/// Descriptors a run needs beside its connections: standard streams, epolls, report files.
pub(crate) const SPARE_DESCRIPTORS: u64 = 32;

/// The most connections at a time of a probe whose requests connect anew.
const MAX_PROBE_CLIENTS: usize = 500;

/// What is done with each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Requests are sent and replies awaited.
    Request,
    /// Connections are opened and closed at once.
    ConnectFlood,
    /// Connections are opened and kept open in silence.
    Hold,
    /// Requests are sent one byte at a time.
    SlowSend,
    /// Requests are sent as fast as they are taken, and replies read one byte at a time.
    SlowRead,
}

impl Mode {
    /// Every mode.
    pub const ALL: &'static [Mode] =
        &[Mode::Request, Mode::ConnectFlood, Mode::Hold, Mode::SlowSend, Mode::SlowRead];

    /// What a client in this mode does, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Mode::Request => "Sends requests and waits for the replies",
            Mode::ConnectFlood => "Connects and closes at once",
            Mode::Hold => "Connects and stays silent",
            Mode::SlowSend => "Sends its request one byte at a time",
            Mode::SlowRead => "Sends requests as fast as the server takes them, and reads one byte at a time",
        }
    }

    /// The name on the command line and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Request => "request",
            Mode::ConnectFlood => "connect-flood",
            Mode::Hold => "hold",
            Mode::SlowSend => "slow-send",
            Mode::SlowRead => "slow-read",
        }
    }

    /// Whether a connection in this mode is there to stay: its end, or the run's, ends its request.
    pub(crate) const fn stays(self) -> bool {
        matches!(self, Mode::Hold | Mode::SlowSend | Mode::SlowRead)
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Mode::ALL, Mode::as_str, text)
    }
}

/// How many requests a connection serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reuse {
    /// All.
    Forever,
    /// This many (1: never used again).
    Times(u32),
}

/// How the generator ends a connection that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Close {
    /// An orderly end.
    Fin,
    /// A reset, which leaves no port in TIME_WAIT.
    Rst,
    /// The sending half first; then the server's end is awaited, at most a second.
    Half,
}

impl Close {
    /// Every way.
    pub const ALL: &'static [Close] = &[Close::Fin, Close::Rst, Close::Half];

    /// What is done, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Close::Fin => "An orderly end",
            Close::Rst => "A reset, which leaves no port in TIME_WAIT",
            Close::Half => {
                "The sending half first; then it waits for the server to close, for a second at most"
            }
        }
    }

    /// The name on the command line and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Close::Fin => "fin",
            Close::Rst => "rst",
            Close::Half => "half",
        }
    }
}

impl FromStr for Close {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Close::ALL, Close::as_str, text)
    }
}

impl FromStr for Reuse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Reuse::Forever),
            "never" => Ok(Reuse::Times(1)),
            _ => match units::positive(text).map(u32::try_from) {
                Ok(Ok(times)) => Ok(Reuse::Times(times)),
                _ => Err(format!("`{text}` is not one of forever, never and a number of requests")),
            },
        }
    }
}

/// A closed loop's pause between a reply and the next request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Think {
    /// Always this long.
    Fixed(Duration),
    /// Exponentially distributed with this mean.
    Exponential(Duration),
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("exp:") {
            Some(mean) => units::duration(mean).map(Think::Exponential),
            None => units::duration(text).map(Think::Fixed),
        }
    }
}

/// What decides when a request is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The reply before it: as many clients as connections, each waiting for its reply.
    Closed(Think),
    /// A schedule that does not wait for the server.
    Open {
        /// The rate over time, the warm-up included.
        profile: Arc<Profile>,
        /// How arrivals spread.
        spread: Spread,
        /// The rate as the report shows it.
        label: String,
    },
}

impl Pace {
    /// An open loop of one rate. Without a length, a number of requests ends the run.
    pub(crate) fn constant(rate: f64, spread: Spread, warmup: Duration, length: Option<Duration>) -> Self {
        let length = length.unwrap_or(Duration::from_secs(1 << 30));
        Pace::Open {
            profile: Arc::new(Profile::constant(rate, warmup + length)),
            spread,
            label: format!("{rate}/s"),
        }
    }
}

/// Everything about one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) url: Url,
    /// Where the URL's host was found.
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pace: Pace,
    /// Runs before the measured part; requests that begin in it are not measured.
    pub(crate) warmup: Duration,
    /// Length of the measured part; without it `requests` ends the run.
    pub(crate) duration: Option<Duration>,
    /// How many measured requests are made.
    pub(crate) requests: Option<u64>,
    /// From a request to its whole reply.
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) reuse: Reuse,
    pub(crate) close: Close,
    pub(crate) wire: Wire,
    /// What is between requests and sockets, where the target speaks TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) sources: Option<Sources>,
    /// Between two bytes in the slow modes.
    pub(crate) drip: Duration,
    /// Of all random numbers of the run.
    pub(crate) seed: u64,
}

impl Plan {
    /// Whether requests are datagrams.
    pub(crate) fn is_datagram(&self) -> bool {
        self.url.scheme == Scheme::Udp
    }

    /// Whether something is said on a connection before its first request.
    pub(crate) fn has_handshake(&self) -> bool {
        self.tls.is_some() || self.wire.socket().is_some()
    }

    /// Whether connections are opened before the run begins.
    pub(crate) fn opens_ahead(&self) -> bool {
        self.mode == Mode::Request && self.reuse != Reuse::Times(1)
    }

    /// The rate at which an open loop begins.
    pub(crate) fn first_rate(&self) -> Option<f64> {
        match &self.pace {
            Pace::Open { profile, .. } => profile.first_rate(),
            Pace::Closed(_) => None,
        }
    }

    /// The same run as an open loop of this rate.
    pub(crate) fn at_rate(&self, rate: f64) -> Self {
        let spread = match &self.pace {
            Pace::Open { spread, .. } => *spread,
            Pace::Closed(_) => Spread::Uniform,
        };
        Self { pace: Pace::constant(rate, spread, self.warmup, self.duration), ..self.clone() }
    }

    /// Polite clients beside this run: a few requests a second, on connections that stand, or each on a connection of
    /// its own.
    pub(crate) fn probe(&self, rate: f64, standing: Option<usize>) -> Self {
        // Enough clients that none of its requests waits for another, within reason.
        let clients = (rate * (self.timeout + self.connect_timeout).as_secs_f64()).ceil();
        Self {
            mode: Mode::Request,
            reuse: if standing.is_some() { Reuse::Forever } else { Reuse::Times(1) },
            connections: standing.unwrap_or((clients as usize).clamp(1, MAX_PROBE_CLIENTS)),
            threads: 1,
            pace: Pace::constant(rate, Spread::Uniform, self.warmup, self.duration),
            seed: self.seed ^ 1,
            ..self.clone()
        }
    }

    /// The line that says what is planned.
    pub(crate) fn headline(&self) -> String {
        let pace = match &self.pace {
            Pace::Closed(Think::Fixed(Duration::ZERO)) => "closed loop".to_owned(),
            Pace::Closed(Think::Fixed(think)) => format!("closed loop, think {}", show_time(*think)),
            Pace::Closed(Think::Exponential(mean)) => {
                format!("closed loop, think exp:{}", show_time(*mean))
            }
            Pace::Open { spread, label, .. } => {
                format!("open {label} {}", spread.as_str())
            }
        };
        let mode = match self.mode {
            Mode::Request => String::new(),
            mode => format!("{} ", mode.as_str()),
        };
        let length = match (self.requests, self.duration) {
            (Some(requests), Some(time)) => {
                format!("{} or {}", counted(requests, "request"), show_time(time))
            }
            (Some(requests), None) => counted(requests, "request"),
            (None, time) => show_time(time.unwrap_or_default()),
        };
        let warmup = match self.warmup {
            Duration::ZERO => String::new(),
            warmup => format!(" (+{} warmup)", show_time(warmup)),
        };
        let connections = counted(self.connections as u64, "connection");
        format!("{}  {mode}{pace}, {connections}, {length}{warmup}", self.url)
    }

    /// What an outcome means where no connection could be established at all.
    pub(crate) fn explain(&self, outcome: Outcome) -> String {
        let target = &self.target;
        match outcome {
            Outcome::Refused => format!("nothing listens at {target} (connection refused)"),
            Outcome::ConnectTimeout => {
                let within = show_time(self.connect_timeout);
                format!("{target} does not answer within {within} (--connect-timeout)")
            }
            Outcome::Unreachable => format!("there is no route to {target}"),
            Outcome::AddressUnavailable => {
                "this machine has no free local port, or not the --source-ip".to_owned()
            }
            Outcome::DescriptorLimit => "this process may open no more descriptors".to_owned(),
            Outcome::TlsFailed => {
                let why = self.tls.as_ref().and_then(|tls| tls.why());
                why.unwrap_or_else(|| format!("{target} does not speak TLS as this client does"))
            }
            Outcome::BadReply if self.wire.socket().is_some() => {
                format!("{target} answers, and not as a WebSocket does")
            }
            other => format!("{target} said {}", other.as_str()),
        }
    }

    /// Says why the run cannot be made on this machine, before it is begun.
    /// `beside` more connections are opened by a probe.
    pub(crate) fn check_resources(&self, beside: usize) -> Result<(), String> {
        let other = beside as u64 + self.threads as u64 + SPARE_DESCRIPTORS;
        let needed = self.connections as u64 + other;
        let limit = super::sys::raise_descriptor_limit();
        if needed > limit {
            return Err(format!(
                "{} connections need {needed} descriptors, and this process may open {limit}: \
                 ask for at most {} connections, or raise the hard limit (ulimit -Hn)",
                self.connections,
                limit.saturating_sub(other),
            ));
        }
        self.check_ports()
    }

    /// Says why this machine has too few ports for the connections.
    pub(crate) fn check_ports(&self) -> Result<(), String> {
        if self.is_datagram() || self.target.is_unix() {
            // Ports of datagram sockets are found when they are opened, and Unix sockets have none.
            return Ok(());
        }
        let ports = super::sys::local_ports();
        let sources = self.sources.as_ref().map_or(1, Sources::len);
        if self.connections as u64 > ports.saturating_mul(sources) {
            return Err(format!(
                "{} connections from {sources} address{} need more than the {ports} ports each has: \
                 spread them with --source-ip, like --source-ip 127.0.1.0/24",
                self.connections,
                if sources == 1 { "" } else { "es" },
            ));
        }
        Ok(())
    }
}
