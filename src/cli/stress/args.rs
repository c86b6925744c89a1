//! The options of `tidegate stress`, and the plan that they make.

use crate::cli::{exit, units};
use crate::stress::datagram::{HEADER, MAX_DATAGRAM};
use crate::stress::http::HttpRequest;
use crate::stress::payload::{MAX_PAYLOAD, Payload, unescape};
use crate::stress::plan::{Close, MAX_CONNECTIONS, MAX_RATE, MAX_THREADS, Mode, Pace, Plan, Reuse, Think};
use crate::stress::schedule::{Profile, Spread};
use crate::stress::source::Sources;
use crate::stress::threshold::{Threshold, share};
use crate::stress::wire::{Framing, Wire};
use crate::url::{Scheme, Url};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The rate at which a search begins, unless --rate says another.
const FIRST_TRIAL: f64 = 100.0;
/// The highest rate of a probe: it watches, it does not load.
const MAX_PROBE: f64 = 1000.0;

/// The form of the report on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people: one screen.
    Text,
    /// For programs: docs/stress.md describes it.
    Json,
}

/// How arrivals of an open loop are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arrival {
    /// Evenly.
    Uniform,
    /// At random, as separate people come.
    Poisson,
}

/// Whether a run shows how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ProgressWhen {
    /// A bar on a terminal, a line every ten seconds elsewhere; on stderr.
    Auto,
    /// Not at all.
    Off,
}

/// Options of `tidegate stress`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct StressArgs {
    #[command(subcommand)]
    pub(super) kept: Option<super::kept::Kept>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

/// Options of a run.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// The target: tcp://host:port, udp://host:port or http://host[:port][/path].
    #[arg(required = true)]
    pub(super) url: Option<Url>,

    /// Clients, each with one connection at a time.
    #[arg(short, long, value_name = "N", default_value = "50", value_parser = units::positive)]
    pub(super) connections: u64,

    /// How long to measure [default: 10s, without end where -n is given].
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    pub(super) duration: Option<Duration>,

    /// Make this many requests, then end.
    #[arg(short = 'n', long, value_name = "N", value_parser = units::positive)]
    pub(super) requests: Option<u64>,

    /// Run this long before measuring [default: 1s; 0s with -n, --stages and the modes that hold].
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) warmup: Option<Duration>,

    /// Open loop: requests a second in all, whatever the server does. Without it each client waits for its
    /// reply before it sends again.
    #[arg(short, long, value_name = "N", value_parser = units::rate)]
    pub(super) rate: Option<f64>,

    /// Open loop: in each of these times the rate goes in a straight line to its value, from --rate or 0,
    /// like 10s:100,1m:1000,10s:0.
    #[arg(long, value_name = "TIME:RATE,...", conflicts_with_all = ["duration", "requests", "warmup"],
          value_parser = stages)]
    pub(super) stages: Option<Stages>,

    /// Look for the highest rate at which this threshold holds, in trials of --duration [default: 5s].
    #[arg(long, value_name = "THRESHOLD", conflicts_with_all = ["stages", "requests", "think", "baseline"])]
    pub(super) find_max: Option<Threshold>,

    /// How an open loop's arrivals are spread.
    #[arg(long, value_enum, default_value = "uniform", value_name = "HOW")]
    pub(super) arrival: Arrival,

    /// From a request to its whole reply.
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    pub(super) timeout: Duration,

    /// From the start of a connection to its establishment.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub(super) connect_timeout: Duration,

    /// Requests on each connection: forever, a number, or never (one).
    #[arg(long, value_name = "HOW", default_value = "forever", value_parser = reuse)]
    pub(super) reuse: Reuse,

    /// How a connection that is used up is closed.
    #[arg(long, value_enum, default_value = "fin", value_name = "HOW")]
    pub(super) close: Close,

    /// Send this text (with \n, \r, \t, \0, \\ and \xHH); if it ends with \n, a line is the reply.
    #[arg(long, value_name = "TEXT", group = "payload")]
    pub(super) data: Option<String>,

    /// Send this many bytes, and expect them back.
    #[arg(long, value_name = "BYTES", group = "payload", value_parser = units::size)]
    pub(super) size: Option<u64>,

    /// Send the bytes of this file.
    #[arg(long, value_name = "FILE", group = "payload")]
    pub(super) data_file: Option<PathBuf>,

    /// Send the lines of this file in turn, one a request; a line is the reply.
    #[arg(long, value_name = "FILE", group = "payload")]
    pub(super) lines: Option<PathBuf>,

    /// What a good reply is: tcp, these bytes, or a line with this text where lines are sent; udp, a datagram
    /// with it; http, a body with it.
    #[arg(long, value_name = "TEXT")]
    pub(super) expect: Option<String>,

    /// What a busy server's reply begins with; http, what its body contains (503 and 429 are busy anyway).
    #[arg(long, value_name = "TEXT")]
    pub(super) busy: Option<String>,

    /// Closed loop: the pause between a reply and the next request, like 50ms, or exp:50ms at random around it.
    #[arg(long, value_name = "TIME", conflicts_with = "rate", value_parser = think)]
    pub(super) think: Option<Think>,

    /// What is done with each connection.
    #[arg(long, value_enum, default_value = "request", value_name = "MODE")]
    pub(super) mode: Mode,

    /// slow-send and slow-read: the time between two bytes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    pub(super) drip: Duration,

    /// Beside the load, make this many requests a second as a polite client that connects anew for each, and
    /// measure them apart.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["requests", "find_max"],
          value_parser = units::rate)]
    pub(super) probe: Option<f64>,

    /// Connect from these local addresses in turn, like 127.0.1.0/24: each has ports of its own.
    #[arg(long, value_name = "CIDR")]
    pub(super) source_ip: Option<Sources>,

    /// Load threads.
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::positive)]
    pub(super) threads: u64,

    /// The form of the report on stdout.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    pub(super) output: Output,

    /// Write an HdrHistogram log, a line a second.
    #[arg(long, value_name = "FILE")]
    pub(super) hlog: Option<PathBuf>,

    /// Write the report as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Write a table, a row a second.
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,

    /// Whether to show on stderr how the run goes on.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(super) progress: ProgressWhen,

    /// Exit with 99 unless this holds, like p99<50ms, error_rate<0.1% or probe.p99<20ms; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(super) threshold: Vec<Threshold>,

    /// Compare with this report of an earlier run (-o json), and exit with 99 if anything is worse.
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,

    /// What differs by no more than this is the same.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = noise)]
    pub(super) noise: f64,

    /// Exit with 3 if the run is not valid: the generator was the limit.
    #[arg(long)]
    pub(super) strict: bool,

    /// Of the random numbers, so that a run can be repeated [default: another each time].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

/// Why there is no plan.
#[derive(Debug)]
pub(super) struct ArgsError {
    pub(super) code: u8,
    pub(super) message: String,
}

fn usage(message: impl Into<String>) -> ArgsError {
    ArgsError { code: exit::USAGE, message: message.into() }
}

fn failed(message: impl Into<String>) -> ArgsError {
    ArgsError { code: exit::FAILED, message: message.into() }
}

fn reuse(text: &str) -> Result<Reuse, String> {
    match text {
        "forever" => Ok(Reuse::Forever),
        "never" => Ok(Reuse::Times(1)),
        _ => match units::positive(text).map(u32::try_from) {
            Ok(Ok(times)) => Ok(Reuse::Times(times)),
            _ => Err(format!("`{text}` is not one of forever, never and a number of requests")),
        },
    }
}

fn think(text: &str) -> Result<Think, String> {
    match text.strip_prefix("exp:") {
        Some(mean) => units::duration(mean).map(Think::Exponential),
        None => units::duration(text).map(Think::Fixed),
    }
}

/// The stages of an open loop, and how they were written.
#[derive(Clone, Debug)]
pub(super) struct Stages {
    list: Vec<(Duration, f64)>,
    text: String,
}

fn stages(text: &str) -> Result<Stages, String> {
    let stage = |stage: &str| {
        let (time, rate) = stage.split_once(':')?;
        Some((units::duration(time.trim()).ok()?, units::rate(rate.trim()).ok()?))
    };
    let list: Option<Vec<_>> = text.split(',').map(stage).collect();
    let list = list.ok_or_else(|| {
        format!("`{text}` is not a list of stages: write times and rates, like 10s:100,1m:1000,10s:0")
    })?;
    if list.iter().any(|(_, rate)| *rate > MAX_RATE) {
        return Err(format!("a rate is at most {MAX_RATE}"));
    }
    Ok(Stages { list, text: text.to_owned() })
}

/// A share, like 5%.
pub(super) fn noise(text: &str) -> Result<f64, String> {
    share(text).ok_or_else(|| format!("`{text}` is not a share: write it like 5% or 0.05"))
}

impl LoadArgs {
    /// The plan that these options make.
    pub(super) fn plan(&self) -> Result<Plan, ArgsError> {
        if self.connections > MAX_CONNECTIONS {
            return Err(usage(format!("--connections: at most {MAX_CONNECTIONS}")));
        }
        let url = self.url.clone().ok_or_else(|| usage("a URL is missing"))?;
        let threads = self.threads.min(self.connections);
        if self.threads > MAX_THREADS as u64 {
            return Err(usage(format!("--threads: at most {MAX_THREADS}")));
        }
        for (option, time) in [("--timeout", self.timeout), ("--connect-timeout", self.connect_timeout)] {
            if time.is_zero() {
                return Err(usage(format!("{option}: it must be longer than 0")));
            }
        }
        self.check_together(&url)?;
        let (duration, warmup) = self.times()?;
        let pace = self.pace(duration, warmup)?;
        let wire = self.wire(&url)?;
        let address = address(&url, self.connect_timeout)?;
        Ok(Plan {
            url,
            address,
            mode: self.mode,
            connections: self.connections as usize,
            threads: threads as usize,
            pace,
            warmup,
            duration,
            requests: self.requests,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            reuse: self.reuse,
            close: self.close,
            wire,
            sources: self.source_ip,
            drip: self.drip,
            seed: self.seed.unwrap_or_else(new_seed),
        })
    }

    /// Options that say nothing together.
    fn check_together(&self, url: &Url) -> Result<(), ArgsError> {
        let holds = matches!(self.mode, Mode::Hold | Mode::SlowSend | Mode::SlowRead);
        let mode = self.mode.as_str();
        if url.scheme == Scheme::Udp && self.mode != Mode::Request {
            return Err(usage(format!("--mode {mode} is about connections, and udp has none")));
        }
        if holds && self.requests.is_some() {
            return Err(usage(format!("--mode {mode} goes on for a time: use -d, not -n")));
        }
        if holds && self.warmup.is_some_and(|warmup| !warmup.is_zero()) {
            return Err(usage(format!("--mode {mode} has no --warmup: what it opens stays")));
        }
        if self.find_max.is_some() && self.mode != Mode::Request {
            return Err(usage("--find-max is about requests: it has no --mode"));
        }
        if let Some(condition) = &self.find_max
            && condition.is_of_probe()
        {
            return Err(usage("--find-max: the condition is about the load, and there is no probe"));
        }
        if self.probe.is_none()
            && let Some(threshold) = self.threshold.iter().find(|t| t.is_of_probe())
        {
            return Err(usage(format!("--threshold {}: there is no --probe", threshold.text())));
        }
        if self.probe.is_some_and(|rate| rate <= 0.0 || rate > MAX_PROBE) {
            return Err(usage(format!("--probe: more than 0 and at most {MAX_PROBE} a second")));
        }
        if holds && self.drip.is_zero() {
            return Err(usage("--drip: it must be longer than 0"));
        }
        if let Some(sources) = &self.source_ip
            && url.host.parse().is_ok_and(|host| !sources.reaches(host))
        {
            return Err(usage("--source-ip and the target are not of one kind: IPv4 or IPv6"));
        }
        Ok(())
    }

    fn times(&self) -> Result<(Option<Duration>, Duration), ArgsError> {
        if let Some(stages) = &self.stages {
            let length: Duration = stages.list.iter().map(|(time, _)| *time).sum();
            if length.is_zero() || stages.list.iter().all(|(_, rate)| *rate == 0.0) {
                return Err(usage("--stages: nothing would ever be sent"));
            }
            return Ok((Some(length), Duration::ZERO));
        }
        let duration = match (self.duration, self.requests) {
            (Some(time), _) if time.is_zero() => {
                return Err(usage("--duration: it must be longer than 0"));
            }
            (Some(time), _) => Some(time),
            (None, Some(_)) => None,
            (None, None) if self.find_max.is_some() => Some(Duration::from_secs(5)),
            (None, None) => Some(Duration::from_secs(10)),
        };
        let counts_all = self.requests.is_some() || !matches!(self.mode, Mode::Request | Mode::ConnectFlood);
        let warmup = match self.warmup {
            Some(time) => time,
            None if counts_all => Duration::ZERO,
            None => Duration::from_secs(1),
        };
        Ok((duration, warmup))
    }

    fn pace(&self, duration: Option<Duration>, warmup: Duration) -> Result<Pace, ArgsError> {
        if self.rate.is_some_and(|rate| rate <= 0.0) {
            return Err(usage("--rate: it must be more than 0"));
        }
        if self.rate.is_some_and(|rate| rate > MAX_RATE) {
            return Err(usage(format!("--rate: at most {MAX_RATE}")));
        }
        let spread = match self.arrival {
            Arrival::Uniform => Spread::Uniform,
            Arrival::Poisson => Spread::Poisson,
        };
        if let Some(stages) = &self.stages {
            return Ok(Pace::Open {
                profile: Arc::new(Profile::stages(self.rate.unwrap_or(0.0), &stages.list)),
                spread,
                label: format!("stages {}", stages.text),
            });
        }
        let first_trial = self.find_max.as_ref().map(|_| FIRST_TRIAL);
        match self.rate.or(first_trial) {
            Some(rate) => Ok(Pace::constant(rate, spread, warmup, duration)),
            None => Ok(Pace::Closed(self.think.unwrap_or(Think::Fixed(Duration::ZERO)))),
        }
    }

    fn wire(&self, url: &Url) -> Result<Wire, ArgsError> {
        let payload = self.payload()?;
        let text = |text: &Option<String>| match text {
            Some(text) if text.is_empty() => Err(usage("--expect and --busy: the text is empty")),
            Some(text) => Ok(Some(unescape(text).map_err(usage)?.into_boxed_slice())),
            None => Ok(None),
        };
        let (expect, busy) = (text(&self.expect)?, text(&self.busy)?);
        let has_body =
            self.data.is_some() || self.size.is_some() || self.data_file.is_some() || self.lines.is_some();
        let is_ours = self.data.is_none() && self.data_file.is_none() && self.lines.is_none();
        let framing = match (url.scheme, &expect) {
            (Scheme::Http, _) => {
                let body = has_body.then_some(&payload);
                let close = self.reuse == Reuse::Times(1);
                Framing::Http(HttpRequest::new(&authority(url), &url.path, body, close))
            }
            (Scheme::Udp, _) if payload.largest() > MAX_DATAGRAM => {
                return Err(usage(format!("a datagram has at most {MAX_DATAGRAM} bytes")));
            }
            (Scheme::Udp, expect) => {
                Framing::Datagram { numbered: is_ours && expect.is_none() && payload.largest() >= HEADER }
            }
            (Scheme::Tcp, _) if payload.is_lines() || payload.largest() == 0 => Framing::Line,
            (Scheme::Tcp, Some(expect)) => Framing::Exact(expect.clone()),
            (Scheme::Tcp, None) => Framing::Echo,
        };
        Ok(Wire { framing, payload, expect, busy })
    }

    fn payload(&self) -> Result<Payload, ArgsError> {
        if let Some(text) = &self.data {
            return unescape(text).map(Payload::whole).map_err(usage);
        }
        if let Some(path) = &self.data_file {
            return Payload::file(path).map_err(failed);
        }
        if let Some(path) = &self.lines {
            return Payload::lines(path).map_err(failed);
        }
        match self.size.unwrap_or(64) {
            size if size > MAX_PAYLOAD => Err(usage(format!("--size: at most {MAX_PAYLOAD} bytes"))),
            size => Ok(Payload::sized(size as usize)),
        }
    }
}

/// Host and port as the `Host` header gives them.
fn authority(url: &Url) -> String {
    let Url { host, port, .. } = url;
    match (host.contains(':'), port) {
        (true, 80) => format!("[{host}]"),
        (true, port) => format!("[{host}]:{port}"),
        (false, 80) => host.clone(),
        (false, port) => format!("{host}:{port}"),
    }
}

/// The first address of the host that answers; with one address there is nothing to try.
fn address(url: &Url, timeout: Duration) -> Result<SocketAddr, ArgsError> {
    if url.port == 0 {
        return Err(usage(format!("{url}: port 0 is no target")));
    }
    let addresses = url.resolve().map_err(|error| failed(error.to_string()))?;
    let (last, others) = match addresses.split_last() {
        Some((last, others)) if url.scheme != Scheme::Udp => (last, others),
        Some((last, others)) => (others.first().unwrap_or(last), &[][..]),
        None => return Err(failed(format!("{} has no address", url.host))),
    };
    let answers = |a: &&SocketAddr| std::net::TcpStream::connect_timeout(a, timeout).is_ok();
    Ok(*others.iter().find(answers).unwrap_or(last))
}

/// A seed that differs from run to run.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Kept under 2^53, so that every JSON reader takes it whole.
    std::hash::RandomState::new().build_hasher().finish() >> 11
}
